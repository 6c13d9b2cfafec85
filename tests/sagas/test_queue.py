"""The doorbell: it rings with the order or after it, may be lost or doubled, and never decides anything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task

from sagas import Saga, queue
from sagas.models import SagaRun, StepRecord
from sagas.services import cancel, start
from sagas.states import RunStatus
from sagas.testing import report
from tests.races import together
from tests.sagas.toys import World, make_run, make_saga, make_step, registered
from tests.servers import Valkey

pytestmark = pytest.mark.django_db(transaction=True)


def bells() -> list[str]:
    """What lies in the ORM broker, oldest first."""
    return [waiting.task["func"] for waiting in OrmQ.objects.order_by("id")]


def place(saga: Saga, key: str = "T-1") -> SagaRun:
    return start(saga=saga, business_key=key, input={})


class TestOrmBroker:
    """A wake-up is a row beside the run: both or neither."""

    def test_it_commits_with_the_run(self, trip: Saga) -> None:
        with transaction.atomic():
            place(trip)
            assert bells() == [queue.DRIVE]

        assert bells() == [queue.DRIVE]
        assert OrmQ.objects.get().task["save"] is False

    def test_it_rolls_back_with_the_run(self, trip: Saga) -> None:
        def fail() -> None:
            with transaction.atomic():
                place(trip)
                raise LookupError("no such customer")

        with pytest.raises(LookupError):
            fail()

        assert (bells(), SagaRun.objects.count()) == ([], 0)

    def test_a_lost_wake_up_is_made_good_by_the_sweep(self, trip: Saga) -> None:
        place(trip)
        OrmQ.objects.all().delete()

        assert queue.sweep() == 1
        assert bells() == [queue.DRIVE]
        queue.sweep()
        assert bells() == [queue.DRIVE]

    def test_a_wake_up_that_somebody_took_and_died_with_does_not_count(self, trip: Saga) -> None:
        place(trip)
        OrmQ.objects.update(lock=timezone.now() + timedelta(seconds=90))

        queue.sweep()

        assert bells() == [queue.DRIVE] * 2

    def test_other_peoples_tasks_are_no_wake_up(self, trip: Saga) -> None:
        place(trip)
        OrmQ.objects.all().delete()
        async_task("math.floor", 1.5)

        queue.sweep()

        assert bells() == ["math.floor", queue.DRIVE]

    def test_what_is_not_due_or_held_is_not_rung_for(self, trip: Saga) -> None:
        run = make_run(trip)
        soon = timezone.now() + timedelta(minutes=1)
        SagaRun.objects.filter(pk=run.pk).update(lease_owner="w1", lease_until=soon)
        assert queue.sweep() == 0
        SagaRun.objects.filter(pk=run.pk).update(lease_owner="", lease_until=None, due_at=soon)
        assert queue.sweep() == 0

        assert bells() == []

    def test_the_commands_say_what_they_found(self, trip: Saga, capsys: pytest.CaptureFixture[str]) -> None:
        make_run(trip)

        call_command("sweep_sagas")

        assert capsys.readouterr().out == "1 run is due and held by nobody.\n"

    def test_the_sweep_is_scheduled_once(self) -> None:
        queue.schedule_sweep()
        queue.schedule_sweep()

        schedule = Schedule.objects.get()
        assert (schedule.func, schedule.schedule_type, schedule.minutes, schedule.repeats) == (queue.SWEEP, "I", 1, -1)

    def test_workers_that_start_together_keep_no_other_from_starting(self) -> None:
        """django-q2's table takes two schedules of one name, and then there was no getting the one."""
        for _ in range(2):
            Schedule.objects.create(name="saga sweep", func="sagas.queue.sweep", minutes=5)

        assert together(*[queue.schedule_sweep] * 3) == [None] * 3

        (schedule,) = Schedule.objects.all()
        assert (schedule.schedule_type, schedule.minutes, schedule.repeats) == (Schedule.MINUTES, 1, -1)


class TestAnotherBroker:
    @pytest.fixture(autouse=True)
    def _of_this_test(self) -> Iterator[None]:
        """A process has one broker as long as it lives; this one has one a test."""
        queue._broker.cache_clear()
        yield
        queue._broker.cache_clear()

    @pytest.fixture
    def redis(self, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """The same process, on Valkey instead of the database."""
        monkeypatch.setattr(Conf, "ORM", None)
        monkeypatch.setattr(Conf, "REDIS", valkey.url)
        broker = get_broker()
        broker.purge_queue()
        yield broker
        broker.connection.close()

    def test_it_rings_after_the_commit(self, trip: Saga, redis: Any) -> None:
        with transaction.atomic():
            place(trip)
            assert redis.queue_size() == 0

        assert redis.queue_size() == 1
        assert OrmQ.objects.count() == 0

    def test_it_does_not_ring_for_what_was_rolled_back(self, trip: Saga, redis: Any) -> None:
        def fail() -> None:
            with transaction.atomic():
                place(trip)
                raise LookupError("no such customer")

        with pytest.raises(LookupError):
            fail()

        assert redis.queue_size() == 0

    def test_an_emptied_queue_is_rung_again(self, trip: Saga, redis: Any) -> None:
        place(trip)
        redis.purge_queue()

        assert queue.sweep() == 1

        assert redis.queue_size() == 1

    def test_bells_do_not_pile_up(self, trip: Saga, redis: Any) -> None:
        place(trip)

        for _ in range(queue.MANY + 10):
            queue.sweep()

        assert redis.queue_size() == queue.MANY

    def test_a_broker_that_is_away_does_not_keep_orders_from_being_accepted(
        self, trip: Saga, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(Conf, "ORM", None)
        monkeypatch.setattr(Conf, "REDIS", f"unix://{tmp_path}/nobody-here")

        run = place(trip)
        cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")
        waiting = queue.sweep()

        assert SagaRun.objects.get().cancel_requested_at is not None
        assert waiting == 1
        assert "The queue took no wake-up; the run waits for the next sweep." in caplog.text
        assert "The queue does not say how much lies in it." in caplog.text


class TestDrive:
    """What django-q2 calls."""

    def test_it_drives_what_is_due(self, world: World, trip: Saga) -> None:
        runs = [make_run(trip, key=f"T-{n}") for n in range(3)]

        assert queue.drive() == 3

        assert {report(run).status for run in runs} == {RunStatus.COMPLETED}
        assert bells() == []

    def test_a_second_wake_up_finds_nothing_to_do(self, world: World, trip: Saga) -> None:
        make_run(trip)
        queue.drive()

        assert queue.drive() == 0
        assert world.calls == ["hold", "pay", "tell"]

    def test_it_takes_up_nothing_when_the_supervisor_stops(self, trip: Saga, settings: Any, tmp_path: Path) -> None:
        flag = tmp_path / "stop"
        setattr(settings, queue.STOP_FLAG, str(flag))
        make_run(trip)
        flag.touch()

        assert queue.drive() == 0
        assert bells() == []
        flag.unlink()
        assert queue.drive() == 1

    def test_it_ends_before_the_queues_timeout_however_long_a_step_hangs(
        self, world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def hang(ctx: Any) -> None:
            await asyncio.sleep(30)

        settings.SAGA_DRIVE_SECONDS = 0.2
        monkeypatch.setattr(Conf, "TIMEOUT", 6)  # minus the drive's own time, minus what is left free: about a second
        with registered(saga := make_saga([make_step(world, "hold", action=hang)])):
            run = make_run(saga)
            begin = time.monotonic()
            queue.drive()

        assert time.monotonic() - begin < 5
        record = StepRecord.objects.get(run=run)
        assert record.outcome == ""  # unknown, as soon as the lease has ended


class TestStalled:
    """Due work that nobody takes, as opposed to a queue that is merely long or a worker that is merely busy."""

    LONG = timedelta(seconds=15)

    def due_since(self, trip: Saga, seconds: float) -> SagaRun:
        run = make_run(trip)
        SagaRun.objects.filter(pk=run.pk).update(due_at=timezone.now() - timedelta(seconds=seconds))
        return run

    def test_nothing_due(self) -> None:
        assert queue.stalled(longer_than=self.LONG) is False

    def test_due_for_long_and_nobody_comes(self, trip: Saga) -> None:
        self.due_since(trip, 16)

        assert queue.stalled(longer_than=self.LONG) is True

    def test_due_for_a_moment(self, trip: Saga) -> None:
        self.due_since(trip, 14)

        assert queue.stalled(longer_than=self.LONG) is False

    @pytest.mark.parametrize(("lease_left", "expected"), [(45, False), (20, True)])
    def test_a_worker_that_renews_its_leases_is_alive(
        self, trip: Saga, world: World, lease_left: float, expected: bool
    ) -> None:
        self.due_since(trip, 60)
        busy = make_run(trip, key="busy")
        until = timezone.now() + timedelta(seconds=lease_left)
        SagaRun.objects.filter(pk=busy.pk).update(lease_owner="w1", lease_until=until)

        assert queue.stalled(longer_than=self.LONG) is expected

    def test_a_worker_that_has_just_begun_something_is_alive(self, trip: Saga) -> None:
        busy = make_run(trip, key="busy")
        StepRecord.objects.create(
            run=busy, step="hold", direction="action", number=1, worker="w1", started_at=timezone.now()
        )
        self.due_since(trip, 60)

        assert queue.stalled(longer_than=self.LONG) is False


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """django-q2 tells of every task it takes."""
    logging.getLogger("django-q").setLevel(logging.WARNING)
    yield
    logging.getLogger("django-q").setLevel(logging.NOTSET)
