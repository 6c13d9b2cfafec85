"""The decision core attacked: any saga, any history. What must hold is in rules.py, what is right in reference.py.

With HYPOTHESIS_PROFILE=harder ten times as many are tried, different ones each time; see CONTRIBUTING.md.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from sagas import Kind, RetryPolicy, Saga, Step
from sagas.states import ENDED, Outcome, RunStatus
from tests.sagas.playing import (
    AWAY,
    LONG,
    LOST_AFTER,
    LOST_BEFORE,
    NO,
    SECOND,
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
    share_a_title = draw(st.booleans())
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
                compensation_title=("Undo" if share_a_title else f"Undo {name}") if undo else "",
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
    st.builds(
        Answer,
        outcome=st.just(Outcome.WAITING),
        postponed=st.just(True),
        wait=st.sampled_from([-SECOND, timedelta(0), SECOND, 30 * SECOND]),
    ),
)
TIMES = st.sampled_from(
    [timedelta(microseconds=1), SECOND / 2, SECOND, 3 * SECOND, 31 * SECOND, 700 * SECOND, -2 * SECOND]
)
"""What passes until somebody looks; less than nothing where the next worker's clock is behind."""


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
            self.play.finish()


def test_any_run_makes_only_legal_moves_and_ends_all_done_or_all_undone() -> None:
    run_state_machine_as_test(AnyRun, settings=settings(max_examples=8 * TRIES, stateful_step_count=40))


@settings(max_examples=8 * TRIES)
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
