"""Orders as JSON, as the API shows them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, cast

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer

from orders.intake import ORDER_ID
from orders.models import OrderLine, PaymentOperation, Reservation, SentMessage, Shipment
from orders.money import quantize
from orders.selectors import OrderRow, OrderView
from sagas.api_shapes import RUN_STATES, Failure, PublicStep, failure_of
from sagas.selectors import owner_of

Data = dict[str, Any]

ORDER_ID_PARAMETER = OpenApiParameter(
    "order_id",
    {"type": "string", "pattern": f"^{ORDER_ID.pattern}$", "examples": ["ORD-123"]},
    OpenApiParameter.PATH,
    description="The order's number.",
)


class Money(serializers.Serializer[Any]):
    """An amount with its currency, to as many digits as the currency has."""

    amount = serializers.CharField(help_text='Text, so that no digit is lost: "99.99".')
    currency = serializers.CharField(help_text="Three letters of ISO 4217.")


def money(amount: Decimal, currency: str) -> Data:
    """Money as JSON."""
    return {"amount": str(quantize(amount, currency)), "currency": currency}


@extend_schema_serializer(component_name="OrderLine")
class Line(serializers.Serializer[OrderLine]):
    """One line at the price it was ordered at."""

    sku = serializers.CharField()
    name = serializers.CharField()
    quantity = serializers.IntegerField()
    unit_price = serializers.SerializerMethodField()
    line_total = serializers.SerializerMethodField()

    @extend_schema_field(Money)
    def get_unit_price(self, line: OrderLine) -> Data:
        return money(line.unit_price, line.order.currency)

    @extend_schema_field(Money)
    def get_line_total(self, line: OrderLine) -> Data:
        return money(line.line_total, line.order.currency)


@extend_schema_serializer(component_name="OrderAddress")
class Address(serializers.Serializer[Any]):
    """Where the parcel goes."""

    name = serializers.CharField(source="ship_name")
    line1 = serializers.CharField(source="ship_line1")
    city = serializers.CharField(source="ship_city")
    postcode = serializers.CharField(source="ship_postcode")
    country = serializers.CharField(source="ship_country")


@extend_schema_serializer(component_name="PaymentOperation")
class Operation(serializers.Serializer[Any]):
    """One charge or refund, as it stands with the payment provider."""

    kind = serializers.CharField()
    status = serializers.CharField()
    amount = serializers.SerializerMethodField()
    provider_id = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()
    next_url = serializers.CharField(
        help_text="Where the customer has to go while a charge is pending; empty: nowhere."
    )
    created_at = serializers.DateTimeField()

    @extend_schema_field(Money)
    def get_amount(self, operation: PaymentOperation) -> Data:
        return money(operation.amount, self.context["currency"])  # its payment's, without asking for the payment


@extend_schema_serializer(component_name="OrderPayment")
class PaymentShape(serializers.Serializer[OrderView]):
    """What was taken, what went back, and what is still held."""

    charged = serializers.SerializerMethodField()
    refunded = serializers.SerializerMethodField()
    refund_pending = serializers.SerializerMethodField()
    held = serializers.SerializerMethodField()
    operations = serializers.SerializerMethodField(help_text="Oldest first.")

    @extend_schema_field(Operation(many=True))
    def get_operations(self, view: OrderView) -> list[Data]:
        context = {"currency": view.money.currency}
        return cast(list[Data], Operation(view.money.operations, many=True, context=context).data)

    @extend_schema_field(Money)
    def get_charged(self, view: OrderView) -> Data:
        return money(view.money.charged, view.money.currency)

    @extend_schema_field(Money)
    def get_refunded(self, view: OrderView) -> Data:
        return money(view.money.refunded, view.money.currency)

    @extend_schema_field(Money)
    def get_refund_pending(self, view: OrderView) -> Data:
        return money(view.money.refund_pending, view.money.currency)

    @extend_schema_field(Money)
    def get_held(self, view: OrderView) -> Data:
        return money(view.money.held, view.money.currency)


@extend_schema_serializer(component_name="OrderShipment")
class ShipmentShape(serializers.Serializer[Shipment]):
    """The parcel."""

    reference = serializers.CharField(help_text="Ours, which the carrier knows too.")
    status = serializers.CharField()
    shipment_id = serializers.CharField()
    tracking_number = serializers.CharField()
    carrier = serializers.CharField()
    estimated_delivery = serializers.DateField(allow_null=True)
    created_at = serializers.DateTimeField()
    handed_over_at = serializers.DateTimeField(allow_null=True)
    cancelled_at = serializers.DateTimeField(allow_null=True)


@extend_schema_serializer(component_name="OrderMessage")
class MessageShape(serializers.Serializer[SentMessage]):
    """A mail to the customer."""

    kind = serializers.CharField()
    status = serializers.CharField()
    recipient = serializers.CharField()
    subject = serializers.CharField()
    email_id = serializers.CharField()
    sent_at = serializers.DateTimeField(allow_null=True)


@extend_schema_serializer(component_name="OrderReservation")
class ReservationShape(serializers.Serializer[Reservation]):
    """Stock held for the order."""

    reservation_id = serializers.CharField()
    sku = serializers.CharField(source="stock.product.sku")
    quantity = serializers.IntegerField()
    status = serializers.CharField()


class OrderRun(serializers.Serializer[Any]):
    """How the order is carried to its end, step by step."""

    id = serializers.UUIDField(source="run.id")
    saga = serializers.CharField(source="run.saga")
    version = serializers.IntegerField(source="run.version")
    trace_id = serializers.CharField(
        source="run.trace_id",
        help_text="Of the `traceparent` it was asked for with, or of a trace begun for it; empty for runs of long ago.",
    )
    steps = PublicStep(many=True)


@extend_schema_serializer(component_name="OrderSummary")
class OrderSummary(serializers.Serializer[Any]):
    """An order, as a list shows it."""

    order_id = serializers.CharField(source="order.order_id")
    state = serializers.ChoiceField(choices=RUN_STATES, source="status")
    step = serializers.CharField(source="step_line", help_text="Where it is, in words.")
    user_id = serializers.CharField(source="order.customer_ref")
    total_amount = serializers.SerializerMethodField()
    placed_at = serializers.DateTimeField(source="order.placed_at")
    updated_at = serializers.DateTimeField(source="last_change")
    url = serializers.SerializerMethodField()

    @extend_schema_field(Money)
    def get_total_amount(self, row: OrderRow) -> Data:
        return money(row.order.total_amount, row.order.currency)

    def get_url(self, row: OrderRow) -> str:
        return order_url(row.order.order_id)


@extend_schema_serializer(component_name="Order")
class OrderDetail(serializers.Serializer[OrderView]):
    """An order with everything that belongs to it."""

    order_id = serializers.CharField(source="order.order_id")
    state = serializers.SerializerMethodField()
    sentence = serializers.SerializerMethodField(help_text="The state in plain words.")
    failure = serializers.SerializerMethodField(
        help_text="Why it turned back: out of stock, declined, cancelled. An ordinary end, not an HTTP error."
    )
    can = serializers.SerializerMethodField(help_text="What you can do to it now: `cancel`.")
    user_id = serializers.CharField(source="order.customer_ref")
    email = serializers.CharField(source="order.email")
    items = Line(many=True, source="lines")
    total_amount = serializers.SerializerMethodField()
    shipping_address = Address(source="order")
    payment = PaymentShape(source="*")
    shipment = ShipmentShape(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField(), help_text="Words of the shop's, in their order.")
    owner = serializers.SerializerMethodField(
        help_text="Who of the staff looks after it; null to whoever is not staff."
    )
    messages = MessageShape(many=True)
    reservations = ReservationShape(many=True)
    run = OrderRun(allow_null=True, help_text="null where `expand=none` left it out.")
    placed_at = serializers.DateTimeField(source="order.placed_at")
    updated_at = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()

    @extend_schema_field(serializers.ChoiceField(choices=RUN_STATES))
    def get_state(self, view: OrderView) -> str:
        return view.run.run.status if view.run else "pending"

    def get_sentence(self, view: OrderView) -> str:
        return view.run.sentence if view.run else "Stored."

    @extend_schema_field(Failure(allow_null=True))
    def get_failure(self, view: OrderView) -> Data | None:
        return failure_of(view.run) if view.run else None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_owner(self, view: OrderView) -> str | None:
        if view.run is None or not self.context.get("for_staff"):
            return None
        return owner_of(view.run.run) or None

    def get_can(self, view: OrderView) -> list[str]:
        return [act for act in view.run.can if act == "cancel"] if view.run else []

    @extend_schema_field(Money)
    def get_total_amount(self, view: OrderView) -> Data:
        return money(view.order.total_amount, view.order.currency)

    @extend_schema_field(serializers.DateTimeField())
    def get_updated_at(self, view: OrderView) -> str:
        changed = max(view.order.updated_at, view.run.run.updated_at) if view.run else view.order.updated_at
        return serializers.DateTimeField().to_representation(changed)

    def get_url(self, view: OrderView) -> str:
        return order_url(view.order.order_id)


def order_url(order_id: str) -> str:
    """Where the order is, from the root of this site."""
    return reverse("api-order", kwargs={"order_id": order_id})


def as_text(view: OrderView) -> str:
    """The order as the API tells it, for people to read."""
    return json.dumps(json.loads(JSONRenderer().render(OrderDetail(view).data)), indent=2, ensure_ascii=False)
