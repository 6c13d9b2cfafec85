"""The auditor finds no fault with any history that the engine writes, and finds each that it must never write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from sagas import Kind, Saga, WaitFor, step_key
from sagas.audit import audit_runs
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.services import abandon, cancel, resolve, retry, signal, skip
from sagas.states import Direction
from sagas.testing import Crashed, FrozenClock, crash_at, drive_once, run_to_end
from tests.sagas.toys import World, away, make_run, make_saga, make_step, make_trip, refuse, registered, vanish

pytestmark = pytest.mark.django_db


def codes() -> list[str]:
    return [finding.code for finding in audit_runs()]


def add_record(run: SagaRun, step: str, direction: str, number: int = 1, **changes: Any) -> StepRecord:
    """A row that the engine did not write."""
    now = timezone.now()
    fields: dict[str, Any] = {
        "outcome": "succeeded",
        "key": step_key(str(run.pk), step, Direction(direction)),
        "started_at": now,
        "ended_at": now,
        **changes,
    }
    return StepRecord.objects.create(run=run, step=step, direction=direction, number=number, **fields)


def change(run: SagaRun, **changes: Any) -> None:
    SagaRun.objects.filter(pk=run.pk).update(**changes)


def make_begun(saga: Saga) -> SagaRun:
    """A run that a worker holds."""
    run = make_run(saga)
    change(run, status="running", lease_owner="w1", lease_until=timezone.now() + timedelta(minutes=1))
    return run


class TestNothingWrong:
    @pytest.mark.parametrize(
        "plans",
        [
            pytest.param({}, id="all well"),
            pytest.param({"hold": [refuse]}, id="refused at once"),
            pytest.param({"pay": [refuse]}, id="refused"),
            pytest.param({"pay": [away, vanish]}, id="away, then silent"),
            pytest.param({"pay": [away] * 3}, id="away for good"),
            pytest.param({"pay": [vanish] * 3, "look pay": [vanish] * 9}, id="unknown for good"),
            pytest.param({"pay": [refuse], "undo hold": [refuse]}, id="undo refused"),
            pytest.param({"tell": [refuse]}, id="refused after the pivot"),
        ],
    )
    def test_whatever_the_world_answers(self, world: World, trip: Saga, plans: dict[str, Any]) -> None:
        for what, answers in plans.items():
            world.plan(what, *answers)

        run_to_end(make_run(trip))

        assert codes() == []

    def test_before_anything_begins_and_in_the_middle(self, world: World, trip: Saga) -> None:
        make_run(trip, key="T-1")
        world.plan("pay", away)
        drive_once(make_run(trip, key="T-2"), clock=FrozenClock())

        assert codes() == []

    @pytest.mark.parametrize("point", ["before_call:pay:action", "after_call:pay:action", "after_claim"])
    def test_a_worker_that_died(self, world: World, trip: Saga, point: str) -> None:
        run, clock = make_run(trip), FrozenClock()
        with crash_at(point), pytest.raises(Crashed):
            drive_once(run, clock=clock)
        assert codes() == []

        run_to_end(run, clock=clock)

        assert codes() == []

    def test_cancelled_when_it_was_done(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()
        run_to_end(run, clock=clock)
        cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")
        clock.advance(timedelta(minutes=1))

        run_to_end(run, clock=clock)

        assert codes() == []

    @pytest.mark.parametrize("act", [retry, skip, resolve, abandon], ids=lambda act: act.__name__)
    def test_helped_on_by_a_person(self, world: World, trip: Saga, act: Callable[..., Any]) -> None:
        world.plan("pay", refuse)
        world.plan("undo hold", refuse)
        run = make_run(trip)
        run_to_end(run)
        fields: dict[str, Any] = {"run_id": run.pk, "actor": "user:sam", "reason": "told by phone"}
        if act is not abandon:
            fields |= {"step": "hold", "direction": "compensation"}
        if act is resolve:
            fields["evidence"] = "ticket 7"

        act(**fields)
        run_to_end(run)

        assert codes() == []

    def test_side_by_side(self, world: World) -> None:
        saga = make_saga(
            [
                make_step(world, "a", after=()),
                make_step(world, "b", after=()),
                make_step(world, "c", after=("a", "b"), kind=Kind.PIVOT),
            ]
        )
        world.plan("c", refuse)
        with registered(saga):
            run_to_end(make_run(saga))

            assert codes() == []

    def test_waiting_for_the_world(self, world: World) -> None:
        world.plan("pay", lambda ctx: WaitFor(signal="paid", timeout=timedelta(days=1)))
        with registered(saga := make_saga([make_step(world, "pay", kind=Kind.PIVOT)])):
            run = make_run(saga)
            run_to_end(run)
            assert codes() == []

            signal(run_id=run.pk, name="paid", payload={}, actor="webhook")
            run_to_end(run)

            assert codes() == []


class TestFindings:
    @pytest.fixture
    def done(self, world: World, trip: Saga) -> SagaRun:
        return run_to_end(make_run(trip)).run

    @pytest.fixture
    def undone(self, world: World, trip: Saga) -> SagaRun:
        world.plan("tell", refuse)
        run, clock = make_run(trip), FrozenClock()
        run_to_end(run, clock=clock)
        cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")
        clock.advance(timedelta(minutes=1))
        return run_to_end(run, clock=clock).run

    def test_what_it_says(self, done: SagaRun) -> None:
        add_record(done, "pay", "action", 2)

        (finding,) = audit_runs()

        assert str(finding) == (
            f"run T-1 ({done.pk}): pay (action) was begun again after it was done. [attempt_after_success]"
        )

    def test_attempts_that_leave_a_number_out(self, done: SagaRun) -> None:
        add_record(done, "pay", "action", 3)

        assert codes() == ["attempts_not_numbered", "attempt_after_success"]

    def test_two_attempts_at_once(self, trip: Saga) -> None:
        run = make_begun(trip)
        add_record(run, "hold", "action", outcome="", ended_at=None)
        add_record(run, "hold", "action", 2, outcome="", ended_at=None)

        assert codes() == ["two_attempts_at_once"]

    def test_an_attempt_left_open(self, undone: SagaRun) -> None:
        add_record(undone, "tell", "action", 2, outcome="", ended_at=None, started_by="user:sam")

        assert codes() == ["attempt_left_open", "undo_beside_action"]

    def test_another_key(self, trip: Saga) -> None:
        add_record(make_begun(trip), "hold", "action", key="made up")

        assert codes() == ["another_key"]

    def test_a_step_begun_too_early(self, trip: Saga) -> None:
        add_record(make_begun(trip), "pay", "action")

        assert codes() == ["begun_too_early"]

    def test_an_action_after_an_undo(self, undone: SagaRun) -> None:
        add_record(undone, "tell", "action", 2, outcome="unavailable")

        assert codes() == ["attempt_after_refusal", "action_after_undo"]

    def test_an_undo_of_what_never_began(self, undone: SagaRun) -> None:
        StepRecord.objects.filter(run=undone, step="hold", direction="action").delete()

        assert "undone_what_never_began" in codes()

    def test_an_undo_that_did_not_wait_its_turn(self, world: World, trip: Saga) -> None:
        run = make_run(trip)
        for step in ("hold", "pay"):
            add_record(run, step, "action")
        change(run, status="compensating", turned_back_at=timezone.now(), failure_code="cancelled")
        add_record(run, "hold", "compensation")

        assert codes() == ["undo_out_of_order"]

    def test_two_undos_at_once(self, world: World, trip: Saga) -> None:
        run = make_begun(trip)
        for step in ("hold", "pay"):
            add_record(run, step, "action")
        change(run, status="compensating", turned_back_at=timezone.now(), failure_code="cancelled")
        add_record(run, "pay", "compensation", outcome="", ended_at=None)
        add_record(run, "hold", "compensation", outcome="", ended_at=None)

        assert codes() == ["two_undos_at_once"]

    def test_an_undo_without_turning_back(self, done: SagaRun) -> None:
        add_record(done, "pay", "compensation")

        assert codes() == ["undone_without_turning_back", "completed_and_undone"]

    def test_completed_with_a_step_missing(self, done: SagaRun) -> None:
        StepRecord.objects.filter(run=done, step="tell").delete()

        assert codes() == ["completed_with_steps_missing"]

    @pytest.mark.parametrize("outcome", ["succeeded", "unknown"])
    def test_undone_but_for_something(self, world: World, trip: Saga, outcome: str) -> None:
        run, now = make_run(trip), timezone.now()
        add_record(run, "hold", "action", outcome=outcome)
        change(run, status="compensated", ended_at=now, due_at=None, turned_back_at=now, failure_code="deadline")

        assert codes() == ["something_left"]

    def test_undone_without_a_cause(self, undone: SagaRun) -> None:
        change(undone, failure_code="")

        assert codes() == ["turned_back_without_cause"]

    def test_abandoned_without_a_reason(self, trip: Saga) -> None:
        change(make_run(trip), status="abandoned", ended_at=timezone.now(), due_at=None)

        assert codes() == ["abandoned_without_reason"]

    @pytest.mark.parametrize(("minutes", "expected"), [(4, []), (6, ["nobody_takes_it"])])
    def test_due_and_not_taken(self, trip: Saga, minutes: int, expected: list[str]) -> None:
        change(make_run(trip), due_at=timezone.now() - timedelta(minutes=minutes))

        assert codes() == expected
        assert [one.code for one in audit_runs(stale_after=timedelta(minutes=3))] == ["nobody_takes_it"]

    @pytest.mark.parametrize(("minutes", "expected"), [(4, []), (6, ["lease_ended_long_ago"])])
    def test_held_by_a_lease_of_long_ago(self, trip: Saga, minutes: int, expected: list[str]) -> None:
        past = timezone.now() - timedelta(minutes=minutes)
        change(make_run(trip), due_at=past, lease_owner="w1", lease_until=past)

        assert codes() == expected

    def test_asleep_for_ever(self, trip: Saga) -> None:
        change(make_run(trip), due_at=None)

        assert codes() == ["asleep_for_ever"]

    def test_a_definition_that_is_gone(self, world: World) -> None:
        with registered(trip := make_trip(world)):
            make_run(trip, key="T-1")
            run_to_end(make_run(trip, key="T-2"))

        assert codes() == ["no_definition"]

    def test_a_step_that_the_definition_does_not_have(self, done: SagaRun) -> None:
        add_record(done, "fly", "action")

        assert codes() == ["unknown_step"]


def test_it_reads_in_pages(
    world: World, trip: Saga, django_assert_num_queries: DjangoAssertNumQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(25):
        make_run(trip, key=f"T-{n}")
    change(SagaRun.objects.get(business_key="T-13"), due_at=None)
    monkeypatch.setattr("sagas.audit.PAGE", 10)
    seen: list[int] = []

    with django_assert_num_queries(3 * 3 + 1 + 4):  # runs, records, events; nothing more; the suspect once more
        found = list(audit_runs(seen=seen.append))

    assert [(one.code, one.subject.split()[1]) for one in found] == [("asleep_for_ever", "T-13")]
    assert seen == [10, 10, 5]


def test_it_changes_nothing(world: World, trip: Saga) -> None:
    run = run_to_end(make_run(trip)).run
    before = (SagaRun.objects.values().get(pk=run.pk), StepRecord.objects.count(), RunEvent.objects.count())

    list(audit_runs())

    assert (SagaRun.objects.values().get(pk=run.pk), StepRecord.objects.count(), RunEvent.objects.count()) == before
