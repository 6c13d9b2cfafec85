"""Plays SAP: mock-sap behind our own server, which brings the failures and remembers the calls.

mock-sap speaks OData V2 with everything that surrounds it (CSRF tokens, deep inserts, filters, errors). It knows no
reservations; the two services are told to it below, by names and lengths of SAP's published entity models.
"""

from __future__ import annotations

import threading
from typing import Any

import httpx
from mocksap import Config, make_server
from mocksap.schema import BOOL, DEC, DT, ENTITY_TYPES, SERVICES, EntityType, Nav, S, Service
from mocksap.store import AUTO_KEY

from tests.doubles.server import Call, Double, Reply

PLANT, LOCATION = "1010", "101A"
SERVICE = "/sap/opu/odata/sap"


def tell() -> None:
    """The two services, once a process."""
    if "API_RESERVATION_DOCUMENT_SRV" in SERVICES:
        return
    header = EntityType(
        "A_ReservationDocumentHeader",
        props=[
            S("Reservation", key=True, nullable=False, max_length=10),
            S("GoodsMovementType", max_length=3),
            S("CostCenter", max_length=10),
            S("GoodsRecipientName", max_length=12),
            DT("ReservationDate"),
        ],
        navs=[Nav("to_ReservationDocumentItem", "A_ReservationDocumentItem", "*", [("Reservation", "Reservation")])],
    )
    item = EntityType(
        "A_ReservationDocumentItem",
        props=[
            S("Reservation", key=True, nullable=False, max_length=10),
            S("ReservationItem", key=True, nullable=False, max_length=4, creatable=False),
            S("Product", max_length=40),
            S("Plant", max_length=4),
            S("StorageLocation", max_length=4),
            S("EntryUnit", max_length=3),
            S("DebitCreditCode", max_length=1),
            DEC("ResvnItmRequiredQtyInEntryUnit"),
            DEC("ResvnItmRequiredQtyInBaseUnit"),
            DEC("ResvnItmWithdrawnQtyInBaseUnit"),
            BOOL("ReservationItemIsFinallyIssued"),
            BOOL("ReservationItmIsMarkedForDeltn"),
            S("ReservationItemText", max_length=50),
        ],
    )
    stock = EntityType(
        "A_MatlStkInAcctMod",
        props=[
            S("Material", key=True, nullable=False, max_length=40),
            S("Plant", key=True, nullable=False, max_length=4),
            S("StorageLocation", key=True, nullable=False, max_length=4),
            S("InventoryStockType", key=True, nullable=False, max_length=2),
            DEC("MatlWrhsStkQtyInMatlBaseUnit", precision=31, scale=14),
        ],
    )
    for one in (header, item, stock):
        ENTITY_TYPES[one.name] = one
    AUTO_KEY[header.name] = ("Reservation", "RESERVATION", 10)
    sets = {one.name: one.name for one in (header, item)}
    for name, known in (("API_RESERVATION_DOCUMENT_SRV", sets), ("API_MATERIAL_STOCK_SRV", {stock.name: stock.name})):
        SERVICES[name] = Service(name, name, name, known)


class Stock(dict[str, int]):
    """Pieces by SKU, as SAP has them."""

    def __init__(self, sap: Any) -> None:
        super().__init__()
        self._sap = sap

    def __setitem__(self, sku: str, pieces: int) -> None:
        super().__setitem__(sku, pieces)
        with self._sap.lock:
            self._sap.conn.execute("DELETE FROM A_MatlStkInAcctMod WHERE Material = ?", (sku,))
            self._sap.conn.execute(
                "INSERT INTO A_MatlStkInAcctMod (Material, Plant, StorageLocation, InventoryStockType, "
                "MatlWrhsStkQtyInMatlBaseUnit) VALUES (?, ?, ?, '01', ?)",
                (sku, PLANT, LOCATION, str(pieces)),
            )
            self._sap.conn.commit()


class SapDouble(Double):
    """Ten pieces of each of two products."""

    def __init__(self) -> None:
        super().__init__()
        tell()
        config = Config(port=0, basic_auth="id:secret", quiet=True, log_requests=False)
        self._server = make_server(config)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._server.server_port}")
        self.stock = Stock(self._server.mock)
        self.stock["ITEM-001"] = self.stock["ITEM-002"] = 10

    def holds(self) -> dict[str, int]:
        """SKU -> pieces that are promised."""
        total = dict.fromkeys(self.stock, 0)
        with self._server.mock.lock:
            rows = self._server.mock.conn.execute(
                "SELECT Product, ResvnItmRequiredQtyInEntryUnit FROM A_ReservationDocumentItem"
            ).fetchall()
        for product, quantity in rows:
            total[product] += round(float(quantity))
        return total

    def note(self, sku: str, **fields: object) -> None:
        """What somebody has done in SAP to the reservations of a product."""
        changes = ", ".join(f"{name} = ?" for name in fields) or "Product = Product"
        with self._server.mock.lock:
            self._server.mock.conn.execute(
                f"UPDATE A_ReservationDocumentItem SET {changes} WHERE Product = ?",  # noqa: S608  (names of our own)
                (*fields.values(), sku),
            )
            self._server.mock.conn.commit()

    def _reckon(self) -> None:
        """SAP knows the base unit's quantity by itself; pieces are pieces here."""
        with self._server.mock.lock:
            self._server.mock.conn.execute(
                "UPDATE A_ReservationDocumentItem SET ResvnItmRequiredQtyInBaseUnit = ResvnItmRequiredQtyInEntryUnit"
            )
            self._server.mock.conn.commit()

    def answer(self, call: Call) -> Reply:
        left_out = {"host", "content-length", "connection", "accept-encoding"}
        headers = {name: value for name, value in call.headers.items() if name.lower() not in left_out}
        answer = self._client.request(call.method, call.path, params=call.query, headers=headers, content=call.body)
        if call.method == "POST" and answer.is_success:
            self._reckon()
        kept = {name: answer.headers[name] for name in ("x-csrf-token",) if name in answer.headers}
        said = answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None
        return Reply(status=answer.status_code, said=said, headers=kept)

    def forget_tokens(self) -> None:
        """It has been restarted: the tokens it gave out are worth nothing."""
        self._server.mock.tokens.clear()

    def server_close(self) -> None:
        super().server_close()
        self._client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.mock.close()
