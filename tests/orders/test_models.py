"""What must never be stored, the database refuses, whoever asks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from orders.exceptions import HistoryIsKept
from orders.models import (
    InboundEvent,
    MailDelivery,
    Order,
    OrderLine,
    OrderNote,
    OrderTag,
    OutsideEffect,
    Payment,
    PaymentOperation,
    Product,
    ProviderChoice,
    ProviderSlot,
    Reservation,
    RetiredUse,
    SandboxCharge,
    SandboxMail,
    SandboxParcel,
    SandboxRefund,
    SavedView,
    SentMessage,
    Shipment,
    ShipmentLabel,
    StockItem,
    StockMovement,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from orders.models.kept import KeptRow
from tests.factories import make_user

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def product(**changes: Any) -> Product:
    return Product.objects.create(
        **{"sku": "ITEM-001", "name": "Lamp", "price": Decimal("30"), "currency": "EUR", **changes}
    )


def stock(**changes: Any) -> StockItem:
    return StockItem.objects.create(**{"product": product(), "on_hand": 10, "allocated": 2, **changes})


def movement(**changes: Any) -> StockMovement:
    held_by = changes.pop("stock", None) or stock()
    given = {"kind": "reserve", "delta_allocated": 2, "on_hand_after": 10, "allocated_after": 2, "key": "k", **changes}
    return StockMovement.objects.create(stock=held_by, **given)


def reservation(**changes: Any) -> Reservation:
    held_by = changes.pop("stock", None) or stock()
    return Reservation.objects.create(
        stock=held_by, **{"reservation_id": "RES-1", "key": "k", "quantity": 2, **changes}
    )


def order(**changes: Any) -> Order:
    return Order.objects.create(
        **{
            "order_id": "ORD-1",
            "customer_ref": "USER-456",
            "email": "ada@example.com",
            "currency": "EUR",
            "total_amount": Decimal("60"),
            "card_token": "tok_visa",
            "placed_at": NOW,
            **changes,
        }
    )


def line(**changes: Any) -> OrderLine:
    of = changes.pop("order", None) or order()
    given = {"sku": "ITEM-001", "name": "Lamp", "quantity": 2, "unit_price": 30, "line_total": 60, **changes}
    return OrderLine.objects.create(order=of, **given)


def payment(**changes: Any) -> Payment:
    return Payment.objects.create(**{"order": order(), "currency": "EUR", "charged": 60, **changes})


def operation(**changes: Any) -> PaymentOperation:
    of = changes.pop("payment", None) or payment()
    return PaymentOperation.objects.create(payment=of, **{"kind": "charge", "amount": 60, "key": "k", **changes})


def shipment(**changes: Any) -> Shipment:
    return Shipment.objects.create(**{"order": changes.pop("order", None) or order(), "reference": "REF-1", **changes})


def label(**changes: Any) -> ShipmentLabel:
    return ShipmentLabel.objects.create(shipment=shipment(), **changes)


def message(**changes: Any) -> SentMessage:
    of = changes.pop("order", None) or order()
    given = {"kind": "confirmation", "cause": "run-1", "key": "k", "recipient": "ada@example.com", **changes}
    return SentMessage.objects.create(order=of, **given)


def charge(**changes: Any) -> SandboxCharge:
    return SandboxCharge.objects.create(
        **{"key": "k", "transaction_id": "TXN-1", "amount": 60, "currency": "EUR", **changes}
    )


def refund(**changes: Any) -> SandboxRefund:
    of = changes.pop("charge", None) or charge()
    return SandboxRefund.objects.create(charge=of, **{"key": "r", "refund_id": "RFN-1", "amount": 60, **changes})


def saved_view(**changes: Any) -> SavedView:
    of = changes.pop("user", None) or make_user()
    return SavedView.objects.create(user=of, **{"name": "Large", "query": "least=100", **changes})


def endpoint(**changes: Any) -> WebhookEndpoint:
    given = {"url": "https://shop.example/", "secret": "whsec_x", "created_at": NOW, **changes}
    return WebhookEndpoint.objects.create(user=make_user(), **given)


def delivery(**changes: Any) -> WebhookDelivery:
    to = changes.pop("endpoint", None) or endpoint()
    of = changes.pop("event", None) or WebhookEvent.objects.create(type="webhook.test", created_at=NOW)
    return WebhookDelivery.objects.create(endpoint=to, event=of, **{"next_at": NOW, **changes})


def two_deliveries() -> None:
    first = delivery()
    delivery(endpoint=first.endpoint, event=first.event)


def mail() -> SandboxMail:
    return SandboxMail.objects.create(key="k", email_id="EMAIL-1", recipient="ada@example.com")


def tag(**changes: Any) -> OrderTag:
    given = {"tag": "gift", "author": "user:sam", **changes}
    of = given.pop("order", None) or order()
    return OrderTag.objects.create(order=of, **given)


def twice(make: Callable[..., models.Model], shared: str, **changes: Any) -> Callable[[], Any]:
    """Makes a row, and another one of the same owner that differs in `changes` only."""

    def act() -> None:
        first = make()
        make(**{shared: getattr(first, shared), **changes})

    return act


CHECKS: dict[str, Callable[[], Any]] = {
    "orders_product_price_not_negative": lambda: product(price=Decimal("-0.01")),
    "orders_stock_allocated_on_hand": lambda: stock(on_hand=1, allocated=2),
    "orders_movement_moves_something": lambda: movement(delta_allocated=0),
    "orders_reservation_quantity_from_one": lambda: reservation(quantity=0),
    "orders_reservation_released_has_time": lambda: reservation(status="released"),
    "orders_tag_has_text": lambda: tag(tag=""),
    "orders_order_total_not_negative": lambda: order(total_amount=Decimal("-1")),
    "orders_order_has_number": lambda: order(order_id=""),
    "orders_line_quantity_from_one": lambda: line(quantity=0),
    "orders_line_price_not_negative": lambda: line(unit_price=-1),
    "orders_payment_charged_not_negative": lambda: payment(charged=-1, refunded=-1),
    "orders_payment_refunded_within_charged": lambda: payment(refunded=Decimal("60.001")),
    "orders_operation_amount_positive": lambda: operation(amount=0),
    "orders_operation_done_has_provider_id": lambda: operation(status="succeeded"),
    "orders_shipment_booked_has_id": lambda: shipment(status="created"),
    "orders_shipment_handed_over_has_time": lambda: shipment(status="handed_over", shipment_id="SHIP-1"),
    "orders_shipment_cancelled_has_time": lambda: shipment(status="cancelled"),
    "orders_label_is_document_or_link": lambda: label(kind="link", url="javascript:alert(1)"),
    "orders_message_sent_has_time": lambda: message(status="sent", email_id="EMAIL-1"),
    "orders_sandbox_refunded_within_charge": lambda: charge(refunded=61),
    "orders_sandbox_refund_positive": lambda: refund(amount=0),
    "orders_note_has_text": lambda: OrderNote.objects.create(order=order(), author="user:ada", text=""),
    "orders_endpoint_deleted_is_inactive": lambda: endpoint(deleted_at=NOW),
    "orders_delivery_pending_has_time": lambda: delivery(next_at=None),
    "orders_delivery_done_has_time": lambda: delivery(status="delivered", next_at=None),
    "orders_view_has_name": lambda: saved_view(name=""),
}
UNIQUE: dict[str, Callable[[], Any]] = {
    "orders_movement_once_per_key": twice(movement, "stock"),
    "orders_reservation_once_per_key": twice(reservation, "stock", reservation_id="RES-2"),
    "orders_line_sku_once": twice(line, "order"),
    "orders_delivery_once": two_deliveries,
    "orders_tag_once": twice(tag, "order"),
    "orders_retired_use_once": lambda: [
        RetiredUse.objects.create(operation="GET api-me", caller="key:shop", last_at=NOW) for _ in range(2)
    ],
    "orders_view_name_once": twice(saved_view, "user"),
    "orders_message_once": twice(message, "order", key="another"),
    "orders_shipment_tracking_once": lambda: [
        shipment(order=order(order_id=f"ORD-{number}"), reference=f"REF-{number}", carrier="c", tracking_number="TRK-1")
        for number in (1, 2)
    ],
    "orders_effect_once_per_key": lambda: [
        OutsideEffect.objects.create(provider="ups", key="k", kind="parcel") for _ in range(2)
    ],
    "orders_effect_charge_once": lambda: [
        OutsideEffect.objects.create(provider="paypal", key=key, kind="charge", remote_id="ORDER1")
        for key in ("k", "l")
    ],
    "orders_slot_once": lambda: [ProviderSlot.objects.create(name="ups", number=1) for _ in range(2)],
    "orders_choice_once": lambda: [
        ProviderChoice.objects.create(kind="shipping", key="k", name="ups", position=n, why="rule") for n in (1, 2)
    ],
    "orders_mail_delivery_once": lambda: [
        MailDelivery.objects.create(message=SentMessage.objects.first() or message(), kind="bounced", heard_at=NOW)
        for _ in range(2)
    ],
    "orders_inbound_once": lambda: [
        InboundEvent.objects.create(provider="stripe", event_id="evt_1", kind="k", body="{}", received_at=NOW)
        for _ in range(2)
    ],
}
# Django gives a positive number a check of the same meaning, and either may speak first.
ALSO_BY_TYPE: dict[str, Callable[[], Any]] = {
    "orders_stock_on_hand_not_negative": lambda: stock(on_hand=-1, allocated=-1),
    "orders_stock_allocated_not_negative": lambda: stock(allocated=-1),
}
SAID_ELSEWHERE = ("orders_api_key_", "orders_idempotency_")


@pytest.mark.parametrize("name", CHECKS)
def test_a_row_that_breaks_a_check_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        CHECKS[name]()


@pytest.mark.parametrize("name", ALSO_BY_TYPE)
def test_a_negative_count_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)check"), transaction.atomic():
        ALSO_BY_TYPE[name]()


@pytest.mark.parametrize("name", UNIQUE)
def test_a_second_row_where_one_is_allowed_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)unique"), transaction.atomic():
        UNIQUE[name]()


def test_every_named_constraint_is_tried_here() -> None:
    names = {
        constraint.name
        for model in apps.get_app_config("orders").get_models()
        for constraint in model._meta.constraints
        if not constraint.name.startswith(SAID_ELSEWHERE)
    }

    assert names == {*CHECKS, *UNIQUE, *ALSO_BY_TYPE}


@pytest.mark.parametrize(
    "make",
    [
        twice(stock, "product"),
        lambda: [product(), product(name="another")],
        lambda: [order(), order(email="b@example.com")],
        lambda: [charge(), charge(transaction_id="TXN-2")],
        lambda: [SandboxParcel.objects.create(reference="REF-1", status="booked") for _ in range(2)],
        lambda: [mail(), mail()],
    ],
    ids=["a product's stock", "a SKU", "an order's number", "a charge's key", "a parcel's reference", "a mail's key"],
)
def test_there_is_only_one_of(make: Callable[[], Any]) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)unique"), transaction.atomic():
        make()


def test_stock_movements_by_hand_need_no_key() -> None:
    first = movement(key="")

    movement(key="", stock=first.stock)

    assert StockMovement.objects.count() == 2


def test_what_was_sold_or_ordered_cannot_be_deleted_from_under_its_rows() -> None:
    item, placed = movement().stock, line().order

    with pytest.raises(models.ProtectedError):
        item.product.delete()
    with pytest.raises(models.ProtectedError):
        placed.delete()


DONE: dict[str, Callable[[], models.Model]] = {
    "a stock movement": movement,
    "a released reservation": lambda: reservation(status="released", released_at=NOW),
    "a shipped reservation": lambda: reservation(status="shipped"),
    "a payment's done operation": lambda: operation(status="succeeded", provider_id="TXN-1"),
    "a sent message": lambda: message(status="sent", email_id="EMAIL-1", sent_at=NOW),
    "the gateway's refund": refund,
    "the mail server's log": mail,
}


@pytest.mark.parametrize("name", DONE)
def test_the_database_refuses_to_change_what_is_done(name: str) -> None:
    row = DONE[name]()
    before = type(row)._base_manager.filter(pk=row.pk).values().get()
    column = "quantity" if isinstance(row, Reservation) else "key"

    with pytest.raises(IntegrityError, match="is history and is only added to"), transaction.atomic():
        type(row)._base_manager.filter(pk=row.pk).update(**{column: 99})

    assert type(row)._base_manager.filter(pk=row.pk).values().get() == before


@pytest.mark.parametrize(
    "make", [movement, refund, mail, DONE["a payment's done operation"]], ids=lambda make: str(make.__name__)
)
def test_the_models_refuse_it_first(make: Callable[[], models.Model]) -> None:
    row = make()

    with pytest.raises(HistoryIsKept, match="is history: it is only added to"):
        row.save()
    with pytest.raises(HistoryIsKept):
        row.delete()

    assert type(row)._base_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", KeptRow.__subclasses__(), ids=lambda model: str(model.__name__))
def test_kept_rows_are_not_changed_many_at_a_time_either(model: type[models.Model]) -> None:
    with pytest.raises(HistoryIsKept):
        model._default_manager.all().delete()
    with pytest.raises(HistoryIsKept):
        model._default_manager.update()


def test_what_is_not_done_yet_may_change() -> None:
    asked, held, queued = operation(), reservation(), message(order=order(order_id="ORD-2"))

    asked.status = "unknown"
    asked.save()
    asked.status, asked.provider_id = "succeeded", "TXN-1"
    asked.save()
    Reservation.objects.filter(pk=held.pk).update(status="released", released_at=NOW)
    SentMessage.objects.filter(pk=queued.pk).update(status="sent", email_id="EMAIL-1", sent_at=NOW)

    assert PaymentOperation.objects.get().status == "succeeded"
    assert Reservation.objects.get().status == "released"
    assert SentMessage.objects.get().status == "sent"


def test_amounts_keep_three_digits() -> None:
    placed = order(currency="KWD", total_amount=Decimal("1.234"))

    placed.refresh_from_db()

    assert str(placed.total_amount) == "1.234"


def test_rows_say_what_they_are_and_show_no_card() -> None:
    item = stock()
    parcel = shipment(order=order(order_id="ORD-9"), estimated_delivery=date(2030, 1, 15))

    assert str(item) == "ITEM-001: 8 free"
    assert str(movement(stock=item)) == "reserved +0/+2"
    assert str(parcel) == "REF-1 requested"
    assert [str(parcel.order), repr(parcel.order)] == ["ORD-9", "<Order: ORD-9>"]
    assert "tok_" not in repr(charge(method="tok_visa"))
