"""Which runs a command means: by what stands in its options, or in one `--query`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from sagas import console, selectors, shell
from sagas.models import SagaRun
from sagas.states import RunStatus

NAMES = ("state", "saga", "step", "key", "error", "since")
OLD_NAMES = {"status": "state"}
"""Taken too: scripts may have them."""


def parsed(query: str) -> dict[str, Any]:
    """`state=needs_attention step=process_payment since=2h` as options. Raises ValueError, naming what is wrong."""
    found: dict[str, Any] = {}
    for part in query.replace(",", " ").split():
        name, equals, value = part.partition("=")
        name = OLD_NAMES.get(name, name)
        if name not in NAMES:
            raise ValueError(
                f"There is no {name!r} to choose by.{shell.meant(name, NAMES)} There are: {', '.join(NAMES)}."
            )
        if not equals or not value:
            raise ValueError(f"{part!r} names no value: say {name}=…")
        if name in found:
            raise ValueError(f"{name} is given twice.")
        found[name] = _value(name, value)
    if "state" in found:
        found["status"] = found.pop("state")  # as the row has it
    if not found:
        raise ValueError("The query is empty, and nobody means all of history. Say for example state=needs_attention.")
    return found


def chosen(options: Mapping[str, Any]) -> QuerySet[SagaRun]:
    """The runs for which all of what is given holds, newest first. Raises console.NotFound for an unknown saga."""
    if options.get("saga"):
        console.saga_of(options["saga"])
    span = options.get("since")
    since = timezone.now() - span if span else None
    exact = {name: options.get(name) or "" for name in ("status", "saga", "key", "error")}
    runs = selectors.newest_runs(**exact, since=since)
    return runs.filter(current_step=options["step"]) if options.get("step") else runs


def _value(name: str, text: str) -> str | timedelta:
    if name == "since":
        return console.span(text)
    statuses = [status.value for status in RunStatus]
    if name == "state" and text not in statuses:
        raise ValueError(f"There is no state {text!r}.{shell.meant(text, statuses)} There are: {', '.join(statuses)}.")
    return text
