"""Who wants to know what was written of runs is told in the same transaction: what they store commits with it, or not.

A listener stores what it needs and returns; calling anybody outside would hold up the batch, and all its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sagas.models import SagaRun

STEP_DONE = "step_done"
"""A step's action, or with a direction of compensation its undo, was recorded as done."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that was written of a run."""

    run: SagaRun
    """As it stands with what was written."""
    kind: str
    """An event's kind, or STEP_DONE."""
    step: str
    direction: str
    at: datetime
    attempt: int | None = None
    """Which try it was, of a step that is done."""


Listener = Callable[[Sequence[Notice]], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell `listener` from now on. The same one twice is told once."""
    if listener not in _listeners:
        _listeners.append(listener)


def tell(notices: Sequence[Notice]) -> None:
    """Inside the transaction that writes what they are about."""
    if notices:
        for listener in _listeners:
            listener(notices)
