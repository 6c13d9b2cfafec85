"""What the shop's audit must find beside the ends of orders: what is held, charged, booked or mailed for nobody, or is
one thing in our books and another in a ledger; and that each scenario of the demo is without fault."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from orders.audit import audit_shop
from orders.demo import PRODUCTS, SCENARIOS, Scenario
from orders.demo import order_fields as demo_fields
from orders.models import (
    Order,
    Payment,
    PaymentOperation,
    Reservation,
    SandboxCharge,
    SandboxMail,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
    StockItem,
    StockMovement,
)
from orders.order_processing import ORDER_SAGA
from orders.services import cancel_order, place_order
from sagas.audit import audit_runs
from sagas.selectors import SagaRun
from sagas.services import start
from sagas.testing import Crashed, FrozenClock, crash_at, drive_once, run_to_end
from tests.factories import make_order, make_product, make_shop

pytestmark = pytest.mark.django_db

POINTS = [
    f"{when}_call:{step.name}:{direction}"
    for direction in ("action", "compensation")
    for step in ORDER_SAGA.steps
    for when in ("before", "after")
]


def codes() -> list[str]:
    return [finding.code for finding in (*audit_runs(), *audit_shop())]


def run_of(order: Order) -> SagaRun:
    return SagaRun.objects.get(business_key=order.order_id)


def later() -> FrozenClock:
    return FrozenClock(timezone.now() + timedelta(seconds=1))


def undo(order: Order, clock: FrozenClock) -> None:
    cancel_order(order_id=order.order_id, actor="customer:ada", reason="changed my mind")
    clock.advance(timedelta(minutes=1))


@pytest.fixture
def done() -> Order:
    make_shop()
    order = make_order()
    run_to_end(run_of(order))
    return order


@pytest.fixture
def undone(done: Order) -> Order:
    clock = later()
    undo(done, clock)
    assert run_to_end(run_of(done), clock=clock).status == "compensated"
    return done


@pytest.fixture
def owing() -> Order:
    """Its shipment was refused, and its refund does not get through."""
    make_shop()
    order = make_order(card_token="tok_refund_fails", ship_postcode="00000")
    assert run_to_end(run_of(order)).status == "needs_attention"
    assert codes() == []
    return order


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_demo_is_without_fault(scenario: Scenario) -> None:
    for product in PRODUCTS:
        make_product(sku=product.sku, price=str(product.price), stock=product.stock)
    order, _ = place_order(
        order_id=scenario.order_id, user=None, total_amount=None, actor="customer:ada", **demo_fields(scenario)
    )
    clock = later()
    report = run_to_end(run_of(order), clock=clock)
    if scenario.cancel_when_completed:
        undo(order, clock)
        report = run_to_end(run_of(order), clock=clock)

    assert report.status == scenario.end
    assert codes() == []


@pytest.mark.parametrize("point", POINTS)
def test_wherever_a_worker_dies_nothing_is_wrong_then_or_after(point: str) -> None:
    make_shop()
    order, clock = make_order(), later()
    if point.endswith("compensation"):
        run_to_end(run_of(order), clock=clock)
        undo(order, clock)
    with crash_at(point), pytest.raises(Crashed):
        drive_once(run_of(order), clock=clock)
    assert codes() == []

    run_to_end(run_of(order), clock=clock)

    assert codes() == []


@pytest.mark.parametrize("suffix", ["", ":reserve_inventory:again"])
def test_pieces_held_for_nobody(undone: Order, suffix: str) -> None:
    key = f"{undone.run_id}{suffix}" if suffix else "ghost"
    stock = StockItem.objects.order_by("pk")[0]
    Reservation.objects.create(reservation_id="RES-7", key=key, stock=stock, quantity=1)
    StockMovement.objects.create(
        stock=stock, kind="reserve", delta_allocated=1, on_hand_after=10, allocated_after=1, key=key
    )
    StockItem.objects.filter(pk=stock.pk).update(allocated=1)

    assert codes() == ["stock_held_by_nobody"]


def test_a_run_without_an_order(done: Order) -> None:
    start(saga=ORDER_SAGA, business_key="ORD-7", input={}, ring=False)

    assert codes() == ["run_of_nobody"]


def test_a_charge_that_only_our_books_know(owing: Order) -> None:
    SandboxCharge.objects.all().delete()

    assert codes() == ["not_done_by_the_gateway"]


def test_a_refund_under_a_key_that_nobody_sent(owing: Order) -> None:
    charge = SandboxCharge.objects.get()
    SandboxRefund.objects.create(key="k", refund_id="RFN-7", charge=charge, amount=charge.amount)
    SandboxCharge.objects.update(refunded=charge.amount)

    assert codes() == ["refund_of_nobody"]


def test_a_second_charge_that_our_books_call_refused(undone: Order) -> None:
    PaymentOperation.objects.create(payment=undone.payment, kind="charge", amount=5, key="k", status="refused")
    SandboxCharge.objects.create(key="k", transaction_id="TXN-7", amount=Decimal(5), currency="EUR")

    assert codes() == ["unexplained_charge"]


def test_a_charge_under_another_number(done: Order) -> None:
    SandboxCharge.objects.update(transaction_id="TXN-7")

    assert codes() == ["not_done_by_the_gateway"]


@pytest.mark.parametrize("books", [SandboxCharge, Payment])
def test_a_charge_in_another_currency(done: Order, books: type[SandboxCharge] | type[Payment]) -> None:
    books._default_manager.update(currency="JPY")

    assert codes() == ["another_currency"]


def test_a_parcel_under_another_number(done: Order) -> None:
    SandboxParcel.objects.update(tracking_number="TRK-7")

    assert codes() == ["another_parcel"]


def test_a_cancelled_parcel_that_moves_while_a_person_is_asked(owing: Order) -> None:
    Shipment.objects.update(status="cancelled", cancelled_at=timezone.now())
    SandboxParcel.objects.create(reference=owing.shipment.reference, shipment_id="SHIP-7", status="booked")

    assert codes() == ["carrier_still_has_parcel"]


def test_a_mail_that_the_server_never_sent(done: Order) -> None:
    SandboxMail.objects.all()._raw_delete("default")

    assert codes() == ["mail_not_sent"]


def test_a_mail_that_went_to_somebody_else(done: Order) -> None:
    mail = SandboxMail.objects.get()
    SandboxMail.objects.all()._raw_delete("default")
    SandboxMail.objects.create(key=mail.key, email_id=mail.email_id, recipient="bob@example.com")

    assert codes() == ["mail_not_sent"]


def test_a_customer_who_was_told_of_the_order_and_not_of_its_end(undone: Order) -> None:
    SentMessage.objects.filter(kind="cancellation").delete()
    SandboxMail.objects.filter(key__endswith=":compensation")._raw_delete("default")

    assert codes() == ["not_told"]
