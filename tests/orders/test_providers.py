"""One contract for every provider, the embedded ones and those wrapped by faults; then what is each one's own."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import django
import pytest
from django.core import mail as outbox
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.utils import timezone
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
    InventoryService,
    Line,
    Mailer,
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

# A provider of one's own joins the suite by a line here.
INVENTORIES: dict[str, Callable[[], Any]] = {
    "local": LocalInventory,
    "local within faults": lambda: Faulty("inventory", LocalInventory()),
}
GATEWAYS: dict[str, Callable[[], Any]] = {
    "sandbox": SandboxGateway,
    "sandbox within faults": lambda: Faulty("payments", SandboxGateway()),
}
CARRIERS: dict[str, Callable[[], Any]] = {
    "sandbox": SandboxCarrier,
    "sandbox within faults": lambda: Faulty("shipping", SandboxCarrier()),
}
MAILERS: dict[str, Callable[[], Any]] = {
    "django": DjangoMail,
    "django within faults": lambda: Faulty("mail", DjangoMail()),
}


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


class TestInventory:
    @pytest.fixture(params=INVENTORIES)
    def inventory(self, request: pytest.FixtureRequest) -> InventoryService:
        make_product(sku="ITEM-002", stock=10)  # so that the keys of the rows go the other way than the SKUs
        make_product(sku="ITEM-001", stock=10)
        service: InventoryService = INVENTORIES[request.param]()
        return service

    def test_all_lines_are_held(self, inventory: InventoryService) -> None:
        reserved = inventory.reserve(LINES, key=KEY)

        assert [(item.sku, item.quantity) for item in reserved.items] == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert len({item.reservation_id for item in reserved.items}) == 2
        assert inventory.find_reservation(key=KEY) == reserved
        assert stock() == {"ITEM-001": (10, 2), "ITEM-002": (10, 1)}

    def test_lines_of_the_same_product_are_one(self, inventory: InventoryService) -> None:
        reserved = inventory.reserve([Line(sku="ITEM-001", quantity=6), Line(sku="ITEM-001", quantity=4)], key=KEY)

        assert [(item.sku, item.quantity) for item in reserved.items] == [("ITEM-001", 10)]

    def test_lines_that_only_together_are_too_many_are_refused(self, inventory: InventoryService) -> None:
        lines = [Line(sku="ITEM-001", quantity=6), Line(sku="ITEM-001", quantity=5)]

        assert refusal(lambda: inventory.reserve(lines, key=KEY)).code == "insufficient_inventory"
        assert stock()["ITEM-001"] == (10, 0)

    @pytest.mark.parametrize("quantity", [11, 2**31 - 1, 2**31])
    def test_too_few_of_one_hold_nothing_of_any(self, inventory: InventoryService, quantity: int) -> None:
        lines = [Line(sku="ITEM-001", quantity=2), Line(sku="ITEM-002", quantity=quantity)]

        error = refusal(lambda: inventory.reserve(lines, key=KEY))

        assert error.code == "insufficient_inventory"
        assert f"There are not {quantity} of ITEM-002 in stock." in str(error)
        assert inventory.find_reservation(key=KEY) is None
        assert stock() == {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}

    def test_an_unknown_product_holds_nothing(self, inventory: InventoryService) -> None:
        lines = [*LINES, Line(sku="ITEM-404", quantity=1)]

        assert refusal(lambda: inventory.reserve(lines, key=KEY)).code == "unknown_sku"
        assert stock() == {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}

    def test_after_a_refusal_the_same_key_may_ask_again(self, inventory: InventoryService) -> None:
        refusal(lambda: inventory.reserve([Line(sku="ITEM-001", quantity=11)], key=KEY))

        reserved = inventory.reserve([Line(sku="ITEM-001", quantity=10)], key=KEY)

        assert inventory.find_reservation(key=KEY) == reserved

    def test_the_same_key_holds_once(self, inventory: InventoryService) -> None:
        assert inventory.reserve(LINES, key=KEY) == inventory.reserve(LINES, key=KEY)
        assert stock() == {"ITEM-001": (10, 2), "ITEM-002": (10, 1)}

    def test_the_same_key_at_once_holds_once(self, inventory: InventoryService) -> None:
        ends = together(*[lambda: inventory.reserve(LINES, key=KEY)] * 4)

        assert ends == [inventory.find_reservation(key=KEY)] * 4
        assert stock() == {"ITEM-001": (10, 2), "ITEM-002": (10, 1)}

    def test_nothing_is_known_of_a_key_that_was_never_used(self, inventory: InventoryService) -> None:
        assert inventory.find_reservation(key=KEY) is None

    def test_a_release_gives_everything_back(self, inventory: InventoryService) -> None:
        reserved = inventory.reserve(LINES, key=KEY)

        assert inventory.release(action_key=KEY, key=UNDO_KEY) == reserved
        assert inventory.find_reservation(key=KEY) is None
        assert stock() == {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}

    def test_releasing_twice_is_releasing_once(self, inventory: InventoryService) -> None:
        inventory.reserve([Line(sku="ITEM-001", quantity=2)], key="another order")
        reserved = inventory.reserve(LINES, key=KEY)

        ends = together(*[lambda: inventory.release(action_key=KEY, key=UNDO_KEY)] * 2)

        assert [*ends, inventory.release(action_key=KEY, key=UNDO_KEY)] == [reserved] * 3
        assert stock() == {"ITEM-001": (10, 2), "ITEM-002": (10, 0)}

    def test_released_before_it_was_held_it_is_turned_away(self, inventory: InventoryService) -> None:
        assert inventory.release(action_key=KEY, key=UNDO_KEY) == Reserved(items=())

        assert refusal(lambda: inventory.reserve(LINES, key=KEY)).code == "already_undone"
        assert stock() == {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}

    def test_holding_and_releasing_at_once_ends_with_nothing_held(self, inventory: InventoryService) -> None:
        held, released = together(
            lambda: inventory.reserve(LINES, key=KEY), lambda: inventory.release(action_key=KEY, key=UNDO_KEY)
        )

        if isinstance(held, Declined):
            assert (held.code, released) == ("already_undone", Reserved(items=()))
        else:
            assert held == released
        assert stock() == {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}

    def test_of_many_buyers_exactly_as_many_as_there_are_pieces_get_one(self, inventory: InventoryService) -> None:
        StockItem.objects.filter(product__sku="ITEM-001").update(on_hand=3)

        def buyer(number: int) -> Callable[[], Any]:
            return lambda: inventory.reserve([Line(sku="ITEM-001", quantity=1)], key=f"run-{number}")

        ends = together(*map(buyer, range(8)))

        assert sum(isinstance(end, Reserved) for end in ends) == 3
        assert [end.code for end in ends if isinstance(end, Declined)] == ["insufficient_inventory"] * 5
        assert stock()["ITEM-001"] == (3, 3)

    def test_buyers_in_opposite_orders_do_not_wait_for_one_another(self, inventory: InventoryService) -> None:
        def buyer(number: int) -> Callable[[], Any]:
            lines = [Line(sku=sku, quantity=1) for sku in ("ITEM-001", "ITEM-002")]
            return lambda: inventory.reserve(lines[:: 1 if number % 2 else -1], key=f"run-{number}")

        def returner(number: int) -> Callable[[], Any]:
            return lambda: inventory.release(action_key=f"old-{number}", key=f"old-{number}-undo")

        for number in range(3):
            inventory.reserve(LINES[::-1], key=f"old-{number}")
        ends = together(*map(buyer, range(4)), *map(returner, range(3)))

        assert [type(end) for end in ends] == [Reserved] * 7
        assert stock() == {"ITEM-001": (10, 4), "ITEM-002": (10, 4)}


class TestLocalInventory:
    """What our own tables show, beside keeping the contract."""

    @pytest.fixture(autouse=True)
    def shop(self) -> None:
        make_product(sku="ITEM-002", stock=10)  # in another order than the SKUs'
        make_product(sku="ITEM-001", stock=10)

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


class TestGateway:
    @pytest.fixture(params=GATEWAYS)
    def gateway(self, request: pytest.FixtureRequest) -> PaymentGateway:
        gateway: PaymentGateway = GATEWAYS[request.param]()
        return gateway

    def test_a_charge_is_made_and_can_be_looked_up(self, gateway: PaymentGateway) -> None:
        made = charge(gateway)

        assert made == Charge(transaction_id=made.transaction_id, amount=TOTAL, currency="EUR", status="completed")
        assert made.transaction_id.startswith("TXN-")
        assert gateway.find_charge(key=KEY) == made

    @pytest.mark.parametrize(("amount", "currency"), [("5000", "JPY"), ("1.234", "KWD"), ("0.01", "EUR")])
    def test_an_amount_keeps_its_digits(self, gateway: PaymentGateway, amount: str, currency: str) -> None:
        charge(gateway, amount=Decimal(amount), currency=currency)

        made = gateway.find_charge(key=KEY)
        assert made is not None
        assert (made.amount, made.currency) == (Decimal(amount), currency)

    def test_the_same_key_charges_once(self, gateway: PaymentGateway) -> None:
        assert charge(gateway) == charge(gateway)
        assert SandboxCharge.objects.count() == 1

    def test_the_same_key_at_once_charges_once(self, gateway: PaymentGateway) -> None:
        ends = together(*[lambda: charge(gateway)] * 4)

        assert ends == [gateway.find_charge(key=KEY)] * 4
        assert SandboxCharge.objects.count() == 1

    @pytest.mark.parametrize("changes", [{"amount": Decimal(1)}, {"currency": "USD"}])
    def test_a_key_is_not_good_for_another_amount(self, gateway: PaymentGateway, changes: dict[str, Any]) -> None:
        made = charge(gateway)

        assert refusal(lambda: charge(gateway, **changes)).code == "key_reused"
        assert gateway.find_charge(key=KEY) == made

    @pytest.mark.parametrize(
        ("token", "code"), [("tok_declined", "card_declined"), ("tok_insufficient_funds", "insufficient_funds")]
    )
    def test_a_declined_card_is_not_charged(self, gateway: PaymentGateway, token: str, code: str) -> None:
        error = refusal(lambda: charge(gateway, method=token))

        assert (error.code, token in str(error)) == (code, False)
        assert gateway.find_charge(key=KEY) is None
        assert gateway.refund(charge_key=KEY, key=UNDO_KEY) is None

    def test_a_lost_answer_is_found_and_not_charged_again(self, gateway: PaymentGateway) -> None:
        with pytest.raises(OutcomeUnknown):
            charge(gateway, method="tok_lose_answer")

        found = gateway.find_charge(key=KEY)
        assert found == charge(gateway, method="tok_lose_answer")
        assert SandboxCharge.objects.count() == 1

    def test_a_gateway_that_was_away_charges_at_the_next_try(self, gateway: PaymentGateway) -> None:
        with pytest.raises(Unavailable):
            charge(gateway, method="tok_gateway_down_once")
        assert gateway.find_charge(key=KEY) is None

        assert charge(gateway, method="tok_gateway_down_once") == gateway.find_charge(key=KEY)

    def test_nothing_is_known_of_keys_that_were_never_used(self, gateway: PaymentGateway) -> None:
        assert (gateway.find_charge(key=KEY), gateway.find_refund(key=UNDO_KEY)) == (None, None)

    def test_a_refund_gives_everything_back(self, gateway: PaymentGateway) -> None:
        made = charge(gateway)

        refund = gateway.refund(charge_key=KEY, key=UNDO_KEY)

        assert refund is not None
        assert refund.refund_id.startswith("RFN-")
        assert refund.amount == TOTAL
        assert gateway.find_refund(key=UNDO_KEY) == refund
        assert gateway.find_charge(key=KEY) == made  # the charge has been, and stays in the books

    def test_refunding_twice_is_refunding_once(self, gateway: PaymentGateway) -> None:
        charge(gateway)

        ends = together(*[lambda: gateway.refund(charge_key=KEY, key=UNDO_KEY)] * 3)

        assert [*ends, gateway.refund(charge_key=KEY, key=UNDO_KEY)] == [gateway.find_refund(key=UNDO_KEY)] * 4
        assert [row.amount for row in SandboxRefund.objects.all()] == [TOTAL]
        assert SandboxCharge.objects.get().refunded == TOTAL

    def test_two_refunds_of_one_charge_never_give_back_more_than_came_in(self, gateway: PaymentGateway) -> None:
        charge(gateway)

        ends = together(
            lambda: gateway.refund(charge_key=KEY, key=UNDO_KEY), lambda: gateway.refund(charge_key=KEY, key="by hand")
        )

        assert sorted(end.code for end in ends if isinstance(end, Declined)) == ["already_refunded"]
        assert [row.amount for row in SandboxRefund.objects.all()] == [TOTAL]

    def test_refunded_before_it_was_charged_it_is_turned_away(self, gateway: PaymentGateway) -> None:
        assert gateway.refund(charge_key=KEY, key=UNDO_KEY) is None

        assert refusal(lambda: charge(gateway)).code == "cancelled_before_charge"
        assert gateway.find_charge(key=KEY) is None
        assert gateway.refund(charge_key=KEY, key=UNDO_KEY) is None
        assert gateway.find_refund(key=UNDO_KEY) is None

    def test_charging_and_refunding_at_once_ends_with_no_money_held(self, gateway: PaymentGateway) -> None:
        charged, refunded = together(lambda: charge(gateway), lambda: gateway.refund(charge_key=KEY, key=UNDO_KEY))

        if isinstance(charged, Declined):
            assert (charged.code, refunded) == ("cancelled_before_charge", None)
        else:
            assert (charged.amount, refunded.amount) == (TOTAL, TOTAL)
        row = SandboxCharge.objects.get()
        assert row.amount == row.refunded

    def test_a_refund_can_be_refused(self, gateway: PaymentGateway) -> None:
        made = charge(gateway, method="tok_refund_refused")

        error = refusal(lambda: gateway.refund(charge_key=KEY, key=UNDO_KEY))

        assert (error.code, error.provider_id) == ("charge_disputed", made.transaction_id)
        assert gateway.find_refund(key=UNDO_KEY) is None

    def test_a_refund_can_fail_for_as_long_as_an_undo_tries(self, gateway: PaymentGateway, settings: Settings) -> None:
        settings.ORDER_PATIENT_ATTEMPTS = 2
        charge(gateway, method="tok_refund_fails")

        for _ in range(2):
            with pytest.raises(Unavailable):
                gateway.refund(charge_key=KEY, key=UNDO_KEY)
        assert not SandboxRefund.objects.exists()

        assert gateway.refund(charge_key=KEY, key=UNDO_KEY) == gateway.find_refund(key=UNDO_KEY) is not None


def book(carrier: Carrier, **changes: Any) -> Parcel:
    postcode = changes.pop("postcode", HOME.postcode)
    address = Address(name=HOME.name, line1=HOME.line1, city=HOME.city, postcode=postcode, country=HOME.country)
    given = {"reference": "REF-1", "address": address, "lines": LINES, "key": KEY, **changes}
    return carrier.create_shipment(**given)


class TestCarrier:
    @pytest.fixture(params=CARRIERS)
    def carrier(self, request: pytest.FixtureRequest) -> Carrier:
        carrier: Carrier = CARRIERS[request.param]()
        return carrier

    def test_a_parcel_is_booked_and_can_be_looked_up(self, carrier: Carrier) -> None:
        parcel = book(carrier)

        assert parcel.shipment_id.startswith("SHIP-")
        assert parcel.tracking_number.startswith("TRK-")
        assert parcel.estimated_delivery > timezone.localdate()
        assert parcel.carrier
        assert carrier.find_shipment(reference="REF-1") == parcel

    def test_the_same_reference_books_once(self, carrier: Carrier) -> None:
        ends = together(*[lambda: book(carrier)] * 4)

        assert [*ends, book(carrier)] == [carrier.find_shipment(reference="REF-1")] * 5
        assert SandboxParcel.objects.count() == 1

    def test_an_address_that_is_not_served_is_refused(self, carrier: Carrier) -> None:
        error = refusal(lambda: book(carrier, postcode="00000"))

        assert (error.code, error.message) == ("address_not_served", "No delivery to postcode 00000.")
        assert carrier.find_shipment(reference="REF-1") is None

    def test_a_carrier_that_was_away_twice_books_at_the_third_try(self, carrier: Carrier) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable):
                book(carrier, postcode="00001")
        assert carrier.find_shipment(reference="REF-1") is None

        assert book(carrier, postcode="00001") == carrier.find_shipment(reference="REF-1")

    def test_a_lost_answer_is_found_and_not_booked_again(self, carrier: Carrier) -> None:
        with pytest.raises(OutcomeUnknown):
            book(carrier, postcode="00002")

        assert carrier.find_shipment(reference="REF-1") == book(carrier, postcode="00002")
        assert SandboxParcel.objects.count() == 1

    def test_nothing_is_known_of_a_reference_that_was_never_used(self, carrier: Carrier) -> None:
        assert carrier.find_shipment(reference="REF-1") is None

    def test_a_cancelled_parcel_is_gone_and_cancelling_again_is_harmless(self, carrier: Carrier) -> None:
        book(carrier)

        together(*[lambda: carrier.cancel_shipment(reference="REF-1", key=UNDO_KEY)] * 2)
        carrier.cancel_shipment(reference="REF-1", key=UNDO_KEY)

        assert carrier.find_shipment(reference="REF-1") is None
        assert SandboxParcel.objects.get().status == "cancelled"
        assert refusal(lambda: book(carrier)).code == "already_undone"

    def test_cancelled_before_it_was_booked_it_is_turned_away(self, carrier: Carrier) -> None:
        carrier.cancel_shipment(reference="REF-1", key=UNDO_KEY)

        assert refusal(lambda: book(carrier)).code == "already_undone"
        assert carrier.find_shipment(reference="REF-1") is None

    def test_booking_and_cancelling_at_once_ends_with_no_parcel(self, carrier: Carrier) -> None:
        booked, cancelled = together(
            lambda: book(carrier), lambda: carrier.cancel_shipment(reference="REF-1", key=UNDO_KEY)
        )

        assert isinstance(booked, Parcel) or booked.code == "already_undone"
        assert cancelled is None
        assert carrier.find_shipment(reference="REF-1") is None

    def test_what_is_on_its_way_cannot_be_cancelled(self, carrier: Carrier) -> None:
        parcel = book(carrier, postcode="00003")

        error = refusal(lambda: carrier.cancel_shipment(reference="REF-1", key=UNDO_KEY))

        assert (error.code, error.provider_id) == ("handed_over", parcel.shipment_id)
        assert carrier.find_shipment(reference="REF-1") == parcel


class TestMailer:
    @pytest.fixture(params=MAILERS)
    def mailer(self, request: pytest.FixtureRequest) -> Mailer:
        mailer: Mailer = MAILERS[request.param]()
        return mailer

    def test_a_mail_goes_out_as_it_was_written(self, mailer: Mailer) -> None:
        sent = mailer.send(MESSAGE, key=KEY)

        assert sent.email_id.startswith("EMAIL-")
        assert mailer.find(key=KEY) == sent
        [mail] = outbox.outbox
        assert (mail.to, mail.subject, mail.body) == (["ada@example.com"], "Your order", "It is on its way.")

    def test_the_same_key_sends_once(self, mailer: Mailer) -> None:
        assert mailer.send(MESSAGE, key=KEY) == mailer.send(MESSAGE, key=KEY)
        assert len(outbox.outbox) == 1

    def test_nothing_is_known_of_a_key_that_was_never_used(self, mailer: Mailer) -> None:
        assert mailer.find(key=KEY) is None

    def test_an_address_that_bounces_is_refused(self, mailer: Mailer) -> None:
        to_nowhere = Message(recipient="bounces@example.com", subject="Your order", body="Hello")

        assert refusal(lambda: mailer.send(to_nowhere, key=KEY)).code == "bad_address"
        assert (mailer.find(key=KEY), outbox.outbox) == (None, [])

    def test_a_server_that_was_away_twice_sends_at_the_third_try(self, mailer: Mailer) -> None:
        message = Message(recipient="mail-away-then-back@example.com", subject="Your order", body="Hello")

        for _ in range(2):
            with pytest.raises(Unavailable):
                mailer.send(message, key=KEY)
        assert (mailer.find(key=KEY), outbox.outbox) == (None, [])

        assert mailer.send(message, key=KEY) == mailer.find(key=KEY)
        assert len(outbox.outbox) == 1


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
