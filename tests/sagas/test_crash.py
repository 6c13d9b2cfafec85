"""A worker dies at every point there is, in both directions; another takes over when the lease ends.

The outside world keeps a ledger by key: whatever happens, each effect is in it once.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas import Kind, Saga
from sagas.models import SagaRun, StepRecord
from sagas.services import cancel, retry
from sagas.states import RunStatus
from sagas.testing import Crashed, FrozenClock, crash_at, drive_once, run_to_end
from tests.sagas.toys import World, fast, make_run, make_saga, make_step, refuse, registered

pytestmark = pytest.mark.django_db

FORWARD = ["hold", "pay", "tell"]
AROUND_CALLS = ["before_call", "after_call"]
AROUND_WRITES = ["before_claim", "after_claim", "before_commit", "after_commit"]


def crash(run: SagaRun, clock: FrozenClock, point: str, *, pass_by: int = 0) -> None:
    """Drive until the worker dies at `point`; `pass_by`: it survives that many times before."""
    with crash_at(point, pass_by=pass_by), pytest.raises(Crashed):
        drive_once(run, clock=clock)


def lost(run: SagaRun) -> list[tuple[str, str]]:
    """What was under way when a worker was lost."""
    rows = StepRecord.objects.filter(run=run, error_code="worker_lost").order_by("id")
    return list(rows.values_list("step", "direction"))


class TestForward:
    @pytest.mark.parametrize("step", FORWARD)
    @pytest.mark.parametrize("point", AROUND_CALLS)
    def test_around_a_call(self, world: World, trip: Saga, point: str, step: str) -> None:
        run, clock = make_run(trip), FrozenClock()

        crash(run, clock, f"{point}:{step}:action")
        report = run_to_end(run, clock=clock)

        assert (report.status, report.done, report.undone) == (RunStatus.COMPLETED, FORWARD, [])
        assert world.effects == FORWARD
        assert lost(run) == [(step, "action")]

    @pytest.mark.parametrize("point", AROUND_WRITES)
    @pytest.mark.parametrize("pass_by", [0, 1, 2])
    def test_around_a_write(self, world: World, trip: Saga, point: str, pass_by: int) -> None:
        run, clock = make_run(trip), FrozenClock()
        if "claim" in point:
            pass_by = 0  # one claim is all it takes

        crash(run, clock, point, pass_by=pass_by)
        report = run_to_end(run, clock=clock)

        assert (report.status, report.done, report.undone) == (RunStatus.COMPLETED, FORWARD, [])
        assert world.effects == FORWARD

    def test_again_and_again(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()

        for step in FORWARD:
            crash(run, clock, f"before_call:{step}:action")
            clock.advance(timedelta(minutes=2))
            crash(run, clock, f"after_call:{step}:action")
            clock.advance(timedelta(minutes=2))
        report = run_to_end(run, clock=clock)

        assert (report.status, report.done) == (RunStatus.COMPLETED, FORWARD)
        assert world.effects == FORWARD

    def test_nobody_takes_over_before_the_lease_has_ended(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()
        crash(run, clock, "after_call:hold:action")

        drive_once(run, clock=clock)

        assert world.calls == ["hold"]
        assert StepRecord.objects.filter(run=run).count() == 1

    def test_what_was_done_is_looked_up_and_not_sent_again(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()
        crash(run, clock, "after_call:pay:action")

        report = run_to_end(run, clock=clock)

        assert world.calls == ["hold", "pay", "look pay", "tell"]
        assert report.results["pay"] == {"reference": "pay-2"}

    def test_side_by_side(self, world: World) -> None:
        saga = make_saga(
            [
                make_step(world, "a", after=()),
                make_step(world, "b", after=(), look_up=world.look_up),
                make_step(world, "c", after=("a", "b"), kind=Kind.PIVOT),
            ]
        )
        with registered(saga):
            run, clock = make_run(saga), FrozenClock()

            crash(run, clock, "after_call:b:action")
            report = run_to_end(run, clock=clock)

        assert (report.status, sorted(report.done)) == (RunStatus.COMPLETED, ["a", "b", "c"])
        assert sorted(world.effects) == ["a", "b", "c"]


class TestBack:
    @pytest.mark.parametrize("step", ["pay", "hold"])
    @pytest.mark.parametrize("point", AROUND_CALLS)
    def test_around_an_undo(self, world: World, trip: Saga, point: str, step: str) -> None:
        run, clock = make_run(trip), FrozenClock()
        run_to_end(run, clock=clock)
        cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")

        clock.advance(timedelta(minutes=1))
        crash(run, clock, f"{point}:{step}:compensation")
        report = run_to_end(run, clock=clock)

        assert (report.status, report.undone) == (RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == [*FORWARD, "undo pay", "undo hold"]
        assert lost(run) == [(step, "compensation")]

    @pytest.mark.parametrize("point", AROUND_WRITES)
    @pytest.mark.parametrize("pass_by", [0, 1])
    def test_around_a_write(self, world: World, trip: Saga, point: str, pass_by: int) -> None:
        run, clock = make_run(trip), FrozenClock()
        run_to_end(run, clock=clock)
        cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")
        clock.advance(timedelta(minutes=1))

        crash(run, clock, point, pass_by=0 if "claim" in point else pass_by)
        report = run_to_end(run, clock=clock)

        assert (report.status, report.undone) == (RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == [*FORWARD, "undo pay", "undo hold"]

    def test_between_a_refusal_and_the_undo(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)
        run, clock = make_run(trip), FrozenClock()

        crash(run, clock, "after_commit", pass_by=1)
        report = run_to_end(run, clock=clock)

        assert (report.status, report.undone, report.error_code) == (RunStatus.COMPENSATED, ["hold"], "said_no")
        assert world.effects == ["hold", "undo hold"]
        assert lost(run) == [("hold", "compensation")]

    def test_with_an_action_that_may_have_happened_when_the_run_is_cancelled(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()
        crash(run, clock, "after_call:pay:action")

        cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")
        clock.advance(timedelta(minutes=2))
        report = run_to_end(run, clock=clock)

        assert (report.status, report.undone) == (RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == ["hold", "pay", "undo pay", "undo hold"]


def test_a_step_that_kills_every_worker_ends_with_a_person(world: World) -> None:
    saga = make_saga([make_step(world, "hold", retry=fast(attempts=50))])
    with registered(saga):
        run, clock = make_run(saga), FrozenClock()
        for _ in range(5):
            crash(run, clock, "before_call:hold:action")
            clock.advance(timedelta(minutes=2))

        report = run_to_end(run, clock=clock)

        assert report.status is RunStatus.NEEDS_ATTENTION
        assert report.attention == "Taken up 5 times and nothing came of it: hold may be killing its workers."
        assert len(report.attempts) == 5

        # Mended meanwhile: a person's word is all it takes to go on.
        retry(run_id=run.pk, step="hold", direction="action", actor="user:otto", reason="new release")
        clock.advance(timedelta(minutes=2))
        assert run_to_end(run, clock=clock).status is RunStatus.COMPLETED
    assert world.effects == ["hold"]
