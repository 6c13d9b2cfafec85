"""What people read of a run: its steps and undos in words, at every stage of its life."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from sagas import Kind, Saga, WaitFor, selectors
from sagas.models import SagaRun
from sagas.selectors import RunView, run_view, step_line
from sagas.services import abandon, cancel, skip
from sagas.states import RunStatus, StepState, UndoState
from sagas.testing import Crashed, FrozenClock, crash_at, drive_once, run_to_end
from tests.sagas.toys import World, away, make_run, make_saga, make_step, make_trip, refuse, registered

pytestmark = pytest.mark.django_db


def states(view: RunView) -> list[tuple[str, str, str | None]]:
    """(step, its state, its undo's state)"""
    return [(s.name, s.state.value, s.undo_state.value if s.undo_state else None) for s in view.steps]


class TestRun:
    def test_not_begun(self, trip: Saga) -> None:
        view = run_view(make_run(trip).pk)

        assert states(view) == [
            ("hold", "not_reached", "not_needed"),
            ("pay", "not_reached", "not_needed"),
            ("tell", "not_reached", None),
        ]
        assert (view.status_word, view.sentence) == ("Pending", "Stored and waiting for a worker.")
        assert [event.kind for event in view.events] == ["started"]
        assert [step.undo_note for step in view.steps][:2] == ["never reached"] * 2

    def test_done(self, world: World, trip: Saga) -> None:
        view = run_view(run_to_end(make_run(trip)).run.pk)

        assert [step.state for step in view.steps] == [StepState.DONE] * 3
        assert (view.status_word, view.sentence) == ("Completed", "All 3 steps are done.")
        assert view.steps[1].result == {"reference": "pay-2"}
        (attempt,) = view.steps[1].attempts
        assert (attempt.number, attempt.outcome, attempt.key) == (1, "succeeded", f"{view.run.pk}:pay:action")
        assert attempt.seconds is not None

    def test_gone_back(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)

        view = run_view(run_to_end(make_run(trip)).run.pk)

        assert states(view) == [
            ("hold", "done", "undone"),
            ("pay", "failed", "not_needed"),
            ("tell", "not_reached", None),
        ]
        assert view.sentence == "It says no. Undone: undo hold."
        assert (view.steps[1].note, view.steps[1].undo_note) == ("It says no.", "nothing was done")
        (attempt,) = view.steps[1].attempts
        assert (attempt.error_code, attempt.provider, attempt.provider_id) == ("said_no", "world", "W-7")

    def test_nothing_to_undo(self, world: World, trip: Saga) -> None:
        world.plan("hold", refuse)

        view = run_view(run_to_end(make_run(trip)).run.pk)

        assert view.sentence == "It says no. Nothing had to be undone."
        assert [step.undo_state for step in view.steps[:2]] == [UndoState.NOT_NEEDED] * 2

    def test_between_two_tries(self, world: World, trip: Saga) -> None:
        world.plan("pay", away)
        run = make_run(trip)
        clock = FrozenClock()

        drive_once(run, clock=clock)
        view = run_view(run.pk)

        assert states(view)[1] == ("pay", "retrying", "not_needed")
        assert view.sentence == "Pay is being tried again: Nobody is there."
        assert view.steps[1].retry_at == clock.now + timedelta(seconds=1)
        assert (step_line(view), view.status_word) == ("Pay", "Retrying")

    def test_an_undo_between_two_tries(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)
        world.plan("undo hold", away)
        run = make_run(trip)

        drive_once(run, clock=FrozenClock())
        view = run_view(run.pk)

        assert states(view)[0] == ("hold", "done", "retrying")
        assert (view.status_word, view.sentence) == (
            "Undoing, retrying",
            "It says no. Now: undo hold, try 1 of 3 failed.",
        )

    def test_waiting_for_the_world(self, world: World) -> None:
        world.plan("pay", lambda ctx: WaitFor(signal="paid", timeout=timedelta(days=1)))
        with registered(saga := make_saga([make_step(world, "pay", kind=Kind.PIVOT)])):
            run = make_run(saga)
            drive_once(run, clock=FrozenClock())

            view = run_view(run.pk)

        assert states(view) == [("pay", "waiting", "not_needed")]
        assert (view.status_word, view.sentence) == ("Waiting", "Pay waits for paid.")

    def test_a_worker_is_at_it(self, world: World, trip: Saga) -> None:
        """Its attempt is under way as long as the lease lasts, and unknown after that."""
        run, clock = make_run(trip), FrozenClock(timezone.now())
        with crash_at("after_call:pay:action"), pytest.raises(Crashed):
            drive_once(run, clock=clock)

        assert states(run_view(run.pk))[1] == ("pay", "running", "not_needed")
        assert run_view(run.pk).sentence == "Hold done. Pay is under way."

        past = timezone.now() - timedelta(seconds=1)
        SagaRun.objects.filter(pk=run.pk).update(lease_until=past)
        assert states(run_view(run.pk))[1] == ("pay", "retrying", "not_needed")

    def test_a_person_is_needed(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)
        world.plan("undo hold", refuse)

        view = run_view(run_to_end(make_run(trip)).run.pk)

        assert states(view)[0] == ("hold", "done", "failed")
        assert view.status_word == "Needs attention"
        assert view.sentence.startswith("A person is needed. ")
        assert "Undo hold failed: It says no." in view.sentence
        assert step_line(view) == view.run.attention_reason
        assert view.steps[0].undo_can == ("retry", "resolve", "skip")

    def test_skipped_and_abandoned(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)
        world.plan("undo hold", refuse)
        skipped, given_up = make_run(trip, key="T-1"), make_run(trip, key="T-2")
        run_to_end(skipped)
        world.plan("pay", refuse)
        world.plan("undo hold", refuse)
        run_to_end(given_up)

        skip(run_id=skipped.pk, step="hold", direction="compensation", actor="user:sam", reason="Sold to another.")
        run_to_end(skipped)
        abandon(run_id=given_up.pk, actor="user:sam", reason="Nobody will ever know.")

        view = run_view(skipped.pk)
        assert states(view)[0] == ("hold", "done", "skipped")
        assert view.steps[0].undo_note == "left as it is, by a person"
        assert run_view(given_up.pk).sentence == "Given up by a person; the history says what stays undone."

    def test_an_unknown_definition_shows_what_is_stored(self, world: World) -> None:
        trip = make_trip(world)
        with registered(trip):
            run = run_to_end(make_run(trip)).run

        view = run_view(run.pk)

        assert (view.definition, view.steps, view.can) == (None, [], ())
        assert view.status_word == "Completed"

    def test_none(self) -> None:
        with pytest.raises(SagaRun.DoesNotExist):
            run_view("0190a000-0000-7000-8000-000000000000")


class TestMany:
    def test_two_queries_for_any_number(
        self, world: World, trip: Saga, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        runs = [make_run(trip, key=f"T-{n}") for n in range(5)]
        run_to_end(runs[0])

        with django_assert_num_queries(2):
            views = selectors.views_for(runs)

        assert list(views) == [run.pk for run in runs]
        assert not views[runs[0].pk].events

    def test_none_asks_nothing(self, django_assert_num_queries: DjangoAssertNumQueries) -> None:
        with django_assert_num_queries(0):
            assert selectors.views_for([]) == {}


class TestLists:
    def test_counts(self, world: World, trip: Saga) -> None:
        make_run(trip, key="T-1")
        run_to_end(make_run(trip, key="T-2"))

        counts = selectors.counts()

        assert {status: count for status, count in counts.items() if count} == {"pending": 1, "completed": 1}
        assert set(counts) == {status.value for status in RunStatus}

    def test_newest_first_page_by_page(self, trip: Saga) -> None:
        """Also when many were stored in the same moment: none is shown twice, none is left out."""
        for n in range(6):
            make_run(trip, key=f"T-{n}")

        first = list(selectors.newest_runs()[:4])
        rest = list(selectors.newest_runs(before=str(first[-1].pk)))

        assert sorted(run.business_key for run in first + rest) == [f"T-{n}" for n in range(6)]
        assert [run.pk for run in first + rest] == sorted([run.pk for run in first + rest], reverse=True)

    @pytest.mark.parametrize("before", ["", "nonsense", "'--", "\0"])
    def test_what_is_no_id_is_no_limit(self, trip: Saga, before: str) -> None:
        run = make_run(trip)

        assert list(selectors.newest_runs(before=before)) == [run]

    def test_by_status(self, world: World, trip: Saga) -> None:
        make_run(trip, key="T-1")
        done = run_to_end(make_run(trip, key="T-2")).run

        assert list(selectors.newest_runs(status="completed")) == [done]
        assert list(selectors.newest_runs(status="abandoned")) == []

    def test_who_waits_longest_for_a_person_comes_first(self, world: World, trip: Saga) -> None:
        runs = [make_run(trip, key=f"T-{n}") for n in range(2)]
        for run in runs:
            world.plan("pay", refuse)
            world.plan("undo hold", refuse)
            run_to_end(run)
        SagaRun.objects.filter(pk=runs[1].pk).update(updated_at=timezone.now() - timedelta(days=1))

        assert list(selectors.runs_needing_attention()) == [runs[1], runs[0]]

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"due": -11}, True),
            ({"due": -9}, False),
            ({"due": -11, "lease": 5}, False),
            ({"due": -60, "lease": -20}, True),
            ({"due": None}, False),
        ],
    )
    def test_overdue(self, trip: Saga, changes: dict[str, Any], expected: bool) -> None:
        now = timezone.now()
        run = make_run(trip)
        due, lease = changes["due"], changes.get("lease")
        SagaRun.objects.filter(pk=run.pk).update(
            due_at=None if due is None else now + timedelta(seconds=due),
            lease_until=None if lease is None else now + timedelta(seconds=lease),
            lease_owner="" if lease is None else "w1",
        )

        found = selectors.overdue(now=now, longer_than=timedelta(seconds=10))

        assert list(found) == ([run] if expected else [])

    def test_when_a_worker_was_last_seen(self, world: World, trip: Saga) -> None:
        assert selectors.worker_seen_at() is None
        clock = FrozenClock()

        run_to_end(make_run(trip), clock=clock)

        assert selectors.worker_seen_at() == clock.now

    def test_the_newest_run_of_a_key(self, world: World, trip: Saga) -> None:
        first = run_to_end(make_run(trip)).run
        cancel(run_id=first.pk, actor="customer:ada", reason="changed my mind")
        run_to_end(first)
        again = make_run(trip)

        assert selectors.find_run(saga="trip", business_key="T-1") == again
        assert selectors.find_run(saga="trip", business_key="T-2") is None
