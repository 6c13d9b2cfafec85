"""Many runs at a time: acted on side by side, recorded together, and not lost when something goes wrong midway."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DataError, InterfaceError, OperationalError, ProgrammingError, connection, transaction
from django.utils import timezone

from sagas import Kind, Saga, StepContext, StepPostponed, StepUnavailable, journal
from sagas.driver import Driver, Limits
from sagas.models import SagaRun, StepRecord
from sagas.services import cancel
from sagas.states import RunStatus
from sagas.testing import FrozenClock, drive_once, report, run_to_end
from tests.races import together
from tests.sagas.toys import (
    World,
    attempts_of,
    away,
    fast,
    make_run,
    make_saga,
    make_step,
    registered,
    vanish,
)

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timedelta(milliseconds=30)


def limits(**changes: Any) -> Limits:
    fields: dict[str, Any] = {"batch": 100, "lease": timedelta(seconds=60), "linger": timedelta(0), "max_claims": 5}
    fields |= {"pause": SOON, **changes}
    return Limits(**fields)


def drive(driver: Driver | None = None, *, seconds: float = 20, **more: Any) -> int:
    taken: int = async_to_sync((driver or Driver(limits=limits())).drive)(seconds=seconds, **more)
    return taken


def one_step(world: World, action: Callable[[StepContext], Any], **changes: Any) -> Saga:
    return make_saga([make_step(world, "hold", action=action, **changes)])


class TestManyRuns:
    def test_all_that_is_due_is_driven_to_its_end(self, world: World, trip: Saga) -> None:
        runs = [make_run(trip, key=f"T-{n}") for n in range(10)]

        taken = drive()

        assert taken == 10
        assert {report(run).status for run in runs} == {RunStatus.COMPLETED}
        assert sorted(world.effects) == sorted(["hold", "pay", "tell"] * 10)
        assert not SagaRun.objects.exclude(lease_owner="", lease_until=None, due_at=None).exists()

    def test_they_share_their_commits(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ten steps that end together are one commit: they all wait at one gate."""
        gate = threading.Barrier(10)

        def meet(ctx: StepContext) -> dict[str, Any]:
            gate.wait(20)
            return world.do(ctx)

        sizes: list[int] = []
        commit = journal.commit

        def counted(finished: Any, **more: Any) -> Any:
            sizes.append(len(finished))
            return commit(finished, **more)

        monkeypatch.setattr(journal, "commit", counted)
        with registered(saga := one_step(world, meet)):
            for n in range(10):
                make_run(saga, key=f"T-{n}")
            drive()

        assert sum(sizes) == 10
        assert len(sizes) < 10

    def test_no_more_than_a_batch_is_held_at_a_time(self, world: World) -> None:
        most = 0

        def watch(ctx: StepContext) -> dict[str, Any]:
            nonlocal most
            most = max(most, SagaRun.objects.exclude(lease_owner="").count())
            return world.do(ctx)

        with registered(saga := one_step(world, watch)):
            for n in range(7):
                make_run(saga, key=f"T-{n}")
            assert drive(Driver(limits=limits(batch=3))) == 7

        assert most <= 3
        assert len(world.effects) == 7

    def test_two_workers_share_the_work(self, world: World, trip: Saga) -> None:
        runs = [make_run(trip, key=f"T-{n}") for n in range(12)]

        together(*[lambda: drive(Driver(limits=limits(batch=4))) for _ in range(2)])
        drive()

        assert {report(run).status for run in runs} == {RunStatus.COMPLETED}
        assert sorted(world.effects) == sorted(["hold", "pay", "tell"] * 12)

    def test_async_and_plain_actions_side_by_side(self, world: World) -> None:
        meeting = asyncio.Event()
        threads: list[str] = []

        async def waiting(ctx: StepContext) -> dict[str, Any]:
            await meeting.wait()
            return world.do(ctx)

        def plain(ctx: StepContext) -> dict[str, Any]:
            threads.append(threading.current_thread().name)
            assert connection.get_autocommit()
            assert not connection.in_atomic_block
            asyncio.run_coroutine_threadsafe(set_it(), loops[0]).result(20)
            return world.do(ctx)

        async def set_it() -> None:
            meeting.set()

        loops: list[asyncio.AbstractEventLoop] = []

        async def first(ctx: StepContext) -> None:
            loops.append(asyncio.get_running_loop())

        saga = make_saga(
            [
                make_step(world, "first", action=first),
                make_step(world, "a", action=waiting, after=("first",)),
                make_step(world, "b", action=plain, after=("first",)),
                make_step(world, "c", action=world.act_async, after=("a", "b"), kind=Kind.PIVOT),
            ]
        )
        with registered(saga):
            run = make_run(saga)
            drive()

        assert report(run).status is RunStatus.COMPLETED
        assert sorted(world.effects) == ["a", "b", "c"]
        assert threads[0].startswith("saga-act")

    def test_it_stays_for_what_is_due_soon(self, world: World) -> None:
        world.plan("hold", away)
        with registered(saga := one_step(world, world.act, retry=fast(first=SOON))):
            run = make_run(saga)
            drive(Driver(limits=limits(linger=timedelta(seconds=5))))

        assert attempts_of(run) == [("hold", "action", 1, "unavailable"), ("hold", "action", 2, "succeeded")]

    def test_it_does_not_stay_for_what_is_due_later(self, world: World) -> None:
        world.plan("hold", away)
        with registered(saga := one_step(world, world.act, retry=fast(first=timedelta(hours=1)))):
            run = make_run(saga)
            drive(Driver(limits=limits(linger=timedelta(seconds=5))))

        run.refresh_from_db()
        assert (run.status, run.lease_until) == (RunStatus.RETRYING, None)

    def test_it_finishes_what_is_under_way_and_begins_nothing_more_when_told_to_stop(
        self, world: World, trip: Saga
    ) -> None:
        stop = threading.Event()

        def last(ctx: StepContext) -> dict[str, Any]:
            stop.set()
            return world.do(ctx)

        world.plan("hold", last)
        run, other = make_run(trip), make_run(trip, key="T-2")

        drive(Driver(limits=limits(batch=1)), stop=stop.is_set)

        run.refresh_from_db()
        other.refresh_from_db()
        assert world.effects == ["hold"]
        assert attempts_of(run) == [("hold", "action", 1, "succeeded")]
        assert (run.status, run.lease_until, run.due_at is not None) == (RunStatus.RUNNING, None, True)
        assert other.status == RunStatus.PENDING
        drive()
        assert report(run).status is RunStatus.COMPLETED

    def test_a_suspect_is_driven_with_nobody_beside_it(self, world: World) -> None:
        beside: dict[str, int] = {}

        def watch(ctx: StepContext) -> dict[str, Any]:
            beside[ctx.business_key] = SagaRun.objects.exclude(lease_owner="").count()
            return world.do(ctx)

        with registered(saga := one_step(world, watch)):
            suspect = make_run(saga, key="suspect")
            for n in range(3):
                make_run(saga, key=f"T-{n}")
            SagaRun.objects.filter(pk=suspect.pk).update(claims=3)
            drive()

        assert beside["suspect"] == 1
        assert len(world.effects) == 4


class TestHowAnAttemptEnds:
    """What a step returns or raises, and what is recorded of it."""

    def ended(self, world: World, action: Callable[[StepContext], Any], **changes: Any) -> StepRecord:
        changes = {"retry": fast(first=timedelta(hours=1)), **changes}
        with registered(saga := one_step(world, action, **changes)):
            run = make_run(saga)
            drive(Driver(limits=limits(max_result_bytes=200)))
        return StepRecord.objects.get(run=run)

    def test_nothing_returned_is_an_empty_result(self, world: World) -> None:
        record = self.ended(world, lambda ctx: None)

        assert (record.outcome, record.result) == ("succeeded", {})

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            ("text", "The result cannot be stored as JSON: it is str, not a mapping"),
            ([1], "The result cannot be stored as JSON: it is list, not a mapping"),
            ({"a": object}, "The result cannot be stored as JSON: Object of type type is not JSON serializable"),
            ({"a": float("nan")}, "The result cannot be stored as JSON: Out of range float values are not JSON"),
            ({"a": "\0"}, "The result cannot be stored as JSON: it holds a NUL character"),
            ({"a": "\ud800"}, "The result cannot be stored as JSON: 'utf-8' codec can't encode character"),
        ],
    )
    def test_a_result_that_cannot_be_kept_may_have_happened_all_the_same(
        self, world: World, returned: Any, message: str
    ) -> None:
        record = self.ended(world, lambda ctx: returned)

        assert (record.outcome, record.error_code, record.result) == ("unknown", "result_not_json", None)
        assert record.error_message.startswith(message)

    def test_a_backslash_before_u0000_is_no_nul(self, world: World) -> None:
        record = self.ended(world, lambda ctx: {"pattern": "\\u0000"})

        assert (record.outcome, record.result) == ("succeeded", {"pattern": "\\u0000"})

    def test_a_result_that_is_too_large(self, world: World) -> None:
        record = self.ended(world, lambda ctx: {"a": "x" * 300})

        assert (record.outcome, record.error_code) == ("unknown", "result_too_large")
        assert record.error_message == "The result has 309 bytes; 200 is the most that is kept."

    @pytest.mark.parametrize("kind", ["plain", "async"])
    def test_no_answer_in_time_is_unknown(self, world: World, kind: str) -> None:
        let_go = threading.Event()

        def hang(ctx: StepContext) -> None:
            let_go.wait(20)

        async def hang_async(ctx: StepContext) -> None:
            await asyncio.sleep(20)

        record = self.ended(world, hang if kind == "plain" else hang_async, timeout=SOON)
        let_go.set()

        assert (record.outcome, record.error_code) == ("unknown", "timeout")
        assert record.error_message == "No answer within 0.03 s."

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ValueError("a bug"), "ValueError: a bug"),
            (TimeoutError("the socket's own"), "TimeoutError: the socket's own"),
            (SystemExit(3), "SystemExit: 3"),
            (asyncio.CancelledError("by itself"), "CancelledError: by itself"),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("kind", ["plain", "async"])
    def test_whatever_else_it_raises_is_unknown_and_stops_nobody(
        self, world: World, error: BaseException, message: str, kind: str
    ) -> None:
        def fail(ctx: StepContext) -> None:
            raise error

        async def fail_async(ctx: StepContext) -> None:
            raise error

        record = self.ended(world, fail if kind == "plain" else fail_async)

        assert (record.outcome, record.error_code, record.error_message) == ("unknown", "exception", message)

    def test_the_other_side_may_name_the_delay(self, world: World) -> None:
        def busy(ctx: StepContext) -> None:
            raise StepUnavailable("Busy.", code="busy", retry_after=timedelta(seconds=77))

        record = self.ended(world, busy)

        assert record.ended_at is not None
        assert record.retry_at == record.ended_at + timedelta(seconds=77)

    def test_what_was_not_even_asked_waits_and_costs_nothing(self, world: World) -> None:
        def down(ctx: StepContext) -> None:
            raise StepPostponed("It is down.", code="circuit_open", provider="acme", retry_after=timedelta(seconds=77))

        record = self.ended(world, down)

        assert record.ended_at is not None
        assert record.retry_at is not None
        # Counted from the moment it was said, a little before it was recorded.
        assert timedelta(seconds=76) < record.retry_at - record.ended_at <= timedelta(seconds=77)
        assert (record.outcome, record.wait_signal, record.error_code) == ("waiting", "", "circuit_open")
        assert (record.error_message, record.provider) == ("It is down.", "acme")
        assert SagaRun.objects.get().status == "running"

    def test_what_a_step_is_given(self, world: World, trip: Saga) -> None:
        run = make_run(trip)
        drive()

        hold, pay, _ = world.contexts
        assert (hold.run_id, hold.saga, hold.business_key, hold.input) == (str(run.pk), "trip", "T-1", {"seat": "12A"})
        assert (hold.step, hold.attempt, hold.maybe_done, hold.results) == ("hold", 1, False, {})
        assert pay.results == {"hold": {"reference": "hold-1"}}
        assert pay.key == f"{run.pk}:pay:action"


class TestLookUp:
    def test_what_is_found_is_taken_as_done(self, world: World, trip: Saga) -> None:
        world.plan("pay", world.lose)
        run = make_run(trip)

        result = run_to_end(run)

        assert world.calls == ["hold", "pay", "look pay", "tell"]
        assert result.status is RunStatus.COMPLETED
        assert world.effects == ["hold", "pay", "tell"]

    def test_what_is_absent_is_sent_again(self, world: World, trip: Saga) -> None:
        world.plan("pay", vanish)
        run = make_run(trip)

        run_to_end(run)

        assert world.calls == ["hold", "pay", "look pay", "pay", "tell"]
        assert world.contexts[2].maybe_done is False
        second = StepRecord.objects.get(run=run, step="pay", number=2)
        assert (second.outcome, second.settled) == ("succeeded", True)

    def test_without_one_it_is_sent_again_and_told_so(self, world: World, trip: Saga) -> None:
        world.plan("tell", world.lose)
        run = make_run(trip)

        run_to_end(run)

        assert world.calls == ["hold", "pay", "tell", "tell"]
        assert world.contexts[-1].maybe_done is True
        assert world.effects == ["hold", "pay", "tell"]

    def test_the_last_one_sends_nothing(self, world: World, trip: Saga) -> None:
        world.plan("pay", vanish, vanish, vanish)
        run = make_run(trip)

        result = run_to_end(run)

        assert world.calls.count("pay") == 3
        assert world.calls.count("look pay") == 3
        assert (result.status, result.error_code, result.undone) == (RunStatus.COMPENSATED, "not_done", ["pay", "hold"])


class TestADefinitionThatChanged:
    """A deployment brings version 2 while runs of version 1 are under way."""

    @pytest.fixture
    def versions(self, world: World) -> Iterator[tuple[Saga, Saga]]:
        """Hold and pay; in version 2 somebody checks in between, and holding is another step."""
        first = make_saga([make_step(world, "hold"), make_step(world, "pay", look_up=world.look_up)])
        second = make_saga([make_step(world, "keep"), make_step(world, "check"), make_step(world, "pay")], version=2)
        with registered(first, second):
            yield first, second

    def test_runs_end_by_the_version_they_began_with(self, world: World, versions: tuple[Saga, Saga]) -> None:
        first, second = versions
        clock = FrozenClock()
        world.plan("pay", away)
        begun = make_run(first, key="T-1")
        drive_once(begun, clock=clock)  # held, and pay is to be tried again

        new = run_to_end(make_run(second, key="T-2"), clock=clock)
        old = run_to_end(begun, clock=clock)

        assert (old.status, old.run.version, old.done) == (RunStatus.COMPLETED, 1, ["hold", "pay"])
        assert (new.status, new.run.version, new.done) == (RunStatus.COMPLETED, 2, ["keep", "check", "pay"])

    def test_and_undo_what_that_version_did(self, world: World, versions: tuple[Saga, Saga]) -> None:
        first, _ = versions
        done = run_to_end(make_run(first)).run

        cancel(run_id=done.pk, actor="user:sam", reason="they changed their mind")
        ended = run_to_end(done)

        assert (ended.status, ended.undone) == (RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == ["hold", "pay", "undo pay", "undo hold"]


class TestLeases:
    def test_a_step_longer_than_the_lease_keeps_it(self, world: World) -> None:
        ends: list[Any] = []

        def slow(ctx: StepContext) -> dict[str, Any]:
            """Until the lease it began with has long passed; the driver has renewed it meanwhile."""
            begun = SagaRun.objects.get().lease_until
            assert begun is not None
            end = time.monotonic() + 20
            while time.monotonic() < end and timezone.now() < begun + timedelta(milliseconds=600):
                threading.Event().wait(0.02)
            ends.append((begun, SagaRun.objects.get().lease_until))
            return world.do(ctx)

        with registered(saga := one_step(world, slow)):
            run = make_run(saga)
            drive(Driver(limits=limits(lease=timedelta(milliseconds=500))))

        ((begun, later),) = ends
        assert later > begun
        assert attempts_of(run) == [("hold", "action", 1, "succeeded")]

    def test_a_worker_that_lost_its_run_lets_go_and_goes_on_with_the_others(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        def lose_it(ctx: StepContext) -> dict[str, Any]:
            if ctx.business_key == "lost":
                SagaRun.objects.filter(business_key="lost").update(fence=99, lease_owner="somebody else")
            return world.do(ctx)

        with registered(saga := one_step(world, lose_it)):
            lost, kept = make_run(saga, key="lost"), make_run(saga, key="kept")
            drive()

        assert attempts_of(lost) == [("hold", "action", 1, "")]
        assert report(kept).status is RunStatus.COMPLETED
        assert "1 runs changed hands while they were driven; letting go." in caplog.text


class TestTheDatabaseIsAway:
    @pytest.fixture
    def outage(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, Exception], None]:
        """Let the next calls of a journal's function fail before they do anything."""

        def plan(name: str, times: int, error: Exception) -> None:
            work = getattr(journal, name)
            left = times

            def failing(*args: Any, **more: Any) -> Any:
                nonlocal left
                if left:
                    left -= 1
                    raise error
                return work(*args, **more)

            monkeypatch.setattr(journal, name, failing)

        return plan

    @pytest.mark.parametrize("name", ["claim", "commit", "next_due"])
    def test_it_waits_and_goes_on(
        self, world: World, trip: Saga, outage: Callable[..., None], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        outage(name, 2, OperationalError("the server is starting up"))
        run = make_run(trip)

        drive()

        assert report(run).status is RunStatus.COMPLETED
        # Nothing was lost on the way: no attempt became unknown for it.
        assert [outcome for *_, outcome in attempts_of(run)] == ["succeeded"] * 3
        assert world.calls == ["hold", "pay", "tell"]
        assert caplog.text.count("The database gave no answer") == 2

    def test_a_commit_whose_answer_was_lost_is_not_made_twice(
        self, world: World, trip: Saga, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit, calls = journal.commit, 0

        def answer_lost(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            still = commit(*args, **more)
            if calls == 1:
                raise OperationalError("the connection was closed")
            return still

        monkeypatch.setattr(journal, "commit", answer_lost)
        run = make_run(trip)
        drive(seconds=3)
        clock = FrozenClock(timezone.now() + timedelta(minutes=2))

        result = run_to_end(run, clock=clock)

        assert result.status is RunStatus.COMPLETED
        assert world.effects == ["hold", "pay", "tell"]
        assert result.attempts[0] == ("hold", "action", 1, "succeeded")

    def test_an_outcome_that_cannot_be_stored_takes_no_other_along(
        self, world: World, trip: Saga, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        commit = journal.commit

        def picky(finished: Any, **more: Any) -> Any:
            with transaction.atomic():
                still = commit(finished, **more)
                if any(held.run.business_key == "bad" for held, *_ in finished):
                    raise DataError("no such value")
            return still

        monkeypatch.setattr(journal, "commit", picky)
        good, bad = make_run(trip, key="good"), make_run(trip, key="bad")
        caplog.set_level(logging.CRITICAL, logger="sagas.driver")

        drive()

        assert report(good).status is RunStatus.COMPLETED
        assert attempts_of(bad) == [("hold", "action", 1, "")]


class TestDriveRun:
    def test_only_that_run_is_driven(self, world: World, trip: Saga) -> None:
        other, run = make_run(trip, key="T-2"), make_run(trip)

        drive_once(run, clock=FrozenClock())

        assert report(run).status is RunStatus.COMPLETED
        assert report(other).status is RunStatus.PENDING

    async def test_it_sleeps_through_its_backoffs(self, world: World) -> None:
        world.plan("hold", away, away)
        with registered(saga := one_step(world, world.act, retry=fast(first=SOON))):
            run = await sync_to_async(make_run)(saga)
            ended = await Driver(inline=True, limits=limits()).drive_run(run.pk)

        assert ended.status == RunStatus.COMPLETED
        assert world.calls == ["hold"] * 3

    async def test_it_sleeps_no_longer_than_it_has_patience(self, world: World) -> None:
        world.plan("hold", away)
        with registered(saga := one_step(world, world.act, retry=fast(first=timedelta(hours=1)))):
            run = await sync_to_async(make_run)(saga)
            driver = Driver(inline=True, limits=limits())
            ended = await driver.drive_run(run.pk, patience=timedelta(seconds=1))

        assert ended.status == RunStatus.RETRYING

    def test_inside_a_callers_transaction(self, world: World, trip: Saga) -> None:
        with transaction.atomic():
            run = make_run(trip)
            drive_once(run, clock=FrozenClock())
            assert connection.in_atomic_block

        assert report(run).status is RunStatus.COMPLETED


def test_a_plain_function_waits_for_its_thread_without_its_time_running(world: World, settings: Any) -> None:
    """Two threads, six calls that take a third of their timeout each: none runs out of time in a queue."""
    settings.SAGA_THREADS = 2
    running, most, lock = 0, 0, threading.Lock()

    def slow(ctx: StepContext) -> dict[str, Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.2)
        with lock:
            running -= 1
        return world.do(ctx)

    with registered(saga := one_step(world, slow, timeout=timedelta(seconds=0.5))):
        for n in range(6):
            make_run(saga, key=f"T-{n}")
        drive()

    assert most == 2
    assert set(StepRecord.objects.values_list("outcome", flat=True)) == {"succeeded"}


class TestAPlainFunctionsConnection:
    """The thread and its connection are kept for the next function."""

    def test_a_transaction_that_one_leaves_open_is_not_the_next_ones(self, world: World, settings: Any) -> None:
        settings.SAGA_THREADS = 1
        saga = make_saga(
            [
                make_step(world, "careless", action=lambda ctx: transaction.set_autocommit(False)),
                make_step(world, "next", action=lambda ctx: {"autocommit": transaction.get_autocommit()}),
            ]
        )

        run = run_threads(saga)

        assert StepRecord.objects.get(run=run, step="next").result == {"autocommit": True}

    def test_one_that_met_an_error_and_hid_it_is_made_anew(self, world: World, settings: Any) -> None:
        settings.SAGA_THREADS = 1

        def break_off(ctx: StepContext) -> None:
            SagaRun.objects.exists()
            transaction.get_connection().connection.close()  # as a server that restarts does
            with suppress(InterfaceError, OperationalError, ProgrammingError):
                SagaRun.objects.exists()

        saga = make_saga(
            [
                make_step(world, "first", action=lambda ctx: {"there": SagaRun.objects.exists()}),
                make_step(world, "broken", action=break_off),
                make_step(world, "next", action=lambda ctx: {"there": SagaRun.objects.exists()}),
            ]
        )

        run = run_threads(saga)

        assert StepRecord.objects.get(run=run, step="next").result == {"there": True}


def run_threads(saga: Saga) -> SagaRun:
    """Driven to its end with plain functions in threads, each tried once."""
    with registered(saga):
        run = make_run(saga)
        drive()
    run.refresh_from_db()
    assert (run.status, StepRecord.objects.filter(run=run).count()) == (RunStatus.COMPLETED.value, len(saga.steps))
    return run
