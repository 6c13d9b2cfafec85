"""Every way an order can go, with real web and cluster processes: and what each leaves behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from orders.demo import CANCEL_REASON, PRODUCTS, SCENARIOS, Scenario, order_fields
from orders.models import (
    Order,
    Payment,
    PaymentOperation,
    SandboxCharge,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
    StockItem,
)
from sagas.selectors import SagaRun
from tests.processes import Process, Site, wait_for

pytestmark = pytest.mark.processes

TOTAL, NOTHING = Decimal("99.99"), Decimal(0)
ENDS = {scenario.order_id: scenario.end for scenario in SCENARIOS}
# Charged and not refunded: those that have a parcel, and the one whose refund keeps failing.
TOLD = {"DEMO-WELL", "DEMO-ANSWER", "DEMO-RETRY", "DEMO-MAIL", "DEMO-SLOW"}
"""Their customers have the confirmation."""
LIVE_PARCELS = TOLD | {"DEMO-BOUNCE"}
OWED = {"DEMO-REFUND"}


def statuses() -> dict[str, str]:
    """Order number -> its run's status."""
    return dict(SagaRun.objects.values_list("business_key", "status"))


def attempts(order_id: str) -> list[tuple[str, str, str]]:
    """(step, direction, outcome) of each attempt, in the order they began."""
    run = SagaRun.objects.get(business_key=order_id)
    return list(run.records.order_by("id").values_list("step", "direction", "outcome"))


def caller(site: Site, key: str) -> Callable[[str, dict[str, Any]], int]:
    """Posts JSON to the site's API, and returns the answer's status."""

    def post(path: str, body: dict[str, Any]) -> int:
        request = urllib.request.Request(  # noqa: S310  (our own address)
            f"{site.url}/api/v1/{path}",
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {key}",
                "Content-Type": "application/json",
                "Idempotency-Key": str(uuid.uuid4()),
                "If-Match": "*",
            },
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)

    return post


def body_of(scenario: Scenario) -> dict[str, Any]:
    """The scenario's order as the API takes it."""
    fields = order_fields(scenario)
    return {
        "order_id": scenario.order_id,
        "user_id": fields["customer_ref"],
        "items": fields["items"],
        "email": fields["email"],
        "shipping_address": {name: fields[f"ship_{name}"] for name in ("name", "line1", "city", "postcode", "country")},
        "payment": {"token": fields["card_token"]},
    }


def all_ended() -> bool:
    return len(statuses()) == len(ENDS) and statuses() == ENDS


def assert_everything_is_as_it_should_be(site: Site) -> None:
    """Records, stock, money, parcels and mail of all scenarios together, and nothing beside them."""
    assert statuses() == ENDS

    mugs = 2 * len(LIVE_PARCELS)
    allocated = {product.sku: 0 for product in PRODUCTS} | {"ITEM-001": mugs, "ITEM-002": mugs // 2}
    assert dict(StockItem.objects.values_list("product__sku", "allocated")) == allocated
    assert dict(StockItem.objects.values_list("product__sku", "on_hand")) == {p.sku: p.stock for p in PRODUCTS}

    money = {
        order_id: (charged, refunded)
        for order_id, charged, refunded in Payment.objects.values_list("order__order_id", "charged", "refunded")
    }
    assert money == {
        **dict.fromkeys(LIVE_PARCELS | OWED, (TOTAL, NOTHING)),
        "DEMO-CARD": (NOTHING, NOTHING),
        "DEMO-PARCEL": (TOTAL, TOTAL),
        "DEMO-CANCEL": (TOTAL, TOTAL),
    }
    # The gateway's own ledger says the same: one charge each, and a refund only where one was due.
    assert SandboxCharge.objects.filter(barred=False).count() == len(LIVE_PARCELS | OWED) + 2
    assert sum(charge.refunded for charge in SandboxCharge.objects.all()) == 2 * TOTAL
    assert SandboxRefund.objects.count() == 2
    assert set(
        PaymentOperation.objects.filter(payment__order__order_id="DEMO-REFUND").values_list("kind", "status")
    ) == {
        ("charge", "succeeded"),
        ("refund", "unavailable"),
    }

    assert dict(Shipment.objects.values_list("order__order_id", "status")) == {
        **dict.fromkeys(LIVE_PARCELS, "created"),
        "DEMO-PARCEL": "refused",
        "DEMO-REFUND": "refused",
        "DEMO-CANCEL": "cancelled",
    }
    assert SandboxParcel.objects.filter(status="booked").count() == len(LIVE_PARCELS)

    told = {(order_id, kind) for order_id, kind in SentMessage.objects.values_list("order__order_id", "kind")}
    assert told == {(order_id, "confirmation") for order_id in LIVE_PARCELS} | {
        ("DEMO-CANCEL", "confirmation"),
        ("DEMO-CANCEL", "cancellation"),
    }
    unsent = SentMessage.objects.exclude(status="sent").values_list("order__order_id", flat=True)
    assert list(unsent) == ["DEMO-BOUNCE"]
    written = "".join(path.read_text() for path in (site.folder / "mail").iterdir())
    subjects = sorted(re.findall(r"^Subject: (.+)$", written, re.MULTILINE))
    assert subjects == sorted(
        [f"Your order {order_id} is on its way" for order_id in [*TOLD, "DEMO-CANCEL"]]
        + ["Your order DEMO-CANCEL is cancelled"]
    )

    done, undone = "action", "compensation"
    assert attempts("DEMO-STOCK") == [("reserve_inventory", done, "refused")]
    assert attempts("DEMO-CARD") == [
        ("reserve_inventory", done, "succeeded"),
        ("process_payment", done, "refused"),
        ("reserve_inventory", undone, "succeeded"),
    ]
    assert attempts("DEMO-PARCEL") == [
        ("reserve_inventory", done, "succeeded"),
        ("process_payment", done, "succeeded"),
        ("create_shipment", done, "refused"),
        ("process_payment", undone, "succeeded"),
        ("reserve_inventory", undone, "succeeded"),
    ]
    assert attempts("DEMO-ANSWER")[1:3] == [
        ("process_payment", done, "unknown"),
        ("process_payment", done, "succeeded"),
    ]
    assert [outcome for step, _, outcome in attempts("DEMO-RETRY") if step == "create_shipment"] == [
        "unavailable",
        "unavailable",
        "succeeded",
    ]
    assert [outcome for step, _, outcome in attempts("DEMO-MAIL") if step == "send_confirmation_email"] == [
        "unavailable",
        "unavailable",
        "succeeded",
    ]
    assert attempts("DEMO-BOUNCE")[-1] == ("send_confirmation_email", done, "refused")
    assert [step for step, way, _ in attempts("DEMO-CANCEL") if way == undone] == [
        "send_confirmation_email",
        "create_shipment",
        "process_payment",
        "reserve_inventory",
    ]


def test_orders_placed_over_http_come_to_their_ends(site: Site) -> None:
    site.manage("migrate")
    key = re.search(r"osk_\w+", site.manage("seed_demo"))
    assert key is not None
    site.start_web()
    site.start_worker()
    post = caller(site, key[0])

    assert [post("orders", body_of(scenario)) for scenario in SCENARIOS] == [202] * len(SCENARIOS)
    wait_for("the order to be cancelled", lambda: statuses()["DEMO-CANCEL"] == "completed", seconds=60)
    assert post("orders/DEMO-CANCEL/cancellations", {"reason": CANCEL_REASON}) == 202
    wait_for("every order's end", all_ended, seconds=60)

    assert_everything_is_as_it_should_be(site)
    assert Order.objects.count() == len(SCENARIOS)


class TestCommand:
    """`manage.py demo`, piped."""

    def start(self, site: Site, *arguments: str) -> Process:
        return site.start("demo", "manage.py", "demo", "--port", str(site.port), *arguments)

    def test_it_shows_every_end_goes_on_with_its_data_and_begins_anew_when_asked_to(self, site: Site) -> None:
        demo = self.start(site, "--exit-when-done")
        wait_for("the demo's end", lambda: not demo.is_running(), seconds=120)

        assert demo.popen.returncode == 0, demo.output()
        assert_everything_is_as_it_should_be(site)
        assert_says_how_all_ended(demo.output(), site)
        runs = set(SagaRun.objects.values_list("pk", flat=True))

        again = self.start(site, "--exit-when-done")
        wait_for("its second end", lambda: not again.is_running(), seconds=60)

        assert again.popen.returncode == 0, again.output()
        assert set(SagaRun.objects.values_list("pk", flat=True)) == runs
        assert_everything_is_as_it_should_be(site)

        for written in (site.folder / "mail").iterdir():
            written.unlink()
        anew = self.start(site, "--exit-when-done", "--reset", "--noinput")
        wait_for("its third end", lambda: not anew.is_running(), seconds=120)

        assert anew.popen.returncode == 0, anew.output()
        assert not runs & set(SagaRun.objects.values_list("pk", flat=True))
        assert_everything_is_as_it_should_be(site)

    def test_stopped_midway_it_leaves_no_process_and_goes_on_later(self, site: Site) -> None:
        demo = self.start(site)
        wait_for("the first end", lambda: "as expected" in demo.output() or not demo.is_running(), seconds=60)
        children = descendants(demo.pid)

        demo.popen.send_signal(signal.SIGTERM)

        assert demo.popen.wait(30) == 0, demo.output()
        assert len(children) >= 4
        assert [pid for pid in children if is_alive(pid)] == []

        later = self.start(site)
        wait_for("every end", lambda: "All 11 orders" in later.output() or not later.is_running(), seconds=120)
        with urllib.request.urlopen(f"{site.url}/livez", timeout=10) as answer:  # noqa: S310
            assert answer.status == 200
        assert_everything_is_as_it_should_be(site)
        children = descendants(later.pid)

        later.popen.send_signal(signal.SIGINT)  # Ctrl-C

        assert later.popen.wait(30) == 0, later.output()
        assert [pid for pid in children if is_alive(pid)] == []


def assert_says_how_all_ended(output: str, site: Site) -> None:
    """The lines that `demo` prints: who and where first, then the orders as they move, then that all is over."""
    head, _, orders = output.partition("\n\n")
    facts = [line.partition("  ")[0] for line in head.splitlines()]
    assert facts == ["Web", "Logins", "API key", "API docs", "Health", "Metrics", "Logs"]
    assert f"Web       {site.url}/" in head
    last_words = {
        scenario.order_id: [line for line in orders.splitlines() if f"/{scenario.order_id}/" in line][-1]
        for scenario in SCENARIOS
    }
    first_words = {
        line.split("/orders/")[1].split("/")[0]: line for line in reversed(orders.splitlines()) if "/orders/" in line
    }
    assert first_words["DEMO-CARD"].endswith(", to end undone")
    assert first_words["DEMO-REFUND"].endswith(", to end needing attention")
    verdicts = {order_id: line.rpartition(", ")[2] for order_id, line in last_words.items()}
    assert verdicts == dict.fromkeys(ENDS, "as expected")
    assert "\x1b" not in output
    assert orders.endswith(
        "All 11 orders have come to their ends, each as expected.\n"
        "Ctrl-C stops the demo; the data stays. `manage.py demo --reset` wipes it.\n"
    )


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    found: list[int] = []
    waiting = [pid]
    parents = dict(all_processes())
    while waiting:
        parent = waiting.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        found += children
        waiting += children
    return found


def all_processes() -> list[tuple[int, int]]:
    """(process, parent) of whatever runs on this machine."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), int(parent)) for pid, parent in (line.split() for line in listing.splitlines())]


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
