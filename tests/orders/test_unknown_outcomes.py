"""Answers that never came, for each thing an order does and undoes.

It happened and nobody heard; it did not happen and nobody said so; the books that would tell are closed, for a while or
for ever; the books say no, and then it happens after all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings as site
from django.core import mail
from django.utils import timezone
from pytest_django import Settings

from orders.audit import audit_shop
from orders.models import FaultPlan, SandboxCharge, SandboxMail, SandboxParcel, SandboxRefund, StockItem
from orders.models import StockMovement as Movement
from orders.providers import faults
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError
from orders.providers.inventory.local import LocalInventory
from orders.providers.mail.django import DjangoMail
from orders.providers.payments.sandbox import SandboxGateway
from orders.providers.shipping.sandbox import SandboxCarrier
from orders.services import cancel_order
from sagas.audit import audit_runs
from sagas.models import SagaRun, StepRecord
from sagas.services import retry
from sagas.testing import FrozenClock, RunReport, drive_once, run_to_end
from tests.factories import make_order, make_shop

pytestmark = pytest.mark.django_db

Kind = FaultPlan.Kind


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One thing an order does or undoes, and how it is asked of a provider."""

    step: str
    direction: str
    title: str
    provider: str
    operation: str
    look_up: str = ""
    """Empty: it has none, and is sent again under the same key."""
    attempts: int

    def __str__(self) -> str:
        return self.operation if self.direction == "action" else f"{self.step} undone"


FORWARD, PATIENT = site.ORDER_RETRY_ATTEMPTS, site.ORDER_PATIENT_ATTEMPTS
RESERVE = Deed(
    step="reserve_inventory", direction="action", title="Reserve inventory",
    provider="inventory", operation="reserve", look_up="find_reservation", attempts=FORWARD,
)  # fmt: skip
CHARGE = Deed(
    step="process_payment", direction="action", title="Process payment",
    provider="payments", operation="charge", look_up="find_charge", attempts=FORWARD,
)  # fmt: skip
SHIP = Deed(
    step="create_shipment", direction="action", title="Create shipment",
    provider="shipping", operation="create_shipment", look_up="find_shipment", attempts=FORWARD,
)  # fmt: skip
CONFIRM = Deed(
    step="send_confirmation_email", direction="action", title="Confirmation e-mail",
    provider="mail", operation="send", look_up="find", attempts=PATIENT,
)  # fmt: skip
RELEASE = Deed(
    step="reserve_inventory", direction="compensation", title="Release inventory",
    provider="inventory", operation="release", attempts=PATIENT,
)  # fmt: skip
REFUND = Deed(
    step="process_payment", direction="compensation", title="Refund payment",
    provider="payments", operation="refund", look_up="find_refund", attempts=PATIENT,
)  # fmt: skip
TAKE_BACK = Deed(
    step="create_shipment", direction="compensation", title="Cancel shipment",
    provider="shipping", operation="cancel_shipment", attempts=PATIENT,
)  # fmt: skip
CALL_OFF = Deed(
    step="send_confirmation_email", direction="compensation", title="Cancellation e-mail",
    provider="mail", operation="send", look_up="find", attempts=PATIENT,
)  # fmt: skip
DEEDS = [RESERVE, CHARGE, SHIP, CONFIRM, RELEASE, REFUND, TAKE_BACK, CALL_OFF]
LOOKED_UP = [deed for deed in DEEDS if deed.look_up]

each_deed = pytest.mark.parametrize("deed", DEEDS, ids=str)
each_that_is_looked_up = pytest.mark.parametrize("deed", LOOKED_UP, ids=str)


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


def ready_for(deed: Deed) -> tuple[SagaRun, FrozenClock]:
    """An order whose run is about to do it: placed, or completed and cancelled."""
    order = make_order()
    clock = FrozenClock(timezone.now() + timedelta(seconds=1))
    run = SagaRun.objects.get(business_key=order.order_id)
    if deed.direction == "compensation":
        assert run_to_end(run, clock=clock).status == "completed"
        cancel(clock)
    return run, clock


def cancel(clock: FrozenClock) -> None:
    cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")
    clock.advance(timedelta(minutes=1))


def tries(run: SagaRun, deed: Deed) -> list[str]:
    records = StepRecord.objects.filter(run=run, step=deed.step, direction=deed.direction).order_by("number")
    return list(records.values_list("outcome", flat=True))


def assert_done_once(report: RunReport, deed: Deed) -> None:
    """The order came to its end, and in no ledger is anything twice."""
    is_undone = deed.direction == "compensation"
    assert report.status == ("compensated" if is_undone else "completed")
    charge, parcel = SandboxCharge.objects.get(), SandboxParcel.objects.get()
    assert (charge.amount, charge.refunded) == (Decimal("99.99"), Decimal("99.99") if is_undone else 0)
    assert SandboxRefund.objects.count() == (1 if is_undone else 0)
    assert parcel.status == ("cancelled" if is_undone else "booked")
    assert len(mail.outbox) == SandboxMail.objects.count() == (2 if is_undone else 1)
    moves = Movement.objects.exclude(kind="receive").order_by("id")
    held = [("reserve", 2), ("reserve", 1)]
    released = [("release", -2), ("release", -1)]
    assert sorted(moves.values_list("kind", "delta_allocated")) == sorted(held + (released if is_undone else []))
    assert_nothing_else_is_wrong()


def assert_nothing_else_is_wrong() -> None:
    assert [str(finding) for finding in (*audit_runs(), *audit_shop())] == []


@each_deed
def test_it_happened_and_the_answer_was_lost(deed: Deed) -> None:
    run, clock = ready_for(deed)
    lost = faults.plan(deed.provider, deed.operation, Kind.LOSE_ANSWER)

    report = run_to_end(run, clock=clock)

    lost.refresh_from_db()
    assert (lost.fired, tries(run, deed)) == (1, ["unknown", "succeeded"])
    assert_done_once(report, deed)


@each_that_is_looked_up
def test_what_is_found_is_not_sent_again(deed: Deed) -> None:
    run, clock = ready_for(deed)
    faults.plan(deed.provider, deed.operation, Kind.LOSE_ANSWER)
    trap = faults.plan(deed.provider, deed.operation, Kind.REFUSE)

    report = run_to_end(run, clock=clock)

    trap.refresh_from_db()
    assert trap.fired == 0
    assert_done_once(report, deed)


@each_deed
def test_it_did_not_happen_and_the_answer_was_lost(deed: Deed) -> None:
    run, clock = ready_for(deed)
    silent = faults.plan(deed.provider, deed.operation, Kind.SILENT, times=2)

    report = run_to_end(run, clock=clock)

    silent.refresh_from_db()
    assert (silent.fired, tries(run, deed)) == (2, ["unknown", "unknown", "succeeded"])
    assert_done_once(report, deed)


@each_that_is_looked_up
@pytest.mark.parametrize("first", [Kind.LOSE_ANSWER, Kind.SILENT], ids=["done", "not done"])
def test_the_books_are_closed_for_a_while(deed: Deed, first: FaultPlan.Kind) -> None:
    run, clock = ready_for(deed)
    faults.plan(deed.provider, deed.operation, first)
    closed = faults.plan(deed.provider, deed.look_up, Kind.UNAVAILABLE, times=2)

    report = run_to_end(run, clock=clock)

    closed.refresh_from_db()
    assert (closed.fired, tries(run, deed)) == (2, ["unknown"] * 3 + ["succeeded"])
    assert_done_once(report, deed)


@each_that_is_looked_up
@pytest.mark.parametrize("first", [Kind.LOSE_ANSWER, Kind.SILENT], ids=["done", "not done"])
def test_the_books_are_closed_for_ever(deed: Deed, first: FaultPlan.Kind) -> None:
    """A person is asked, is told what is open, and has it tried again when the books are open."""
    run, clock = ready_for(deed)
    faults.plan(deed.provider, deed.operation, first)
    faults.plan(deed.provider, deed.look_up, Kind.UNAVAILABLE, times=1000)

    waiting = run_to_end(run, clock=clock)

    assert waiting.status == "needs_attention"
    assert deed.title in waiting.attention
    assert set(tries(run, deed)) == {"unknown"}
    assert_nothing_else_is_wrong()

    faults.clear()
    retry(run_id=run.pk, step=deed.step, direction=deed.direction, actor="user:sam", reason="They are open again.")
    clock.advance(timedelta(minutes=1))
    report = run_to_end(run, clock=clock)

    assert tries(run, deed)[-1] == "succeeded"
    assert_done_once(report, deed)


class Held:
    """A request that is still under way when its sender has given it up."""

    request: Callable[[], Any] | None = None
    was_sent = False

    @classmethod
    def back(cls, send: Callable[[], Any]) -> Any:
        if cls.was_sent:
            return send()
        cls.was_sent, cls.request = True, send
        raise OutcomeUnknown("No answer yet.", provider="late", operation="late")

    @classmethod
    def arrive(cls) -> Any:
        assert cls.request is not None
        return cls.request()


def late(provider: type, operation: str) -> type:
    """That provider, whose first such request takes its time."""

    def send(self: Any, *arguments: Any, **named: Any) -> Any:
        return Held.back(lambda: getattr(provider, operation)(self, *arguments, **named))

    return type(f"Late{provider.__name__}", (provider,), {operation: send})


LateReserve = late(LocalInventory, "reserve")
LateRelease = late(LocalInventory, "release")
LateCharge = late(SandboxGateway, "charge")
LateRefund = late(SandboxGateway, "refund")
LateShip = late(SandboxCarrier, "create_shipment")
LateTakeBack = late(SandboxCarrier, "cancel_shipment")
LateSend = late(DjangoMail, "send")
LATE = {
    RESERVE: "LateReserve",
    CHARGE: "LateCharge",
    SHIP: "LateShip",
    CONFIRM: "LateSend",
    RELEASE: "LateRelease",
    REFUND: "LateRefund",
    TAKE_BACK: "LateTakeBack",
    CALL_OFF: "LateSend",
}


@pytest.fixture
def hold_back(settings: Settings) -> Callable[[Deed], None]:
    Held.request, Held.was_sent = None, False

    def use(deed: Deed) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, deed.provider: f"{__name__}.{LATE[deed]}"}

    return use


@each_deed
def test_the_books_say_no_and_it_arrives_after_it_was_sent_again(deed: Deed, hold_back: Callable[[Deed], None]) -> None:
    run, clock = ready_for(deed)
    hold_back(deed)
    report = run_to_end(run, clock=clock)
    assert tries(run, deed) == ["unknown", "succeeded"]

    Held.arrive()

    assert_done_once(report, deed)


@pytest.mark.parametrize("deed", [RESERVE, CHARGE, SHIP], ids=str)
def test_the_books_say_no_and_it_arrives_after_all_was_undone(deed: Deed, hold_back: Callable[[Deed], None]) -> None:
    """The undo found nothing, and told whoever keeps the books to turn away what comes after it."""
    run, clock = ready_for(deed)
    hold_back(deed)
    drive_once(run, clock=clock)
    cancel(clock)
    report = run_to_end(run, clock=clock)
    assert (report.status, tries(run, deed)) == ("compensated", ["unknown"])
    assert deed.step in report.undone

    with pytest.raises(ProviderError) as turned_away:
        Held.arrive()

    assert isinstance(turned_away.value, Declined)
    assert SandboxCharge.objects.filter(barred=False, amount__gt=0).count() == (1 if deed is SHIP else 0)
    assert not SandboxParcel.objects.exclude(status="cancelled").exists()
    assert set(StockItem.objects.values_list("allocated", flat=True)) == {0}
    assert mail.outbox == []
    assert_nothing_else_is_wrong()


@pytest.mark.parametrize("deed", [RESERVE, CHARGE, SHIP], ids=str)
def test_the_books_say_no_to_the_end_and_it_arrives_afterwards(deed: Deed, hold_back: Callable[[Deed], None]) -> None:
    """Every try was lost but the first, which is still under way: the run goes back, and has even that turned away."""
    run, clock = ready_for(deed)
    hold_back(deed)
    drive_once(run, clock=clock)
    faults.plan(deed.provider, deed.operation, Kind.SILENT, times=1000)

    report = run_to_end(run, clock=clock)

    assert (report.status, report.error_code) == ("compensated", "not_done")
    assert deed.step in report.undone
    with pytest.raises(Declined):
        Held.arrive()
    assert_nothing_else_is_wrong()
