"""Admin lists over tables of millions: nothing on a page reads more than a stretch of them.

Django's own count every row for its pager, look through every row for the values that a filter offers, and again for
the days that a date hierarchy does. Each of these takes a second or more on a million rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.filters import AllValuesFieldListFilter
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Field, Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property

COUNTED = 10_000
"""Rows are counted up to this many; whoever wants to see more narrows the list."""
AMONG = 10_000
"""Of the newest rows, whose values a filter offers. Others can still be asked for in the address."""

EMPTY = "none"


class LargePaginator(Paginator[Any]):
    """Counts up to COUNTED."""

    @cached_property
    def count(self) -> int:
        rows = self.object_list
        return rows.order_by()[:COUNTED].count() if isinstance(rows, QuerySet) else len(rows)


class NewestValuesFilter(AllValuesFieldListFilter):
    """Offers the values that the newest rows have."""

    def __init__(
        self, field: Field[Any, Any], request: HttpRequest, params: dict[str, Any], model: type[Model],
        model_admin: Any, field_path: str,
    ) -> None:  # fmt: skip
        super().__init__(field, request, params, model, model_admin, field_path)
        newest = model_admin.get_queryset(request).order_by("-pk").values_list(field_path, flat=True)[:AMONG]
        choices: Any = sorted(set(newest), key=lambda value: (value is None, value))
        self.lookup_choices = choices

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The empty text is a value too, and its link needs a name."""
        for choice in super().choices(changelist):
            choice["display"] = choice["display"] or EMPTY
            yield choice


class DatedQuerySet(QuerySet[Any]):
    """Tells a date hierarchy of every day between the first row and the last, whether or not there is a row of it.

    Keys grow with time, so that the first and the last are found by key.
    """

    def aggregate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if set(kwargs) != {"first", "last"}:
            return super().aggregate(*args, **kwargs)
        return dict(zip(("first", "last"), self._ends(kwargs["first"].source_expressions[0].name), strict=True))

    def datetimes(self, field_name: str, kind: str, *args: Any, **kwargs: Any) -> Any:
        first, last = self._ends(field_name)
        return list(_parts(timezone.localtime(first), timezone.localtime(last), kind)) if first and last else []

    def _ends(self, name: str) -> tuple[datetime | None, datetime | None]:
        rows = self.values_list(name, flat=True)
        ends = [moment for order in ("pk", "-pk") if (moment := rows.order_by(order).first()) is not None]
        return (min(ends), max(ends)) if ends else (None, None)


class LargeChangeList(ChangeList):
    """A list whose date hierarchy is told by DatedQuerySet."""

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(*args, **kwargs)
        rows.__class__ = DatedQuerySet
        return rows


def _parts(first: datetime, last: datetime, kind: str) -> Iterator[datetime]:
    """The beginnings of the days, months or years from `first` to `last`."""
    seen: set[datetime] = set()
    day = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= last:
        start = day.replace(day=1) if kind != "day" else day
        start = start.replace(month=1) if kind == "year" else start
        if start not in seen:
            seen.add(start)
            yield start
        day += timedelta(days=1)
