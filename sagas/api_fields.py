"""Fields and serializers that take exactly what they say: no number for a text, no unknown member, no lost fault.

The framework's own are kind: they make "5" of 5 and pass over a misspelt member, and a client finds out much later.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request

Detail = dict[str, Any]

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Between these every time zone can be worked out on every database."""


class Text(serializers.CharField):
    """A JSON string and nothing else.

    With `schema` a service checks what the text may be; it is in the document only, and passed on as it came.
    """

    default_error_messages = {
        "invalid": "This must be text.",
        "control_character": "This holds a control character. Take it out.",
    }

    def __init__(self, *, schema: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.schema = schema
        super().__init__(trim_whitespace=schema is None, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        return "" if data == "" and self.schema is not None else super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Words(Text):
    """What a person writes: not empty, lines allowed, no other control characters."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if any(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in text):
            self.fail("control_character")
        return text


class Whole(serializers.Field[int, Any, int, Any]):
    """A JSON number without a fraction; "5" and true are none. `schema` as with Text."""

    default_error_messages = {"invalid": "This must be a whole number."}

    def __init__(self, *, schema: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.schema = dict(schema or {})
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> int:
        # True is an int to Python, and 2.0 is an integer to JSON.
        if isinstance(data, bool) or not isinstance(data, int | Decimal) or data != int(data):
            self.fail("invalid")
        return int(data)

    def to_representation(self, value: int) -> int:
        return value


class Moment(serializers.DateTimeField):
    """A date and time within what every database can compare."""

    def to_internal_value(self, value: Any) -> datetime:
        try:
            moment = super().to_internal_value(value).astimezone(UTC)
        except (OverflowError, ValueError):
            self.fail("invalid", format="2024-01-15T09:30:00Z")
        if not EARLIEST <= moment <= LATEST:
            self.fail("invalid", format="2024-01-15T09:30:00Z")
        return moment


class PlainObject(serializers.Field[dict[str, Any], Any, dict[str, Any], Any]):
    """Any JSON object that every database can keep."""

    default_error_messages = {
        "invalid": "This must be an object.",
        "text": "A text in this holds a character that cannot be stored.",
        "deep": "This is nested too deeply.",
    }
    deepest = 20

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            self.fail("invalid")
        return cast(dict[str, Any], self._plain(data, 0))

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        return value

    def _plain(self, value: Any, depth: int) -> Any:
        if depth > self.deepest:
            self.fail("deep")
        match value:
            case Mapping():
                return {self._plain(name, depth): self._plain(inner, depth + 1) for name, inner in value.items()}
            case list():
                return [self._plain(inner, depth + 1) for inner in value]
            case str() if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
                self.fail("text")
            case Decimal():
                return float(value)  # what a step returns is plain JSON, and JSON's fractions are floats
        return value


class Strict(serializers.Serializer[Any]):
    """A serializer that names every member it does not know, and those that there are."""

    part = "member"
    """What it calls one: of a body, or of a query."""

    def to_internal_value(self, data: Any) -> Any:
        faults: Detail = {}
        if isinstance(data, Mapping):
            words = f"There is no {self.part} of this name here. There are: {', '.join(self.fields)}."
            faults = {str(name): [ErrorDetail(words, code="unknown_field")] for name in data if name not in self.fields}
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            raise ValidationError({**cast(Detail, error.detail), **faults}) from error
        if faults:
            raise ValidationError(faults)
        return value


class InvalidQuery(ValidationError):
    """The faults are in the query string, not in the body."""


def checked(shape: type[serializers.Serializer[Any]], data: object) -> dict[str, Any]:
    """The body as `shape` says. Raises ValidationError with every fault."""
    serializer = shape(data=data)
    serializer.is_valid(raise_exception=True)
    return cast(dict[str, Any], serializer.validated_data)


def checked_query(shape: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The query string as `shape` says. Raises InvalidQuery with every fault, unknown and doubled names among them."""
    given = request.query_params
    doubled = {
        name: [ErrorDetail("This is given more than once.", code="repeated")]
        for name, values in given.lists()
        if len(values) > 1
    }
    serializer = shape(data=given.dict())
    if not serializer.is_valid() or doubled:
        raise InvalidQuery({**serializer.errors, **doubled})
    return cast(dict[str, Any], serializer.validated_data)


class TextSchema(OpenApiSerializerFieldExtension):
    """Text in the OpenAPI document."""

    target_class = Text
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        field: Text = self.target
        if field.schema is not None:
            return {"type": "string", **field.schema}
        return {"type": "string"} if field.allow_blank else {"type": "string", "minLength": 1}


class WholeSchema(OpenApiSerializerFieldExtension):
    """Whole in the OpenAPI document."""

    target_class = Whole

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "integer", **self.target.schema}


class PlainObjectSchema(OpenApiSerializerFieldExtension):
    """PlainObject in the OpenAPI document."""

    target_class = PlainObject

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {}}


class StrictSchema(OpenApiSerializerExtension):
    """Strict in the OpenAPI document: no other members."""

    target_class = Strict
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        # Only of what is sent to us. What we send may grow, and a client must not break over it.
        return {**schema, "additionalProperties": False} if direction == "request" else schema
