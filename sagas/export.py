"""A run with everything recorded of it: to be kept, sent to whoever helps, and looked at on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, transaction
from django.db.models import Model

from sagas.exceptions import InvalidExport
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


@transaction.atomic
def imported(told: Mapping[str, Any]) -> SagaRun:
    """Store what `exported` told of a run, to be looked at. It is due for nothing: no worker here takes it up.

    Raises InvalidExport, and stores nothing, for what is no export or is of a run that is here already.
    """
    if told.get("format") != FORMAT:
        raise InvalidExport(f"This is of format {told.get('format')!r}; {FORMAT} is what is read here.")
    try:
        values = {**told["run"], "due_at": None, "lease_owner": "", "lease_until": None}
        run = SagaRun(**_read(SagaRun, values))
        rows = [
            model(run=run, **{name: value for name, value in _read(model, one).items() if name != "id"})
            for model, name in ((StepRecord, "attempts"), (RunEvent, "events"), (Signal, "signals"))
            for one in told[name]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as error:
        raise InvalidExport(f"This is no export of a run: {error!r}.") from error
    if SagaRun.objects.filter(pk=run.pk).exists():
        raise InvalidExport(f"The run {run.pk} is here already.")
    try:
        with transaction.atomic():
            run.save(force_insert=True)
            for row in rows:
                row.save(force_insert=True)
    except (IntegrityError, DataError) as error:
        raise InvalidExport(f"The database refuses it: {error}".strip()) from error
    return run


def _read(model: type[Model], values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's columns as Python has them; a column that there is not is a mistake."""
    known = {field.attname: field for field in model._meta.concrete_fields if not field.generated}
    return {name: known[name].to_python(value) for name, value in values.items()}


def _fields(row: Any) -> dict[str, Any]:
    """A row's columns, without the run it belongs to: that is said once."""
    names = [field.attname for field in row._meta.concrete_fields if field.attname != "run_id" and not field.generated]
    return {name: getattr(row, name) for name in names}


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return value if value is None else HIDDEN
