"""Oracle Fusion Cloud SCM: inventory reservations, over HTTP. Settings and what is proven: docs/providers/oracle.md.

One reservation holds one item, so an order is several calls: what was held before one is refused is released again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
from django.utils import timezone

from orders.providers.errors import ProviderError, Unavailable
from orders.providers.http import Answer, Http, number_of
from orders.providers.inventory.holding import Held, InventoryByReference
from orders.providers.keys import as_hex
from orders.providers.options import ADDRESS, SECONDS, option, read

PROVIDER = "oracle"
RESERVATIONS = "/fscmRestApi/resources/11.13.18.05/inventoryReservations"
DEMAND = "User Defined"
SHORTAGE = ("available", "in stock", "on hand", "on-hand")
"""Words of a refusal that is about too few pieces, and not about a fault of ours; not tried with a system."""
PAGE = 500
"""Rows an answer has at the most."""
MOST_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class OracleOptions:
    """What Oracle's adapter has to be told. SKUs are item numbers."""

    url: str = option("ORACLE_URL", form=ADDRESS, example="the pod's address, https://abcd.fa.example")
    username: str = option("ORACLE_USERNAME", example="the integration user")
    password: str = option("ORACLE_PASSWORD", secret=True, example="its password")
    organization: str = option("ORACLE_ORGANIZATION", form=r"\S{1,18}", example="the inventory organization's code")
    subinventory: str = option("ORACLE_SUBINVENTORY", form=r"\S{1,10}", example="the subinventory that is sold from")
    unit: str = option("ORACLE_UNIT", "Each", example="the unit of measure")
    seconds: str = option("ORACLE_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class OracleInventory(InventoryByReference):
    """An InventoryService."""

    Options = OracleOptions
    provider = PROVIDER

    def __init__(self, options: OracleOptions | None = None) -> None:
        self._options = options or read(OracleOptions)
        self._http = Http(
            PROVIDER,
            self._options.url,
            seconds=float(self._options.seconds),
            auth=(self._options.username, self._options.password),
        )

    def text_of(self, key: str) -> str:
        """As the demand source's name, of which Oracle keeps 30 characters."""
        return as_hex(key, 30)

    def hold(self, wanted: Mapping[str, int], text: str, held: Held) -> Held:
        """One call an item. Raises Declined (insufficient_inventory)."""
        made = dict(held)
        for sku, quantity in sorted(wanted.items()):
            if sku in made:
                continue
            try:
                made[sku] = (self._hold_one(sku, quantity, text), quantity)
            except Unavailable as error:
                if not made:
                    raise
                raise self._http.unknown("reserve", f"Held {len(made)} of {len(wanted)}: {error.message}") from error
        return made

    def _hold_one(self, sku: str, quantity: int, text: str) -> str:
        answer = self._http.ask(
            "reserve",
            "POST",
            RESERVATIONS,
            json={
                "OrganizationCode": self._options.organization,
                "ItemNumber": sku,
                "DemandSourceType": DEMAND,
                "DemandSourceName": text,
                "SupplySourceType": "On hand",
                "SubinventoryCode": self._options.subinventory,
                "ReservationQuantity": quantity,
                "ReservationUnitOfMeasure": self._options.unit,
                "RequirementDate": timezone.now().isoformat(timespec="seconds"),
            },
        )
        if not answer.is_good:
            raise self._no("reserve", answer, "rejected")
        return number_of(answer.said, "ReservationId")

    def look_for(self, text: str) -> Held:
        """Reservations whose demand source bears our name."""
        rows: list[dict[str, Any]] = []
        more = True
        while more:
            answer = self._http.ask(
                "find_reservation",
                "GET",
                RESERVATIONS,
                params={
                    "q": f"DemandSourceName='{text}'",
                    "onlyData": "true",
                    "limit": str(PAGE),
                    "offset": str(len(rows)),
                },
            )
            if not answer.is_good:
                raise self._http.away("find_reservation", self._no("find_reservation", answer, "").message)
            rows += answer.said["items"]
            if len(rows) > MOST_ROWS:
                raise self._http.away("find_reservation", "Oracle's list does not come to its end.")
            more = bool(answer.said.get("hasMore")) and bool(answer.said["items"])
        return {
            str(row["ItemNumber"]): (str(row["ReservationId"]), int(Decimal(str(row["ReservationQuantity"]))))
            for row in rows
        }

    def let_go(self, text: str, held: Held) -> None:
        """Delete each of them."""
        for number, _ in sorted(held.values()):
            answer = self._http.ask("release", "DELETE", f"{RESERVATIONS}/{number}")
            if not answer.is_good and answer.status != httpx.codes.NOT_FOUND:
                raise self._no("release", answer, "rejected")

    def check(self) -> str:
        """Looks for a reservation that there is not: it shows that user and service are there."""
        self.look_for("CHECK")
        return "reservations can be read"

    def _no(self, operation: str, answer: Answer, code: str) -> ProviderError:
        details = [str(one.get("detail", "")) for one in answer.said.get("o:errorDetails", [])]
        words = "; ".join(filter(None, details)) or answer.said.get("title") or f"Oracle refused ({answer.status})."
        if operation == "reserve" and any(word in words.lower() for word in SHORTAGE):
            code = "insufficient_inventory"
        return self._http.declined(operation, words, code)
