"""A run with everything recorded of it: to be kept, sent to whoever helps, or looked at in a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sagas.models import RunEvent, SagaRun, Signal, StepRecord

FORMAT = 1
"""Raised when a field changes its meaning or goes."""

HIDDEN = "(left out)"


def exported(run_id: UUID, *, is_redacted: bool = False) -> dict[str, Any]:
    """The run, its attempts, events and signals, oldest first. Raises SagaRun.DoesNotExist.

    Redacted, it has the names of what went in and came out and not the values: customers' addresses are among them.
    """
    run = SagaRun.objects.get(pk=run_id)
    told: dict[str, Any] = {
        "format": FORMAT,
        "run": _fields(run),
        "attempts": [_fields(row) for row in StepRecord.objects.filter(run=run).order_by("id")],
        "events": [_fields(row) for row in RunEvent.objects.filter(run=run).order_by("id")],
        "signals": [_fields(row) for row in Signal.objects.filter(run=run).order_by("id")],
    }
    if is_redacted:
        told["run"]["input"] = _hidden(told["run"]["input"])
        for attempt in told["attempts"]:
            attempt["result"] = _hidden(attempt["result"])
        for row in told["signals"]:
            row["payload"] = _hidden(row["payload"])
    return told


def _fields(row: Any) -> dict[str, Any]:
    """A row's columns, without the run it belongs to: that is said once."""
    names = [field.attname for field in row._meta.concrete_fields if field.attname != "run_id"]
    return {name: getattr(row, name) for name in names}


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return value if value is None else HIDDEN
