"""Long lists a page at a time, by cursor: as fast on the thousandth page as on the first, and nothing seen twice.

Rows are ordered by primary key, which grows with time: BigAutoField does, and so does a UUID of version 7.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from sagas.api_fields import Strict

Row = TypeVar("Row", bound=Model)

MOST = 200
USUAL = 50
LARGEST_KEY = 2**63 - 1
LONGEST_CURSOR = 200


class MalformedCursor(APIException):
    """A cursor that did not come from us, or came from another list."""

    status_code = 400
    default_code = "malformed-cursor"
    default_detail = "This cursor did not come from this list. Begin again without one."


class PageQuery(Strict):
    """What every list takes."""

    part = "parameter"

    limit = serializers.IntegerField(
        min_value=1, max_value=MOST, default=USUAL, help_text="How many results a page has at most."
    )
    cursor = serializers.CharField(
        required=False,
        max_length=LONGEST_CURSOR,
        help_text="Where to go on: taken from `next` or `previous` of an earlier answer.",
    )


@dataclass(frozen=True)
class Page(Generic[Row]):
    """One page and the addresses of its neighbours."""

    rows: list[Row]
    next: str | None
    previous: str | None

    def answer(self, results: Any) -> dict[str, Any]:
        """The body of a list's answer."""
        return {"results": results, "next": self.next, "previous": self.previous}


@dataclass(frozen=True)
class _Cursor:
    key: Any
    backwards: bool
    of: str
    """Which list it goes through: a place in one says nothing in another."""

    def __str__(self) -> str:
        text = json.dumps([str(self.key), int(self.backwards), self.of], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def page_of(
    queryset: QuerySet[Row], *, request: Request, limit: int, cursor: str | None = None, newest_first: bool = True
) -> Page[Row]:
    """The page that `cursor` names, else the first one. Raises MalformedCursor."""
    mark = _mark_of(request)
    at = _read(cursor, queryset, mark) if cursor else None
    backwards = at is not None and at.backwards
    falling = newest_first is not backwards
    if at is not None:
        queryset = queryset.filter(**{"pk__lt" if falling else "pk__gt": at.key})
    # One more than asked for tells whether there is another page, without counting the table.
    found = list(queryset.order_by("-pk" if falling else "pk")[: limit + 1])
    more, rows = len(found) > limit, found[:limit]
    if backwards:
        rows.reverse()
    after = rows and (more or backwards)
    before = rows and at is not None and (more or not backwards)
    return Page(
        rows=rows,
        next=_address(request, _Cursor(rows[-1].pk, False, mark)) if after else None,
        previous=_address(request, _Cursor(rows[0].pk, True, mark)) if before else None,
    )


def _address(request: Request, cursor: _Cursor) -> str:
    return replace_query_param(request.build_absolute_uri(), "cursor", str(cursor))


def _mark_of(request: Request) -> str:
    """What a list is: its address with all that chooses and sorts, but not how much of it is shown."""
    chosen = sorted((name, value) for name, value in request.query_params.items() if name not in ("cursor", "limit"))
    return hashlib.sha256(json.dumps([request.path, chosen]).encode()).hexdigest()[:12]


def _read(text: str, queryset: QuerySet[Any], mark: str) -> _Cursor:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        key, backwards, of = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(key, str) or backwards not in (0, 1) or len(key) > 40 or of != mark:
            raise MalformedCursor
        value = queryset.model._meta.pk.to_python(key)
    except (ValueError, TypeError, RecursionError, binascii.Error, ValidationError) as error:
        raise MalformedCursor from error
    if isinstance(value, int) and not 0 <= value <= LARGEST_KEY:
        raise MalformedCursor
    return _Cursor(value, bool(backwards), mark)
