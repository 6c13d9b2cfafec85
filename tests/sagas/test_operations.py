"""One act on many runs: each run once, with what came of it, through crashes, stops and runs that changed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from sagas import Saga, operations, queue
from sagas.exceptions import InvalidOperation
from sagas.models import BulkItem, BulkOperation, SagaRun
from sagas.operations import FASTEST, LEASE, MOST, Target, work_off
from sagas.testing import Crashed, crash_at, run_to_end
from tests.sagas.test_attention import stuck_ahead, stuck_undo
from tests.sagas.toys import World, events_of, make_run, make_trip, registered

pytestmark = pytest.mark.django_db


def begun(runs: list[SagaRun], act: str = "retry", **changes: str) -> BulkOperation:
    targets = [Target(run_id=run.pk) for run in runs]
    fields = {"about": "these", "actor": "user:sam", "reason": "bank is back", **changes}
    return operations.begin(act=act, targets=targets, per_second=FASTEST, **fields)


def results(operation: BulkOperation) -> list[tuple[str, str, str]]:
    """(key, state, note), in order."""
    return [(item.run.business_key, item.state, item.note) for item in operations.items(operation)]


def rung() -> list[str]:
    return [waiting.task["func"] for waiting in OrmQ.objects.order_by("id")]


class TestWork:
    def test_each_run_is_acted_on_once_and_says_what_came_of_it(self, world: World, trip: Saga) -> None:
        undo, ahead = stuck_undo(world, trip, "T-1"), stuck_ahead(world, trip, "T-2")
        done = run_to_end(make_run(trip, key="T-3")).run
        operation = begun([undo, done, ahead])

        assert [work_off(), work_off()] == [3, 0]

        assert results(operation) == [
            ("T-1", "done", "is tried again"),
            ("T-3", "refused", "nothing of it has failed or waits for another try"),
            ("T-2", "done", "is tried again"),
        ]
        operation.refresh_from_db()
        assert (operation.state, operation.lease_until) == ("ended", None)
        assert operation.ended_at is not None
        assert operations.counts(operation) == {"pending": 0, "done": 2, "refused": 1, "failed": 0}
        assert events_of(undo)[-1] == events_of(ahead)[-1] == ("retry_requested", "user:sam", "bank is back")
        assert run_to_end(undo).status == "compensated"
        assert run_to_end(ahead).status == "completed"

    def test_cancelling_and_taking_on(self, world: World, trip: Saga) -> None:
        done, stuck = run_to_end(make_run(trip, key="T-1")).run, stuck_undo(world, trip, "T-2")
        cancelling = begun([done], act="cancel", reason="recalled")
        taking = begun([stuck, done], act="assign")

        assert work_off() == 3

        assert results(cancelling) == [("T-1", "done", "is being undone")]
        assert [state for _, state, _ in results(taking)] == ["done", "refused"]
        assert stuck.assignment.owner == "user:sam"
        assert run_to_end(done).status == "compensated"

    def test_one_that_breaks_keeps_nobody_waiting(self, world: World) -> None:
        def says_no_more(*_: object) -> str:
            raise RuntimeError("disk full")

        broken, sound = make_trip(world, name="broken", refuse_cancel=says_no_more), make_trip(world, name="sound")
        with registered(broken, sound):
            first, second = make_run(broken, key="T-1"), make_run(sound, key="T-2")
            operation = begun([first, second], act="cancel")

            assert work_off() == 2

        assert results(operation) == [
            ("T-1", "failed", "It broke; the log says how. Nothing was changed."),
            ("T-2", "done", "is being undone"),
        ]
        assert [kind for kind, *_ in events_of(first)] == ["started"]

    def test_after_a_crash_the_rest_is_done_and_nothing_twice(self, world: World, trip: Saga) -> None:
        runs = [stuck_undo(world, trip, f"T-{number}") for number in range(3)]
        operation = begun(runs)

        with crash_at("after_bulk_act", pass_by=1), pytest.raises(Crashed):
            work_off()

        assert [state for _, state, _ in results(operation)] == ["done", "pending", "pending"]
        assert [kind for kind, *_ in events_of(runs[1])][-1] == "needs_attention"  # what it did was taken back
        assert work_off() == 2
        assert [state for _, state, _ in results(operation)] == ["done"] * 3
        for run in runs:
            assert [kind for kind, *_ in events_of(run)].count("retry_requested") == 1

    def test_it_is_left_alone_for_as_long_as_somebody_may_be_at_it(self, world: World, trip: Saga) -> None:
        operation = begun([stuck_undo(world, trip, "T-1")])
        held = BulkOperation.objects.filter(pk=operation.pk)

        held.update(lease_until=timezone.now() + LEASE)
        assert work_off() == 0
        held.update(lease_until=timezone.now() - timedelta(seconds=1))

        assert work_off() == 1

    def test_stopped_and_resumed(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        operation = begun([run])

        operations.stop(operation_id=operation.pk)

        assert work_off() == 0
        assert results(operation) == [("T-1", "pending", "")]
        assert operations.resume(operation_id=operation.pk).state == "open"
        assert work_off() == 1
        assert operations.resume(operation_id=operation.pk).state == "ended"


class TestBell:
    def test_it_rings_with_what_it_stores(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        OrmQ.objects.all().delete()

        begun([run])

        assert rung() == ["sagas.operations.work_off"]

    def test_the_sweep_rings_for_one_that_nobody_heard_of(self, world: World, trip: Saga) -> None:
        begun([stuck_undo(world, trip, "T-1")])
        OrmQ.objects.all().delete()

        queue.sweep()
        queue.sweep()

        assert rung() == ["sagas.operations.work_off"]
        work_off()
        OrmQ.objects.all().delete()
        queue.sweep()
        assert "sagas.operations.work_off" not in rung()


class TestWhatIsAskedWrongly:
    @pytest.mark.parametrize(
        ("changes", "field", "words"),
        [
            ({"act": "pay"}, "act", "There is no act 'pay' on many runs; there are retry, cancel, assign."),
            ({"count": 0}, "runs", "No run was chosen, or none fits any more."),
            ({"count": MOST + 1}, "runs", "10001 runs are meant; 10000 are the most. Narrow the filter."),
            ({"reason": " "}, "reason", "A reason is needed: it stands in every run's history."),
            ({"reason": "x" * 501}, "reason", "The reason is text of at most 500 characters."),
            ({"reason": "a\0"}, "reason", "The reason is text of at most 500 characters."),
            ({"per_second": 0}, "max_per_second", "0 a second are not possible; 1 to 100 are."),
            ({"per_second": 101}, "max_per_second", "101 a second are not possible; 1 to 100 are."),
        ],
    )
    def test_it_says_what_and_stores_nothing(self, changes: dict[str, object], field: str, words: str) -> None:
        asked = {"act": "retry", "count": 1, "reason": "because", "per_second": 5, **changes}

        with pytest.raises(InvalidOperation) as told:
            operations.check(**asked)  # type: ignore[arg-type]

        assert (told.value.field, str(told.value)) == (field, words)

    def test_nothing_is_stored(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        OrmQ.objects.all().delete()

        with pytest.raises(InvalidOperation):
            begun([run], reason="")

        assert (BulkOperation.objects.count(), BulkItem.objects.count(), rung()) == (0, 0, [])
