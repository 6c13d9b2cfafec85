"""The kit for people who write sagas: it must not say that all is well when nothing was tried."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas import Kind, Saga, WaitFor
from sagas.models import RunEvent, StepRecord
from sagas.services import signal
from sagas.states import RunStatus
from sagas.testing import Crashed, FrozenClock, crash_at, drive_once, report, run_to_end
from tests.sagas.toys import World, away, make_run, make_saga, make_step, refuse, registered

pytestmark = pytest.mark.django_db


class TestRunToEnd:
    def test_a_run_that_completes(self, world: World, trip: Saga) -> None:
        report = run_to_end(make_run(trip))

        assert (report.status, report.done, report.undone) == (RunStatus.COMPLETED, ["hold", "pay", "tell"], [])
        assert report.results["pay"] == {"reference": "pay-2"}
        assert [outcome for *_, outcome in report.attempts] == ["succeeded"] * 3
        assert (report.failed_step, report.error_code, report.error, report.attention) == ("", "", "", "")

    def test_a_run_that_goes_back(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)

        report = run_to_end(make_run(trip))

        assert (report.status, report.done, report.undone) == (RunStatus.COMPENSATED, ["hold"], ["hold"])
        assert (report.failed_step, report.error_code, report.error) == ("pay", "said_no", "It says no.")

    def test_waits_pass_on_the_clock(self, world: World, trip: Saga) -> None:
        world.plan("pay", away, away)
        run = make_run(trip)
        clock = FrozenClock()
        begin = clock.now

        report = run_to_end(run, clock=clock)

        assert report.status is RunStatus.COMPLETED
        assert clock.now - begin == timedelta(seconds=3)
        third = StepRecord.objects.get(run=report.run, step="pay", number=3)
        assert third.started_at == begin + timedelta(seconds=3)

    def test_it_stops_where_the_world_must_speak(self, world: World) -> None:
        def ask(ctx: object) -> WaitFor:
            return WaitFor(signal="paid", timeout=timedelta(days=1))

        world.plan("pay", ask)
        with registered(saga := make_saga([make_step(world, "pay", kind=Kind.PIVOT)])):
            run, clock = make_run(saga), FrozenClock()

            waiting = run_to_end(run, clock=clock)
            signal(run_id=run.pk, name="paid", payload={}, actor="webhook")
            done = run_to_end(run, clock=clock)

        assert (waiting.status, waiting.attempts) == (RunStatus.RUNNING, [("pay", "action", 1, "waiting")])
        assert done.status is RunStatus.COMPLETED

    def test_other_runs_are_left_alone(self, world: World, trip: Saga) -> None:
        mine, other = make_run(trip, key="T-1"), make_run(trip, key="T-2")

        run_to_end(mine)

        assert report(other).status is RunStatus.PENDING
        assert not StepRecord.objects.filter(run=other).exists()
        assert not RunEvent.objects.filter(run=other, kind="completed").exists()


class TestCrashAt:
    def test_the_worker_dies_there_once(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()

        with crash_at("after_call:pay:action"), pytest.raises(Crashed, match="after_call:pay:action"):
            drive_once(run, clock=clock)

        assert world.effects == ["hold", "pay"]
        assert report(run).attempts[-1] == ("pay", "action", 1, "")
        assert run_to_end(run, clock=clock).status is RunStatus.COMPLETED

    def test_a_point_that_is_not_reached_fails_the_test(self, world: World, trip: Saga) -> None:
        def never_gets_there() -> None:
            with crash_at("after_call:fly:action"):
                run_to_end(make_run(trip))

        with pytest.raises(AssertionError, match="after_call:fly:action let 0 workers die, not 1"):
            never_gets_there()

    def test_afterwards_nobody_dies(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()
        with crash_at("before_commit"), pytest.raises(Crashed):
            drive_once(run, clock=clock)

        assert run_to_end(run, clock=clock).status is RunStatus.COMPLETED


def test_a_clock_does_not_go_back() -> None:
    clock = FrozenClock()

    with pytest.raises(ValueError, match="A clock does not go back"):
        clock.advance(timedelta(seconds=-1))
