"""Plays Oracle's reservations, and serves our own inventory API as a stock system of one's own would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.doubles.descriptions import OURS, Description
from tests.doubles.server import Call, Double, Reply

OUR_API = Path(__file__).resolve().parents[2] / "docs" / "inventory-api.json"


class StockDouble(Double):
    """Ten pieces of each of two products."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = {"ITEM-001": 10, "ITEM-002": 10}
        self.held: dict[str, tuple[str, str, int]] = {}
        """Number -> (our text, SKU, pieces)."""
        self.made = 0
        self.seen: set[str] = set()

    def holds(self) -> dict[str, int]:
        """SKU -> pieces that are promised."""
        total = dict.fromkeys(self.stock, 0)
        for _, sku, quantity in self.held.values():
            total[sku] += quantity
        return total

    def free(self, sku: str) -> int:
        return self.stock[sku] - self.holds()[sku]

    @property
    def texts(self) -> set[str]:
        return {text for text, _, _ in self.held.values()} or self.seen

    def hold(self, text: str, sku: str, quantity: int) -> str:
        self.made += 1
        self.seen.add(text)
        number = str(300_000_000 + self.made)
        self.held[number] = (text, sku, quantity)
        return number


class OracleDouble(StockDouble):
    descriptions = (Description("oracle/inventoryReservations.transcribed.json"),)
    checks_answers = False

    def answer(self, call: Call) -> Reply:
        if call.headers.get("Authorization") != "Basic aWQ6c2VjcmV0":
            return Reply(status=401, said={})
        if call.method == "POST":
            asked = call.json
            assert len(asked["DemandSourceName"]) <= 30
            sku, quantity = asked["ItemNumber"], asked["ReservationQuantity"]
            if sku not in self.stock:
                return _oracle("The item number is not valid.")
            if self.free(sku) < quantity:
                return _oracle("The reservation quantity exceeds the quantity available to reserve.")
            number = self.hold(asked["DemandSourceName"], sku, quantity)
            return Reply(status=201, said={**asked, "ReservationId": int(number)})
        if call.method == "GET":
            wanted = re.fullmatch(r"DemandSourceName='(\w+)'", call.query["q"])
            assert wanted
            rows = [
                {"ReservationId": int(number), "ItemNumber": sku, "ReservationQuantity": quantity}
                for number, (text, sku, quantity) in self.held.items()
                if text == wanted[1]
            ]
            return Reply(said={"items": rows, "count": len(rows), "hasMore": False})
        gone = self.held.pop(call.path.rpartition("/")[2], None)
        return Reply(status=204) if gone else Reply(status=404, said={})


def _oracle(words: str) -> Reply:
    return Reply(status=400, said={"title": "Bad Request", "status": "400", "o:errorDetails": [{"detail": words}]})


class InventoryServer(StockDouble):
    """The reference of docs/inventory-api.json: what a stock system has to do, in sixty lines."""

    descriptions = (Description(str(OUR_API)),)

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.released: set[str] = set()

    def answer(self, call: Call) -> Reply:
        if call.headers.get("Authorization") != "Bearer token":
            return Reply(status=401, said={"detail": "Who are you?"})
        key = unquote(call.path.rpartition("/")[2])
        return {"PUT": self._put, "GET": self._get, "DELETE": self._delete}[call.method](key, call)

    def _put(self, key: str, call: Call) -> Reply:
        if key in self.released:
            return Reply(status=410, said={"detail": "It was released before it came."})
        if key in self.answers:
            return Reply(said={"items": self.answers[key]})
        for item in call.json["items"]:
            if item["sku"] not in self.stock:
                return Reply(status=422, said={"detail": f"There is no stock of {item['sku']}."})
            if self.free(item["sku"]) < item["quantity"]:
                words = f"There are not {item['quantity']} of {item['sku']} in stock."
                return Reply(status=409, said={"detail": words})
        self.answers[key] = [
            {**item, "reservation_id": self.hold(key, item["sku"], item["quantity"])} for item in call.json["items"]
        ]
        return Reply(said={"items": self.answers[key]})

    def _get(self, key: str, call: Call) -> Reply:
        if key in self.released:
            return Reply(status=410, said={"detail": "It was released."})
        if key not in self.answers:
            return Reply(status=404, said={"detail": "It was never asked for."})
        return Reply(said={"items": self.answers[key]})

    def _delete(self, key: str, call: Call) -> Reply:
        self.released.add(key)
        items = self.answers.get(key, [])
        for item in items:
            self.held.pop(item["reservation_id"], None)
        return Reply(said={"items": items})


assert json.loads(OUR_API.read_text())["openapi"].startswith("3.1")
assert OURS.exists()
