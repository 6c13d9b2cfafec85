"""For whoever writes a saga: run it to its end in a test, without a queue and without waiting.

report = run_to_end(services.start(saga=TRIP, business_key="T-1", input={}, ring=False))
assert report.status is RunStatus.COMPENSATED
assert report.undone == ["book_flight"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.utils import timezone

from sagas import journal, points, services
from sagas.definition import Saga
from sagas.driver import Driver, Limits
from sagas.models import SagaRun, StepRecord
from sagas.states import DONE, ENDED, Direction, RunStatus


class Crashed(BaseException):
    """The worker died at a named point. No handler of ordinary errors catches it, as none catches SIGKILL."""


class FrozenClock:
    """A clock that moves only when told to."""

    def __init__(self, start: datetime | None = None) -> None:
        self.now = start or timezone.now()

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        """Move on by `by`; never back."""
        if by < timedelta(0):
            raise ValueError(f"A clock does not go back by {by}.")
        self.now += by


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What was done and what was undone, in the order it happened."""

    run: SagaRun
    status: RunStatus
    done: list[str]
    undone: list[str]
    results: Mapping[str, Mapping[str, Any]]
    attempts: list[tuple[str, str, int, str]]
    """(step, direction, number, outcome) of every attempt."""
    failed_step: str
    error_code: str
    error: str
    attention: str

    def assert_done(self, steps: Sequence[str]) -> None:
        """These steps were done, in this order, and no others."""
        if list(steps) != self.done:
            raise AssertionError(
                f"Done were {self.done}, not {list(steps)}; the run is {self.status.value}. {self.error}"
            )

    def assert_undone(self, steps: Sequence[str]) -> None:
        """These steps were undone, in this order, and no others."""
        if list(steps) != self.undone:
            raise AssertionError(
                f"Undone were {self.undone}, not {list(steps)}; the run is {self.status.value}. {self.error}"
            )


def run_inline(
    saga: Saga, *, input: Mapping[str, Any] | None = None, key: str = "TEST-1", clock: FrozenClock | None = None
) -> RunReport:
    """Begin a run of `saga` and drive it to its end, here and now."""
    run = services.start(saga=saga, business_key=key, input=input or {}, actor="test", ring=False)
    return run_to_end(run, clock=clock)


def run_to_end(run: SagaRun, *, clock: FrozenClock | None = None, limits: Limits | None = None) -> RunReport:
    """Drive `run` until it ends, needs attention or waits for a signal; backoffs pass on the clock, not in time."""
    clock = clock or FrozenClock(max(timezone.now(), run.created_at))
    for _ in range(1000):
        drive_once(run, clock=clock, limits=limits)
        run.refresh_from_db()
        if RunStatus(run.status) in ENDED or run.status == RunStatus.NEEDS_ATTENTION.value or run.due_at is None:
            return report(run)
        if run.lease_until is not None and run.lease_until >= clock.now:
            clock.advance(run.lease_until - clock.now + timedelta(seconds=1))
        if journal.waits_for(run, clock.now) == "signal":
            return report(run)
        clock.advance(max(run.due_at - clock.now, timedelta(0)))
    raise AssertionError(f"Run {run.pk} did not come to an end within 1000 drives; it is {run.status}.")


def drive_once(run: SagaRun, *, clock: FrozenClock, limits: Limits | None = None) -> None:
    """Drive `run` until nothing of it can be done at the clock's time. Raises Crashed where crash_at says so."""
    driver = Driver(limits=limits, clock=clock, inline=True)
    async_to_sync(driver.drive_run)(run.pk, patience=timedelta(seconds=-1))


def report(run: SagaRun) -> RunReport:
    """What the records say of `run` now."""
    run.refresh_from_db()
    records = list(StepRecord.objects.filter(run=run).order_by("id"))
    return RunReport(
        run=run,
        status=RunStatus(run.status),
        done=_in(records, Direction.ACTION),
        undone=_in(records, Direction.COMPENSATION),
        results={
            r.step: r.result or {} for r in records if r.direction == Direction.ACTION.value and r.outcome in DONE
        },
        attempts=[(r.step, r.direction, r.number, r.outcome) for r in records],
        failed_step=run.failure_step,
        error_code=run.failure_code,
        error=run.failure_message,
        attention=run.attention_reason,
    )


@contextmanager
def crash_at(point: str, *, times: int = 1, pass_by: int = 0) -> Iterator[None]:
    """Let the worker die at `point` ("after_call:process_payment:action", see sagas/points.py), `times` times.

    It survives the first `pass_by` times. Raises AssertionError at the end if the point was not reached as often:
    a crash that did not happen proves nothing.
    """
    left = times
    safe = pass_by

    def hook(reached: str) -> None:
        nonlocal left, safe
        if reached != point:
            return
        if safe:
            safe -= 1
        elif left:
            left -= 1
            raise Crashed(point)

    points.set_hook(hook)
    try:
        yield
    finally:
        points.set_hook(None)
    if left:
        raise AssertionError(f"{point} let {times - left} workers die, not {times}.")


def crash_after(step: str, *, undo: bool = False, times: int = 1) -> AbstractContextManager[None]:
    """Let the worker die when `step`, or its undo, has done what it does and before that is recorded."""
    way = Direction.COMPENSATION if undo else Direction.ACTION
    return crash_at(f"after_call:{step}:{way.value}", times=times)


def _in(records: list[StepRecord], direction: Direction) -> list[str]:
    return [r.step for r in records if r.direction == direction.value and r.outcome in DONE]
