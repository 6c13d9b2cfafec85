"""An order's history as one story: what the engine did, each try of each step, what people did and wrote down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orders.models import OrderNote
from orders.selectors import OrderView
from sagas.selectors import AttemptView, RunEvent
from sagas.states import Direction

KINDS = (
    ("", "All"),
    ("people", "People"),
    ("programs", "Programs"),
    ("steps", "Tries"),
    ("system", "System"),
    ("notes", "Notes"),
)
"""What the history is narrowed to."""
ENGINE = "engine"
PROGRAMS = ("key:", "command:")
"""How the names of those begin who act by an API key, or by a command."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that happened. Of event, attempt and note, the one that it is."""

    at: datetime
    kind: str
    event: RunEvent | None = None
    attempt: AttemptView | None = None
    title: str = ""
    """Of the step or undo that was tried."""
    anchor: str = ""
    """Where on the page the attempt stands."""
    note: OrderNote | None = None


def story(view: OrderView, *, kind: str = "", with_notes: bool) -> list[Entry]:
    """What happened to the order, newest first; `kind` narrows it. Notes are for staff."""
    entries: list[Entry] = []
    if view.run is not None:
        for event in view.run.events:
            entries.append(Entry(at=event.created_at, kind=_kind_of(event.actor), event=event))
        for step in view.run.steps:
            for title, tries in ((step.title, step.attempts), (step.undo_title, step.undo_attempts)):
                entries += [_of_attempt(title, step.name, attempt) for attempt in tries]
    if with_notes:
        entries += [Entry(at=note.created_at, kind="notes", note=note) for note in view.notes]
    found = [entry for entry in entries if not kind or entry.kind == kind]
    return sorted(found, key=lambda entry: entry.at, reverse=True)


def anchor_of(step: str, direction: str, number: int) -> str:
    """The id of an attempt on a page."""
    return f"try-{step}-{direction}-{number}"


def _kind_of(actor: str) -> str:
    if actor == ENGINE:
        return "system"
    return "programs" if actor.startswith(PROGRAMS) else "people"


def _of_attempt(title: str, step: str, attempt: AttemptView) -> Entry:
    return Entry(
        at=attempt.ended_at or attempt.started_at,
        kind="steps",
        attempt=attempt,
        title=title,
        anchor=anchor_of(step, Direction(attempt.direction).value, attempt.number),
    )
