"""Orders as JSON: what the API takes and what it shows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from orders.intake import MAX_LINES, MAX_QUANTITY, ORDER_ID, TEXT_LIMITS
from orders.models import OrderLine, PaymentOperation, Reservation, SentMessage, Shipment
from orders.money import quantize
from orders.selectors import OrderRow, OrderView
from sagas.api_fields import Strict, StrictSchema, Text, Whole
from sagas.api_shapes import RUN_STATES, Failure, PublicStep, failure_of

Data = dict[str, Any]

AMOUNT = {"type": "string", "pattern": r"^[0-9]{1,11}(\.[0-9]{1,3})?$", "examples": ["99.99"]}
CURRENCY = {"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["EUR"]}
ORDER_ID_PARAMETER = OpenApiParameter(
    "order_id",
    {"type": "string", "pattern": f"^{ORDER_ID.pattern}$", "examples": ["ORD-123"]},
    OpenApiParameter.PATH,
    description="The order's number.",
)


def text_of(name: str, **more: Any) -> Data:
    """What a text of an order may be, for the document: orders.intake checks it."""
    return {"minLength": 1, "maxLength": TEXT_LIMITS[name], **more}


# What is taken ---------------------------------------------------------------------------------------------------


@extend_schema_field(
    {
        "oneOf": [
            AMOUNT,
            {"type": "number", "minimum": 0, "maximum": 99_999_999_999},
            {
                "type": "object",
                "properties": {"amount": AMOUNT, "currency": CURRENCY},
                "required": ["amount", "currency"],
                "additionalProperties": False,
            },
        ],
        "description": "What you take the items to add up to. Left out, it is not compared.",
    }
)
class TotalField(serializers.Field[Any, Any, Any, Any]):
    """An amount as text or number, or with its currency as an object. Gives (amount, currency or None)."""

    default_error_messages = {"invalid": "Give an amount as text, or an object with amount and currency."}

    def to_internal_value(self, data: Any) -> tuple[str | int | Decimal, str | None]:
        if isinstance(data, dict):
            return self._from_object(data)
        if isinstance(data, bool) or not isinstance(data, str | int | Decimal):
            self.fail("invalid")
        return data, None

    def _from_object(self, data: Data) -> tuple[str | int | Decimal, str]:
        faults: dict[str, list[ErrorDetail]] = {
            name: [ErrorDetail("There is no member of this name here.", code="unknown_field")]
            for name in data
            if name not in {"amount", "currency"}
        }
        for name in ("amount", "currency"):
            if name not in data:
                faults[name] = [ErrorDetail("This is needed.", code="required")]
        amount, currency = data.get("amount"), data.get("currency")
        if "amount" in data and (isinstance(amount, bool) or not isinstance(amount, str | int | Decimal)):
            faults["amount"] = [ErrorDetail("Give the amount as text, for example 99.99.", code="invalid")]
        if "currency" in data and not isinstance(currency, str):
            faults["currency"] = [ErrorDetail("Give the currency as three letters.", code="invalid")]
        if faults:
            raise ValidationError(faults)
        return cast(str | int | Decimal, amount), cast(str, currency)

    def to_representation(self, value: Any) -> Any:
        return value


class ItemInput(Strict):
    """One line: what, and how many. Lines with the same SKU are added up."""

    sku = Text(schema=text_of("sku"))
    quantity = Whole(schema={"minimum": 1, "maximum": MAX_QUANTITY})


class AddressInput(Strict):
    """Where the parcel goes."""

    name = Text(schema=text_of("ship_name"))
    line1 = Text(schema=text_of("ship_line1"))
    city = Text(schema=text_of("ship_city"))
    postcode = Text(schema=text_of("ship_postcode"))
    country = Text(schema={"pattern": "^[A-Za-z]{2}$"}, help_text="Two letters of ISO 3166, for example DE.")


class PaymentInput(Strict):
    """How it is paid."""

    token = Text(
        schema={"pattern": "^[A-Za-z0-9._:-]{1,100}$"},
        help_text="The token of a card, never its number. For trying out: `tok_visa`, `tok_declined`.",
    )


@extend_schema_serializer(component_name="NewOrder")
class OrderInput(Strict):
    """An order to be placed."""

    order_id = Text(
        schema={"pattern": f"^{ORDER_ID.pattern}$"},
        required=False,
        help_text="Your number for it. Left out, we make one. The same order under the same number is one order.",
    )
    user_id = Text(
        schema=text_of("user_id"),
        required=False,
        help_text="Your reference for the customer. Left out: the caller's name.",
    )
    items = ItemInput(many=True, max_length=MAX_LINES)  # type: ignore[call-arg]  # of the list that many=True makes
    total_amount = TotalField(required=False)
    currency = Text(schema=CURRENCY, required=False, help_text="Left out: the total's, else the shop's.")
    email = Text(schema=text_of("email", format="email"))
    shipping_address = AddressInput()
    payment = PaymentInput()

    def validate(self, attrs: Data) -> Data:
        """A currency said twice is said the same."""
        _, within = attrs.get("total_amount", (None, None))
        if within is not None and attrs.get("currency", within) != within:
            raise ValidationError(
                {"currency": [ErrorDetail("The total is given in another currency.", code="differs")]}
            )
        return attrs


class OrderInputSchema(StrictSchema):
    """OrderInput in the OpenAPI document: with the bounds of its lines, which the framework does not show."""

    target_class = OrderInput
    priority = 1

    def map_serializer(self, auto_schema: Any, direction: Any) -> Data:
        schema = super().map_serializer(auto_schema, direction)
        schema["properties"]["items"] |= {"minItems": 1, "maxItems": MAX_LINES}
        return schema


# What is shown ---------------------------------------------------------------------------------------------------


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
    messages = MessageShape(many=True)
    reservations = ReservationShape(many=True)
    run = OrderRun(allow_null=True)
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
