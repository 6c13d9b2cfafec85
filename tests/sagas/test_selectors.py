"""What people read of a run: its steps and undos in words, at every stage of its life."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from sagas import Kind, Saga, StepContext, WaitFor, registry, selectors
from sagas.export import HIDDEN, exported
from sagas.models import SagaRun, earliest_run_id
from sagas.presentation import changes, timeline
from sagas.selectors import RunView, neighbours, run_view, step_line
from sagas.services import abandon, cancel, signal, skip
from sagas.states import ENDED, RunStatus, StepState, UndoState
from sagas.testing import Crashed, FrozenClock, crash_at, drive_once, run_to_end
from tests.sagas.toys import SECOND, World, away, make_run, make_saga, make_step, make_trip, refuse, registered

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

    def test_of_a_run_whose_definition_is_gone_nothing_is_made_up(self, trip: Saga) -> None:
        done, undone = make_run(trip), make_run(trip, key="T-2")
        run_to_end(done)
        cancel(run_id=run_to_end(undone).run.pk, actor="user:x", reason="It rains.")
        run_to_end(undone)
        registry.forget(trip)

        unknown = "its steps are not known here, since trip version 1 is not registered."
        assert run_view(done.pk).sentence == f"Completed; {unknown}"
        assert run_view(undone.pk).sentence == f"Undone; {unknown}"

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

    def test_a_list_tells_the_same_and_reads_no_attempts_of_what_is_over(
        self, world: World, trip: Saga, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        run_to_end(make_run(trip, key="T-1"))
        world.plan("pay", refuse)
        run_to_end(make_run(trip, key="T-2"))
        over = list(SagaRun.objects.order_by("id"))
        world.plan("pay", away)
        begun = make_run(trip, key="T-3")
        drive_once(begun, clock=FrozenClock())
        begun.refresh_from_db()

        with django_assert_num_queries(0):
            lines = selectors.lines_for(over)
        lines |= selectors.lines_for([begun])

        assert [run.status for run in (*over, begun)] == ["completed", "compensated", "retrying"]
        views = selectors.views_for([*over, begun])
        told = {pk: (line.status_word, line.step_line) for pk, line in lines.items()}
        assert told == {pk: (view.status_word, selectors.step_line(view)) for pk, view in views.items()}

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

    def test_by_what_is_asked_for(self, world: World, trip: Saga) -> None:
        """Each filter alone, and none that finds what another rules out."""
        world.plan("hold", away)
        held_up = make_run(trip, key="T-1")
        assert run_to_end(held_up).status == "completed"
        world.plan("pay", refuse)
        refused = make_run(trip, key="T-2")
        assert run_to_end(refused).status == "compensated"
        long_ago = timezone.now() - timedelta(days=2)
        old = SagaRun.objects.create(
            id=earliest_run_id(long_ago),
            saga="other",
            version=1,
            business_key="T-3",
            created_at=long_ago,
            updated_at=long_ago,
        )

        def found(**asked: Any) -> list[str]:
            return [run.business_key for run in selectors.newest_runs(**asked)]

        assert found() == ["T-2", "T-1", "T-3"]
        assert found(saga="trip") == ["T-2", "T-1"]
        assert found(saga=old.saga) == found(key="T-3") == ["T-3"]
        assert found(error="away") == ["T-1"]
        assert found(error="said_no") == ["T-2"]
        assert found(error="said_no", key="T-1") == found(error="nothing") == []
        assert found(since=timezone.now() - timedelta(days=1)) == ["T-2", "T-1"]

    @pytest.mark.parametrize("status", RunStatus)
    def test_each_state_finds_its_own(self, trip: Saga, status: RunStatus) -> None:
        """Indexes know phases: of several states in one, those asked for alone are found, and counted."""
        now = timezone.now()
        for number, other in enumerate(RunStatus):
            ended = {"due_at": None, "ended_at": now} if other in ENDED else {}
            run = make_run(trip, key=f"T-{number}")
            SagaRun.objects.filter(pk=run.pk).update(status=other.value, attention_reason="look", **ended)

        assert [run.status for run in selectors.newest_runs(status=status.value)] == [status.value]
        assert [run.status for run in SagaRun.objects.in_states(status, "no such state")] == [status.value]
        assert SagaRun.objects.in_states().count() == 0
        assert selectors.counts() == dict.fromkeys(RunStatus, 1)

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


class TestTimeline:
    def test_work_is_told_apart_from_the_waits_around_it(self, world: World, trip: Saga) -> None:
        def slowly(ctx: StepContext) -> Any:
            clock.advance(3 * SECOND)
            return away(ctx)

        world.plan("hold", slowly)
        run = make_run(trip)
        clock = FrozenClock(run.created_at + 2 * SECOND)
        drive_once(run, clock=clock)
        clock.advance(SECOND)
        drive_once(run, clock=clock)

        told = timeline(run_view(run.pk), clock())

        assert [(one.title, one.attempt.number) for one in told.stretches] == [
            ("Hold", 1),
            ("Hold", 2),
            ("Pay", 1),
            ("Tell", 1),
        ]
        assert (told.queued, told.worked, told.waited) == (2, 3, 1)
        assert [[bar.look for bar in one.bars] for one in told.stretches] == [
            ["idle", "fail"],
            ["idle", "work"],
            ["work"],
            ["work"],
        ]
        first = told.stretches[0].bars
        assert [(round(bar.left), round(bar.width)) for bar in first] == [(0, 33), (33, 50)]

    def test_undos_are_drawn_as_undos(self, world: World, trip: Saga) -> None:
        world.plan("pay", refuse)
        run = run_to_end(make_run(trip)).run

        told = timeline(run_view(run.pk), timezone.now())

        looks = [(one.title, one.bars[-1].look) for one in told.stretches]
        assert looks == [("Hold", "work"), ("Pay", "fail"), ("Undo hold", "undo")]

    def test_what_nobody_has_taken_yet_has_waited_all_along(self, trip: Saga) -> None:
        run = make_run(trip)

        told = timeline(run_view(run.pk), run.created_at + 5 * SECOND)

        assert (told.stretches, told.queued, told.worked, told.waited) == ([], 5, 0, 0)


class TestChanges:
    def test_each_step_was_given_what_those_before_it_left(self, world: World, trip: Saga) -> None:
        world.plan("tell", away)
        run = run_to_end(make_run(trip)).run

        assert [(one.title, one.known, one.added) for one in changes(run_view(run.pk))] == [
            ("Hold", (), {"reference": "hold-1"}),
            ("Pay", ("hold",), {"reference": "pay-2"}),
            ("Tell", ("hold", "pay"), {"reference": "tell-3"}),
        ]

    def test_an_undo_leaves_something_too_and_adds_nothing_to_what_is_known(self, world: World, trip: Saga) -> None:
        world.plan("tell", refuse)
        world.plan("pay", refuse)
        run = run_to_end(make_run(trip)).run

        assert [(one.title, one.known) for one in changes(run_view(run.pk))] == [("Hold", ()), ("Undo hold", ("hold",))]


class TestNeighbours:
    def test_are_the_other_runs_of_the_last_hour_with_the_same_error_at_the_same_step(
        self, world: World, trip: Saga
    ) -> None:
        runs = {}
        for key, step, hours in (("me", "pay", 0), ("same", "pay", -0.5), ("old", "pay", -2), ("elsewhere", "hold", 0)):
            world.plan(step, refuse)
            runs[key] = make_run(trip, key=key)
            clock = FrozenClock(runs[key].created_at + timedelta(hours=3 + hours))
            assert run_to_end(runs[key], clock=clock).status == "compensated"
        run_to_end(make_run(trip, key="fine"))

        found = neighbours(run_view(runs["me"].pk), runs["me"].created_at + timedelta(hours=3))

        assert found is not None
        assert (found.error, found.title, found.runs) == ("said_no", "Pay", 1)

    def test_of_a_run_without_an_error_there_are_none(self, world: World, trip: Saga) -> None:
        assert neighbours(run_view(run_to_end(make_run(trip)).run.pk), timezone.now()) is None


class TestExport:
    def test_has_all_that_is_recorded(self, world: World, trip: Saga) -> None:
        run = run_to_end(make_run(trip)).run

        told = exported(run.pk)

        assert (told["format"], told["run"]["id"], told["run"]["input"]) == (1, run.pk, {"seat": "12A"})
        assert [(one["step"], one["outcome"], one["result"]) for one in told["attempts"]] == [
            ("hold", "succeeded", {"reference": "hold-1"}),
            ("pay", "succeeded", {"reference": "pay-2"}),
            ("tell", "succeeded", {"reference": "tell-3"}),
        ]
        assert [one["kind"] for one in told["events"]] == [event.kind for event in run_view(run.pk).events]
        assert told["signals"] == []

    def test_redacted_it_has_names_and_no_values(self, world: World) -> None:
        waits = make_step(world, "wait", kind=Kind.RETRIABLE)
        with registered(make_saga([waits])):
            run = make_run(make_saga([waits]), input={"to": {"street": "Geheimer Weg 7"}, "tags": ["a", None]})
            signal(run_id=run.pk, name="paid", payload={"card": "4242"}, actor="provider:bank")
            run_to_end(run)

        told = exported(run.pk, is_redacted=True)

        assert told["run"]["input"] == {"to": {"street": HIDDEN}, "tags": [HIDDEN, None]}
        assert [one["result"] for one in told["attempts"]] == [{"reference": HIDDEN}]
        assert [one["payload"] for one in told["signals"]] == [{"card": HIDDEN}]
        assert (told["run"]["business_key"], told["run"]["status"]) == ("T-1", "completed")
