"""Which columns of the order list somebody wants to see. Kept with their other preferences, and in their session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column. State and number are always there: without them a row says nothing."""

    name: str
    title: str
    is_first: bool = True
    """Shown to whoever has not chosen."""
    is_staffs: bool = False
    sorts: tuple[str, str] | None = None
    """The two sorts that its head goes between."""


COLUMNS = (
    Column(name="customer", title="Customer", is_staffs=True),
    Column(name="items", title="Items"),
    Column(name="total", title="Total", sorts=("dearest", "cheapest")),
    Column(name="refund", title="Refund", is_first=False),
    Column(name="placed", title="Placed", sorts=("", "oldest")),
    Column(name="changed", title="Last change", sorts=("changed", "unchanged")),
    Column(name="owner", title="Owner", is_staffs=True),
)
KEY = "columns"


def known(names: Iterable[str]) -> list[str]:
    """Those of `names` that there are, as the list orders them."""
    wanted = set(names)
    return [column.name for column in COLUMNS if column.name in wanted]


def shown(session: Any, *, staff: bool) -> list[Column]:
    """The columns that this person sees."""
    chosen = session.get(KEY)
    wanted = set(chosen) if isinstance(chosen, list) else {column.name for column in COLUMNS if column.is_first}
    return [column for column in COLUMNS if column.name in wanted and (staff or not column.is_staffs)]
