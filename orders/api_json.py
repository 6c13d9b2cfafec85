"""Reading JSON bodies without surprises: bounded, strict, and with exact numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

from django.conf import settings
from django.utils.http import parse_header_parameters
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser

from orders.api_errors import ProblemError

MOST_DIGITS = 40
"""Of a number. Amounts have 14; a number of a million digits is slow to handle on purpose."""
EXPONENT = re.compile(r"[eE][+-]?0*(\d*)$")
MOST_EXPONENT = 30


class StrictJsonParser(BaseParser):
    """One JSON object in UTF-8. No NaN, no member twice, no float: 99.99 arrives as Decimal("99.99")."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        _, params = parse_header_parameters(media_type or self.media_type)
        if params.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType(media_type or "", "Bodies are JSON in UTF-8.")
        return object_of(bounded(stream))


def bounded(stream: IO[bytes]) -> bytes:
    """The whole body, or a problem as soon as it is too long: it may not say how long it is."""
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body = stream.read(most + 1)
    if len(body) > most:
        raise ProblemError("payload-too-large")
    return body


def object_of(body: bytes) -> dict[str, Any]:
    """The object in `body`. Raises ProblemError."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_float=_number,
            parse_int=_whole,
            parse_constant=_no_constant,
            object_pairs_hook=_members,
        )
    except UnicodeDecodeError:
        raise ProblemError("malformed-json", "The body is not text in UTF-8.") from None
    except RecursionError:
        raise ProblemError("malformed-json", "The body is nested too deeply.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ProblemError("malformed-json", f"The body is not JSON: {error.msg} at {place}.") from None
    if not isinstance(value, dict):
        raise ProblemError("malformed-json", "The body must be a JSON object, in braces.")
    return value


def _number(text: str) -> Decimal:
    exponent = EXPONENT.search(text)
    if len(text) > MOST_DIGITS or (exponent and int(exponent[1] or 0) > MOST_EXPONENT):
        raise ProblemError("malformed-json", "A number in the body is beyond all measure.")
    return Decimal(text)


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ProblemError("malformed-json", "A number in the body is beyond all measure.")
    return int(text)


def _no_constant(name: str) -> Any:
    raise ProblemError("malformed-json", f"JSON has no {name}.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ProblemError("malformed-json", f"The member {name[:60]!r} is given more than once.")
        members[name] = value
    return members
