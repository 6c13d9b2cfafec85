"""A run with everything recorded of it: to be kept, sent to whoever helps, and looked at on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, transaction
from django.db.models import CharField, DateTimeField, Field, JSONField, Model, TextField
from django.utils import timezone

from sagas import registry
from sagas.exceptions import InvalidExport
from sagas.models import RunEvent, SagaRun, Signal, StepRecord

FORMAT = 1
"""Raised when a field changes its meaning or goes."""

HIDDEN = "(left out)"
LONGEST_TEXT = 100_000
NOT_TOLD = frozenset({"run_id", "imported_at"})
"""The run is told once; when it came here is nothing that happened to it."""
KINDS: tuple[tuple[type[StepRecord] | type[RunEvent] | type[Signal], str], ...] = (
    (StepRecord, "attempts"),
    (RunEvent, "events"),
    (Signal, "signals"),
)


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
def imported(told: Any, *, actor: str) -> SagaRun:
    """Store what `exported` told of a run, to be looked at. It is due for nothing, and nobody can act on it.

    Raises InvalidExport, and stores nothing, for what is no export, or is of a run that is here already or whose saga
    is not.
    """
    if not isinstance(told, Mapping):
        raise InvalidExport("This is no export of a run: it holds no JSON object.")
    if told.get("format") != FORMAT:
        raise InvalidExport(f"This is of format {told.get('format')!r:.40}; {FORMAT} is what is read here.")
    now = timezone.now()
    run = SagaRun(**_read(SagaRun, "run", told.get("run")))
    run.due_at, run.lease_owner, run.lease_until, run.imported_at = None, "", None, now
    if (run.saga, run.version) not in registry.names():
        known = ", ".join(f"{name} version {version}" for name, version in registry.names())
        raise InvalidExport(f"It is of {run.saga!r:.100} version {run.version}, which is not here. There are: {known}.")
    rows: list[StepRecord | RunEvent | Signal] = []
    for model, name in KINDS:
        for values in _list(told, name):
            row = model(**_read(model, name, values), run=run)
            row.pk = None
            rows.append(row)
    if SagaRun.objects.filter(pk=run.pk).exists():
        raise InvalidExport(f"The run {run.pk} is here already.")
    rows.append(RunEvent(run=run, kind="imported", actor=actor, created_at=now))
    try:
        with transaction.atomic():
            run.save(force_insert=True)
            for row in rows:
                row.save(force_insert=True)
    except (IntegrityError, DataError, OverflowError) as error:
        raise InvalidExport(f"The database refuses it: {error}".strip()) from error
    return run


def _list(told: Mapping[str, Any], name: str) -> Sequence[Any]:
    rows = told.get(name)
    if not isinstance(rows, list):
        raise InvalidExport(f"This is no export of a run: it has no list of {name}.")
    return rows


def _read(model: type[Model], name: str, values: Any) -> dict[str, Any]:
    """A row's columns as Python has them. Raises InvalidExport, naming the column."""
    if not isinstance(values, Mapping):
        raise InvalidExport(f"This is no export of a run: it has no {name} as an object.")
    known = {field.attname: field for field in model._meta.concrete_fields if not field.generated}
    known = {column: field for column, field in known.items() if column not in NOT_TOLD}
    if others := sorted(set(values) - set(known)):
        raise InvalidExport(f"This is no export of a run: there is no {others[0]!r:.40} in {name}.")
    for column, field in known.items():
        if column not in values and not field.has_default() and not field.null and column != "id":
            raise InvalidExport(f"This is no export of a run: {column} is missing in {name}.")
    return {column: _value(known[column], f"{name}: {column}", value) for column, value in values.items()}


def _value(field: Field[Any, Any], place: str, given: Any) -> Any:
    """One column's value, of the kind and length that the column holds."""
    if given is None and field.null:
        return None
    try:
        value = field.to_python(given)
    except (ValidationError, TypeError, ValueError, OverflowError) as error:
        raise InvalidExport(f"This is no export of a run: {place} cannot be {given!r:.60}.") from error
    is_right = value is not None
    if isinstance(field, JSONField):
        is_right = isinstance(value, dict) and _is_storable(json.dumps(value, ensure_ascii=False))
    elif isinstance(field, DateTimeField):
        is_right = is_right and timezone.is_aware(value)
    elif isinstance(field, CharField | TextField):
        is_right = isinstance(given, str) and len(given) <= (field.max_length or LONGEST_TEXT) and _is_storable(given)
    if not is_right:
        raise InvalidExport(f"This is no export of a run: {place} cannot be {given!r:.60}.")
    return value


def _is_storable(text: str) -> bool:
    """Neither NUL, which PostgreSQL refuses, nor half a character, which no answer can be written with."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text and "\\u0000" not in text


def _fields(row: Any) -> dict[str, Any]:
    """A row's columns, without the run it belongs to: that is said once."""
    fields = [field for field in row._meta.concrete_fields if not field.generated]
    names = [field.attname for field in fields if field.attname not in NOT_TOLD]
    return {name: getattr(row, name) for name in names}


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return value if value is None else HIDDEN
