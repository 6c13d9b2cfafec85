"""The order list as a request and as a command ask for it, as far as these have words for its filters."""

from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from orders.order_filter import STATES, VIEWS, WORDS, OrderFilter, midnight
from orders.order_processing import ORDER_SAGA
from sagas.twins import command_of

API_NAMES = {"customer": "user_id", "step": "step", "error": "error_code", "tag": "tag", "q": "q"}
API_SORTS = {"": "", "oldest": "placed_at"}
COMMAND_NAMES = {"step": "--step", "error": "--error"}


def api_query(asked: OrderFilter, now: datetime) -> tuple[str, list[str]]:
    """(the API's query that finds the same orders, the filters it has no words for): ("user_id=ada", ["at least"])."""
    found = {theirs: getattr(asked, ours) for ours, theirs in API_NAMES.items()}
    found |= {"state": _status(asked), "sort": API_SORTS.get(asked.sort, "")}
    begins = [midnight(asked.placed_from)] if asked.placed_from else []
    if asked.state == "today":
        begins.append(midnight(timezone.localdate(now).isoformat()))
    if begins:
        found["placed_from"] = max(begins).isoformat()
    if asked.placed_to:
        found["placed_to"] = (midnight(asked.placed_to) + timedelta(days=1)).isoformat()
    told = {*API_NAMES, "placed_from", "placed_to"}
    rest = _untold(asked, told, has_state=asked.state == "today" or bool(_status(asked)))
    if asked.sort not in API_SORTS:
        rest.append("the order")
    return urlencode({name: value for name, value in found.items() if value}), rest


def api_address(query: str) -> str:
    return reverse("api-orders") + (f"?{query}" if query else "")


def command(asked: OrderFilter) -> tuple[str, list[str]]:
    """(the command that lists the same orders' runs, the filters it has no words for)."""
    words = ["saga", "list", "--saga", ORDER_SAGA.name]
    if status := _status(asked):
        words += ["--state", status]
    for ours, theirs in COMMAND_NAMES.items():
        if value := getattr(asked, ours):
            words += [theirs, value]
    rest = _untold(asked, set(COMMAND_NAMES), has_state=bool(status))
    return command_of(*words), [*rest, "the order"] if asked.sort else rest


def named(words: str, rest: list[str]) -> str:
    """The words on a button that copies, with what is not copied: "Copy as curl, but for: at least"."""
    return f"{words}, but for: {', '.join(rest)}" if rest else words


def _status(asked: OrderFilter) -> str:
    """The one status that the view means; a view of several has no such word."""
    statuses = STATES.get(asked.state, ())
    return statuses[0] if len(statuses) == 1 else ""


def _untold(asked: OrderFilter, told: set[str], *, has_state: bool) -> list[str]:
    rest = [f"the view {dict(VIEWS)[asked.state]}"] if asked.state and not has_state else []
    return rest + [words for name, words in WORDS.items() if getattr(asked, name) and name not in told]
