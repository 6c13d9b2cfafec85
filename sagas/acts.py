"""Which acts a run's state allows now: one answer for services, pages, admin and API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sagas.decide import Stand, beyond_return, left_something, next_steps, progress, turn_back_cause, undo_order
from sagas.definition import Kind, Saga, Step
from sagas.exceptions import DefinitionError
from sagas.journal import Held
from sagas.states import DONE, ENDED, Direction, RunStatus

IMPORTED = "it was read from a file, to be looked at; what it did happened elsewhere"


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What may be done to a run, and to its steps in each direction."""

    run: tuple[str, ...] = ()
    steps: Mapping[tuple[str, Direction], tuple[str, ...]] = field(default_factory=dict)
    cancel_refusal: str = ""
    """Why the run cannot be cancelled any more, where its state alone would let it be."""

    def of(self, step: str, direction: Direction) -> tuple[str, ...]:
        return self.steps.get((step, direction), ())

    def names(self) -> list[str]:
        """In words, for an error: "cancel", "retry refund_payment"."""
        found = list(self.run)
        for (step, direction), acts in self.steps.items():
            way = "the undo of " if direction is Direction.COMPENSATION else ""
            found += [f"{act} {way}{step}" for act in acts]
        return found


def possible_acts(held: Held, now: datetime) -> Acts:
    """What makes sense in this state."""
    if held.run.imported_at is not None:
        return Acts(cancel_refusal=IMPORTED)
    status = RunStatus(held.run.status)
    run: list[str] = []
    refusal = ""
    forward = held.run.turned_back_at is None and held.run.cancel_requested_at is None
    if (status not in ENDED and forward) or status is RunStatus.COMPLETED:
        refusal = cancel_refusal(held)
        run += [] if refusal else ["cancel"]
    if status is RunStatus.NEEDS_ATTENTION and not in_hand(held, now):
        run.append("abandon")
    if held.saga is None or status in ENDED or in_hand(held, now):
        return Acts(run=tuple(run), cancel_refusal=refusal)
    history = held.history()
    back = history.turned_back or turn_back_cause(held.saga, history, now) is not None
    direction = Direction.COMPENSATION if back else Direction.ACTION
    steps: dict[tuple[str, Direction], tuple[str, ...]] = {}
    for step in held.saga.steps:
        if back and (step.compensation is None or not left_something(history, step.name)):
            continue
        stand = progress(held.saga, history, step, direction, now)
        acts: list[str] = []
        if stand.stand is Stand.FAILED or (stand.stand is Stand.WAITING and stand.failures):
            acts.append("retry")
        if stand.stand is Stand.FAILED and status is RunStatus.NEEDS_ATTENTION:
            acts += _by_hand(step, back=back)
        if acts:
            steps[step.name, direction] = tuple(acts)
    if status is RunStatus.NEEDS_ATTENTION and not steps:
        # Nothing failed, and yet it stands still: it kills its workers, or its definition was away.
        for step in _next(held, held.saga, now, back=back):
            steps[step.name, direction] = ("retry", *_by_hand(step, back=back))
    return Acts(run=tuple(run), steps=steps, cancel_refusal=refusal)


def cancel_refusal(held: Held) -> str:
    """Why this run cannot be undone any more; empty: it can."""
    if held.run.pruned_at is not None:
        return f"its history was archived on {held.run.pruned_at:%Y-%m-%d}, and nobody knows any more what to undo"
    if held.saga is None:
        return "its definition is not installed here"
    final = beyond_return(held.saga, held.history())
    if final is not None:
        return f"{final.name} is done, or may be, and has no undo"
    if held.saga.refuse_cancel is None:
        return ""
    return held.saga.refuse_cancel(held.run.input, results_of(held), held.signals)


def results_of(held: Held) -> dict[str, Mapping[str, object]]:
    """The done steps' results by step name."""
    return {
        record.step: record.result or {}
        for record in held.records
        if record.direction == Direction.ACTION.value and record.outcome in DONE
    }


def in_hand(held: Held, now: datetime) -> bool:
    """A worker is at it: its attempt ends first."""
    return held.run.lease_until is not None and held.run.lease_until >= now


def _by_hand(step: Step, *, back: bool) -> tuple[str, ...]:
    return ("resolve", "skip") if back or step.kind is Kind.RETRIABLE else ("resolve",)


def _next(held: Held, saga: Saga, now: datetime, *, back: bool) -> list[Step]:
    history = held.history()

    def is_done(step: Step, direction: Direction) -> bool:
        return progress(saga, history, step, direction, now).stand is Stand.DONE

    if not back:
        return next_steps(saga, {step.name for step in saga.steps if is_done(step, Direction.ACTION)})
    try:
        return [step for step in undo_order(saga, history) if not is_done(step, Direction.COMPENSATION)][:1]
    except DefinitionError:  # a step was taken out of the definition
        return []
