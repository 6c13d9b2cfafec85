"""What a run may do, told a second time and as plainly as possible, for `sagas.decide` to be compared with.

Where `decide` reads a whole history afresh each time, this is told one thing after the other and keeps what follows
from it: two ways to the same answer, which do not go wrong together. It knows no world, only what was recorded.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime

from sagas.definition import Kind, Saga, Step
from sagas.states import Direction, Outcome, RunStatus

ACTION, UNDO = Direction.ACTION, Direction.COMPENSATION
QUESTIONS = 3
"""With the tries used up, an open question is put to the other side so often before a person is asked."""

Place = tuple[str, Direction]


@dataclass(frozen=True, kw_only=True)
class Move:
    """An attempt that is to begin."""

    place: Place
    number: int
    maybe_done: bool
    only_ask: bool
    brings: str | None
    """What its last wait brings it: a signal's name, "" for a date, None for nothing."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must come next."""

    status: RunStatus
    moves: tuple[Move, ...] = ()
    cause: str = ""
    """Why it turns back now: "cancelled", "deadline", or the step that failed."""
    named: tuple[str, ...] = ()
    """The steps that a person is asked about, now or as soon as nothing else goes on."""


@dataclass(kw_only=True)
class Track:
    """One direction of one step: what is known of it by now."""

    step: Step
    direction: Direction
    number: int = 0
    flying: bool = False
    done: bool = False
    refused: bool = False
    failures: int = 0
    open: bool = False
    """It may have happened, and nobody has found out."""
    halfway: bool = False
    """It ended by waiting: what it asked of the world is there."""
    wanted: bool = False
    """A person asked for another try."""
    first_at: datetime | None = None
    ready_at: datetime | None = None
    waits_for: str | None = None
    """The signal, or "" for a date; None: it does not wait."""
    waited_for: list[str] = field(default_factory=list)
    """All such since the last person's retry."""
    last_wait: str | None = None
    put_off_until: datetime | None = None
    """It could not be asked, and comes again then, as if it had not been begun."""
    before: tuple[bool, datetime | None, str | None] = (False, None, None)
    """What the last beginning changed."""

    @property
    def left(self) -> bool:
        return self.done_for_real or self.in_doubt or self.halfway or self.flying

    in_doubt: bool = False
    """It was sent and not answered, and never refused since: it may come about late, whatever a look-up said."""

    done_for_real: bool = False
    """Done, and not merely skipped."""

    def begin(self, now: datetime) -> None:
        self.number += 1
        self.flying = True
        self.before = (self.wanted, self.first_at, self.waits_for)
        self.put_off_until = None
        self.waits_for = None
        if self.wanted or self.first_at is None:
            self.wanted, self.first_at = False, now

    def put_off(self, until: datetime) -> None:
        self.flying, self.put_off_until = False, until
        self.wanted, self.first_at, self.waits_for = self.before

    def end(self, outcome: Outcome, *, ready_at: datetime | None, settled: bool, signal: str) -> None:
        self.flying = False
        self.ready_at = ready_at
        if settled:
            self.open = False
        match outcome:
            case Outcome.SUCCEEDED:
                self.done = self.done_for_real = True
            case Outcome.REFUSED:
                self.refused, self.open, self.halfway, self.in_doubt = True, False, False, False
                self.failures += 1
            case Outcome.UNAVAILABLE:
                self.failures += 1
            case Outcome.UNKNOWN:
                self.failures += 1
                self.open = self.in_doubt = True
            case Outcome.WAITING:
                self.halfway = True
                self.waits_for = self.last_wait = signal
                self.waited_for.append(signal)
            case _:
                raise AssertionError(f"No attempt ends as {outcome}.")

    def settle_by_hand(self, outcome: Outcome) -> None:
        self.number += 1
        self.done = True
        self.done_for_real = outcome is Outcome.RESOLVED

    def retry(self) -> None:
        self.wanted, self.refused, self.failures, self.waited_for = True, False, 0, []
        self.put_off_until = None

    def stand(self, now: datetime, signals: set[str]) -> str:
        """ "idle", "flying", "ready", "ask", "later", "done" or "failed"."""
        if self.flying:
            return "flying"
        if self.done:
            return "done"
        if self.put_off_until is None:
            return self._stand(now, signals)
        stand = "ready" if self.first_at is None else self._stand(max(now, self.put_off_until), signals)
        return "later" if stand in ("ready", "ask") and now < self.put_off_until else stand

    def _stand(self, now: datetime, signals: set[str]) -> str:
        if not self.number:
            return "idle"
        if self.wanted:
            return "ready"
        if self.waits_for is not None:
            return self._waiting(now, signals)
        if self.refused:
            return "failed"
        return self._failing(now)

    def _waiting(self, now: datetime, signals: set[str]) -> str:
        assert self.waits_for is not None
        assert self.ready_at is not None
        if self.waits_for in signals:
            return "ready" if self.waited_for.count(self.waits_for) == 1 else "failed"
        if now < self.ready_at:
            return "later"
        return "failed" if self.waits_for else "ready"

    def _failing(self, now: datetime) -> str:
        assert self.first_at is not None
        policy = self.step.policy(self.direction)
        due = self.ready_at or now
        late = policy.deadline is not None and max(due, now) - self.first_at > policy.deadline
        if self.failures < policy.attempts and not late:
            return "ready" if now >= due else "later"
        can_ask = self.open and self.step.looks_up(self.direction) is not None
        if can_ask and self.failures < policy.attempts + QUESTIONS:
            return "ask" if now >= due else "later"
        return "failed"


class Reference:
    """A run, told what happens to it."""

    def __init__(self, saga: Saga, started_at: datetime) -> None:
        self.saga = saga
        self.tracks = {(s.name, way): Track(step=s, direction=way) for s in saga.steps for way in Direction}
        self.deadline_at = started_at + saga.deadline if saga.deadline is not None else None
        self.begun: list[str] = []
        """Steps in the order their actions began."""
        self.turned_back = False
        self.cancelled = False
        self.signals: set[str] = set()

    def twin(self) -> Reference:
        """Another one that was told the same."""
        twin = copy(self)
        twin.tracks = {p: replace(track, waited_for=[*track.waited_for]) for p, track in self.tracks.items()}
        twin.begun, twin.signals = [*self.begun], {*self.signals}
        return twin

    def begin(self, place: Place, now: datetime) -> None:
        if place[1] is ACTION and place[0] not in self.begun:
            self.begun.append(place[0])
        self.tracks[place].begin(now)

    def settle_by_hand(self, place: Place, outcome: Outcome) -> None:
        if place[1] is ACTION and place[0] not in self.begun:
            self.begun.append(place[0])
        self.tracks[place].settle_by_hand(outcome)

    def stand(self, place: Place, now: datetime) -> str:
        return self.tracks[place].stand(now, self.signals)

    def left(self, step: Step) -> bool:
        """Whether the step's action did something, or may have."""
        track = self.tracks[step.name, ACTION]
        return track.left

    def no_way_back(self) -> bool:
        """The pivot is done, or may be, and has no undo."""
        return any(s.kind is Kind.PIVOT and s.compensation is None and self.left(s) for s in self.saga.steps)

    def cause(self, now: datetime) -> str:
        """Why the run must turn back now; empty: it need not."""
        if self.cancelled:
            return "cancelled"
        early = [step for step in self.saga.steps if step.kind is not Kind.RETRIABLE]
        for step in early:
            track = self.tracks[step.name, ACTION]
            stuck_in_doubt = track.open and track.waits_for is None
            without_return = step.compensation is None and self.left(step)
            if self.stand((step.name, ACTION), now) == "failed" and not stuck_in_doubt and not without_return:
                return step.name
        all_early_done = all(self.tracks[step.name, ACTION].done for step in early)
        if self.deadline_at is None or all_early_done or self.no_way_back():
            return ""
        return "deadline" if now >= self.deadline_at else ""

    def to_undo(self) -> list[str]:
        """The steps whose actions are to be undone, newest first."""
        return [n for n in reversed(self.begun) if self.saga.step(n).compensation and self.left(self.saga.step(n))]

    def expect(self, now: datetime) -> Expected:
        cause = "" if self.turned_back else self.cause(now)
        if self.turned_back or cause:
            return self._back(now, cause)
        return self._forward(now)

    def _forward(self, now: datetime) -> Expected:
        done = {step.name for step in self.saga.steps if self.tracks[step.name, ACTION].done}
        if len(done) == len(self.saga.steps):
            return Expected(status=RunStatus.COMPLETED)
        moves, named = [], []
        flying = failing = False
        for step in self.saga.steps:
            place = (step.name, ACTION)
            if step.name in done or not set(self.saga.before(step.name)) <= done:
                continue
            stand = self.stand(place, now)
            if stand in ("idle", "ready", "ask"):
                moves.append(self._move(place, stand))
            if stand == "failed":
                named.append(step.name)
            flying = flying or stand == "flying"
            track = self.tracks[place]
            failing = failing or (track.failures > 0 and track.waits_for is None and not track.wanted)
        status = RunStatus.RETRYING if failing else RunStatus.RUNNING
        if named and not moves and not flying:
            status = RunStatus.NEEDS_ATTENTION
        return Expected(status=status, moves=tuple(moves), named=tuple(named))

    def _back(self, now: datetime, cause: str) -> Expected:
        if any(track.flying for track in self.tracks.values()):
            return Expected(status=RunStatus.COMPENSATING, cause=cause)
        named = []
        for name in self.to_undo():
            stand = self.stand((name, UNDO), now)
            if stand == "done":
                continue
            if stand == "failed":
                named.append(name)
                continue
            moves = (self._move((name, UNDO), stand),) if stand in ("idle", "ready", "ask") else ()
            return Expected(status=RunStatus.COMPENSATING, moves=moves, cause=cause)
        status = RunStatus.NEEDS_ATTENTION if named else RunStatus.COMPENSATED
        return Expected(status=status, cause=cause, named=tuple(named))

    def _move(self, place: Place, stand: str) -> Move:
        track = self.tracks[place]
        last = track.last_wait
        brings = last if last in self.signals or not last else None
        return Move(place=place, number=track.number + 1, maybe_done=track.open, only_ask=stand == "ask", brings=brings)
