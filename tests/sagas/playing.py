"""Worker, outside world, customer and operator, played around `sagas.decide`; every decision is checked by rules.py.

The world keeps its own books of what really happened, which `decide` never sees: it is asked at the end whether
anything was left behind.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sagas import Kind, Saga
from sagas.decide import Attempt, Begin, Decision, History, decide, retry_at
from sagas.states import ENDED, RUN_MOVES, Outcome, RunStatus
from tests.sagas.reference import ACTION, UNDO, Place, Reference
from tests.sagas.rules import check

LONG = 600
"""More decisions than any run of six steps needs, once the world gives clear answers."""
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How the outside world answers one attempt."""

    outcome: Outcome
    happened: bool = False
    """With an unknown outcome: whether it happened all the same."""
    look_up_fails: bool = False
    """If it is asked first what became of an earlier attempt, it gives no answer."""
    signal: str = ""
    wait: timedelta = 30 * SECOND
    postponed: bool = False
    """It cannot even be asked, neither this nor what became of an earlier attempt."""
    retry_after: timedelta | None = None
    """How long it wants to be left alone, if it says so."""


YES, NO, AWAY = (Answer(outcome=o) for o in (Outcome.SUCCEEDED, Outcome.REFUSED, Outcome.UNAVAILABLE))
LOST_BEFORE = Answer(outcome=Outcome.UNKNOWN, look_up_fails=True)
LOST_AFTER = Answer(outcome=Outcome.UNKNOWN, happened=True)
WAIT_DATE = Answer(outcome=Outcome.WAITING)
WAIT_SIGNAL = Answer(outcome=Outcome.WAITING, signal="paid")
POSTPONED = Answer(outcome=Outcome.WAITING, postponed=True)


class Play:
    """One run, from its start. Each act of somebody is a method; `look` is a worker asking for the next move."""

    def __init__(self, saga: Saga) -> None:
        self.saga = saga
        self.reference = Reference(saga, NOW)
        self.now = NOW
        self.status = RunStatus.PENDING
        self.attempts: list[Attempt] = []
        self.in_flight: dict[Place, Begin] = {}
        self.turned_back = False
        self.cancelled = False
        self.signals: dict[str, dict[str, Any]] = {}
        self.fresh_from: dict[str, int] = {}
        self.due_at: datetime | None = NOW
        self.attention = ""
        self.decisions = 0
        self.broken = False
        """A decision was wrong: there is nothing more to learn from this run."""
        self.happened: set[Place] = set()
        """The world's books: what it did under which key."""
        self.halfway: set[str] = set()
        """The steps that left something in the world before they waited."""
        self.excused: set[str] = set()
        """The undos that a person took on himself."""

    def twin(self) -> Play:
        """Another one with the same past, for another future."""
        twin = copy(self)
        twin.reference = self.reference.twin()
        twin.attempts, twin.in_flight = [*self.attempts], {**self.in_flight}
        twin.signals, twin.fresh_from = {**self.signals}, {**self.fresh_from}
        twin.happened, twin.halfway, twin.excused = {*self.happened}, {*self.halfway}, {*self.excused}
        return twin

    # What a worker does

    def history(self, **changes: Any) -> History:
        fields: dict[str, Any] = {
            "attempts": tuple(self.attempts),
            "turned_back": self.turned_back,
            "cancel_requested": self.cancelled,
            "cancel_reason": "enough" if self.cancelled else "",
            "deadline_at": self.reference.deadline_at,
            "signals": dict(self.signals),
            "fresh_from": dict(self.fresh_from),
            "in_flight": frozenset(self.in_flight),
        }
        return History(**fields | changes)

    def look(self, *, stopping: bool = False) -> Decision:
        """Ask for the next move, check it and follow it; a `stopping` worker begins nothing."""
        history = self.history()
        decision = decide(self.saga, history, self.now)
        self.decisions += 1
        self.broken = True
        check(self, decision)
        self.broken = False
        self.status = decision.status
        self.attention = decision.attention
        self.turned_back = self.reference.turned_back = self.turned_back or decision.failure is not None
        self.due_at = decision.due_at
        if stopping and decision.begin:
            self.due_at = self.now
            return decision
        for begin in decision.begin:
            self._begin(begin)
        return decision

    def _begin(self, begin: Begin) -> None:
        place = (begin.step.name, begin.direction)
        self.attempts.append(
            Attempt(step=place[0], direction=place[1], number=begin.number, outcome=None, started_at=self.now)
        )
        self.in_flight[place] = begin
        self.reference.begin(place, self.now)

    def end(self, place: Place, answer: Answer) -> None:
        """The attempt under way at `place` ends as the world answers, or as a look-up tells."""
        begin = self.in_flight[place]
        outcome, settled = self._call(place, begin, answer)
        signal = answer.signal if outcome is Outcome.WAITING else ""
        index = max(i for i, a in enumerate(self.attempts) if (a.step, a.direction) == place)
        due = None
        if outcome is Outcome.WAITING:
            due = self.now + answer.wait
        elif outcome in (Outcome.UNAVAILABLE, Outcome.UNKNOWN):
            due = retry_at(
                self.saga, self.history(), self.attempts[index],
                now=self.now, draw=0.5, retry_after=answer.retry_after,
            )  # fmt: skip
        code = "" if outcome is Outcome.WAITING and not answer.postponed else "code"
        self._record(index, outcome, retry_at=due, settled=settled, wait_signal=signal, error_code=code)

    def _call(self, place: Place, begin: Begin, answer: Answer) -> tuple[Outcome, bool]:
        """As the driver does it: the look-up first, where there is a question and somebody to ask."""
        if answer.postponed:
            return Outcome.WAITING, False
        settled = False
        if begin.maybe_done and begin.step.looks_up(begin.direction) is not None:
            if answer.look_up_fails:
                return Outcome.UNKNOWN, False
            if place in self.happened:
                return Outcome.SUCCEEDED, False
            if begin.look_up_only:
                return Outcome.UNAVAILABLE, True
            settled = True
        assert not begin.look_up_only, "asked to look up where nothing can be looked up"
        self._happen(place, answer)
        # What was done under this key is not refused when it is sent again.
        done_before = place in self.happened and answer.outcome in (Outcome.REFUSED, Outcome.WAITING)
        return (Outcome.SUCCEEDED if done_before else answer.outcome), settled

    def _happen(self, place: Place, answer: Answer) -> None:
        name, direction = place
        if answer.outcome is Outcome.SUCCEEDED or (answer.outcome is Outcome.UNKNOWN and answer.happened):
            self.happened.add(place)
        if direction is ACTION and answer.outcome is Outcome.WAITING:
            self.halfway.add(name)
        if direction is ACTION and answer.outcome is Outcome.REFUSED and place not in self.happened:
            self.halfway.discard(name)

    def _record(self, index: int, outcome: Outcome, **more: Any) -> None:
        given = {"error_code": "code", "error_message": "message", **more}
        attempt = replace(self.attempts[index], outcome=outcome, **given)
        self.attempts[index] = attempt
        place = (attempt.step, attempt.direction)
        self.in_flight.pop(place)
        track = self.reference.tracks[place]
        if attempt.is_postponed:
            assert attempt.retry_at is not None
            track.put_off(attempt.retry_at)
            return
        track.end(outcome, ready_at=attempt.retry_at, settled=attempt.settled, signal=attempt.wait_signal)

    def crash(self, happened: bool) -> None:
        """The worker dies; whoever claims the run next finds what it began, and it may have happened."""
        for place, begin in list(self.in_flight.items()):
            if happened and not begin.look_up_only:
                self.happened.add(place)
        found = decide(self.saga, self.history(in_flight=frozenset()), self.now)
        for index, attempt in enumerate(self.attempts):
            if attempt.outcome is None:
                self._record(index, Outcome.UNKNOWN, retry_at=self.now)
        closed = decide(self.saga, self.history(), self.now)
        assert (found.status, found.begin) == (closed.status, closed.begin), "an open attempt is not an unknown one"
        self.due_at = self.now

    def standing(self) -> set[str]:
        """What really is in the world and nobody took away."""
        done = {name for name, way in self.happened if way is ACTION} | self.halfway
        return done - {name for name, way in self.happened if way is UNDO} - self.excused

    # What others do

    def pass_time(self, seconds: timedelta) -> None:
        self.now += seconds

    def signal(self, name: str) -> None:
        if name not in self.signals:
            self.signals[name] = {"signal": name}
            self.reference.signals.add(name)
            self._wake()

    def may_cancel(self) -> bool:
        going = self.status not in ENDED and not self.turned_back and not self.cancelled
        return (going or self.status is RunStatus.COMPLETED) and not self.reference.no_way_back()

    def cancel(self) -> None:
        self.cancelled = self.reference.cancelled = True
        if self.status is RunStatus.COMPLETED:
            self.turned_back = self.reference.turned_back = True
            self.status = RunStatus.COMPENSATING
        self._wake()

    def stuck(self) -> list[Place]:
        """Where a person may act: it failed for good, and nobody is at it."""
        if self.in_flight or self.status is not RunStatus.NEEDS_ATTENTION:
            return []
        expected = self.reference.expect(self.now)
        way = UNDO if self.turned_back or expected.cause else ACTION
        return [(name, way) for name in expected.named]

    def retry(self, place: Place) -> None:
        number = max(a.number for a in self.attempts if (a.step, a.direction) == place)
        self.fresh_from[f"{place[0]}:{place[1].value}"] = number
        self.reference.tracks[place].retry()
        self._back_to_work()

    def may_skip(self, place: Place) -> bool:
        return place[1] is UNDO or self.saga.step(place[0]).kind is Kind.RETRIABLE

    def settle(self, place: Place, outcome: Outcome) -> None:
        """A person says: go on without it, or: it is done."""
        number = max(a.number for a in self.attempts if (a.step, a.direction) == place) + 1
        self.attempts.append(
            Attempt(step=place[0], direction=place[1], number=number, outcome=outcome, started_at=self.now)
        )
        self.reference.settle_by_hand(place, outcome)
        if place[1] is UNDO:
            self.excused.add(place[0])
        elif outcome is Outcome.RESOLVED:
            self.happened.add(place)
        self._back_to_work()

    def _back_to_work(self) -> None:
        back = RunStatus.COMPENSATING if self.turned_back else RunStatus.RUNNING
        assert back in RUN_MOVES[self.status]
        self.status = back
        self._wake()

    def _wake(self) -> None:
        if self.status not in ENDED:
            self.due_at = self.now

    def finish(self) -> None:
        """From here on the world answers clearly and people help: it must end, and soon."""
        last = self.decisions + LONG
        while self.status not in ENDED:
            assert self.decisions < last, "it never comes to an end"
            if self.in_flight:
                self.end(min(self.in_flight), YES)
            elif self.stuck() and self.due_at is None:
                self.settle(self.stuck()[0], Outcome.RESOLVED)
            else:
                assert self.due_at is not None, "it sleeps for ever"
                self.now = max(self.now, self.due_at)
            self.look()
        assert self.status in (RunStatus.COMPLETED, RunStatus.COMPENSATED)
