"""The next move of a run, from its definition and its history. Pure: no I/O, and no clock but the one given.

Forward order, retries, waits, deadline, cancelling, pivot and undo live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import cached_property
from typing import Any

from sagas.definition import Kind, Saga, Step
from sagas.states import DONE, WORKER_LOST, Direction, Outcome, RunStatus


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One stored attempt, as far as deciding needs it."""

    step: str
    direction: Direction
    number: int
    outcome: Outcome | None
    """None: begun, and nothing was recorded of its end."""
    started_at: datetime
    retry_at: datetime | None = None
    wait_signal: str = ""
    settled: bool = False
    error_code: str = ""
    error_message: str = ""

    @property
    def is_postponed(self) -> bool:
        """It waits because the other side could not be asked: nothing was sent."""
        return self.outcome is Outcome.WAITING and bool(self.error_code)


@dataclass(frozen=True, kw_only=True)
class History:
    """All that happened to a run so far; attempts in the order they began."""

    attempts: tuple[Attempt, ...] = ()
    turned_back: bool = False
    cancel_requested: bool = False
    cancel_reason: str = ""
    deadline_at: datetime | None = None
    signals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fresh_from: Mapping[str, int] = field(default_factory=dict)
    """"<step>:<direction>": a person asked for another try after this attempt number."""
    in_flight: frozenset[tuple[str, Direction]] = frozenset()
    """What the asking worker has under way. Any other attempt without an outcome is unknown."""

    def of(self, step: str, direction: Direction) -> Sequence[Attempt]:
        """The attempts of one direction of one step, in the order they began."""
        return self._sorted.get((step, direction), ())

    @cached_property
    def _sorted(self) -> Mapping[tuple[str, Direction], list[Attempt]]:
        # Each decision asks for each step, more than once: sorting them anew each time was a tenth of a run's cost.
        attempts: dict[tuple[str, Direction], list[Attempt]] = {}
        for attempt in self.attempts:
            attempts.setdefault((attempt.step, attempt.direction), []).append(attempt)
        return attempts


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run turned back."""

    step: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Begin:
    """An attempt to begin now."""

    step: Step
    direction: Direction
    number: int
    maybe_done: bool
    """An earlier attempt may have happened: look it up first."""
    look_up_only: bool = False
    """The tries are used up: ask what became of the last one, and send nothing more."""
    signal: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The next move."""

    status: RunStatus
    begin: tuple[Begin, ...] = ()
    due_at: datetime | None = None
    """When to ask again, if nothing begins and nothing is under way; None: only when somebody acts."""
    failure: Failure | None = None
    """Set when the run turns back now."""
    attention: str = ""
    current_step: str = ""


LAST_LOOK_UPS = 3
"""How often the look-up is asked after the tries are used up: asking sends nothing."""


class Stand(Enum):
    """Where one direction of one step stands."""

    NOT_STARTED = auto()
    IN_FLIGHT = auto()
    READY = auto()
    WAITING = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where one direction of one step stands, and what follows from it."""

    stand: Stand
    number: int = 0
    """The last attempt's number; 0: none yet."""
    failures: int = 0
    """Failures in a row that count against the policy."""
    until: datetime | None = None
    maybe_done: bool = False
    look_up_only: bool = False
    signal: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""
    refused: bool = False


NOT_STARTED = Progress(stand=Stand.NOT_STARTED)


def decide(saga: Saga, history: History, now: datetime) -> Decision:
    """The next move of a run that has not ended. The same history and time give the same move."""
    failure = None if history.turned_back else turn_back_cause(saga, history, now)
    if history.turned_back or failure is not None:
        return _go_back(saga, history, now, failure)
    return _go_forward(saga, history, now)


def progress(saga: Saga, history: History, step: Step, direction: Direction, now: datetime) -> Progress:
    """Where `step` stands in `direction` at `now`."""
    every = history.of(step.name, direction)
    if not every:
        return NOT_STARTED
    last = every[-1]
    if last.is_postponed and last.number > _fresh_from(history, last):
        return _postponed(saga, history, step, last, now)
    if last.outcome in DONE:
        return Progress(stand=Stand.DONE, number=last.number)
    tries = [a for a in every if not a.is_postponed]
    if last.outcome is None and (step.name, direction) in history.in_flight:
        return Progress(stand=Stand.IN_FLIGHT, number=last.number, failures=_failures(history, tries, direction))
    if last.number <= _fresh_from(history, last):  # a person asked for another try since
        return Progress(
            stand=Stand.READY,
            number=last.number,
            maybe_done=may_have_happened(tries),
            signal=_heard(history, tries),
        )
    if last.outcome is Outcome.WAITING:
        return _waiting(history, tries, now)
    return _after_failure(history, step, direction, tries, now)


def _postponed(saga: Saga, history: History, step: Step, last: Attempt, now: datetime) -> Progress:
    """As if it had not been tried: only its number counts, and the time until which it was put off.

    What will be then is said now: a step whose own deadline will have passed is not waited for.
    """
    others = [
        a for a in history.attempts if not (a.is_postponed and (a.step, a.direction) == (step.name, last.direction))
    ]
    due = last.retry_at or now
    stand = progress(saga, replace(history, attempts=tuple(others)), step, last.direction, max(due, now))
    if stand.stand in (Stand.FAILED, Stand.WAITING):
        return replace(stand, number=last.number)
    if due > now:
        return replace(stand, stand=Stand.WAITING, number=last.number, until=due)
    return replace(stand, stand=Stand.READY, number=last.number, until=None)


def _heard(history: History, tries: list[Attempt]) -> Mapping[str, Any] | None:
    """What the last wait brought: the signal's payload, nothing for a date; None: it brought nothing."""
    for attempt in reversed(tries):
        if attempt.outcome is Outcome.WAITING:
            return history.signals.get(attempt.wait_signal) if attempt.wait_signal else {}
    return None


def _waiting(history: History, tries: list[Attempt], now: datetime) -> Progress:
    last = tries[-1]
    maybe_done = may_have_happened(tries)
    passed = last.retry_at is not None and now >= last.retry_at
    code = message = ""
    if last.wait_signal in history.signals:
        before = [a for a in tries[:-1] if a.number > _fresh_from(history, a) and a.wait_signal == last.wait_signal]
        if not before:
            return Progress(stand=Stand.READY, number=last.number, maybe_done=maybe_done, signal=_heard(history, tries))
        # It was given the signal and waits for it again: without an end to this it would be called for ever.
        code, message = "waits_again", f"It waits again for the signal {last.wait_signal}, which has come."
    elif passed and not last.wait_signal:
        return Progress(stand=Stand.READY, number=last.number, maybe_done=maybe_done, signal={})
    elif passed:
        code, message = "signal_timeout", f"The signal {last.wait_signal} did not come in time."
    if code:
        return Progress(stand=Stand.FAILED, number=last.number, code=code, message=message, refused=True)
    return Progress(stand=Stand.WAITING, number=last.number, until=last.retry_at, maybe_done=maybe_done)


def _after_failure(history: History, step: Step, direction: Direction, tries: list[Attempt], now: datetime) -> Progress:
    last = tries[-1]
    policy = step.policy(direction)
    failures = _failures(history, tries, direction)
    maybe_done = may_have_happened(tries)
    refused = last.outcome is Outcome.REFUSED
    due = last.retry_at or now
    first = next(a for a in tries if a.number > _fresh_from(history, last))
    too_late = policy.deadline is not None and max(due, now) > first.started_at + policy.deadline
    spent = failures >= policy.attempts or too_late
    asks = spent and maybe_done and step.looks_up(direction) is not None and failures < policy.attempts + LAST_LOOK_UPS
    if refused or (spent and not asks):
        return Progress(
            stand=Stand.FAILED,
            number=last.number,
            failures=failures,
            maybe_done=maybe_done,
            code=last.error_code or WORKER_LOST,
            message=last.error_message or "The worker was lost before the outcome was recorded.",
            refused=refused,
        )
    ready = due <= now
    return Progress(
        stand=Stand.READY if ready else Stand.WAITING,
        number=last.number,
        failures=failures,
        until=None if ready else due,
        maybe_done=maybe_done,
        look_up_only=asks,
        signal=_heard(history, tries),
    )


def _fresh_from(history: History, attempt: Attempt) -> int:
    return history.fresh_from.get(f"{attempt.step}:{attempt.direction.value}", 0)


def _failures(history: History, tries: list[Attempt], direction: Direction) -> int:
    """Failures that count: those since the last person's retry. Waits are no failures."""
    counting = {Outcome.REFUSED, Outcome.UNAVAILABLE, Outcome.UNKNOWN}
    return sum(
        1
        for a in tries
        if a.number > _fresh_from(history, a)
        and (a.outcome in counting or (a.outcome is None and (a.step, direction) not in history.in_flight))
    )


def may_have_happened(tries: list[Attempt]) -> bool:
    """Whether an outcome is open: unknown, and neither a look-up nor a clear no has settled it since."""
    open_question = False
    for attempt in tries:
        if attempt.settled or attempt.outcome is Outcome.REFUSED:
            open_question = False
        if attempt.outcome in (Outcome.UNKNOWN, None):
            open_question = True
    return open_question


def left_something(history: History, step: str) -> bool:
    """Whether the step's action did, or may have done, something that is there to be undone."""
    done = halfway = in_doubt = False
    for attempt in history.of(step, Direction.ACTION):
        # That a look-up found nothing says that it may be sent again, and no more: a request that was under way, or a
        # worker that stalled before it sent, may come later still. The undo tells the provider to turn it away.
        if attempt.outcome is Outcome.REFUSED:
            done = halfway = in_doubt = False
        elif attempt.outcome is Outcome.WAITING and not attempt.is_postponed:
            # What it asked of the world before it waited is there, whatever a look-up says of the action's end.
            halfway = True
        elif attempt.outcome in (Outcome.UNKNOWN, None):
            in_doubt = True
        elif attempt.outcome in (Outcome.SUCCEEDED, Outcome.RESOLVED):
            done = True
    return done or halfway or in_doubt


def undo_order(saga: Saga, history: History) -> list[Step]:
    """The steps to undo, the last one begun first."""
    begun: list[str] = []
    for attempt in history.attempts:
        if attempt.direction is Direction.ACTION and attempt.step not in begun:
            begun.append(attempt.step)
    steps = [saga.step(name) for name in reversed(begun)]
    return [step for step in steps if step.compensation is not None and left_something(history, step.name)]


def past_pivot(saga: Saga, history: History) -> bool:
    """Whether everything whose failure would turn the run back is done."""
    done = {a.step for a in history.attempts if a.direction is Direction.ACTION and a.outcome in DONE}
    return all(step.name in done for step in saga.steps if step.kind is not Kind.RETRIABLE)


def beyond_return(saga: Saga, history: History) -> Step | None:
    """The pivot without an undo that is done, or may be: no way leads back from it."""
    for step in saga.steps:
        if step.kind is Kind.PIVOT and step.compensation is None and left_something(history, step.name):
            return step
    return None


def deadline_of(saga: Saga, history: History) -> datetime | None:
    """The deadline, as long as it counts: until the pivot is done, and while there is a way back."""
    if history.deadline_at is None or past_pivot(saga, history) or beyond_return(saga, history) is not None:
        return None
    return history.deadline_at


def turn_back_cause(saga: Saga, history: History, now: datetime) -> Failure | None:
    """Why the run must turn back now, or None."""
    if history.cancel_requested:
        return Failure(step="", code="cancelled", message=history.cancel_reason)
    final = beyond_return(saga, history)
    for step in saga.steps:
        # Nor does a way lead back from a pivot without an undo that left something, if only while it waited.
        if step.kind is Kind.RETRIABLE or step is final:
            continue
        stand = progress(saga, history, step, Direction.ACTION, now)
        # An open question is a person's: going back on a guess could leave a charge behind.
        if stand.stand is Stand.FAILED and (stand.refused or not stand.maybe_done):
            return Failure(step=step.name, code=stand.code, message=stand.message)
    deadline = deadline_of(saga, history)
    if deadline is not None and now >= deadline:
        return Failure(step="", code="deadline", message="The run's deadline passed before its pivot was done.")
    return None


def _go_forward(saga: Saga, history: History, now: datetime) -> Decision:
    stands = {step.name: progress(saga, history, step, Direction.ACTION, now) for step in saga.steps}
    done = {name for name, stand in stands.items() if stand.stand is Stand.DONE}
    if len(done) == len(saga.steps):
        return Decision(status=RunStatus.COMPLETED)
    reachable = next_steps(saga, done)
    begin = tuple(
        _begin(step, Direction.ACTION, stands[step.name]) for step in reachable if _may_begin(stands[step.name])
    )
    waits = [until for step in reachable if (until := stands[step.name].until) is not None]
    deadline = deadline_of(saga, history)
    if deadline is not None:
        waits.append(deadline)
    stuck = [step for step in reachable if stands[step.name].stand is Stand.FAILED]
    busy = bool(begin) or any(stands[step.name].stand is Stand.IN_FLIGHT for step in reachable)
    failing = any(stands[step.name].failures for step in reachable)
    status = RunStatus.RETRYING if failing else RunStatus.RUNNING
    if stuck and not busy:
        status = RunStatus.NEEDS_ATTENTION
    return Decision(
        status=status,
        begin=begin,
        due_at=None if busy or not waits else min(waits),
        attention="; ".join(_stuck(step, stands[step.name]) for step in stuck),
        current_step=(stuck or reachable)[0].name,
    )


def next_steps(saga: Saga, done: Set[str]) -> list[Step]:
    """The steps not done whose predecessors all are."""
    return [step for step in saga.steps if step.name not in done and done >= set(saga.before(step.name))]


def _stuck(step: Step, stand: Progress) -> str:
    if stand.maybe_done and not stand.refused:
        return f"{step.display}: the outcome is unknown after {stand.failures} tries ({stand.message})"
    return f"{step.display} failed for good: {stand.message}"


def _undo_words(saga: Saga, step: Step) -> str:
    """The undo, as people read it; with the step's name where several share one, so that it says which is left."""
    alike = [other for other in saga.steps if other.compensation_display == step.compensation_display]
    return step.compensation_display if len(alike) == 1 else f"{step.compensation_display} ({step.name})"


def _may_begin(stand: Progress) -> bool:
    return stand.stand in (Stand.NOT_STARTED, Stand.READY)


def _begin(step: Step, direction: Direction, stand: Progress) -> Begin:
    return Begin(
        step=step,
        direction=direction,
        number=stand.number + 1,
        maybe_done=stand.maybe_done,
        look_up_only=stand.look_up_only,
        signal=stand.signal,
    )


def _go_back(saga: Saga, history: History, now: datetime, failure: Failure | None) -> Decision:
    # What is under way ends first: an undo beside its own action could come before the effect it undoes, and one
    # beside an older step's undo would be two at a time.
    for step in saga.steps:
        if any(progress(saga, history, step, way, now).stand is Stand.IN_FLIGHT for way in Direction):
            return Decision(status=RunStatus.COMPENSATING, failure=failure, current_step=step.name)
    failed: list[str] = []
    last_failed = ""
    for step in undo_order(saga, history):
        stand = progress(saga, history, step, Direction.COMPENSATION, now)
        if stand.stand is Stand.DONE:
            continue
        if stand.stand is Stand.FAILED:
            failed.append(f"{_undo_words(saga, step)} failed: {stand.message}")
            last_failed = last_failed or step.name
            continue
        begin = (_begin(step, Direction.COMPENSATION, stand),) if _may_begin(stand) else ()
        return Decision(
            status=RunStatus.COMPENSATING,
            begin=begin,
            due_at=stand.until,
            failure=failure,
            current_step=step.name,
        )
    if failed:
        return Decision(
            status=RunStatus.NEEDS_ATTENTION, failure=failure, attention="; ".join(failed), current_step=last_failed
        )
    return Decision(status=RunStatus.COMPENSATED, failure=failure)


def retry_at(
    saga: Saga,
    history: History,
    attempt: Attempt,
    *,
    now: datetime,
    draw: float,
    retry_after: timedelta | None = None,
) -> datetime:
    """When the attempt that has just failed may be tried again; `history` holds it without its outcome."""
    earlier = [a for a in history.of(attempt.step, attempt.direction) if a.number < attempt.number]
    failures = _failures(history, earlier, attempt.direction) + 1
    policy = saga.step(attempt.step).policy(attempt.direction)
    return now + (retry_after if retry_after is not None else policy.delay_after(failures, draw=draw))
