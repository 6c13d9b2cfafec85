"""The decision core attacked: any saga, any history. What must hold is in playing.py, what is right in reference.py.

With HYPOTHESIS_PROFILE=harder fifty times as many are tried, different ones each time; see CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from sagas import Kind, RetryPolicy, Saga, Step
from sagas.states import ENDED, Outcome, RunStatus
from tests.sagas.playing import (
    AWAY,
    LOST_AFTER,
    LOST_BEFORE,
    NO,
    SECOND,
    WAIT_DATE,
    WAIT_SIGNAL,
    YES,
    Answer,
    Play,
)
from tests.sagas.reference import Place
from tests.sagas.toys import World, make_saga, make_step

pytestmark = pytest.mark.pure

WORLD = World()
TRIES = settings().max_examples
"""The profile's number; how many times that is the test's."""
LONG = 600
"""More decisions than any run of six steps needs, once the world gives clear answers."""


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    return RetryPolicy(
        attempts=draw(st.integers(1, 3)),
        first=draw(st.sampled_from([timedelta(0), SECOND])),
        jitter=draw(st.booleans()),
        deadline=draw(st.sampled_from([None, None, timedelta(0), 3 * SECOND])),
    )


@st.composite
def sagas(draw: st.DrawFn) -> Saga:
    """Up to six steps: any kinds, dependences and policies that a definition allows."""
    total = draw(st.integers(1, 6))
    kinds = [draw(st.sampled_from([Kind.COMPENSATABLE, Kind.COMPENSATABLE, Kind.RETRIABLE])) for _ in range(total)]
    if draw(st.booleans()):
        kinds[draw(st.integers(0, total - 1))] = Kind.PIVOT
    steps: list[Step] = []
    for name, kind in zip("abcdef", kinds, strict=False):
        before = [s for s in steps if kind is Kind.RETRIABLE or s.kind is Kind.COMPENSATABLE]
        if kind is not Kind.RETRIABLE and any(s.kind is Kind.PIVOT for s in steps):
            kind, before = Kind.RETRIABLE, steps
        names = [s.name for s in before]
        if kind is Kind.PIVOT:
            after = tuple(names)
        else:
            after = tuple(draw(st.lists(st.sampled_from(names), unique=True))) if names else ()
            if len(names) == len(steps) and draw(st.booleans()):
                after = tuple(names[-1:])  # in the order written
        undo = kind is Kind.COMPENSATABLE or draw(st.booleans())
        steps.append(
            make_step(
                WORLD,
                name,
                kind=kind,
                after=after,
                compensation=WORLD.act if undo else None,
                compensation_title=f"Undo {name}" if undo else "",
                retry=draw(policies()),
                compensation_retry=draw(policies()),
                look_up=WORLD.look_up if draw(st.booleans()) else None,
                compensation_look_up=WORLD.look_up if draw(st.booleans()) else None,
            )
        )
    return make_saga(steps, deadline=draw(st.sampled_from([None, 4 * SECOND, 600 * SECOND])))


ANSWERS = st.one_of(
    st.just(YES),
    st.sampled_from([YES, NO, AWAY, LOST_BEFORE, LOST_AFTER]),
    st.builds(
        Answer,
        outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.REFUSED, Outcome.UNAVAILABLE, Outcome.UNKNOWN]),
        happened=st.booleans(),
        look_up_fails=st.booleans(),
        retry_after=st.sampled_from([None, timedelta(0), 10 * SECOND]),
    ),
    st.builds(
        Answer,
        outcome=st.just(Outcome.WAITING),
        look_up_fails=st.booleans(),
        signal=st.sampled_from(["", "paid", "packed"]),
        wait=st.sampled_from([-SECOND, timedelta(0), SECOND, 30 * SECOND]),
    ),
)
TIMES = st.sampled_from([timedelta(microseconds=1), SECOND / 2, SECOND, 3 * SECOND, 31 * SECOND, 700 * SECOND])


class AnyRun(RuleBasedStateMachine):
    """Everybody acts whenever they may: each rule is one act, and every decision is checked as it is made."""

    play: Play

    @initialize(saga=sagas())
    def start(self, saga: Saga) -> None:
        self.play = Play(saga)
        self.play.look()

    @precondition(lambda self: self.play.in_flight)
    @rule(data=st.data(), answer=ANSWERS, seconds=st.sampled_from([timedelta(0), SECOND / 2, 5 * SECOND]))
    def attempt_ends(self, data: st.DataObject, answer: Answer, seconds: timedelta) -> None:
        place = data.draw(st.sampled_from(sorted(self.play.in_flight)))
        self.play.pass_time(seconds)
        self.play.end(place, answer)
        self.play.look()

    @precondition(lambda self: self.play.in_flight)
    @rule(data=st.data(), answer=ANSWERS)
    def attempt_ends_in_the_hands_of_a_stopping_worker(self, data: st.DataObject, answer: Answer) -> None:
        self.play.end(data.draw(st.sampled_from(sorted(self.play.in_flight))), answer)
        self.play.look(stopping=True)

    @precondition(lambda self: self.play.in_flight)
    @rule(happened=st.booleans(), seconds=TIMES)
    def worker_dies(self, happened: bool, seconds: timedelta) -> None:
        self.play.pass_time(seconds)
        self.play.crash(happened)
        self.play.look()

    @rule(seconds=TIMES)
    def time_passes(self, seconds: timedelta) -> None:
        self.play.pass_time(seconds)

    @precondition(lambda self: not self.play.in_flight and self.play.status not in ENDED)
    @rule()
    def worker_looks(self) -> None:
        self.play.look()

    @precondition(lambda self: not self.play.in_flight and self.play.due_at is not None)
    @rule()
    def time_passes_until_it_is_due(self) -> None:
        assert self.play.due_at is not None
        self.play.now = max(self.play.now, self.play.due_at)
        self.play.look()

    @rule(name=st.sampled_from(["paid", "packed"]))
    def signal_comes(self, name: str) -> None:
        self.play.signal(name)

    @precondition(lambda self: self.play.may_cancel())
    @rule()
    def customer_cancels(self) -> None:
        self.play.cancel()

    @precondition(lambda self: self.play.stuck())
    @rule(data=st.data(), act=st.sampled_from(["retry", "resolve", "skip"]))
    def person_helps(self, data: st.DataObject, act: str) -> None:
        place: Place = data.draw(st.sampled_from(self.play.stuck()))
        if act == "retry":
            self.play.retry(place)
        elif act == "resolve":
            self.play.settle(place, Outcome.RESOLVED)
        else:
            assume(self.play.may_skip(place))
            self.play.settle(place, Outcome.SKIPPED)

    def teardown(self) -> None:
        if hasattr(self, "play") and not self.play.broken:
            finish(self.play)


def finish(play: Play) -> None:
    """From here on the world answers clearly and people help: it must end, and soon."""
    last = play.decisions + LONG
    while play.status not in ENDED:
        assert play.decisions < last, "it never comes to an end"
        if play.in_flight:
            play.end(min(play.in_flight), YES)
        elif play.stuck() and play.due_at is None:
            play.settle(play.stuck()[0], Outcome.RESOLVED)
        else:
            assert play.due_at is not None, "it sleeps for ever"
            play.now = max(play.now, play.due_at)
        play.look()
    assert play.status in (RunStatus.COMPLETED, RunStatus.COMPENSATED)


def test_any_run_makes_only_legal_moves_and_ends_all_done_or_all_undone() -> None:
    run_state_machine_as_test(AnyRun, settings=settings(max_examples=20 * TRIES, stateful_step_count=40))


@settings(max_examples=15 * TRIES)
@given(saga=sagas(), answers=st.lists(ANSWERS, max_size=60), cancel_after=st.none() | st.integers(0, 12))
def test_a_run_left_to_itself_ends_or_asks_a_person(
    saga: Saga, answers: list[Answer], cancel_after: int | None
) -> None:
    play = Play(saga)
    ends = iter(answers)

    play.look()
    while play.status not in ENDED and (play.in_flight or play.due_at is not None):
        assert play.decisions < LONG, "it never comes to an end"
        if play.decisions == cancel_after and play.may_cancel():
            play.cancel()
        elif play.in_flight:
            play.end(min(play.in_flight), next(ends, YES))
        else:
            play.now = max(play.now, play.due_at or play.now)
        play.look()

    assert play.status in (RunStatus.COMPLETED, RunStatus.COMPENSATED, RunStatus.NEEDS_ATTENTION)


# Every small case, without chance -----------------------------------------------------------------

ENDS = (YES, NO, AWAY, LOST_BEFORE, LOST_AFTER, WAIT_DATE, WAIT_SIGNAL)
SHAPES = [
    kinds
    for total in (1, 2, 3)
    for kinds in product((Kind.COMPENSATABLE, Kind.PIVOT, Kind.RETRIABLE), repeat=total)
    if list(kinds) == sorted(kinds, key=list(Kind).index) and kinds.count(Kind.PIVOT) <= 1
]
"""All that a definition allows of up to three steps, in the order of their kinds."""
TWICE = RetryPolicy(attempts=2, first=SECOND, jitter=False)
DEPTHS = {(1, False): 4, (2, False): 3, (2, True): 3, (3, False): 3, (3, True): 2}
"""How many acts deep, by the number of steps and whether they are beside each other; a calm end comes after them."""

Act = Callable[[Play], object]


def small_saga(kinds: tuple[Kind, ...], *, beside: bool, careful: bool) -> Saga:
    """One step of each kind, one after the other or as far `beside` each other as may be.

    A `careful` one has look-ups, and undos also where they could be left out.
    """
    steps: list[Step] = []
    for name, kind in zip("abc", kinds, strict=False):
        undo = careful or kind is Kind.COMPENSATABLE
        steps.append(
            make_step(
                WORLD,
                name,
                kind=kind,
                after=() if beside and kind is not Kind.PIVOT else tuple(step.name for step in steps),
                compensation=WORLD.act if undo else None,
                compensation_title=f"Undo {name}" if undo else "",
                retry=TWICE,
                compensation_retry=TWICE,
                look_up=WORLD.look_up if careful else None,
                compensation_look_up=WORLD.look_up if careful else None,
            )
        )
    return make_saga(steps)


def possible(play: Play) -> Iterator[Act]:
    """Whatever anybody may do now."""
    for place in sorted(play.in_flight):
        for answer in ENDS:
            yield partial(Play.end, place=place, answer=answer)
    if play.in_flight:
        yield partial(Play.crash, happened=True)
    elif play.due_at is not None:
        yield partial(Play.pass_time, seconds=play.due_at - play.now)
    if play.may_cancel():
        yield Play.cancel
    if any(attempt.wait_signal for attempt in play.attempts) and not play.signals:
        yield partial(Play.signal, name="paid")
    for place in play.stuck():
        yield partial(Play.retry, place=place)
        yield partial(Play.settle, place=place, outcome=Outcome.RESOLVED)
        if play.may_skip(place):
            yield partial(Play.settle, place=place, outcome=Outcome.SKIPPED)


def follow_all(play: Play, depth: int) -> int:
    """Try every act, and after each of them every act; returns how many histories came to their end."""
    acts = list(possible(play)) if depth else []
    if not acts:
        finish(play)
        return 1
    ends = 0
    for act in acts:
        other = play.twin()
        act(other)
        if other.status not in ENDED:
            other.look()
        ends += follow_all(other, depth - 1)
    return ends


def starts(saga: Saga) -> Iterator[Play]:
    """A run that went well so far, after each of its steps; and the same, cancelled there."""
    play = Play(saga)
    play.look()
    while True:
        yield play
        if play.may_cancel():
            cancelled = play.twin()
            cancelled.cancel()
            cancelled.look()
            yield cancelled
        if play.status in ENDED:
            return
        play = play.twin()
        play.end(min(play.in_flight), YES)
        play.look()


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "careless"])
@pytest.mark.parametrize("kinds", SHAPES, ids=lambda kinds: "-".join(kind.value for kind in kinds))
def test_every_history_of_a_small_saga_is_legal_and_ends(kinds: tuple[Kind, ...], careful: bool) -> None:
    ends = 0
    for (total, beside), depth in DEPTHS.items():
        if total == len(kinds):
            for play in starts(small_saga(kinds, beside=beside, careful=careful)):
                ends += follow_all(play, depth)

    assert ends > 100
