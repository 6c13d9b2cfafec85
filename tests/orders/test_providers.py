"""What is the embedded providers' own, beside the contract in test_contract.py: books, test words, planned faults."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import django
import pytest
from django.core import mail as outbox
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from pytest_django import Settings

from orders.models import (
    FaultPlan,
    Reservation,
    SandboxCharge,
    SandboxMail,
    SandboxParcel,
    SandboxRefund,
    StockItem,
    StockMovement,
)
from orders.providers import faults, get_inventory, get_mail, get_payments, get_shipping
from orders.providers.base import (
    Address,
    Carrier,
    Charge,
    Line,
    Message,
    Parcel,
    PaymentGateway,
    Reserved,
)
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.faults import Faulty
from orders.providers.inventory.local import LocalInventory, ship_reserved
from orders.providers.mail.django import DjangoMail
from orders.providers.payments.sandbox import SandboxGateway
from orders.providers.shipping.sandbox import SandboxCarrier
from tests.factories import make_product
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)

TOTAL = Decimal("99.99")
KEY, UNDO_KEY = "run-1:step:action", "run-1:step:compensation"
LINES = [Line(sku="ITEM-001", quantity=2), Line(sku="ITEM-002", quantity=1)]
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")
MESSAGE = Message(recipient="ada@example.com", subject="Your order", body="It is on its way.", html="<p>It is.</p>")


def refusal(call: Callable[[], Any]) -> ProviderError:
    """The Declined that `call` ends in."""
    with pytest.raises(Declined) as caught:
        call()
    return caught.value


def stock() -> dict[str, tuple[int, int]]:
    """SKU -> (on hand, allocated)."""
    return {item.product.sku: (item.on_hand, item.allocated) for item in StockItem.objects.select_related("product")}


def movements() -> list[tuple[str, str, int, int]]:
    """(SKU, kind, change on hand, change allocated), without the first deliveries, in the order of the SKUs."""
    rows = StockMovement.objects.exclude(kind="receive").select_related("stock__product").order_by("id")
    return [(row.stock.product.sku, row.kind, row.delta_on_hand, row.delta_allocated) for row in rows]


class TestLocalInventory:
    """What our own tables show, beside keeping the contract."""

    @pytest.fixture(autouse=True)
    def shop(self) -> None:
        make_product(sku="ITEM-002", stock=10)  # in another order than the SKUs'
        make_product(sku="ITEM-001", stock=10)

    def test_lines_of_the_same_product_are_one(self) -> None:
        reserved = LocalInventory().reserve(
            [Line(sku="ITEM-001", quantity=6), Line(sku="ITEM-001", quantity=4)], key=KEY
        )

        assert [(item.sku, item.quantity) for item in reserved.items] == [("ITEM-001", 10)]

    def test_lines_that_only_together_are_too_many_are_refused(self) -> None:
        lines = [Line(sku="ITEM-001", quantity=6), Line(sku="ITEM-001", quantity=5)]

        assert refusal(lambda: LocalInventory().reserve(lines, key=KEY)).code == "insufficient_inventory"
        assert stock()["ITEM-001"] == (10, 0)

    @pytest.mark.parametrize("quantity", [11, 2**31 - 1, 2**31])
    def test_too_few_of_one_hold_nothing_of_any(self, quantity: int) -> None:
        lines = [Line(sku="ITEM-001", quantity=2), Line(sku="ITEM-002", quantity=quantity)]

        error = refusal(lambda: LocalInventory().reserve(lines, key=KEY))

        assert error.code == "insufficient_inventory"
        assert f"There are not {quantity} of ITEM-002 in stock." in str(error)
        assert LocalInventory().find_reservation(key=KEY) is None
        assert stock() == {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}

    def test_of_many_buyers_exactly_as_many_as_there_are_pieces_get_one(self) -> None:
        StockItem.objects.filter(product__sku="ITEM-001").update(on_hand=3)

        def buyer(number: int) -> Callable[[], Any]:
            return lambda: LocalInventory().reserve([Line(sku="ITEM-001", quantity=1)], key=f"run-{number}")

        ends = together(*map(buyer, range(8)))

        assert sum(isinstance(end, Reserved) for end in ends) == 3
        assert [end.code for end in ends if isinstance(end, Declined)] == ["insufficient_inventory"] * 5
        assert stock()["ITEM-001"] == (3, 3)

    def test_buyers_in_opposite_orders_do_not_wait_for_one_another(self) -> None:
        def buyer(number: int) -> Callable[[], Any]:
            lines = [Line(sku=sku, quantity=1) for sku in ("ITEM-001", "ITEM-002")]
            return lambda: LocalInventory().reserve(lines[:: 1 if number % 2 else -1], key=f"run-{number}")

        def returner(number: int) -> Callable[[], Any]:
            return lambda: LocalInventory().release(action_key=f"old-{number}", key=f"old-{number}-undo")

        for number in range(3):
            LocalInventory().reserve(LINES[::-1], key=f"old-{number}")
        ends = together(*map(buyer, range(4)), *map(returner, range(3)))

        assert [type(end) for end in ends] == [Reserved] * 7
        assert stock() == {"ITEM-001": (10, 4), "ITEM-002": (10, 4)}

    def test_each_change_is_a_movement_with_what_it_came_to(self) -> None:
        inventory = LocalInventory()

        inventory.reserve(LINES, key=KEY)
        inventory.release(action_key=KEY, key=UNDO_KEY)

        assert movements() == [
            ("ITEM-002", "reserve", 0, 1),
            ("ITEM-001", "reserve", 0, 2),
            ("ITEM-002", "release", 0, -1),
            ("ITEM-001", "release", 0, -2),
        ]
        last = StockMovement.objects.latest("id")
        assert (last.on_hand_after, last.allocated_after, last.key, last.actor) == (10, 0, UNDO_KEY, "engine")

    def test_the_books_add_up(self) -> None:
        inventory = LocalInventory()
        for number in range(4):
            inventory.reserve(LINES, key=f"run-{number}")
        inventory.release(action_key="run-1", key="run-1-undo")
        ship_reserved(key="run-2", actor="user:supervisor")

        for item in StockItem.objects.all():
            rows = list(StockMovement.objects.filter(stock=item))
            held = Reservation.objects.filter(stock=item, status="held")
            assert item.on_hand == sum(row.delta_on_hand for row in rows)
            assert item.allocated == sum(row.delta_allocated for row in rows) == sum(row.quantity for row in held)

    def test_what_was_shipped_has_left_and_does_not_come_back(self) -> None:
        inventory = LocalInventory()
        reserved = inventory.reserve(LINES, key=KEY)

        ship_reserved(key=KEY, actor="user:supervisor")
        ship_reserved(key=KEY, actor="user:supervisor")

        assert stock() == {"ITEM-001": (8, 0), "ITEM-002": (9, 0)}
        assert movements()[2:] == [("ITEM-002", "ship", -1, -1), ("ITEM-001", "ship", -2, -2)]
        assert inventory.find_reservation(key=KEY) == reserved
        assert inventory.release(action_key=KEY, key=UNDO_KEY) == Reserved(items=())
        assert stock() == {"ITEM-001": (8, 0), "ITEM-002": (9, 0)}

    def test_a_rolled_back_reservation_never_was(self) -> None:
        with transaction.atomic():
            LocalInventory().reserve(LINES, key=KEY)
            transaction.set_rollback(True)

        assert LocalInventory().find_reservation(key=KEY) is None
        assert movements() == []

    @pytest.mark.parametrize("quantity", [0, -1])
    def test_a_line_of_less_than_one_piece_cannot_be_asked_for(self, quantity: int) -> None:
        with pytest.raises(ValueError, match="A line is at least 1 piece"):
            Line(sku="ITEM-001", quantity=quantity)


def charge(gateway: PaymentGateway, **changes: Any) -> Charge:
    given = {"amount": TOTAL, "currency": "EUR", "method": "tok_visa", "key": KEY, "order_id": "ORD-123", **changes}
    return gateway.charge(**given)


class TestSandboxGateway:
    def test_two_refunds_of_one_charge_never_give_back_more_than_came_in(self) -> None:
        charge(SandboxGateway())

        ends = together(
            lambda: SandboxGateway().refund(charge_key=KEY, key=UNDO_KEY),
            lambda: SandboxGateway().refund(charge_key=KEY, key="by hand"),
        )

        assert sorted(end.code for end in ends if isinstance(end, Declined)) == ["already_refunded"]
        assert [row.amount for row in SandboxRefund.objects.all()] == [TOTAL]

    def test_a_refund_can_be_refused(self) -> None:
        made = charge(SandboxGateway(), method="tok_refund_refused")

        error = refusal(lambda: SandboxGateway().refund(charge_key=KEY, key=UNDO_KEY))

        assert (error.code, error.provider_id) == ("charge_disputed", made.transaction_id)
        assert SandboxGateway().find_refund(key=UNDO_KEY) is None

    def test_a_refund_can_fail_for_as_long_as_an_undo_tries(self, settings: Settings) -> None:
        settings.ORDER_PATIENT_ATTEMPTS = 2
        charge(SandboxGateway(), method="tok_refund_fails")

        for _ in range(2):
            with pytest.raises(Unavailable):
                SandboxGateway().refund(charge_key=KEY, key=UNDO_KEY)
        assert not SandboxRefund.objects.exists()

        assert (
            SandboxGateway().refund(charge_key=KEY, key=UNDO_KEY)
            == SandboxGateway().find_refund(key=UNDO_KEY)
            is not None
        )

    def test_a_test_card_is_refused_by_its_name(self) -> None:
        codes = {"tok_declined": "card_declined", "tok_insufficient_funds": "insufficient_funds"}

        assert {name: refusal(partial(charge, SandboxGateway(), method=name)).code for name in codes} == codes
        assert not SandboxCharge.objects.exists()


def book(carrier: Carrier, **changes: Any) -> Parcel:
    postcode = changes.pop("postcode", HOME.postcode)
    address = Address(name=HOME.name, line1=HOME.line1, city=HOME.city, postcode=postcode, country=HOME.country)
    given = {"reference": "REF-1", "address": address, "lines": LINES, "key": KEY, **changes}
    return carrier.create_shipment(**given)


class FailingBackend(BaseEmailBackend):
    """A mail server that fails the way `error` says."""

    error: Exception

    def send_messages(self, messages: Sequence[EmailMessage]) -> int:
        raise self.error


class TestDjangoMail:
    def test_a_mail_bears_an_id_made_from_its_key(self) -> None:
        DjangoMail().send(MESSAGE, key=KEY)
        SandboxMail.objects.all()._raw_delete(using="default")  # the process died before it could note it
        DjangoMail().send(MESSAGE, key=KEY)
        DjangoMail().send(MESSAGE, key="another")

        assert [(mail.to, mail.subject, mail.body) for mail in outbox.outbox] == [
            (["ada@example.com"], "Your order", "It is on its way.")
        ] * 3
        first, doubled, other = [mail.extra_headers["Message-ID"] for mail in outbox.outbox]
        assert first == doubled != other
        assert first.endswith("@example.com>")
        assert "<p>It is.</p>" in outbox.outbox[0].message().as_string()

    @pytest.mark.parametrize(
        ("error", "kind", "code"),
        [
            (smtplib.SMTPRecipientsRefused({"a": (550, b"no")}), Declined, "bad_address"),
            (smtplib.SMTPRecipientsRefused({"a": (451, b"later")}), Unavailable, "unavailable"),
            (smtplib.SMTPDataError(554, b"no"), Declined, "bad_message"),
            (smtplib.SMTPDataError(451, b"later"), Unavailable, "unavailable"),
            (smtplib.SMTPAuthenticationError(535, b"who are you"), Unavailable, "unavailable"),
            (smtplib.SMTPServerDisconnected("gone"), Unavailable, "unavailable"),
            (ConnectionRefusedError(), Unavailable, "unavailable"),
            (TimeoutError(), Unavailable, "unavailable"),
            (ValueError("a line break in a header"), Declined, "bad_message"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
    )
    def test_a_failure_of_the_server_means(
        self,
        error: Exception,
        kind: type[ProviderError],
        code: str,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(FailingBackend, "error", error, raising=False)
        backend = f"{__name__}.{FailingBackend.__name__}"
        if django.VERSION >= (6, 1):
            settings.MAILERS = {"default": {"BACKEND": backend}}
        else:
            settings.EMAIL_BACKEND = backend

        with pytest.raises(kind) as caught:
            DjangoMail().send(MESSAGE, key=KEY)

        assert (caught.value.code, caught.value.__cause__) == (code, error)
        assert DjangoMail().find(key=KEY) is None

    def test_a_subject_with_a_line_break_is_refused(self) -> None:
        message = Message(recipient="ada@example.com", subject="Your order\nBcc: all@example.com", body="Hello")

        assert refusal(lambda: DjangoMail().send(message, key=KEY)).code == "bad_message"
        assert outbox.outbox == []

    def test_outside_the_demo_a_test_address_is_like_any_other(self, settings: Settings) -> None:
        settings.DEMO = False

        DjangoMail().send(Message(recipient="bounces@example.com", subject="s", body="b"), key=KEY)

        assert [mail.to for mail in outbox.outbox] == [["bounces@example.com"]]


class TestOutsideSystems:
    """The embedded ones behave as if they were somebody else's machines."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda: charge(SandboxGateway()),
            lambda: SandboxGateway().refund(charge_key=KEY, key=UNDO_KEY),
            lambda: book(SandboxCarrier()),
            lambda: SandboxCarrier().cancel_shipment(reference="REF-1", key=UNDO_KEY),
        ],
        ids=["charge", "refund", "create_shipment", "cancel_shipment"],
    )
    def test_they_refuse_to_be_called_inside_a_transaction(self, call: Callable[[], Any]) -> None:
        with transaction.atomic(), pytest.raises(RuntimeError, match="durable atomic block"):
            call()

        assert not SandboxCharge.objects.exists()
        assert not SandboxParcel.objects.exists()

    def test_what_they_did_is_there_before_the_answer_is_lost(self) -> None:
        def seen_from_elsewhere() -> int:
            return SandboxCharge.objects.count()

        with pytest.raises(OutcomeUnknown):
            charge(SandboxGateway(), method="tok_lose_answer")

        assert together(seen_from_elsewhere) == [1]


PROVIDERS: list[tuple[str, str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    # provider, operation, the call, and how to see afterwards whether it happened
    ("inventory", "reserve", lambda p: p.reserve(LINES, key=KEY), lambda p: p.find_reservation(key=KEY)),
    ("payments", "charge", charge, lambda p: p.find_charge(key=KEY)),
    ("shipping", "create_shipment", book, lambda p: p.find_shipment(reference="REF-1")),
    ("mail", "send", lambda p: p.send(MESSAGE, key=KEY), lambda p: p.find(key=KEY)),
]
INSIDE: dict[str, Callable[[], Any]] = {
    "inventory": LocalInventory,
    "payments": SandboxGateway,
    "shipping": SandboxCarrier,
    "mail": DjangoMail,
}


@pytest.mark.parametrize(("provider", "operation", "call", "find"), PROVIDERS, ids=[row[0] for row in PROVIDERS])
class TestFaults:
    @pytest.fixture(autouse=True)
    def shop(self) -> Iterator[None]:
        make_product(sku="ITEM-001")
        make_product(sku="ITEM-002")
        self.waits: list[float] = []
        yield
        assert not FaultPlan.objects.filter(remaining__gt=0).exists()

    def faulty(self, provider: str) -> Faulty:
        return Faulty(provider, INSIDE[provider](), wait=self.waits.append)

    def test_says_no(self, provider: str, operation: str, call: Any, find: Any) -> None:
        faults.plan(provider, operation, "refuse", code="not_today")

        error = refusal(lambda: call(self.faulty(provider)))

        assert (error.provider, error.operation, error.code) == (provider, operation, "not_today")
        assert find(self.faulty(provider)) is None

    def test_is_away_as_often_as_planned_and_then_back(
        self, provider: str, operation: str, call: Any, find: Any
    ) -> None:
        faults.plan(provider, operation, "unavailable", times=2)

        for _ in range(2):
            with pytest.raises(Unavailable):
                call(self.faulty(provider))
        assert find(self.faulty(provider)) is None

        assert call(self.faulty(provider)) == find(self.faulty(provider))
        assert FaultPlan.objects.get().fired == 2

    def test_does_it_and_loses_the_answer(self, provider: str, operation: str, call: Any, find: Any) -> None:
        faults.plan(provider, operation, "lose_answer")

        with pytest.raises(OutcomeUnknown):
            call(self.faulty(provider))

        found = find(self.faulty(provider))
        assert found is not None
        assert call(self.faulty(provider)) == found

    def test_does_nothing_and_stays_silent(self, provider: str, operation: str, call: Any, find: Any) -> None:
        faults.plan(provider, operation, "silent")

        with pytest.raises(OutcomeUnknown):
            call(self.faulty(provider))

        assert find(self.faulty(provider)) is None

    def test_is_slow_and_does_it(self, provider: str, operation: str, call: Any, find: Any) -> None:
        faults.plan(provider, operation, "slow", seconds=2.5)

        assert call(self.faulty(provider)) == find(self.faulty(provider))
        assert self.waits == [2.5]

    def test_a_look_up_can_fail_too(self, provider: str, operation: str, call: Any, find: Any) -> None:
        look_up = {"inventory": "find_reservation", "payments": "find_charge", "shipping": "find_shipment"}
        faults.plan(provider, look_up.get(provider, "find"), "unavailable")
        made = call(self.faulty(provider))

        with pytest.raises(Unavailable):
            find(self.faulty(provider))

        assert find(self.faulty(provider)) == made


class TestPlans:
    def test_a_plan_concerns_calls_that_name_its_match(self) -> None:
        faults.plan("payments", "charge", "unavailable", match="ORD-7'")
        gateway = get_payments()

        assert charge(gateway, order_id="ORD-123").amount == TOTAL
        with pytest.raises(Unavailable):
            charge(gateway, order_id="ORD-7", key="another")

        assert FaultPlan.objects.get().remaining == 0

    def test_plans_come_true_one_after_the_other(self) -> None:
        faults.plan("payments", "charge", "unavailable")
        faults.plan("payments", "charge", "refuse")

        with pytest.raises(Unavailable):
            charge(get_payments())
        with pytest.raises(Declined):
            charge(get_payments())
        assert charge(get_payments()).amount == TOTAL

    def test_a_failure_planned_once_happens_once_among_many(self) -> None:
        faults.plan("payments", "charge", "unavailable")

        ends = together(*[lambda: charge(get_payments())] * 4)

        assert sorted(type(end).__name__ for end in ends) == ["Charge", "Charge", "Charge", "Unavailable"]
        assert FaultPlan.objects.get().fired == 1

    def test_a_lost_answer_may_have_been_a_no(self) -> None:
        faults.plan("payments", "charge", "lose_answer")

        with pytest.raises(OutcomeUnknown):
            charge(get_payments(), method="tok_declined")

        assert get_payments().find_charge(key=KEY) is None

    def test_cleared_plans_do_not_come_true(self) -> None:
        faults.plan("payments", "charge", "unavailable", times=9)

        faults.clear()

        assert charge(get_payments()).amount == TOTAL

    @pytest.mark.parametrize(
        ("provider", "operation", "kind"),
        [("bank", "charge", "refuse"), ("payments", "chrage", "refuse"), ("payments", "charge", "explode")],
    )
    def test_what_can_never_come_true_cannot_be_planned(self, provider: str, operation: str, kind: str) -> None:
        with pytest.raises(ValueError, match=r"could fail|is not a valid"):
            faults.plan(provider, operation, kind)

        assert not FaultPlan.objects.exists()


class TestChoosing:
    def test_settings_name_the_providers(self) -> None:
        chosen = [get_inventory(), get_payments(), get_shipping(), get_mail()]

        assert [type(provider) for provider in chosen] == [Faulty] * 4
        assert get_payments() is get_payments()

    def test_without_faults_the_provider_stands_alone(self, settings: Settings) -> None:
        settings.FAULTS = False

        assert isinstance(get_inventory(), LocalInventory)
        assert isinstance(get_payments(), SandboxGateway)
        assert isinstance(get_shipping(), SandboxCarrier)
        assert isinstance(get_mail(), DjangoMail)

    def test_a_provider_that_is_not_there_is_named(self, settings: Settings) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": "shop.bank.Bank"}

        with pytest.raises(ImproperlyConfigured, match=r"PROVIDERS\['payments'\] is 'shop\.bank\.Bank'"):
            get_payments()


def test_errors_say_whose_they_are_and_show_no_card() -> None:
    error = refusal(lambda: charge(SandboxGateway(), method="tok_declined"))

    assert str(error) == "sandbox gateway charge: The card was declined. (card_declined)"
    assert "tok_" not in repr(error)
