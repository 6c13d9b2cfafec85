"""The order list's filters: read from an address, told as chips, applied to orders. The address is all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_date

from orders import selectors
from orders.models import Order, OrderNote, Payment

COUNTED = 10_000
"""Up to this many the number of orders is told exactly."""

VIEWS = (
    ("", "All"),
    ("today", "Today"),
    ("in_progress", "In progress"),
    ("retrying", "Retrying"),
    ("needs_attention", "Needs attention"),
    ("refund_pending", "Refund pending"),
    ("completed", "Completed"),
    ("undone", "Undone"),
)
STATES = {
    "in_progress": ("pending", "running", "retrying", "compensating"),
    "retrying": ("retrying",),
    "needs_attention": ("needs_attention",),
    "refund_pending": ("compensating", "needs_attention"),
    "completed": ("completed",),
    "undone": ("compensated", "abandoned"),
}
SORTS = (
    ("", "newest first"),
    ("oldest", "oldest first"),
    ("changed", "last changed first"),
    ("unchanged", "longest unchanged first"),
    ("dearest", "highest total first"),
    ("cheapest", "lowest total first"),
)
KEYS = {
    "": ("placed_at", False),
    "oldest": ("placed_at", True),
    "changed": ("last_change", False),
    "unchanged": ("last_change", True),
    "dearest": ("total_amount", False),
    "cheapest": ("total_amount", True),
}
"""Sort -> (what it goes by, whether it rises)."""
AMONG = 10_000
"""What has no index is looked for, or sorted, among so many of the newest orders that fit."""
ME = "me"
WORDS = {
    "q": "found by",
    "customer": "customer",
    "owner": "looked after by",
    "tag": "tagged",
    "step": "at step",
    "provider": "tried with",
    "error": "turned back with",
    "placed_from": "placed from",
    "placed_to": "placed to",
    "least": "at least",
    "most": "at most",
    "noted": "with notes",
}
"""How a chip names a filter."""
LARGEST = Decimal(99_999_999_999)


@dataclass(frozen=True, kw_only=True)
class OrderFilter:
    """What the list is narrowed to, each as it stands in the address; an empty text does not narrow it."""

    state: str = ""
    q: str = ""
    customer: str = ""
    owner: str = ""
    """`me`, or as the history names people."""
    tag: str = ""
    step: str = ""
    provider: str = ""
    error: str = ""
    placed_from: str = ""
    placed_to: str = ""
    least: str = ""
    most: str = ""
    noted: str = ""
    sort: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    """By filter, what is wrong with what was asked for; such a filter is left out."""

    @classmethod
    def read(cls, data: Mapping[str, Any], *, staff: bool) -> OrderFilter:
        """What an address asks for. Customers have no filters that only staff's words make sense of."""
        found: dict[str, str] = {}
        faults: dict[str, str] = {}
        for name in NAMES:
            # PostgreSQL refuses to compare with a text that holds NUL: no stored text has one.
            text = str(data.get(name, "")).replace("\x00", "\ufffd").strip()[:200]
            if text and name in STAFFS and not staff:
                continue
            try:
                found[name] = READERS.get(name, str)(text) if text else ""
            except ValueError as error:
                faults[name] = str(error)
        return cls(**found, faults=faults)

    def query(self, **changes: str) -> str:
        """The address's query with some filters changed: "state=retrying&customer=ada"."""
        return urlencode({name: value for name in NAMES if (value := changes.get(name, getattr(self, name)))})

    def chips(self) -> list[tuple[str, str, str]]:
        """(words, value, the query without it) of each filter but the view and the order."""
        return [
            (WORDS[name], "" if name == "noted" else getattr(self, name), self.query(**{name: ""}))
            for name in WORDS
            if getattr(self, name)
        ]

    def is_narrowed(self) -> bool:
        return bool(self.query(sort=""))

    def apply(
        self, orders: QuerySet[Order], now: datetime, *, me: str = "", found: Iterable[int] | None = None
    ) -> QuerySet[Order]:
        """Those of `orders` that fit, in the order asked for.

        `me`: who is asking, as the history names people; `found`: the keys of what `q` names, if that is known already.
        """
        if self.q:
            named = selectors.find_by_any_id(orders, self.q) if found is None else found
            orders = orders.filter(pk__in=list(named))
        orders = self._by_state(orders, now)
        if self.customer:
            orders = orders.filter(customer_ref=self.customer)
        if self.owner:
            orders = selectors.looked_after(orders, me if self.owner == ME else self.owner)
        if self.tag:
            orders = selectors.tagged(orders, self.tag)
        if self.step or self.error:
            orders = selectors.at_step(orders, step=self.step, error=self.error)
        if self.placed_from:
            orders = orders.filter(placed_at__gte=midnight(self.placed_from))
        if self.placed_to:
            orders = orders.filter(placed_at__lt=midnight(self.placed_to) + timedelta(days=1))
        if self.least:
            orders = orders.filter(total_amount__gte=Decimal(self.least))
        if self.most:
            orders = orders.filter(total_amount__lte=Decimal(self.most))
        if self.noted:
            orders = orders.filter(Exists(OrderNote.objects.filter(order=OuterRef("pk"))))
        if self.provider:
            orders = selectors.asked_of(orders, self.provider, among=AMONG)
        return in_order(orders, self.sort)

    def loosened(self, orders: QuerySet[Order], now: datetime, *, me: str = "") -> list[tuple[str, int, str]]:
        """(words, how many there would be, the query) of leaving one filter out, most first: for an empty list."""
        found = []
        for name in (*WORDS, "state"):
            value = getattr(self, name)
            if value:
                looser = replace(self, **{name: ""})  # type: ignore[arg-type]  # a filter's name, never `faults`
                words = dict(VIEWS).get(value, value) if name == "state" else f"{WORDS[name]} {value}".strip()
                found.append((words, count_of(looser.apply(orders, now, me=me)), looser.query()))
        return sorted((one for one in found if one[1]), key=lambda one: -one[1])

    def _by_state(self, orders: QuerySet[Order], now: datetime) -> QuerySet[Order]:
        if self.state == "today":
            return orders.filter(placed_at__gte=midnight(timezone.localdate(now).isoformat()))
        if self.state:
            orders = selectors.in_status(orders, *STATES[self.state])
        if self.state == "refund_pending":
            owed = Payment.objects.filter(order=OuterRef("pk"), charged__gt=F("refunded"))
            orders = orders.filter(Exists(owed))
        return orders


def count_of(orders: QuerySet[Order]) -> int:
    """How many; beyond COUNTED one more than that, whatever the number is."""
    return orders.order_by()[: COUNTED + 1].count()


def list_address(query: str, **more: str) -> str:
    """The list's address with that query, and whatever of `more` is not empty."""
    rest = urlencode({name: value for name, value in more.items() if value})
    whole = "&".join(part for part in (query, rest) if part)
    return reverse("order_list") + (f"?{whole}" if whole else "")


def in_order(orders: QuerySet[Order], sort: str) -> QuerySet[Order]:
    """Sorted so that no two change places by chance."""
    column, is_rising = KEYS[sort]
    if column == "last_change":
        orders = selectors.with_last_change(orders, among=AMONG)
    return orders.order_by(column, "id") if is_rising else orders.order_by(f"-{column}", "-id")


def after(orders: QuerySet[Order], edge: str, *, sort: str, at: str = "") -> QuerySet[Order]:
    """What comes after the order of that number in a list so sorted; an unknown number is no limit.

    `at`: what it was sorted by when the page before was made, where that changes.
    """
    found = Order.objects.filter(order_id=edge).only("pk", "placed_at", "total_amount").first()
    if found is None:
        return orders
    column, is_rising = KEYS[sort]
    value: Any = _instant(at) if column == "last_change" else getattr(found, column)
    if value is None:
        return orders
    way = "gt" if is_rising else "lt"
    # Said twice, because a database reads an index from its beginning for an OR, and from the edge for a bound.
    beyond = Q(**{f"{column}__{way}": value}) | Q(**{column: value, f"pk__{way}": found.pk})
    return orders.filter(beyond, **{f"{column}__{way}e": value})


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if timezone.is_aware(at) else None


def _state(text: str) -> str:
    return text if text in STATES or text == "today" else ""


def _sort(text: str) -> str:
    return text if text in dict(SORTS) else ""


def _day(text: str) -> str:
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None or not 1970 <= day.year <= 9998:
        raise ValueError(f"{text[:40]!r} is no date, like 2026-11-23.")
    return day.isoformat()


def _amount(text: str) -> str:
    try:
        amount = Decimal(text.replace(",", "."))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= LARGEST:
        raise ValueError(f"{text[:40]!r} is no amount, like 99.99.")
    return f"{amount:f}"


def midnight(day: str) -> datetime:
    """Where whoever looks is."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=timezone.get_current_timezone())


NAMES = tuple(one.name for one in fields(OrderFilter) if one.name != "faults")
STAFFS = frozenset({"customer", "owner", "tag", "step", "provider", "error", "noted"})
READERS: Mapping[str, Callable[[str], str]] = {
    "state": _state,
    "sort": _sort,
    "placed_from": _day,
    "placed_to": _day,
    "least": _amount,
    "most": _amount,
    "noted": lambda text: "1",
}
