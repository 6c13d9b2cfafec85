"""What an act will do, step by step, for whoever is about to do it. No queries, no HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from django.conf import settings
from django.utils.module_loading import import_string

from sagas.selectors import RunView, StepView
from sagas.states import Direction, RunStatus, StepState, UndoState

LONGEST_REASON = 500
LONGEST_AGO = datetime.min.replace(tzinfo=UTC)
BEGUN = frozenset({StepState.DONE, StepState.RUNNING, StepState.RETRYING, StepState.WAITING, StepState.UNKNOWN})
OPEN_UNDOS = frozenset({UndoState.WAITING, UndoState.RUNNING, UndoState.RETRYING, UndoState.FAILED})
AHEAD = frozenset({StepState.NOT_REACHED, StepState.RUNNING, StepState.RETRYING, StepState.WAITING})

SHORTEST_REASON = 10
"""Shorter than a sentence says nothing to whoever reads the history in a year."""


class Words(NamedTuple):
    """What a step or an undo means to the people it is done for."""

    does: str = ""
    """What happens: "99.99 EUR goes back to the card"."""
    leaves: str = ""
    """What stays if it does not happen: "we keep 99.99 EUR"."""


Places = Mapping[tuple[str, str], Words]
"""(step, direction) -> its words."""
WordsOf = Callable[[str], Places]
"""Given a business key: what settings.SAGA_EFFECT_WORDS names, by saga."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One thing that will happen, or stay undone."""

    title: str
    what: str
    when: str
    """now, then, noted as done, left out or stays; empty where all of it happens one after another."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will follow, in its order."""

    moves: list[Move]
    end: str
    """How it ends if nothing else goes wrong."""


def reason_fault(reason: str, *, is_needed: bool = True) -> str:
    """What is wrong with a reason, in words; empty: nothing."""
    length = len(reason.strip())
    if length > LONGEST_REASON:
        return f"This is {length} characters long; at most {LONGEST_REASON} are kept."
    if is_needed and length < SHORTEST_REASON:
        return f"Say why in at least {SHORTEST_REASON} characters: it is all that the history will know."
    return ""


def words_of(view: RunView) -> Places:
    """What the steps of this run do, in the words of whom the saga is for; nothing if nobody gives any."""
    path = getattr(settings, "SAGA_EFFECT_WORDS", {}).get(view.run.saga, "")
    if not path:
        return {}
    asked: WordsOf = import_string(path)
    return asked(view.run.business_key)


def plan(view: RunView, act: str, step: str, direction: str, words: Places) -> Plan:
    """What `act` on this run, or on that step of it, will do."""
    if act == "cancel":
        return Plan(moves=_each(to_undo(view), Direction.COMPENSATION, words, ""), end="")
    back = view.run.turned_back_at is not None
    if act == "abandon":
        return Plan(moves=_left_behind(view, words, back=back), end="The run ends here, and nobody is asked again.")
    rest = _open_undos(view) if back else [one for one in view.steps if one.state in AHEAD]
    way = Direction.COMPENSATION if back else Direction.ACTION
    chosen = [one for one in view.steps if one.name == step and direction == way.value]
    when = {"retry": "now", "resolve": "noted as done", "skip": "left out"}[act]
    moves = _each(chosen, way, words, when)
    moves += _each([one for one in rest if one.name != step], way, words, "then")
    end = "Then the run is undone." if back else "Then the run is completed."
    return Plan(moves=moves, end=end if moves else "")


def to_undo(view: RunView) -> list[StepView]:
    """The steps that a cancellation undoes, the one that began last first."""
    return _newest_first(one for one in view.steps if one.state in BEGUN and one.undo_state is not None)


def seen_of(view: RunView) -> str:
    """What a dialog was made of: whoever acts on it later finds out whether the run has moved since."""
    return f"{view.run.status}.{view.run.fence}.{view.run.updated_at.timestamp():.6f}"


def _open_undos(view: RunView) -> list[StepView]:
    return _newest_first(one for one in view.steps if one.undo_state in OPEN_UNDOS)


def _left_behind(view: RunView, words: Places, *, back: bool) -> list[Move]:
    if back or view.run.status == RunStatus.COMPENSATING.value:
        return _each(_open_undos(view), Direction.COMPENSATION, words, "stays")
    return _each(to_undo(view), Direction.COMPENSATION, words, "stays")


def _each(steps: Iterable[StepView], way: Direction, words: Places, when: str) -> list[Move]:
    is_undo = way is Direction.COMPENSATION
    found = []
    for one in steps:
        said = words.get((one.name, way.value), Words())
        what = said.leaves if when in ("left out", "stays") else said.does
        found.append(Move(title=one.undo_title if is_undo else one.title, what=what, when=when))
    return found


def _newest_first(steps: Iterable[StepView]) -> list[StepView]:
    def began(one: StepView) -> datetime:
        return one.attempts[0].started_at if one.attempts else LONGEST_AGO

    ordered = sorted(enumerate(steps), key=lambda pair: (began(pair[1]), pair[0]))
    return [one for _, one in reversed(ordered)]
