"""A stock system of your own, over HTTP: it serves the three calls of docs/inventory-api.json.

Settings and an example: docs/providers/http.md. The key is the reservation's name, so that the same call twice is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from orders.providers.base import Line, Reserved, ReservedItem
from orders.providers.errors import ProviderError
from orders.providers.http import Answer, Http
from orders.providers.options import ADDRESS, SECONDS, option, read

PROVIDER = "http"
CODES: Mapping[int, str] = {
    httpx.codes.CONFLICT: "insufficient_inventory",
    httpx.codes.GONE: "already_undone",
    httpx.codes.UNPROCESSABLE_ENTITY: "unknown_sku",
}


@dataclass(frozen=True, kw_only=True)
class HttpInventoryOptions:
    """What the adapter has to be told."""

    url: str = option("INVENTORY_URL", form=ADDRESS, example="where the stock system serves the API")
    token: str = option("INVENTORY_TOKEN", secret=True, example="the bearer token it knows us by")
    seconds: str = option("INVENTORY_TIMEOUT_SECONDS", "10", form=SECONDS, example="a number of seconds")


class HttpInventory:
    """An InventoryService."""

    Options = HttpInventoryOptions

    def __init__(self, options: HttpInventoryOptions | None = None) -> None:
        self._options = options or read(HttpInventoryOptions)
        self._http = Http(
            PROVIDER,
            self._options.url,
            seconds=float(self._options.seconds),
            headers={"Authorization": f"Bearer {self._options.token}"},
        )

    def reserve(self, lines: Sequence[Line], *, key: str) -> Reserved:
        """Hold all lines or none."""
        wanted: dict[str, int] = {}
        for line in lines:
            wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        items = [{"sku": sku, "quantity": quantity} for sku, quantity in sorted(wanted.items())]
        answer = self._http.ask("reserve", "PUT", _path(key), json={"items": items})
        if not answer.is_good:
            raise self._no("reserve", answer)
        return _reserved(answer.said)

    def find_reservation(self, *, key: str) -> Reserved | None:
        """What is held under this key."""
        answer = self._http.ask("find_reservation", "GET", _path(key))
        if answer.status in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            return None
        if not answer.is_good:
            raise self._no("find_reservation", answer)
        return _reserved(answer.said)

    def release(self, *, action_key: str, key: str) -> Reserved:
        """Give back what `action_key` holds; the system turns that key away from now on."""
        answer = self._http.ask("release", "DELETE", _path(action_key), headers={"Idempotency-Key": key})
        if not answer.is_good:
            raise self._no("release", answer)
        return _reserved(answer.said)

    def check(self) -> str:
        """Looks for a reservation that there is not: it shows that address and token are good."""
        self.find_reservation(key="check")
        return "reservations can be read"

    def _no(self, operation: str, answer: Answer) -> ProviderError:
        words = answer.said.get("detail") or f"The stock system refused ({answer.status})."
        return self._http.declined(operation, words, CODES.get(answer.status, "rejected"))


def _path(key: str) -> str:
    return f"/reservations/{quote(key, safe='')}"


def _reserved(said: Mapping[str, Any]) -> Reserved:
    return Reserved(
        items=tuple(
            ReservedItem(sku=row["sku"], quantity=int(row["quantity"]), reservation_id=str(row["reservation_id"]))
            for row in sorted(said["items"], key=lambda row: str(row["sku"]))
        )
    )
