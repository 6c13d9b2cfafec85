"""Each action and each compensation by itself: twice is once, the undo goes by key, and neither order of the two leaves
anything behind."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from orders.models import (
    FaultPlan,
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
)
from orders.order_processing import actions, compensations, parcel_books
from orders.providers import faults, get_mail, get_payments, get_shipping
from orders.providers.base import Charge, Message
from orders.providers.payments.sandbox import SandboxGateway
from sagas import Direction, StepContext, StepRefused, StepUnavailable, StepUnknown, WaitFor
from tests.factories import make_order, make_shop

pytestmark = pytest.mark.django_db

TOTAL, NOTHING = Decimal("99.99"), Decimal(0)
Kind = FaultPlan.Kind


class GenerousGateway(SandboxGateway):
    """Charges twice what it was asked for."""

    def charge(self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, **rest: Any) -> Charge:
        return super().charge(amount=amount * 2, currency=currency, method=method, key=key, order_id=order_id)


class HastyGateway(SandboxGateway):
    """While it charges, the compensation comes and finds nothing; the charge is then made all the same."""

    def charge(self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, **rest: Any) -> Charge:
        compensations.refund_payment(undo_of(context("process_payment", order_id)))
        SandboxCharge.objects.filter(key=key).delete()  # a gateway that bars nothing
        return super().charge(amount=amount, currency=currency, method=method, key=key, order_id=order_id)


def context(step: str, order_id: str = "ORD-123", **changes: Any) -> StepContext:
    """What the engine hands to the action of `step`."""
    order = Order.objects.get(order_id=order_id)
    return StepContext(
        **{
            "run_id": str(order.run_id),
            "saga": "order_processing",
            "business_key": order.order_id,
            "step": step,
            "direction": Direction.ACTION,
            "input": {"items": [{"sku": line.sku, "quantity": line.quantity} for line in order.lines.order_by("id")]},
            "results": {},
            "attempt": 1,
            "maybe_done": False,
            **changes,
        }
    )


def undo_of(ctx: StepContext) -> StepContext:
    """What the engine hands to its compensation."""
    return replace(ctx, direction=Direction.COMPENSATION, reason="test")


def allocated() -> list[int]:
    return list(StockItem.objects.order_by("product__sku").values_list("allocated", flat=True))


def operations() -> list[tuple[str, str]]:
    return list(PaymentOperation.objects.order_by("id").values_list("kind", "status"))


def money() -> tuple[Decimal, Decimal]:
    payment = Payment.objects.get()
    return payment.charged, payment.refunded


@pytest.fixture(autouse=True)
def order() -> Order:
    make_shop()
    return make_order()


class TestInventory:
    step = "reserve_inventory"

    def test_twice_is_once(self) -> None:
        first = actions.reserve_inventory(context(self.step))

        assert actions.reserve_inventory(context(self.step)) == first
        assert allocated() == [2, 1]
        assert Reservation.objects.count() == 2

    def test_released_twice_is_released_once(self) -> None:
        reserved = actions.reserve_inventory(context(self.step))

        released = [compensations.release_inventory(undo_of(context(self.step))) for _ in range(2)]

        assert released == [{"released_items": reserved["reserved_items"]}] * 2
        assert allocated() == [0, 0]

    def test_undone_first_it_is_turned_away(self) -> None:
        assert compensations.release_inventory(undo_of(context(self.step))) == {"released_items": []}
        with pytest.raises(StepRefused) as caught:
            actions.reserve_inventory(context(self.step))

        assert caught.value.code == "already_undone"
        assert allocated() == [0, 0]

    def test_too_few_of_one_holds_nothing_of_any(self) -> None:
        StockItem.objects.filter(product__sku="ITEM-002").update(on_hand=0)

        with pytest.raises(StepRefused) as caught:
            actions.reserve_inventory(context(self.step))

        assert (caught.value.code, caught.value.provider) == ("insufficient_inventory", "local stock")
        assert "ITEM-002" in str(caught.value)
        assert allocated() == [0, 0]

    def test_what_was_held_is_found_again(self) -> None:
        assert actions.look_up_reservation(context(self.step)) is None

        reserved = actions.reserve_inventory(context(self.step))

        assert actions.look_up_reservation(context(self.step)) == reserved


class TestPayment:
    step = "process_payment"

    def test_twice_is_charged_once(self) -> None:
        first = actions.process_payment(context(self.step))

        assert actions.process_payment(context(self.step)) == first
        assert SandboxCharge.objects.count() == 1
        assert (operations(), money()) == ([("charge", "succeeded")], (TOTAL, NOTHING))

    def test_refunded_twice_is_refunded_once(self) -> None:
        actions.process_payment(context(self.step))

        first = compensations.refund_payment(undo_of(context(self.step)))

        assert compensations.refund_payment(undo_of(context(self.step))) == first
        assert first == {"refunded": True, "refund_id": SandboxRefund.objects.get().refund_id, "amount": 99.99}
        assert (operations(), money()) == ([("charge", "succeeded"), ("refund", "succeeded")], (TOTAL, TOTAL))

    def test_a_charge_of_which_no_result_is_left_is_refunded_by_its_key(self) -> None:
        faults.plan("payments", "charge", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            actions.process_payment(context(self.step))

        undone = compensations.refund_payment(undo_of(context(self.step)))

        assert not isinstance(undone, WaitFor)
        assert undone["refunded"]
        assert SandboxCharge.objects.get().refunded == TOTAL
        assert (operations(), money()) == ([("charge", "succeeded"), ("refund", "succeeded")], (TOTAL, TOTAL))

    def test_a_charge_that_never_came_leaves_nothing_to_refund(self) -> None:
        faults.plan("payments", "charge", Kind.SILENT)
        with pytest.raises(StepUnknown):
            actions.process_payment(context(self.step))

        undone = compensations.refund_payment(undo_of(context(self.step)))

        assert undone == {"refunded": False, "refund_id": "", "amount": 0.0}
        assert (operations(), money()) == ([("charge", "unavailable"), ("void", "succeeded")], (NOTHING, NOTHING))
        assert not SandboxRefund.objects.exists()

    def test_undone_first_it_is_turned_away(self) -> None:
        undone = compensations.refund_payment(undo_of(context(self.step)))
        assert not isinstance(undone, WaitFor)
        assert not undone["refunded"]
        with pytest.raises(StepRefused) as caught:
            actions.process_payment(context(self.step))

        assert caught.value.code == "already_undone"
        assert not SandboxCharge.objects.exists()
        assert not PaymentOperation.objects.exists()

    def test_a_charge_that_came_after_its_undo_had_looked_is_given_back(self, settings: Settings) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": f"{__name__}.HastyGateway"}

        with pytest.raises(StepRefused) as caught:
            actions.process_payment(context(self.step))

        assert caught.value.code == "already_undone"
        assert SandboxCharge.objects.get().refunded == TOTAL
        assert money() == (TOTAL, TOTAL)
        assert operations() == [("charge", "succeeded"), ("void", "succeeded"), ("refund", "succeeded")]

    def test_a_charge_of_another_amount_is_given_back(self, settings: Settings) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": f"{__name__}.GenerousGateway"}

        with pytest.raises(StepRefused) as caught:
            actions.process_payment(context(self.step))

        assert caught.value.code == "amount_mismatch"
        assert "199.98 EUR instead of 99.99 EUR" in str(caught.value)
        assert SandboxCharge.objects.get().refunded == 2 * TOTAL
        assert money() == (2 * TOTAL, 2 * TOTAL)

    def test_a_wrong_charge_that_cannot_be_given_back_stays_an_open_question(self, settings: Settings) -> None:
        settings.PROVIDERS = {**settings.PROVIDERS, "payments": f"{__name__}.GenerousGateway"}
        faults.plan("payments", "refund", Kind.UNAVAILABLE, times=2)

        with pytest.raises(StepUnknown) as caught:
            actions.process_payment(context(self.step))
        assert caught.value.code == "give_back_failed"
        with pytest.raises(StepUnknown):
            actions.look_up_payment(context(self.step))
        assert money() == (2 * TOTAL, NOTHING)
        assert actions.look_up_payment(context(self.step)) is None
        assert money() == (2 * TOTAL, 2 * TOTAL)
        with pytest.raises(StepRefused):
            actions.process_payment(context(self.step))

        assert SandboxCharge.objects.get().refunded == 2 * TOTAL

    @pytest.mark.parametrize(
        ("token", "code"), [("tok_declined", "card_declined"), ("tok_insufficient_funds", "insufficient_funds")]
    )
    def test_a_declined_card_is_a_no_with_the_gateways_code(self, order: Order, token: str, code: str) -> None:
        Order.objects.filter(pk=order.pk).update(card_token=token)

        with pytest.raises(StepRefused) as caught:
            actions.process_payment(context(self.step))

        assert (caught.value.code, caught.value.provider) == (code, "sandbox gateway")
        row = PaymentOperation.objects.get()
        assert (row.kind, row.status, row.code, row.amount) == ("charge", "refused", code, TOTAL)
        assert money() == (NOTHING, NOTHING)

    def test_a_gateway_that_is_away_is_asked_again_with_the_same_key(self) -> None:
        faults.plan("payments", "charge", Kind.UNAVAILABLE)

        with pytest.raises(StepUnavailable):
            actions.process_payment(context(self.step))
        assert operations() == [("charge", "unavailable")]
        actions.process_payment(context(self.step, attempt=2))

        assert operations() == [("charge", "succeeded")]
        assert SandboxCharge.objects.get().key == context(self.step).key

    def test_a_lost_answer_is_found_by_its_key(self) -> None:
        faults.plan("payments", "charge", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            actions.process_payment(context(self.step))
        assert operations() == [("charge", "unknown")]

        found = actions.look_up_payment(context(self.step))

        charge = SandboxCharge.objects.get()
        assert found == {"transaction_id": charge.transaction_id, "amount": 99.99, "status": "completed"}
        assert (operations(), money()) == ([("charge", "succeeded")], (TOTAL, NOTHING))

    def test_a_lost_refund_is_found_by_its_key(self) -> None:
        actions.process_payment(context(self.step))
        undo = undo_of(context(self.step))
        faults.plan("payments", "refund", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            compensations.refund_payment(undo)
        assert money() == (TOTAL, NOTHING)

        found = compensations.look_up_refund(undo)

        assert found == {"refunded": True, "refund_id": SandboxRefund.objects.get().refund_id, "amount": 99.99}
        assert money() == (TOTAL, TOTAL)

    def test_a_refund_that_never_came_is_not_found(self) -> None:
        assert compensations.look_up_refund(undo_of(context(self.step))) is None


class TestShipment:
    step = "create_shipment"

    def test_twice_is_one_parcel(self) -> None:
        first = actions.create_shipment(context(self.step))

        assert actions.create_shipment(context(self.step)) == first
        assert SandboxParcel.objects.count() == 1
        parcel = Shipment.objects.get()
        assert (parcel.status, parcel.carrier) == ("created", "sandbox")
        assert parcel.reference == SandboxParcel.objects.get().reference

    def test_cancelled_twice_is_cancelled_once(self) -> None:
        booked = actions.create_shipment(context(self.step))

        cancelled = [compensations.cancel_shipment(undo_of(context(self.step))) for _ in range(2)]

        assert cancelled[0] == {"cancelled": True, "shipment_id": booked["shipment_id"]}
        assert Shipment.objects.get().status == "cancelled"
        assert SandboxParcel.objects.get().status == "cancelled"

    def test_undone_first_it_is_turned_away(self) -> None:
        assert compensations.cancel_shipment(undo_of(context(self.step))) == {"cancelled": False, "shipment_id": ""}
        with pytest.raises(StepRefused) as caught:
            actions.create_shipment(context(self.step))

        assert caught.value.code == "already_undone"
        assert not SandboxParcel.objects.exists()
        assert not Shipment.objects.exists()

    def test_a_parcel_whose_booking_got_no_answer_is_cancelled_by_its_reference(self) -> None:
        faults.plan("shipping", "create_shipment", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            actions.create_shipment(context(self.step))

        undone = compensations.cancel_shipment(undo_of(context(self.step)))

        assert undone == {"cancelled": True, "shipment_id": SandboxParcel.objects.get().shipment_id}
        assert SandboxParcel.objects.get().status == "cancelled"

    def test_a_parcel_that_was_never_booked_leaves_nothing_to_cancel(self) -> None:
        faults.plan("shipping", "create_shipment", Kind.SILENT)
        with pytest.raises(StepUnknown):
            actions.create_shipment(context(self.step))

        undone = compensations.cancel_shipment(undo_of(context(self.step)))

        assert undone == {"cancelled": False, "shipment_id": ""}
        assert Shipment.objects.get().status == "cancelled"

    def test_a_booking_that_ends_after_the_order_was_cancelled_is_taken_back(self) -> None:
        faults.plan("shipping", "create_shipment", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            actions.create_shipment(context(self.step))
        Shipment.objects.update(status=Shipment.Status.CANCELLING)  # as cancel_order does

        with pytest.raises(StepRefused) as caught:
            actions.create_shipment(context(self.step, attempt=2))

        assert caught.value.code == "already_undone"
        assert SandboxParcel.objects.get().status == "cancelled"
        assert Shipment.objects.get().status == "cancelled"

    def test_a_booking_found_after_the_order_was_cancelled_is_taken_back(self) -> None:
        actions.create_shipment(context(self.step))
        Shipment.objects.update(status=Shipment.Status.CANCELLING)

        assert actions.look_up_shipment(context(self.step)) is None

        assert SandboxParcel.objects.get().status == "cancelled"

    def test_a_booking_that_cannot_be_taken_back_stays_an_open_question(self) -> None:
        actions.create_shipment(context(self.step))
        Shipment.objects.update(status=Shipment.Status.CANCELLING)
        faults.plan("shipping", "cancel_shipment", Kind.UNAVAILABLE)

        with pytest.raises(StepUnknown) as caught:
            actions.create_shipment(context(self.step, attempt=2))

        assert caught.value.code == "call_off_failed"
        assert compensations.cancel_shipment(undo_of(context(self.step)))["cancelled"]
        assert SandboxParcel.objects.get().status == "cancelled"

    def test_after_hand_over_there_is_no_cancelling(self) -> None:
        actions.create_shipment(context(self.step))
        Shipment.objects.update(status=Shipment.Status.HANDED_OVER, handed_over_at="2024-01-15T12:00Z")

        with pytest.raises(StepRefused) as caught:
            compensations.cancel_shipment(undo_of(context(self.step)))

        assert caught.value.code == "handed_over"
        assert SandboxParcel.objects.get().status == "booked"

    def test_an_address_that_is_not_served_is_a_no(self, order: Order) -> None:
        Order.objects.filter(pk=order.pk).update(ship_postcode="00000")

        with pytest.raises(StepRefused) as caught:
            actions.create_shipment(context(self.step))

        assert caught.value.code == "address_not_served"
        assert Shipment.objects.get().status == "refused"

    def test_a_lost_booking_is_found_by_its_reference(self) -> None:
        assert actions.look_up_shipment(context(self.step)) is None
        faults.plan("shipping", "create_shipment", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            actions.create_shipment(context(self.step))

        found = actions.look_up_shipment(context(self.step))

        assert found is not None
        assert found["shipment_id"] == SandboxParcel.objects.get().shipment_id
        assert Shipment.objects.get().status == "created"


class TestMail:
    step = "send_confirmation_email"
    parcel = {"create_shipment": {"tracking_number": "TRK-1", "estimated_delivery": "2024-01-15"}}

    def test_twice_is_one_mail(self) -> None:
        first = actions.send_confirmation_email(context(self.step, results=self.parcel))

        assert actions.send_confirmation_email(context(self.step, results=self.parcel)) == first
        assert len(mail.outbox) == 1
        row = SentMessage.objects.get()
        assert (row.kind, row.status, row.recipient, row.email_id) == (
            "confirmation",
            "sent",
            "ada@example.com",
            first["email_id"],
        )

    def test_the_confirmation_says_what_was_ordered_and_where_it_is(self) -> None:
        actions.send_confirmation_email(context(self.step, results=self.parcel))

        (sent,) = mail.outbox
        assert sent.to == ["ada@example.com"]
        assert sent.subject == "Your order ORD-123 is on its way"
        for part in (
            "2 x Product ITEM-001 (ITEM-001): 60.00 EUR",
            "Total: 99.99 EUR",
            "Torstraße 1",
            "10115 Berlin",
            "TRK-1",
            "2024-01-15",
            "http://testserver/orders/ORD-123/",
        ):
            assert part in str(sent.body)

    def test_what_a_customer_wrote_is_text_in_both_forms(self, order: Order) -> None:
        Order.objects.filter(pk=order.pk).update(ship_name="<b>Ada & Co</b>")

        actions.send_confirmation_email(context(self.step, results=self.parcel))

        row = SentMessage.objects.get()
        assert "Hello <b>Ada & Co</b>," in row.body
        assert "Hello &lt;b&gt;Ada &amp; Co&lt;/b&gt;," in row.html
        assert "<b>" not in row.html

    def test_who_was_told_is_told_of_the_cancellation_once(self) -> None:
        actions.send_confirmation_email(context(self.step, results=self.parcel))

        first = compensations.send_cancellation_email(undo_of(context(self.step)))

        assert compensations.send_cancellation_email(undo_of(context(self.step))) == first
        assert first["email_sent"]
        assert [str(sent.subject) for sent in mail.outbox][1:] == ["Your order ORD-123 is cancelled"]
        assert list(SentMessage.objects.order_by("id").values_list("kind", "status")) == [
            ("confirmation", "sent"),
            ("cancellation", "sent"),
        ]

    def test_who_was_told_nothing_hears_of_no_cancellation(self) -> None:
        undone = compensations.send_cancellation_email(undo_of(context(self.step)))

        assert undone == {"email_sent": False, "email_id": "", "reason": "No confirmation went out."}
        with pytest.raises(StepRefused) as caught:
            actions.send_confirmation_email(context(self.step, results=self.parcel))
        assert caught.value.code == "already_undone"
        assert mail.outbox == []
        assert not SentMessage.objects.exists()

    def test_a_mail_server_that_is_away_leaves_the_mail_written_down(self) -> None:
        faults.plan("mail", "send", Kind.UNAVAILABLE)

        with pytest.raises(StepUnavailable):
            actions.send_confirmation_email(context(self.step, results=self.parcel))

        assert SentMessage.objects.get().status == "queued"
        assert mail.outbox == []

    def test_a_mail_that_went_out_unheard_is_found(self) -> None:
        assert actions.look_up_confirmation(context(self.step)) is None
        faults.plan("mail", "send", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            actions.send_confirmation_email(context(self.step, results=self.parcel))

        found = actions.look_up_confirmation(context(self.step))

        assert found == {"email_sent": True, "email_id": SentMessage.objects.get().email_id}
        assert SentMessage.objects.get().status == "sent"
        assert len(mail.outbox) == 1

    def test_a_cancellation_that_went_out_unheard_is_found(self) -> None:
        actions.send_confirmation_email(context(self.step, results=self.parcel))
        undo = undo_of(context(self.step))
        assert compensations.look_up_cancellation(undo) is None
        faults.plan("mail", "send", Kind.LOSE_ANSWER)
        with pytest.raises(StepUnknown):
            compensations.send_cancellation_email(undo)

        found = compensations.look_up_cancellation(undo)

        assert found is not None
        assert found["email_sent"]
        assert len(mail.outbox) == 2


class TestADatabaseThatWasRestored:
    """It knows an attempt and not what the attempt wrote down; what it did, the world knows under its key."""

    def test_a_charge_is_found_written_down_and_can_be_refunded(self) -> None:
        ctx = context("process_payment")
        get_payments().charge(amount=TOTAL, currency="EUR", method="tok_visa", key=ctx.key, order_id="ORD-123")

        found = actions.look_up_payment(ctx)

        assert found is not None
        assert found["status"] == "completed"
        assert (operations(), money()) == ([("charge", "succeeded")], (TOTAL, NOTHING))
        assert compensations.refund_payment(undo_of(ctx))["refunded"]  # type: ignore[index]
        assert (money(), SandboxRefund.objects.get().amount) == ((TOTAL, TOTAL), TOTAL)

    def test_a_refund_is_found_and_written_down(self) -> None:
        ctx = context("process_payment")
        actions.process_payment(ctx)
        undo = undo_of(ctx)
        get_payments().refund(charge_key=ctx.key, key=undo.key)

        found = compensations.look_up_refund(undo)

        assert found is not None
        assert found["refunded"]
        assert operations() == [("charge", "succeeded"), ("refund", "succeeded")]
        assert money() == (TOTAL, TOTAL)

    def test_a_parcel_is_found_and_not_taken_for_one_that_was_cancelled(self, order: Order) -> None:
        ctx = context("create_shipment")
        reference = parcel_books.reference_of(ctx.key)
        address = parcel_books.address_of(order)
        booked = get_shipping().create_shipment(reference=reference, address=address, lines=[], key=ctx.key)

        found = actions.look_up_shipment(ctx)

        assert found is not None
        assert found["shipment_id"] == booked.shipment_id
        assert (Shipment.objects.get().status, SandboxParcel.objects.get().status) == ("created", "booked")
        assert compensations.cancel_shipment(undo_of(ctx))["cancelled"]

    def test_mails_are_found_and_written_down(self) -> None:
        ctx = context("send_confirmation_email")
        undo = undo_of(ctx)
        for key in (ctx.key, undo.key):
            get_mail().send(Message(recipient="ada@example.com", subject="Yours", body="Hello."), key=key)

        found, unfound = actions.look_up_confirmation(ctx), compensations.look_up_cancellation(undo)

        assert found is not None
        assert unfound is not None
        assert list(SentMessage.objects.order_by("id").values_list("kind", "status")) == [
            ("confirmation", "sent"),
            ("cancellation", "sent"),
        ]
        assert len(mail.outbox) == 2

    def test_a_charge_that_was_forgotten_is_refunded_by_an_undo_that_comes_first(self) -> None:
        ctx = context("process_payment")
        get_payments().charge(amount=TOTAL, currency="EUR", method="tok_visa", key=ctx.key, order_id="ORD-123")

        faults.plan("payments", "find_charge", Kind.UNAVAILABLE)
        with pytest.raises(StepUnavailable):
            compensations.refund_payment(undo_of(ctx))
        refunded = compensations.refund_payment(undo_of(ctx))

        assert refunded["refunded"]  # type: ignore[index]
        assert operations() == [("charge", "succeeded"), ("refund", "succeeded")]
        assert money() == (TOTAL, TOTAL)
        assert compensations.refund_payment(undo_of(ctx)) == refunded
        assert SandboxRefund.objects.get().amount == TOTAL

    def test_a_parcel_that_was_forgotten_is_called_off_by_an_undo_that_comes_first(self, order: Order) -> None:
        ctx = context("create_shipment")
        reference = parcel_books.reference_of(ctx.key)
        address = parcel_books.address_of(order)
        booked = get_shipping().create_shipment(reference=reference, address=address, lines=[], key=ctx.key)

        cancelled = compensations.cancel_shipment(undo_of(ctx))

        assert cancelled == {"cancelled": True, "shipment_id": booked.shipment_id}
        assert (Shipment.objects.get().status, SandboxParcel.objects.get().status) == ("cancelled", "cancelled")

    def test_a_parcel_that_was_called_off_before_is_not_written_down(self, order: Order) -> None:
        ctx = context("create_shipment")
        compensations.cancel_shipment(undo_of(ctx))
        reference = parcel_books.reference_of(ctx.key)
        address = parcel_books.address_of(order)
        get_shipping().create_shipment(reference=reference, address=address, lines=[], key=ctx.key)

        assert actions.look_up_shipment(ctx) is None

        assert not Shipment.objects.exists()
        assert SandboxParcel.objects.get().status == "cancelled"


def test_what_the_four_actions_ask_of_the_database(settings: Settings) -> None:
    """A shop's orders a second are won and lost here."""
    settings.FAULTS = False  # a planned fault is looked for at each call
    asked = {}
    for step in ("reserve_inventory", "process_payment", "create_shipment", "send_confirmation_email"):
        ctx = context(step)
        with CaptureQueriesContext(connection) as captured:
            getattr(actions, step)(ctx)
        asked[step] = sum("SAVEPOINT" not in query["sql"] for query in captured.captured_queries)

    assert asked == {
        "reserve_inventory": 6,  # for two lines
        "process_payment": 8,
        "create_shipment": 5,
        "send_confirmation_email": 7,
    }
