"""Worker, outside world, customer and operator, played around `sagas.decide`; every decision is looked at.

The world keeps its own books of what really happened, which `decide` never sees: it is asked at the end whether
anything was left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sagas import Kind, Saga, Step
from sagas.decide import Attempt, Begin, Decision, History, decide, retry_at
from sagas.states import DONE, ENDED, RUN_MOVES, Outcome, RunStatus
from tests.sagas.reference import ACTION, UNDO, Expected, Move, Place, Reference

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FORWARD = (RunStatus.RUNNING, RunStatus.RETRYING)
Decide = Callable[[Saga, History, datetime], Decision]


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
    retry_after: timedelta | None = None
    """How long it wants to be left alone, if it says so."""


YES, NO, AWAY = (Answer(outcome=o) for o in (Outcome.SUCCEEDED, Outcome.REFUSED, Outcome.UNAVAILABLE))
LOST_BEFORE = Answer(outcome=Outcome.UNKNOWN, look_up_fails=True)
LOST_AFTER = Answer(outcome=Outcome.UNKNOWN, happened=True)
WAIT_DATE = Answer(outcome=Outcome.WAITING)
WAIT_SIGNAL = Answer(outcome=Outcome.WAITING, signal="paid")


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
        self.check(decision)
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
        self._record(index, outcome, retry_at=due, settled=settled, wait_signal=signal)

    def _call(self, place: Place, begin: Begin, answer: Answer) -> tuple[Outcome, bool]:
        """As the driver does it: the look-up first, where there is a question and somebody to ask."""
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
        attempt = replace(self.attempts[index], outcome=outcome, error_code="code", error_message="message", **more)
        self.attempts[index] = attempt
        place = (attempt.step, attempt.direction)
        self.in_flight.pop(place)
        self.reference.tracks[place].end(
            outcome, ready_at=attempt.retry_at, settled=attempt.settled, signal=attempt.wait_signal
        )

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

    # What others do

    def pass_time(self, seconds: timedelta) -> None:
        self.now += seconds

    def signal(self, name: str) -> None:
        if name not in self.signals:
            self.signals[name] = {}
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

    # What must hold

    def standing(self) -> set[str]:
        """What really is in the world and nobody took away."""
        done = {name for name, way in self.happened if way is ACTION} | self.halfway
        return done - {name for name, way in self.happened if way is UNDO} - self.excused

    def check(self, decision: Decision) -> None:
        back = self.turned_back or decision.failure is not None
        assert decision.status is self.status or decision.status in RUN_MOVES[self.status], "an illegal move"
        assert not (self.turned_back and decision.failure), "turned back twice"
        for begin in decision.begin:
            self._check_begin(begin, back=back)
        assert len({begin.step.name for begin in decision.begin}) == len(decision.begin), "begun twice at once"
        if back:
            self._check_undo(decision)
        self._check_status(decision, back=back)
        self._check_due(decision)
        self._check_same(decision)
        assert told(decision) == expected_of(self.reference.expect(self.now)), "not what the reference says"

    def _check_begin(self, begin: Begin, *, back: bool) -> None:
        place = (begin.step.name, begin.direction)
        tries = [a for a in self.attempts if (a.step, a.direction) == place]
        assert place not in self.in_flight, "begun again while it is under way"
        assert begin.number == len(tries) + 1, "numbers have gaps"
        assert not any(a.outcome in DONE for a in tries), "done a second time"
        assert begin.direction is (UNDO if back else ACTION), "forward after turning back"
        in_doubt = self.reference.tracks[place].open
        assert begin.maybe_done is in_doubt, "an open question is looked up, and nothing else"
        if not back:
            done = {a.step for a in self.attempts if a.direction is ACTION and a.outcome in DONE}
            assert done >= set(self.saga.before(begin.step.name)), "begun before its time"

    def _check_undo(self, decision: Decision) -> None:
        under_way = [place for place in self.in_flight if place[1] is UNDO]
        assert len(decision.begin) + len(under_way) <= 1, "two undos at a time"
        for begin in decision.begin:
            assert not self.in_flight, "undone while something is under way"
            name = begin.step.name
            assert self.reference.left(begin.step), "undone, and nothing was done"
            later = self.reference.begun[self.reference.begun.index(name) + 1 :]
            for other in later:
                if other in self.standing() and self.saga.step(other).compensation is not None:
                    stand = self.reference.stand((other, UNDO), self.now)
                    assert stand == "failed", f"{name} is undone before {other}, which began later"

    def _check_status(self, decision: Decision, *, back: bool) -> None:
        busy = bool(decision.begin or self.in_flight)
        left = {name for name in self.standing() if _is_to_be_undone(self.saga.step(name))}
        if decision.status in FORWARD:
            assert not back
        elif decision.status is RunStatus.COMPLETED:
            assert not busy
            assert not back
            done = {a.step for a in self.attempts if a.direction is ACTION and a.outcome in DONE}
            assert done == {step.name for step in self.saga.steps}, "completed, and something is not done"
        elif decision.status is RunStatus.COMPENSATED:
            assert not busy
            assert back
            assert left == set(), "left behind without a word"
        elif decision.status is RunStatus.NEEDS_ATTENTION:
            assert not busy
            assert decision.attention, "a person is asked, and not told what"
            if back:
                named = {n for n in left if self.saga.step(n).compensation_display in decision.attention}
                assert named == left, "left behind without a word"

    def _check_due(self, decision: Decision) -> None:
        """Time alone changes nothing before `due_at`, and something at it."""
        if decision.begin or self.in_flight or decision.status in ENDED:
            assert decision.due_at is None
            return
        assert decision.due_at is None or decision.due_at > self.now, "due, and it does nothing"
        waits = decision.status is not RunStatus.NEEDS_ATTENTION
        assert decision.due_at is not None or not waits, "it sleeps for ever"
        history = self.history(turned_back=self.turned_back or decision.failure is not None)
        calm = replace(decision, failure=None)
        for moment in self._moments():
            later = decide(self.saga, history, moment)
            if decision.due_at is None or moment < decision.due_at:
                assert later == calm, "time alone moves it on, and nobody is told when"
        if decision.due_at is not None:
            assert decide(self.saga, history, decision.due_at) != calm, "woken for nothing"

    def _moments(self) -> list[datetime]:
        known = {a.retry_at for a in self.attempts} | {self.reference.deadline_at, self.now + timedelta(days=4000)}
        for attempt in self.attempts:
            limit = self.saga.step(attempt.step).policy(attempt.direction).deadline
            known.add(attempt.started_at + limit if limit is not None else None)
        tick = timedelta(microseconds=1)
        return sorted({m for k in known if k is not None for m in (k - tick, k, k + tick) if m > self.now})

    def _check_same(self, decision: Decision) -> None:
        """The same history, however it is put together, gives the same decision."""
        turned = self.history(
            signals=dict(reversed(self.signals.items())),
            fresh_from=dict(reversed(self.fresh_from.items())),
            in_flight=frozenset(reversed(self.in_flight)),
        )
        assert decide(self.saga, turned, self.now) == decision, "the same history, another decision"


def _is_to_be_undone(step: Step) -> bool:
    return step.compensation is not None or step.kind is Kind.PIVOT


Told = tuple[RunStatus, tuple[Move, ...], str]


def told(decision: Decision) -> Told:
    moves = tuple(
        Move(place=(b.step.name, b.direction), number=b.number, maybe_done=b.maybe_done, only_ask=b.look_up_only)
        for b in decision.begin
    )
    cause = ""
    if decision.failure is not None:
        cause = decision.failure.step or decision.failure.code
    return decision.status, moves, cause


def expected_of(expected: Expected) -> Told:
    return expected.status, expected.moves, expected.cause
