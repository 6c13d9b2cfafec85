"""Which acts a run's state allows now: one answer for services, pages, admin and API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sagas.decide import Stand, left_something, progress, turn_back_cause
from sagas.definition import Kind
from sagas.journal import Held
from sagas.states import ENDED, Direction, RunStatus


@dataclass(frozen=True, kw_only=True)
class Acts:
    """What may be done to a run, and to its steps in each direction."""

    run: tuple[str, ...] = ()
    steps: Mapping[tuple[str, Direction], tuple[str, ...]] = field(default_factory=dict)

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
    """What makes sense in this state. Whether the definition still lets it be cancelled is asked when it is tried."""
    status = RunStatus(held.run.status)
    run: list[str] = []
    forward = held.run.turned_back_at is None and held.run.cancel_requested_at is None
    if (status not in ENDED and forward) or status is RunStatus.COMPLETED:
        run.append("cancel")
    if status is RunStatus.NEEDS_ATTENTION:
        run.append("abandon")
    if held.saga is None or status in ENDED or _in_hand(held, now):
        return Acts(run=tuple(run))
    history = held.history()
    back = history.turned_back or turn_back_cause(held.saga, history, now) is not None
    steps: dict[tuple[str, Direction], tuple[str, ...]] = {}
    for step in held.saga.steps:
        direction = Direction.COMPENSATION if back else Direction.ACTION
        if back and (step.compensation is None or not left_something(history, step.name)):
            continue
        stand = progress(held.saga, history, step, direction, now)
        acts: list[str] = []
        if stand.stand is Stand.FAILED or (stand.stand is Stand.WAITING and stand.failures):
            acts.append("retry")
        if stand.stand is Stand.FAILED and status is RunStatus.NEEDS_ATTENTION:
            acts.append("resolve")
            if back or step.kind is Kind.RETRIABLE:
                acts.append("skip")
        if acts:
            steps[step.name, direction] = tuple(acts)
    if status is RunStatus.NEEDS_ATTENTION and not steps:
        # Taken up again and again and nothing came of it: another try of what it was at is the way out.
        direction = Direction.COMPENSATION if back else Direction.ACTION
        if held.run.current_step:
            steps[held.run.current_step, direction] = ("retry",)
    return Acts(run=tuple(run), steps=steps)


def _in_hand(held: Held, now: datetime) -> bool:
    """A worker is at it: its attempt ends first."""
    return held.run.lease_until is not None and held.run.lease_until > now
