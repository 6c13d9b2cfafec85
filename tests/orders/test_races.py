"""The shop's rows, fought over: each pair forced to both orders at a named point or inside a transaction, or let go all
at once where it is the number that counts.

What else is raced: one key at once at each provider, and two different refunds of one charge, in test_providers; an
action after its own undo, in test_actions; few orders and few buyers at once, in test_services and
test_api_idempotency; workers, leases and what people do to a run, in tests/sagas/test_races.

A gateway's own messages ("paid", "failed") reach nobody here yet. What they would say comes by looking up instead, and
is raced as such: money found, or made, while the order is being undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings as site
from django.core import mail
from django.db import IntegrityError, connections
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django import Settings

from orders.exceptions import HandOverRefused, InvalidStock, OrderNotCancellable
from orders.models import (
    Order,
    Payment,
    PaymentOperation,
    Reservation,
    SandboxCharge,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
    StockItem,
    StockMovement,
)
from orders.order_processing import payment_books
from orders.providers import faults
from orders.providers.base import Address, Charge, Line, Parcel, Refund
from orders.providers.errors import Declined
from orders.providers.inventory.local import LocalInventory
from orders.providers.payments.sandbox import SandboxGateway
from orders.providers.shipping.sandbox import SandboxCarrier
from orders.services import cancel_order, correct_stock, hand_over
from sagas import StepRefused, points
from sagas.queue import drive
from sagas.selectors import SagaRun, run_view
from sagas.services import abandon
from sagas.testing import Crashed, FrozenClock, RunReport, crash_at, drive_once, run_to_end
from sagas.testing import report as report_of
from tests.factories import make_order, make_product, make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, make_caller, order_body
from tests.races import during, overlapping, together

pytestmark = pytest.mark.django_db(transaction=True)

TOTAL, NOTHING = Decimal("99.99"), Decimal(0)
LEASE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
NOW = timedelta(0)
DEADLINE = timedelta(seconds=site.ORDER_DEADLINE)


class SlowGateway(SandboxGateway):
    """Stops at points of its own, so that a test can let others pass meanwhile."""

    def charge(self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, **rest: Any) -> Charge:
        points.reach("charge asked for")
        charge = super().charge(amount=amount, currency=currency, method=method, key=key, order_id=order_id)
        points.reach("charged")
        return charge

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        points.reach("refund asked for")
        return super().refund(charge_key=charge_key, key=key)


class ForgetfulGateway(SlowGateway):
    """Does not remember that it was asked to refund what it had not charged, as most do not."""

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        points.reach("refund asked for")
        return SandboxGateway.refund(self, charge_key=charge_key, key=key) if self.find_charge(key=charge_key) else None


class SlowCarrier(SandboxCarrier):
    """Stops before and after a booking."""

    def create_shipment(self, *, reference: str, address: Address, lines: Sequence[Line], key: str) -> Parcel:
        points.reach("parcel asked for")
        parcel = super().create_shipment(reference=reference, address=address, lines=lines, key=key)
        points.reach("booked")
        return parcel


class ForgetfulCarrier(SlowCarrier):
    """Does not remember that it was asked to cancel what it had not booked."""

    def cancel_shipment(self, *, reference: str, key: str) -> None:
        if self.find_shipment(reference=reference):
            super().cancel_shipment(reference=reference, key=key)


GATEWAYS = {gateway.__name__: f"{__name__}.{gateway.__name__}" for gateway in (SlowGateway, ForgetfulGateway)}


@pytest.fixture(autouse=True)
def shop(settings: Settings) -> None:
    slow = {"payments": GATEWAYS["SlowGateway"], "shipping": f"{__name__}.SlowCarrier"}
    settings.PROVIDERS = {**settings.PROVIDERS, **slow}
    make_shop()


def run_of(order: Order) -> SagaRun:
    return SagaRun.objects.get(business_key=order.order_id)


def worker(order: Order, *, later: timedelta = NOW) -> Callable[[], None]:
    """A worker of its own, by its own clock."""
    run, clock = run_of(order), FrozenClock(timezone.now() + later)
    return lambda: drive_once(run, clock=clock)


def owner_after(order: Order, *, later: timedelta = 3 * LEASE) -> Callable[[], RunReport]:
    """The next owner, who comes when the lease of the one before has ended, and stays to the end."""
    run, clock = run_of(order), FrozenClock(timezone.now() + later)
    return lambda: run_to_end(run, clock=clock)


def cancels(order: Order, *, actor: str = "user:agent") -> Order:
    return cancel_order(order_id=order.order_id, actor=actor, reason="changed their mind")


def hands_over(order: Order) -> Shipment:
    return hand_over(order_id=order.order_id, actor="user:supervisor")


def cancelled_by_the_next_owner(order: Order) -> Callable[[], RunReport]:
    def cancel_and_undo() -> RunReport:
        cancels(order)
        return owner_after(order)()

    return cancel_and_undo


def money() -> tuple[Decimal, Decimal]:
    payment = Payment.objects.get()
    return payment.charged, payment.refunded


def at_the_gateway() -> tuple[list[Decimal], list[Decimal]]:
    """What it has taken, and what it has given back."""
    charges = SandboxCharge.objects.filter(barred=False).values_list("amount", flat=True)
    return list(charges), list(SandboxRefund.objects.values_list("amount", flat=True))


def operations() -> list[tuple[str, str]]:
    return list(PaymentOperation.objects.order_by("id").values_list("kind", "status"))


def holds() -> set[str]:
    return set(Reservation.objects.values_list("status", flat=True))


def stock(sku: str = "ITEM-001") -> tuple[int, int]:
    item = StockItem.objects.get(product__sku=sku)
    return item.on_hand, item.allocated


def books_balance() -> bool:
    """Every stock item is the sum of its movements, and promises what is held of it."""
    for item in StockItem.objects.all():
        moves = list(StockMovement.objects.filter(stock=item).values_list("delta_on_hand", "delta_allocated"))
        held = sum(Reservation.objects.filter(stock=item, status="held").values_list("quantity", flat=True))
        if (item.on_hand, item.allocated) != tuple(map(sum, zip(*moves, strict=True))) or held != item.allocated:
            return False
    return True


class TestThePaymentAndItsUndo:
    """The charge comes, or turns out to have come, while the order is being undone."""

    @pytest.mark.parametrize("gateway", GATEWAYS)
    def test_the_undo_looks_before_the_charge_is_made(self, settings: Settings, gateway: str) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": GATEWAYS[gateway]}
        order = make_order()

        _, ended = during(worker(order), "charge asked for", cancelled_by_the_next_owner(order))

        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        if gateway == "SlowGateway":  # it remembers, and turns the charge away
            assert at_the_gateway() == ([], [])
            assert money() == (NOTHING, NOTHING)
            assert operations() == [("charge", "refused"), ("void", "succeeded")]
        else:
            assert at_the_gateway() == ([TOTAL], [TOTAL])
            assert money() == (TOTAL, TOTAL)
            assert operations() == [("charge", "succeeded"), ("void", "succeeded"), ("refund", "succeeded")]
        assert holds() == {"released"}

    @pytest.mark.parametrize("gateway", GATEWAYS)
    @pytest.mark.parametrize("point", ["charged", "after_call:process_payment:action"])
    def test_the_undo_finds_a_charge_of_which_nobody_was_told(
        self, settings: Settings, gateway: str, point: str
    ) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": GATEWAYS[gateway]}
        order = make_order()

        _, ended = during(worker(order), point, cancelled_by_the_next_owner(order))

        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        assert at_the_gateway() == ([TOTAL], [TOTAL])
        assert money() == (TOTAL, TOTAL)
        assert operations() == [("charge", "succeeded"), ("refund", "succeeded")]

    @pytest.mark.parametrize("gateway", GATEWAYS)
    def test_the_charge_is_made_when_the_undo_is_about_to_ask(self, settings: Settings, gateway: str) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": GATEWAYS[gateway]}
        order = make_order()
        faults.plan("payments", "refund", "silent")

        def turn_back() -> None:
            cancels(order)
            worker(order, later=2 * LEASE)()

        during(worker(order), "charge asked for", turn_back)
        assert at_the_gateway() == ([TOTAL], [TOTAL])  # whoever charged has given it back
        ended = owner_after(order, later=4 * LEASE)()

        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        assert at_the_gateway() == ([TOTAL], [TOTAL])
        assert money() == (TOTAL, TOTAL)
        assert operations() == [("charge", "succeeded"), ("refund", "succeeded")]

    @pytest.mark.parametrize("gateway", GATEWAYS)
    def test_a_second_try_that_comes_after_the_undo_charges_nothing(self, settings: Settings, gateway: str) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": GATEWAYS[gateway]}
        order = make_order()
        faults.plan("payments", "charge", "unavailable")
        worker(order)()

        _, ended = during(
            worker(order, later=MINUTE), "before_call:process_payment:action", cancelled_by_the_next_owner(order)
        )

        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        assert at_the_gateway() == ([], [])
        assert not SandboxRefund.objects.exists()
        assert money() == (NOTHING, NOTHING)
        assert {status for _, status in operations()} <= {"unavailable", "succeeded"}

    @pytest.mark.parametrize("point", ["charge asked for", "charged"])
    def test_the_next_owner_goes_forward(self, point: str) -> None:
        order = make_order()

        _, ended = during(worker(order), point, owner_after(order))

        assert ended.status == "completed"
        assert at_the_gateway() == ([TOTAL], [])
        assert money() == (TOTAL, NOTHING)
        assert operations() == [("charge", "succeeded")]

    def test_a_refund_whose_answer_was_lost_after_a_charge_whose_answer_was_lost(self) -> None:
        faults.plan("payments", "charge", "lose_answer")
        faults.plan("payments", "refund", "lose_answer")
        order = make_order()

        during(worker(order), "charged", lambda: cancels(order))
        ended = owner_after(order)()

        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        assert at_the_gateway() == ([TOTAL], [TOTAL])
        assert money() == (TOTAL, TOTAL)
        assert operations() == [("charge", "succeeded"), ("refund", "succeeded")]


class TestTheParcelAndItsUndo:
    @pytest.mark.parametrize("point", ["parcel asked for", "booked", "after_call:create_shipment:action"])
    def test_no_parcel_is_left(self, point: str) -> None:
        order = make_order()

        _, ended = during(worker(order), point, cancelled_by_the_next_owner(order))

        assert (ended.status, ended.undone) == (
            "compensated",
            ["create_shipment", "process_payment", "reserve_inventory"],
        )
        assert set(SandboxParcel.objects.values_list("status", flat=True)) == {"cancelled"}
        assert Shipment.objects.get().status == "cancelled"
        assert (stock(), holds(), money()) == ((10, 0), {"released"}, (TOTAL, TOTAL))

    def test_a_second_try_that_comes_after_the_undo_leaves_nothing(self, settings: Settings) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "shipping": f"{__name__}.ForgetfulCarrier"}
        order = make_order()
        faults.plan("shipping", "create_shipment", "unavailable")
        worker(order)()

        _, ended = during(
            worker(order, later=MINUTE), "before_call:create_shipment:action", cancelled_by_the_next_owner(order)
        )

        assert (ended.status, ended.undone[0]) == ("compensated", "create_shipment")
        assert SandboxParcel.objects.get().status == "cancelled"  # whoever booked it has called it off
        assert Shipment.objects.get().status == "cancelled"

    @pytest.mark.parametrize("point", ["parcel asked for", "booked"])
    def test_the_next_owner_goes_forward(self, point: str) -> None:
        order = make_order()

        _, ended = during(worker(order), point, owner_after(order))

        assert ended.status == "completed"
        assert SandboxParcel.objects.get().shipment_id == Shipment.objects.get(status="created").shipment_id


class TestTheConfirmationAndItsUndo:
    def test_nobody_is_told_that_a_cancelled_order_is_on_its_way(self) -> None:
        order = make_order()
        faults.plan("mail", "send", "unavailable")
        worker(order)()

        # The second try stalls before it sends.
        _, ended = during(
            worker(order, later=MINUTE),
            "before_call:send_confirmation_email:action",
            cancelled_by_the_next_owner(order),
        )

        assert (ended.status, ended.undone[0]) == ("compensated", "send_confirmation_email")
        assert [message.subject for message in mail.outbox] == ["Your order ORD-123 is cancelled"]

    def test_one_that_has_gone_out_is_followed_by_one_cancellation(self) -> None:
        order = make_order()

        _, ended = during(
            worker(order), "after_call:send_confirmation_email:action", cancelled_by_the_next_owner(order)
        )

        assert (ended.status, ended.undone[0]) == ("compensated", "send_confirmation_email")
        assert [row.kind for row in SentMessage.objects.order_by("id") if row.status == "sent"] == [
            "confirmation",
            "cancellation",
        ]
        assert len(mail.outbox) == 2


class TestTheParcelLeavesWhileItIsBooked:
    @pytest.mark.parametrize("point", ["after_call:create_shipment:action", "before_commit"])
    def test_before_the_booking_is_recorded_it_is_too_early(self, point: str) -> None:
        order = make_order()

        _, told = during(
            worker(order),
            point,
            lambda: hands_over(order),
            pass_by=2 if point == "before_commit" else 0,
        )

        assert isinstance(told, HandOverRefused)
        assert report_of(run_of(order)).status == "completed"
        assert hands_over(order).status == "handed_over"

    def test_a_deadline_that_passes_meanwhile_undoes_nothing_that_has_left(self) -> None:
        order = make_order()
        with crash_at("after_call:create_shipment:action"), pytest.raises(Crashed):
            worker(order)()

        with pytest.raises(HandOverRefused):
            hands_over(order)
        ended = owner_after(order, later=DEADLINE + SECOND)()

        assert (ended.status, ended.error_code) == ("compensated", "deadline")
        assert Shipment.objects.get().status == "cancelled"
        assert (stock(), holds(), money()) == ((10, 0), {"released"}, (TOTAL, TOTAL))


class TestACancellationAndTheHandOver:
    def test_the_cancellation_is_first(self) -> None:
        order = make_order()
        owner_after(order, later=NOW)()

        cancelled, told = overlapping(lambda: cancels(order), lambda: hands_over(order))

        assert isinstance(cancelled, Order)
        assert isinstance(told, HandOverRefused)
        assert owner_after(order)().status == "compensated"
        assert (stock(), holds(), money()) == ((10, 0), {"released"}, (TOTAL, TOTAL))
        assert not StockMovement.objects.filter(kind="ship").exists()

    def test_the_hand_over_is_first(self) -> None:
        order = make_order()
        owner_after(order, later=NOW)()

        shipment, told = overlapping(lambda: hands_over(order), lambda: cancels(order))

        assert isinstance(shipment, Shipment)
        assert isinstance(told, OrderNotCancellable)
        assert owner_after(order)().status == "completed"
        assert (stock(), holds(), money()) == ((8, 0), {"shipped"}, (TOTAL, NOTHING))

    def test_of_two_who_hand_it_over_one_moves_the_goods(self) -> None:
        order = make_order()
        owner_after(order, later=NOW)()

        first, second = overlapping(lambda: hands_over(order), lambda: hands_over(order))

        assert (first.pk, first.handed_over_at) == (second.pk, second.handed_over_at)
        assert StockMovement.objects.filter(kind="ship").count() == 2
        assert stock() == (8, 0)


class TestRefunds:
    """Never more goes back than came in."""

    def test_two_of_the_staff_cancel_the_same_order(self) -> None:
        order = make_order()
        owner_after(order, later=NOW)()

        together(lambda: cancels(order, actor="user:otto"), lambda: cancels(order, actor="user:olga"))
        together(worker(order, later=SECOND), worker(order, later=SECOND))

        assert report_of(run_of(order)).status == "compensated"
        assert at_the_gateway() == ([TOTAL], [TOTAL])
        assert money() == (TOTAL, TOTAL)
        assert [event.kind for event in run_view(run_of(order).pk).events].count("cancel_requested") == 1

    def test_a_slow_refund_and_the_next_owners(self) -> None:
        order = make_order()
        owner_after(order, later=NOW)()
        cancels(order)

        _, ended = during(worker(order, later=SECOND), "refund asked for", owner_after(order))

        assert ended.status == "compensated"
        assert at_the_gateway() == ([TOTAL], [TOTAL])
        assert money() == (TOTAL, TOTAL)
        assert operations() == [("charge", "succeeded"), ("refund", "succeeded")]

    @pytest.fixture
    def charged(self) -> Payment:
        order = make_order()
        owner_after(order, later=NOW)()
        return Payment.objects.get()

    def test_the_same_refund_said_twice_is_counted_once(self, charged: Payment) -> None:
        payment_books.open_refund(charged.order, TOTAL, "one")

        overlapping(*[lambda: payment_books.note_refund("one", amount=TOTAL, refund_id="RFN-1")] * 2)

        assert money() == (TOTAL, TOTAL)

    def test_of_two_refunds_of_one_charge_the_books_take_one(self, charged: Payment) -> None:
        payment_books.open_refund(charged.order, TOTAL, "one")
        payment_books.open_refund(charged.order, TOTAL, "other")

        _, told = overlapping(
            lambda: payment_books.note_refund("one", amount=TOTAL, refund_id="RFN-1"),
            lambda: payment_books.note_refund("other", amount=TOTAL, refund_id="RFN-2"),
        )

        assert isinstance(told, IntegrityError)
        assert "orders_payment_refunded_within_charged" in str(told)
        assert money() == (TOTAL, TOTAL)
        assert PaymentOperation.objects.get(key="other").status == "requested"

    @pytest.mark.parametrize("success_first", [True, False])
    def test_a_failure_told_late_does_not_undo_a_success(self, charged: Payment, success_first: bool) -> None:
        payment_books.open_refund(charged.order, TOTAL, "one")
        notes = [
            lambda: payment_books.note_refund("one", amount=TOTAL, refund_id="RFN-1"),
            lambda: payment_books.note_failure("one", StepRefused("No.", code="no")),
        ]

        ends = overlapping(*(notes if success_first else reversed(notes)))

        assert ends == (None, None)
        refund = PaymentOperation.objects.get(key="one")
        assert (refund.status, refund.provider_id, refund.code) == ("succeeded", "RFN-1", "")
        assert money() == (TOTAL, TOTAL)


class TestACountAndABuyer:
    """One piece is left, and the count says that it is not there."""

    @pytest.fixture(autouse=True)
    def last(self) -> None:
        make_product(sku="LAST", stock=1)

    def counts(self, difference: int = -1) -> StockItem:
        return correct_stock(sku="LAST", difference=difference, actor="user:stock", reason="counted")

    def buys(self, quantity: int = 1) -> Any:
        return LocalInventory().reserve([Line(sku="LAST", quantity=quantity)], key="run-1")

    def test_the_count_is_first(self) -> None:
        _, told = overlapping(self.counts, self.buys)

        assert isinstance(told, Declined)
        assert told.code == "insufficient_inventory"
        assert (stock("LAST"), books_balance()) == ((0, 0), True)

    def test_the_buyer_is_first(self) -> None:
        _, told = overlapping(self.buys, self.counts)

        assert isinstance(told, InvalidStock)
        assert (stock("LAST"), books_balance()) == ((1, 1), True)

    @pytest.mark.parametrize("buyer_first", [True, False])
    def test_where_both_can_be_both_count(self, buyer_first: bool) -> None:
        acts = [self.buys, lambda: self.counts(3)]

        ends = overlapping(*(acts if buyer_first else reversed(acts)))

        assert not [end for end in ends if isinstance(end, Exception)]
        assert (stock("LAST"), books_balance()) == ((4, 1), True)


class TestTheLastPieces:
    """Two orders want the last piece of two products, their lines in opposite order."""

    @pytest.fixture
    def rivals(self) -> tuple[Order, Order]:
        for sku in ("LAST-1", "LAST-2"):
            make_product(sku=sku, price="10.00", stock=1)
        lines = [{"sku": "LAST-1", "quantity": 1}, {"sku": "LAST-2", "quantity": 1}]
        one = make_order(order_id="ORD-1", items=lines, total_amount=20)
        return one, make_order(order_id="ORD-2", items=lines[::-1], total_amount=20)

    def one_has_both(self, winner: Order, loser: Order) -> None:
        assert report_of(run_of(winner)).status == "completed"
        lost = report_of(run_of(loser))
        assert (lost.status, lost.error_code, lost.undone) == ("compensated", "insufficient_inventory", [])
        assert not Reservation.objects.filter(key__startswith=str(loser.run_id)).exists()
        assert not Payment.objects.filter(order=loser).exists()
        assert (stock("LAST-1"), stock("LAST-2"), books_balance()) == ((1, 1), (1, 1), True)

    def test_the_second_is_first(self, rivals: tuple[Order, Order]) -> None:
        one, other = rivals

        during(worker(one), "before_call:reserve_inventory:action", worker(other))

        self.one_has_both(other, one)

    def test_the_first_is_first(self, rivals: tuple[Order, Order]) -> None:
        one, other = rivals

        during(worker(one), "after_call:reserve_inventory:action", worker(other))

        self.one_has_both(one, other)

    @pytest.mark.parametrize("turned", [False, True])
    def test_the_second_wants_them_while_the_first_is_taking_them(self, turned: bool) -> None:
        for sku in ("LAST-1", "LAST-2"):
            make_product(sku=sku, stock=1)
        lines = [Line(sku="LAST-1", quantity=1), Line(sku="LAST-2", quantity=1)]
        ways = [lines[::-1], lines] if turned else [lines, lines[::-1]]

        _, told = overlapping(
            lambda: LocalInventory().reserve(ways[0], key="run-1"),
            lambda: LocalInventory().reserve(ways[1], key="run-2"),
        )

        assert isinstance(told, Declined)
        assert told.code == "insufficient_inventory"
        assert Reservation.objects.filter(key="run-1", status="held").count() == 2
        assert not Reservation.objects.filter(key="run-2").exists()

    def test_at_once_one_of_them_gets_both(self, rivals: tuple[Order, Order]) -> None:
        together(*map(worker, rivals))

        won = [order for order in rivals if report_of(run_of(order)).status == "completed"]
        assert len(won) == 1
        self.one_has_both(won[0], *(order for order in rivals if order != won[0]))


def test_two_hundred_buyers_of_a_hundred_pieces() -> None:
    for sku in ("RARE-1", "RARE-2"):
        make_product(sku=sku, price="10.00", stock=100)
    lines = [{"sku": "RARE-1", "quantity": 1}, {"sku": "RARE-2", "quantity": 1}]

    def buy(number: int) -> Order:
        try:
            return make_order(order_id=f"ORD-{number}", items=lines[:: 1 if number % 2 else -1], total_amount=20)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as buyers:
        orders = list(buyers.map(buy, range(200)))
    together(drive, drive, drive)

    ended = [report_of(run_of(order)) for order in orders]
    lost = [one for one in ended if one.status == "compensated"]
    assert sum(one.status == "completed" for one in ended) == 100
    assert {(one.error_code, tuple(one.undone)) for one in lost} == {("insufficient_inventory", ())}
    assert len(lost) == 100
    assert (stock("RARE-1"), stock("RARE-2"), books_balance()) == ((100, 100), (100, 100), True)
    assert Reservation.objects.count() == StockMovement.objects.filter(kind="reserve").count() == 200
    assert holds() == {"held"}
    assert len(at_the_gateway()[0]) == Payment.objects.filter(charged=20, refunded=0).count() == 100


class TestTheSameOrderFiftyTimes:
    @pytest.fixture
    def ada(self) -> Caller:
        return make_caller(make_user())

    def posts(self, ada: Caller, *keys: str) -> list[Any]:
        """All at once, each by a client of its own."""

        def post(key: str) -> Callable[[], Any]:
            caller = Caller()
            caller.headers = ada.headers
            return lambda: caller.post(ORDERS, order_body(), Idempotency_Key=key)

        return together(*map(post, keys))

    def one_order(self) -> None:
        assert (Order.objects.count(), SagaRun.objects.count(), OrmQ.objects.count()) == (1, 1, 1)
        assert drive() == 1
        assert (at_the_gateway(), stock()) == (([TOTAL], []), (10, 2))

    def test_under_fifty_keys(self, ada: Caller) -> None:
        answers = self.posts(ada, *(f"key-{number}" for number in range(50)))

        assert {answer.status_code for answer in answers} == {202}
        assert {answer.json()["order_id"] for answer in answers} == {"ORD-123"}
        self.one_order()

    def test_under_one_key(self, ada: Caller) -> None:
        answers = self.posts(ada, *["one"] * 50)

        placed = [answer for answer in answers if answer.status_code == 202]
        busy = [answer for answer in answers if answer.status_code == 409]
        assert len(placed) + len(busy) == 50
        assert {answer.json()["code"] for answer in busy} <= {"idempotency-in-progress"}
        assert {answer.headers["Retry-After"] for answer in busy} <= {"1"}
        assert len({answer.content for answer in placed}) == 1
        assert [answer.headers.get("Idempotent-Replayed") for answer in placed].count(None) == 1
        assert self.posts(ada, "one")[0].content == placed[0].content
        self.one_order()


class TestTheEndOfAHold:
    """A hold ends with its run, and a run that takes too long turns back: see docs/decisions/0005."""

    def test_it_ends_before_the_payment_was_asked_for(self) -> None:
        order = make_order()
        late = owner_after(order, later=DEADLINE + SECOND)

        # The worker stalls between the hold and the payment.
        _, ended = during(worker(order), "before_call:process_payment:action", late)

        assert (ended.status, ended.error_code) == ("compensated", "deadline")
        assert at_the_gateway() == ([], [])
        assert (stock(), holds(), books_balance()) == ((10, 0), {"released"}, True)

    def test_it_ends_while_the_payment_is_asked_for(self) -> None:
        order = make_order()
        run, clock = run_of(order), FrozenClock()
        held_meanwhile: list[Any] = []

        def pass_the_deadline() -> None:
            clock.advance(DEADLINE + SECOND)
            held_meanwhile.append((drive(), holds()))

        during(lambda: drive_once(run, clock=clock), "charge asked for", pass_the_deadline)

        # What is under way ends first; then the money goes back, and only then do the goods.
        assert held_meanwhile == [(0, {"held"})]
        ended = report_of(run)
        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        assert (at_the_gateway(), money()) == (([TOTAL], [TOTAL]), (TOTAL, TOTAL))
        assert (stock(), holds(), books_balance()) == ((10, 0), {"released"}, True)

    @pytest.mark.parametrize("point", ["charge asked for", "charged"])
    def test_another_ends_it_while_the_payment_is_asked_for(self, point: str) -> None:
        order = make_order()

        _, ended = during(worker(order), point, owner_after(order, later=DEADLINE + SECOND))

        assert (ended.status, ended.error_code) == ("compensated", "deadline")
        taken, given_back = at_the_gateway()
        assert taken == given_back == ([TOTAL] if point == "charged" else [])
        assert (stock(), holds(), books_balance()) == ((10, 0), {"released"}, True)

    def test_it_lasts_until_the_money_is_back(self) -> None:
        order = make_order()
        faults.plan("payments", "charge", "lose_answer")
        faults.plan("payments", "refund", "unavailable", times=2)
        faults.plan("payments", "find_charge", "unavailable", times=50)
        clock = FrozenClock()
        drive_once(run_of(order), clock=clock)

        clock.advance(DEADLINE + SECOND)
        for _ in range(2):
            drive_once(run_of(order), clock=clock)
            assert holds() == {"held"}
            clock.advance(10 * MINUTE)
        faults.clear()
        ended = run_to_end(run_of(order), clock=clock)

        assert (ended.status, ended.undone) == ("compensated", ["process_payment", "reserve_inventory"])
        assert (money(), holds(), stock()) == ((TOTAL, TOTAL), {"released"}, (10, 0))

    def test_a_refund_that_is_refused_keeps_nobody_from_the_goods(self) -> None:
        order = make_order(card_token="tok_refund_refused")
        owner_after(order, later=NOW)()
        cancels(order)

        ended = owner_after(order)()

        assert ended.status == "needs_attention"
        assert (money(), holds(), stock()) == ((TOTAL, NOTHING), {"released"}, (10, 0))

    def test_a_run_that_is_given_up_keeps_it_and_says_so(self) -> None:
        order = make_order()
        faults.plan("payments", "charge", "silent", times=50)
        faults.plan("payments", "find_charge", "unavailable", times=50)
        assert owner_after(order, later=NOW)().status == "needs_attention"

        abandon(run_id=run_of(order).pk, actor="user:supervisor", reason="it is hopeless")

        assert holds() == {"held"}
        event = run_view(run_of(order).pk).events[-1]
        assert (event.kind, event.data) == ("abandoned", {"left_undone": ["process_payment", "reserve_inventory"]})

    def test_a_parcel_that_was_booked_in_time_keeps_it(self) -> None:
        order = make_order()
        faults.plan("mail", "send", "unavailable")
        worker(order)()

        ended = owner_after(order, later=DEADLINE + SECOND)()

        assert (ended.status, ended.undone, holds()) == ("completed", [], {"held"})

    @pytest.mark.parametrize("point", ["before_commit", "after_call:create_shipment:action"])
    def test_a_deadline_beside_the_booking_undoes_all_or_nothing(self, point: str) -> None:
        order = make_order()

        during(worker(order), point, owner_after(order, later=DEADLINE + SECOND), pass_by=int(point == "before_commit"))

        assert report_of(run_of(order)).status == "compensated"
        assert (Shipment.objects.filter(status="created").count(), holds()) == (0, {"released"})
        assert money()[0] == money()[1]
