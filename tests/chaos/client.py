"""Customers: they place orders until each is acknowledged, cancel some, and remember what they were told."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.db import DatabaseError, InterfaceError, connection

from orders.exceptions import OrderNotCancellable
from orders.services import cancel_order, place_order

PRICES = {"ITEM-001": Decimal("30.00"), "ITEM-002": Decimal("39.99"), "ITEM-003": Decimal("18.50")}
SCARCE = "ITEM-008"
CARDS = ("tok_visa",) * 14 + ("tok_declined", "tok_lose_answer", "tok_gateway_down_once")
POSTCODES = ("10115",) * 14 + ("00000", "00001", "00002")
GIVE_UP_SECONDS = 120
QUIET_EVERY = 60
"""So many orders, then nobody comes for a while: workers fall idle, and can be killed while they are."""
HTTP_SHARE, TWICE_SHARE, CANCEL_SHARE = 0.3, 0.1, 0.1


@dataclass
class Customers:
    """`acknowledged` and `cancelled` hold the numbers of orders for which an answer came back that it is so."""

    url: str
    api_key: str
    seed: int
    rate: float
    acknowledged: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="customer")
        self._thread = threading.Thread(target=self._come, name="customers")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No new orders; those begun are placed to the end."""
        self._over.set()
        self._thread.join()
        self._pool.shutdown(wait=True)

    def _come(self) -> None:
        draw = random.Random(f"customers {self.seed}")
        number = 0
        while not self._over.wait(draw.expovariate(self.rate)):
            number += 1
            if number % QUIET_EVERY == 0:
                self._over.wait(draw.uniform(4, 10))
            order = _order(draw, f"CH-{self.seed}-{number}")
            place = self._over_http if draw.random() < HTTP_SHARE else self._in_process
            cancel_after = draw.uniform(0, 4) if draw.random() < CANCEL_SHARE else None
            self._pool.submit(self._guarded, order, place, cancel_after)
            if draw.random() < TWICE_SHARE:
                self.counts["placed twice at once"] += 1
                self._pool.submit(self._guarded, order, place, None)

    def _guarded(self, order: dict[str, Any], place: Callable[..., None], cancel_after: float | None) -> None:
        try:
            self._insist(order["order_id"], "placing", lambda: place(order))
            with self._lock:
                self.acknowledged.add(order["order_id"])
            if cancel_after is not None:
                time.sleep(cancel_after)
                self._insist(order["order_id"], "cancelling", lambda: self._cancel(order["order_id"]))
        except Exception as error:  # every kind is a finding, and a thread's own error is seen by nobody
            self.errors.append(f"{order['order_id']}: {error!r}")
        finally:
            connection.close()

    def _insist(self, order_id: str, what: str, act: Callable[[], None]) -> None:
        """The same again with the same number until an answer comes: what a client does that lost its answer."""
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                return act()
            except (DatabaseError, InterfaceError, OSError) as error:
                connection.close()
                self.counts[f"{what}: no answer, tried again"] += 1
                if time.monotonic() > end:
                    raise RuntimeError(f"{what} had no answer for {GIVE_UP_SECONDS} s: {error!r}") from error
                time.sleep(0.3)

    def _in_process(self, order: dict[str, Any]) -> None:
        place_order(user=None, actor="chaos", **order)
        self.counts["placed in process"] += 1

    def _over_http(self, order: dict[str, Any]) -> None:
        body = {
            "order_id": order["order_id"],
            "user_id": order["customer_ref"],
            "items": order["items"],
            "currency": order["currency"],
            "email": order["email"],
            "shipping_address": {
                name: order[f"ship_{name}"] for name in ("name", "line1", "city", "postcode", "country")
            },
            "payment": {"token": order["card_token"]},
        }
        request = urllib.request.Request(  # noqa: S310  (our own address)
            f"{self.url}/api/v1/orders",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self.api_key}",
                "Idempotency-Key": order["order_id"],
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=20):  # noqa: S310
                self.counts["placed over HTTP"] += 1
        except urllib.error.HTTPError as error:
            with error:
                if error.code < 500 and error.code not in {409, 429}:  # 409: the same is under way just now
                    raise RuntimeError(f"{error.code}: {error.read()[:500]!r}") from None
            raise

    def _cancel(self, order_id: str) -> None:
        try:
            cancel_order(order_id=order_id, actor="chaos", reason="changed my mind")
        except OrderNotCancellable:
            self.counts["cancelling refused"] += 1
        else:
            self.counts["cancelled"] += 1
            with self._lock:
                self.cancelled.add(order_id)


def _order(draw: random.Random, order_id: str) -> dict[str, Any]:
    skus = draw.sample(sorted(PRICES), k=draw.randint(1, 2))
    if draw.random() < 0.05:
        skus.append(SCARCE)
    return {
        "order_id": order_id,
        "customer_ref": f"chaos-{draw.randint(1, 20)}",
        "items": [{"sku": sku, "quantity": 1 if sku == SCARCE else draw.randint(1, 3)} for sku in skus],
        "currency": "EUR",
        "email": "chaos@example.com",
        "ship_name": "C. Haos",
        "ship_line1": "1 Example Street",
        "ship_city": "Berlin",
        "ship_postcode": draw.choice(POSTCODES),
        "ship_country": "DE",
        "card_token": draw.choice(CARDS),
    }
