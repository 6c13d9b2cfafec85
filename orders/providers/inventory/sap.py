"""SAP S/4HANA: reservation documents by OData V2, over HTTP. Settings and what is proven: docs/providers/sap.md.

A reservation document by itself refuses no shortage, so what is free is asked first; two buyers in the same moment may
both pass, unless the availability check is switched on in SAP.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
from django.utils import timezone

from orders.providers.errors import ProviderError
from orders.providers.http import Answer, Http, number_of
from orders.providers.inventory.holding import Held, InventoryByReference
from orders.providers.keys import as_hex
from orders.providers.options import ADDRESS, SECONDS, option, read

PROVIDER = "sap"
RESERVATION = "/sap/opu/odata/sap/API_RESERVATION_DOCUMENT_SRV"
STOCK = "/sap/opu/odata/sap/API_MATERIAL_STOCK_SRV"
UNRESTRICTED = "01"
RECEIPT = "S"
"""A reservation of goods that are to come; those that go out bear an H."""
MOST_ROWS = 100_000
SHORTAGE = frozenset({"M7/021", "M7/022", "M7/055"})
"""Messages of a deficit, where the availability check is on; not tried with a system."""


@dataclass(frozen=True, kw_only=True)
class SapOptions:
    """What SAP's adapter has to be told. SKUs are material numbers."""

    url: str = option("SAP_URL", form=ADDRESS, example="the system's address, https://my1234.s4hana.example")
    username: str = option("SAP_USERNAME", example="the communication user")
    password: str = option("SAP_PASSWORD", secret=True, example="its password")
    plant: str = option("SAP_PLANT", form=r"\w{1,4}", example="a plant, up to four letters and digits")
    storage_location: str = option("SAP_STORAGE_LOCATION", form=r"\w{1,4}", example="a storage location of the plant")
    cost_center: str = option("SAP_COST_CENTER", form=r"\w{1,10}", example="the cost centre that is charged")
    unit: str = option("SAP_UNIT", "EA", form=r"\w{1,3}", example="a unit of measure: EA or PC")
    seconds: str = option("SAP_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class SapInventory(InventoryByReference):
    """An InventoryService."""

    Options = SapOptions
    provider = PROVIDER

    def __init__(self, options: SapOptions | None = None) -> None:
        self._options = options or read(SapOptions)
        self._http = Http(
            PROVIDER,
            self._options.url,
            seconds=float(self._options.seconds),
            auth=(self._options.username, self._options.password),
            headers={"Accept": "application/json"},
        )
        self._lock = threading.Lock()
        self._token = ""

    def text_of(self, key: str) -> str:
        """As the item's text, of which SAP keeps 50 characters."""
        return as_hex(key)

    def hold(self, wanted: Mapping[str, int], text: str, held: Held) -> Held:
        """One document with an item for each product. Raises Declined (insufficient_inventory, unknown_sku)."""
        for sku, quantity in sorted(wanted.items()):
            free = self._free(sku)
            if free < quantity:
                raise self._http.declined(
                    "reserve", f"There are not {quantity} of {sku} in stock.", "insufficient_inventory"
                )
        today = int(timezone.now().timestamp() // 86_400 * 86_400_000)
        answer = self._write(
            "reserve",
            "POST",
            f"{RESERVATION}/A_ReservationDocumentHeader",
            {
                "GoodsMovementType": "201",
                "CostCenter": self._options.cost_center,
                "ReservationDate": f"/Date({today})/",
                "to_ReservationDocumentItem": [
                    {
                        "Product": sku,
                        "Plant": self._options.plant,
                        "StorageLocation": self._options.storage_location,
                        "EntryUnit": self._options.unit,
                        "ResvnItmRequiredQtyInEntryUnit": str(quantity),
                        "ReservationItemText": text,
                    }
                    for sku, quantity in sorted(wanted.items())
                ],
            },
        )
        if not answer.is_good:
            raise self._no("reserve", answer)
        number = number_of(answer.said["d"], "Reservation")
        return {sku: (number, quantity) for sku, quantity in wanted.items()}

    def look_for(self, text: str) -> Held:
        """Items that bear our text; one that is marked for deletion holds nothing any more, whoever marked it."""
        rows = self._rows(
            "find_reservation", f"{RESERVATION}/A_ReservationDocumentItem", f"ReservationItemText eq '{text}'"
        )
        return {
            str(row["Product"]): (str(row["Reservation"]), int(Decimal(row["ResvnItmRequiredQtyInEntryUnit"])))
            for row in rows
            if not row.get("ReservationItmIsMarkedForDeltn")
        }

    def let_go(self, text: str, held: Held) -> None:
        """Delete the documents."""
        for number in sorted({number for number, _ in held.values()}):
            path = f"{RESERVATION}/A_ReservationDocumentHeader('{quote(number, safe='')}')"
            answer = self._write("release", "DELETE", path, None)
            if not answer.is_good and answer.status != httpx.codes.NOT_FOUND:
                raise self._no("release", answer)

    def check(self) -> str:
        """Reads one stock row: it shows that user, plant and service are there."""
        self._rows("check", f"{STOCK}/A_MatlStkInAcctMod", f"Plant eq '{self._options.plant}'", most=1)
        return f"stock of plant {self._options.plant} can be read"

    def _free(self, sku: str) -> Decimal:
        """What is on hand and unrestricted, less what is reserved and still there, in the material's base unit."""
        where = f"Material eq '{_quoted(sku)}' and Plant eq '{self._options.plant}'"
        stock = self._rows("reserve", f"{STOCK}/A_MatlStkInAcctMod", where)
        if not stock:
            raise self._http.declined("reserve", f"There is no stock of {sku}.", "unknown_sku")
        on_hand = sum(
            (
                Decimal(row["MatlWrhsStkQtyInMatlBaseUnit"])
                for row in stock
                if row["InventoryStockType"] == UNRESTRICTED and self._is_here(row)
            ),
            Decimal(0),
        )
        where = f"Product eq '{_quoted(sku)}' and Plant eq '{self._options.plant}'"
        reserved = self._rows("reserve", f"{RESERVATION}/A_ReservationDocumentItem", where)
        return on_hand - sum((_still_held(row) for row in reserved if self._is_here(row)), Decimal(0))

    def _is_here(self, row: Mapping[str, Any]) -> bool:
        """Whether it is about the storage location that is sold from, or about none in particular."""
        return (row.get("StorageLocation") or "") in {"", self._options.storage_location}

    def _rows(self, operation: str, path: str, where: str, most: int = 0) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            params = {"$filter": where, "$format": "json"}
            params |= {"$top": str(most)} if most else {"$skip": str(len(rows))} if rows else {}
            answer = self._http.ask(operation, "GET", path, params=params)
            if not answer.is_good:
                raise self._http.away(operation, self._no(operation, answer).message)
            page = answer.said["d"]
            rows += page["results"]
            if len(rows) > MOST_ROWS:
                raise self._http.away(operation, "SAP's list does not come to its end.")
            # SAP may give less than all at once, and says so. Half of what is reserved would sell the other half twice.
            if most or not page.get("__next") or not page["results"]:
                return rows

    def _write(self, operation: str, method: str, path: str, body: Any) -> Answer:
        """With the token that writes need, fetched anew when SAP says that it is over."""
        for renew in (False, True):
            token = self._csrf(operation, renew=renew)
            try:
                return self._http.ask(operation, method, path, json=body, headers={"X-CSRF-Token": token})
            except ProviderError as error:
                if renew or error.code != "credentials":
                    raise
        raise AssertionError("not reached")

    def _csrf(self, operation: str, *, renew: bool) -> str:
        with self._lock:
            if renew or not self._token:
                answer = self._http.ask(operation, "GET", f"{RESERVATION}/", headers={"X-CSRF-Token": "Fetch"})
                self._token = answer.headers.get("X-CSRF-Token", "")
            return self._token

    def _no(self, operation: str, answer: Answer) -> ProviderError:
        error = answer.said.get("error") or {}
        words = (error.get("message") or {}).get("value") or f"SAP refused ({answer.status})."
        code = str(error.get("code") or "rejected")
        if answer.status == httpx.codes.LOCKED:
            return self._http.away(operation, words, "locked")
        return self._http.declined(operation, words, "insufficient_inventory" if code in SHORTAGE else code)


def _still_held(row: Mapping[str, Any]) -> Decimal:
    """What an item of a reservation keeps from others: not what was withdrawn, which is not on hand either, nor what
    is finally issued, deleted or awaited."""
    is_over = row.get("ReservationItemIsFinallyIssued") or row.get("ReservationItmIsMarkedForDeltn")
    if is_over or row.get("DebitCreditCode") == RECEIPT:
        return Decimal(0)
    required = row.get("ResvnItmRequiredQtyInBaseUnit") or row["ResvnItmRequiredQtyInEntryUnit"]
    return max(Decimal(required) - Decimal(row.get("ResvnItmWithdrawnQtyInBaseUnit") or 0), Decimal(0))


def _quoted(text: str) -> str:
    return text.replace("'", "''")
