"""One attack from the first order to the verdict."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

from django.db import DatabaseError, InterfaceError, connection

from orders import seeding
from orders.models import FaultPlan
from orders.providers.faults import clear
from orders.services import receive_stock
from tests.chaos.check import Watch, broken_promises, come_to_rest, ends
from tests.chaos.client import PRICES, SCARCE, Customers
from tests.chaos.faults import Attack, strike
from tests.chaos.shop import Shop, living, send

STOCK = 100_000
SCARCE_STOCK = 5
PROGRESS_SECONDS = 5.0


def fight(shop: Shop, *, seconds: float, seed: int, clusters: int, rate: float) -> int:
    """Attack, let the shop come to rest, tell what was found: 0 if every promise was kept, else 1."""
    attack = Attack(shop=shop, draw=random.Random(f"faults {seed}"))
    watch = Watch()
    try:
        customers = _open(attack, seed=seed, clusters=clusters, rate=rate)
        _fight(attack, customers, watch, seconds)
        return _settle(attack, customers, watch)
    finally:
        _close(attack)


def _open(attack: Attack, *, seed: int, clusters: int, rate: float) -> Customers:
    """Fill the shelves, start every process, and let the customers in."""
    key = seeding.seed().api_key
    for sku, pieces in {**dict.fromkeys(PRICES, STOCK), SCARCE: SCARCE_STOCK}.items():
        receive_stock(sku=sku, quantity=pieces, actor="chaos", reason="enough for an attack")
    site = attack.shop.site
    site.start_web()
    attack.shop.start_clusters(clusters)
    customers = Customers(url=site.url, api_key=key, seed=seed, rate=rate)
    customers.start()
    return customers


def _fight(attack: Attack, customers: Customers, watch: Watch, seconds: float) -> None:
    begin = shown = time.monotonic()
    next_fault = begin + 3  # the first processes are to be there
    try:
        while time.monotonic() < begin + seconds:
            attack.catch_up()
            watch.look()
            if time.monotonic() >= next_fault:
                next_fault = time.monotonic() + attack.draw.uniform(0.3, 1.5)
                try:
                    strike(attack)
                except (DatabaseError, InterfaceError):  # it was restarted under our own connection too
                    connection.close()
            if time.monotonic() - shown >= PROGRESS_SECONDS:
                shown = time.monotonic()
                say(
                    f"{shown - begin:4.0f} s  {len(customers.acknowledged)} orders acknowledged, "
                    f"{attack.counts.total()} faults, longest wait {watch.longest.total_seconds():.1f} s"
                )
            time.sleep(0.1)
    finally:
        customers.stop()


def _settle(attack: Attack, customers: Customers, watch: Watch) -> int:
    """Everything is well again but what was killed: whatever was hurt must find its own way."""
    connection.close()
    clear()
    attack.catch_up(all_of_it=True)
    rest = come_to_rest(watch, attack.catch_up)
    fired: Counter[str] = Counter()
    for kind, count in FaultPlan.objects.values_list("kind", "fired"):
        fired[f"provider: {FaultPlan.Kind(kind).label}"] += count
    status, reasons = ends()
    _table("Faults injected", attack.counts)
    _table("Calls that failed as planned", fired)
    _table("Customers", customers.counts + Counter({"orders acknowledged": len(customers.acknowledged)}))
    _table("Ends", status)
    _table("Needs attention because", reasons)
    say(f"\nLongest time that due work lay untaken: {watch.longest.total_seconds():.1f} s")
    say(f"Times the health page said that nobody takes work: {watch.told}")
    say("Came to rest " + (f"{rest:.1f} s after the last fault" if rest is not None else "not at all"))
    wrong = customers.errors + broken_promises(customers.acknowledged, customers.cancelled, watch)
    for line in wrong:
        say(f"BROKEN  {line}")
    say(f"\n{len(wrong)} promises broken." if wrong else "\nEvery promise was kept.")
    return 1 if wrong else 0


def _close(attack: Attack) -> None:
    attack.catch_up(all_of_it=True)
    mark = f"VAR_DIR={attack.shop.site.env['VAR_DIR']}".encode()
    for process in attack.shop.site.processes:
        process.kill()
    for pid, environment in list(living()):
        if mark in environment and pid != os.getpid():
            send(pid, signal.SIGKILL)


def _table(title: str, counts: Counter[str]) -> None:
    say(f"\n{title}")
    for name, count in sorted(counts.items()):
        say(f"  {count:6}  {name}")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (the way of a command that has no framework of its own)
