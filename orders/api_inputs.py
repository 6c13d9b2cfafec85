"""Orders as the API takes them: their shape. What may be in it is checked by orders.intake, for every way in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from orders.intake import MAX_LINES, MAX_QUANTITY, ORDER_ID, TEXT_LIMITS
from sagas.api_fields import Strict, StrictSchema, Text, Whole

Data = dict[str, Any]

AMOUNT = {"type": "string", "pattern": r"^[0-9]{1,11}(\.[0-9]{1,3})?$", "examples": ["99.99"]}
CURRENCY = {"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["EUR"]}


def text_of(name: str, **more: Any) -> Data:
    """What a text of an order may be, for the document: orders.intake checks it."""
    return {"minLength": 1, "maxLength": TEXT_LIMITS[name], **more}


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
            name: [
                ErrorDetail("There is no member of this name here. There are: amount, currency.", code="unknown_field")
            ]
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
