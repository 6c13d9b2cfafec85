"""Effects in our own database, exactly once: a row that commits with the effect, one per run, step and direction.

An undo takes its action's row too. If the undo comes first, there is nothing to undo, and the action that comes
after it is turned away. If both come at once, the unique key lets one of them wait for the other's commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db import transaction

from sagas.bulk import insert_missing
from sagas.exceptions import StepRefused
from sagas.models import Barrier
from sagas.states import Direction

__all__ = ["do_once", "first_time", "insert_missing", "undo_once"]

Effect = Callable[[], Mapping[str, Any]]


@transaction.atomic
def do_once(key: str, effect: Effect) -> dict[str, Any]:
    """Have `effect` in the same transaction as its row, once; later calls return what the first one returned.

    Raises StepRefused (already_undone) if the undo has taken the key: the action came too late.
    """
    row = _take(key, Direction.ACTION)
    return dict(_taken(key).result) if row is None else _keep(row, effect())


@transaction.atomic
def first_time(key: str, effect: Callable[[], object]) -> bool:
    """Have `effect` as do_once has it, and say whether that was now: for an effect whose own rows tell what it was.

    Raises StepRefused (already_undone) if the undo has taken the key.
    """
    if _take(key, Direction.ACTION) is None:
        _taken(key)
        return False
    effect()
    return True


@transaction.atomic
def undo_once(key: str, action_key: str, undo: Effect, nothing: Mapping[str, Any]) -> dict[str, Any]:
    """Have `undo` once, if the action ever committed; otherwise bar the action, and return `nothing`."""
    # The action's row first, as the action itself takes it: two that meet wait for one another in one order.
    barred = _take(action_key, Direction.COMPENSATION)
    row = _take(key, Direction.COMPENSATION)
    if row is None:
        return dict(Barrier.objects.get(key=key).result)
    if barred is not None or Barrier.objects.get(key=action_key).cause == Direction.COMPENSATION.value:
        return _keep(row, nothing)
    return _keep(row, undo())


def _take(key: str, cause: Direction) -> Barrier | None:
    """The row of that key, or None if somebody has it."""
    row = Barrier(key=key, cause=cause.value)
    return row if insert_missing(row) else None


def _taken(key: str) -> Barrier:
    """The row that an earlier call of the action left. Raises StepRefused if it is the undo's."""
    row = Barrier.objects.get(key=key)
    if row.cause == Direction.COMPENSATION.value:
        raise StepRefused("This step was undone before it was done; nothing was done now.", code="already_undone")
    return row


def _keep(row: Barrier, result: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(result)
    Barrier.objects.filter(pk=row.pk).update(result=kept)
    return kept
