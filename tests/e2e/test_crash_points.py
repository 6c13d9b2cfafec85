"""A worker is killed at every point there is, on the way forward and on the way back; another one takes over.

Each order comes to its right end, and each effect is there once: in the books, and in the ledgers of the outside world.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orders.audit import audit_shop
from orders.models import Order, SandboxCharge, SandboxMail, SandboxParcel, SandboxRefund, StockItem, StockMovement
from orders.services import cancel_order
from sagas.audit import audit_runs
from sagas.models import SagaRun, StepRecord
from sagas.testing import run_to_end
from tests.factories import make_order, make_product
from tests.processes import Site, wait_for

STEPS = {
    "reserve_inventory": ("reserve", "release"),
    "process_payment": ("charge", "refund"),
    "create_shipment": ("create_shipment", "cancel_shipment"),
    "send_confirmation_email": ("send", "send"),
}
LEASE = {"DJANGO_SETTINGS_MODULE": "tests.e2e.mortal.settings", "SAGA_LEASE_SECONDS": "3"}

pytestmark = [pytest.mark.processes, pytest.mark.parametrize("site", [LEASE], indirect=True)]


@dataclass(frozen=True, kw_only=True)
class Death:
    point: str
    pass_by: int = 0

    def __str__(self) -> str:
        return f"{self.point}:{self.pass_by}" if self.pass_by else self.point


def deaths(direction: str) -> list[Death]:
    """Every point on that way: around the claim, each call, each provider's act, and each commit."""
    way = 0 if direction == "action" else 1
    found = [Death(point="before_claim"), Death(point="after_claim")]
    for step, provider in STEPS.items():
        found += [Death(point=f"{when}_call:{step}:{direction}") for when in ("before", "after")]
        found += [Death(point=f"{when}_provider:{provider[way]}") for when in ("before", "after")]
    found += [Death(point=f"{when}_commit", pass_by=n) for when in ("before", "after") for n in range(len(STEPS))]
    return list(dict.fromkeys(found))


def place_orders(count: int) -> list[Order]:
    make_product(sku="ITEM-001", price="30.00", stock=1000)
    make_product(sku="ITEM-002", price="39.99", stock=1000)
    return [make_order(order_id=f"ORD-{n:02}") for n in range(count)]


def drive(site: Site, orders: list[Order], plan: list[Death], *, together: bool) -> list[list[int]]:
    """Have each order driven by processes that die as planned; how they ended, order by order."""
    jobs, ends = site.folder / "jobs.json", site.folder / "ends.json"
    ends.unlink(missing_ok=True)
    jobs.write_text(
        json.dumps(
            [
                {
                    "run": str(order.run_id),
                    "point": death.point,
                    "pass_by": death.pass_by,
                    "together": together,
                    "mark": str(site.folder / f"{order.order_id}-died"),
                }
                for order, death in zip(orders, plan, strict=True)
            ]
        )
    )
    process = site.start("mortal", "-m", "tests.e2e.mortal", str(jobs), str(ends))
    wait_for("all orders to be driven", lambda: not process.is_running(), seconds=240)
    told: list[list[int]] = json.loads(ends.read_text())
    return told


def statuses(orders: list[Order]) -> Counter[str]:
    runs = SagaRun.objects.filter(business_key__in=[order.order_id for order in orders])
    return Counter(runs.values_list("status", flat=True))


def lost_attempts() -> int:
    return StepRecord.objects.filter(error_code="worker_lost").count()


def mails(site: Site) -> int:
    return sum(file.read_text(errors="replace").count("Message-ID: ") for file in mail_folder(site).iterdir())


def mail_folder(site: Site) -> Path:
    return site.folder / "mail"


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with a second worker"])
def test_on_the_way_forward(site: Site, together: bool) -> None:
    plan = deaths("action")
    orders = place_orders(len(plan))

    ends = drive(site, orders, plan, together=together)

    assert dict(zip(map(str, plan), ends, strict=True)) == {str(death): [-signal.SIGKILL, 0] for death in plan}
    assert statuses(orders) == {"completed": len(orders)}
    assert sorted(SandboxCharge.objects.values_list("order_id", flat=True)) == [order.order_id for order in orders]
    assert not SandboxRefund.objects.exists()
    assert set(SandboxParcel.objects.values_list("status", flat=True)) == {"booked"}
    assert SandboxParcel.objects.count() == SandboxMail.objects.count() == mails(site) == len(orders)
    assert counters() == {"ITEM-001": (1000, 2 * len(orders)), "ITEM-002": (1000, len(orders))}
    assert StockMovement.objects.filter(kind="reserve").count() == 2 * len(orders)
    assert lost_attempts() > 0
    assert_audited()


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with a second worker"])
def test_on_the_way_back(site: Site, together: bool, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    plan = deaths("compensation")
    orders = place_orders(len(plan))
    for order in orders:
        run_to_end(SagaRun.objects.get(pk=str(order.run_id)))
        cancel_order(order_id=order.order_id, actor="customer:ada", reason="changed my mind")
    SagaRun.objects.update(due_at=None)
    SagaRun.objects.update(due_at=orders[0].placed_at)  # the clock of run_to_end may have been ahead of ours

    ends = drive(site, orders, plan, together=together)

    assert dict(zip(map(str, plan), ends, strict=True)) == {str(death): [-signal.SIGKILL, 0] for death in plan}
    assert statuses(orders) == {"compensated": len(orders)}
    assert sorted(SandboxRefund.objects.values_list("charge__order_id", flat=True)) == [o.order_id for o in orders]
    assert set(SandboxParcel.objects.values_list("status", flat=True)) == {"cancelled"}
    assert SandboxParcel.objects.count() == mails(site) == len(orders)
    assert SandboxMail.objects.count() == 2 * len(orders)
    assert counters() == {"ITEM-001": (1000, 0), "ITEM-002": (1000, 0)}
    assert StockMovement.objects.filter(kind="release").count() == 2 * len(orders)
    assert lost_attempts() > 0
    assert_audited()


def test_between_a_mail_and_its_note(site: Site) -> None:
    """The one thing that may happen twice: SMTP allows no better. Both mails bear the same Message-ID."""
    orders = place_orders(1)

    ends = drive(site, orders, [Death(point="mail_is_out")], together=False)

    assert ends == [[-signal.SIGKILL, 0]]
    assert statuses(orders) == {"completed": 1}
    lines = [line for file in mail_folder(site).iterdir() for line in file.read_text().splitlines()]
    names = [line for line in lines if line.startswith("Message-ID: ")]
    assert len(names) == 2
    assert len(set(names)) == SandboxMail.objects.count() == 1
    assert_audited()


def counters() -> dict[str, tuple[int, int]]:
    rows = StockItem.objects.values_list("product__sku", "on_hand", "allocated")
    return {sku: (on_hand, allocated) for sku, on_hand, allocated in rows}


def assert_audited() -> None:
    assert [str(finding) for finding in (*audit_runs(), *audit_shop())] == []
