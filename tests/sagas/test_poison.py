"""Steps that hang, swell, or return and raise what nobody should: they end with a person, and hold nobody else up."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections

from sagas import Saga, StepContext, queue
from sagas.driver import Driver, Limits
from sagas.models import SagaRun, StepRecord
from sagas.states import RunStatus
from sagas.testing import FrozenClock, run_to_end
from sagas.threads import threads
from tests.processes import wait_for
from tests.sagas.toys import World, fast, make_run, make_saga, make_step, registered

pytestmark = pytest.mark.django_db(transaction=True)

TICK = timedelta(milliseconds=10)


def drive(seconds: float = 20) -> None:
    limits = Limits.from_settings()
    limits.linger = timedelta(0)
    async_to_sync(Driver(limits=limits).drive)(seconds=seconds)


def statuses() -> dict[str, str]:
    return dict(SagaRun.objects.values_list("business_key", "status"))


def one_step(world: World, action: Callable[[StepContext], Any], **changes: Any) -> Saga:
    fields = {"action": action, "retry": fast(attempts=1), **changes}
    return make_saga([make_step(world, "hold", **fields)], name="poisoned")


class TestHanging:
    @pytest.fixture
    def gate(self) -> Iterator[threading.Event]:
        """What the hanging functions wait for; they are let go at the end."""
        gate = threading.Event()
        yield gate
        gate.set()
        wait_for("all threads to come back", lambda: threads().stuck == 0)

    def test_threads_that_never_come_back_are_replaced(
        self, world: World, trip: Saga, gate: threading.Event, settings: Any
    ) -> None:
        """More of them than there are places, and all others go through."""
        settings.SAGA_THREADS = 3

        def hang(ctx: StepContext) -> None:
            gate.wait()
            connections.close_all()

        with registered(saga := one_step(world, hang, timeout=TICK)):
            for n in range(10):
                make_run(saga, key=f"hangs {n}")
            for n in range(10):
                make_run(trip, key=f"well {n}")

            drive()

        ends = statuses()
        assert {ends[f"well {n}"] for n in range(10)} == {"completed"}
        assert {ends[f"hangs {n}"] for n in range(10)} == {"needs_attention"}
        assert threads().stuck == 10
        assert set(
            StepRecord.objects.filter(step="hold", run__saga="poisoned").values_list("error_code", flat=True)
        ) == {"timeout"}

    def test_a_worker_full_of_them_makes_room_for_another(
        self, world: World, gate: threading.Event, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.SAGA_THREADS = 2

        def hang(ctx: StepContext) -> None:
            gate.wait()
            connections.close_all()

        with registered(saga := one_step(world, hang, timeout=TICK)):
            for n in range(2):
                make_run(saga, key=f"hangs {n}")

            with pytest.raises(SystemExit):
                queue.drive()

        assert "2 plain functions have never returned; this worker ends and makes room." in caplog.text
        assert set(statuses().values()) == {"needs_attention"}

    def test_a_process_ends_although_one_of_its_threads_never_will(self) -> None:
        script = (
            "import asyncio, time\n"
            "from sagas.threads import threads\n"
            "async def main():\n"
            "    try:\n"
            "        await asyncio.wait_for(threads().run(lambda: time.sleep(600)), 0.05)\n"
            "    except TimeoutError:\n"
            "        print('given up', threads().stuck)\n"
            "asyncio.run(main())\n"
        )

        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)

        assert (done.returncode, done.stdout, done.stderr) == (0, "given up 1\n", "")

    def test_an_async_step_that_never_returns_holds_up_nobody(self, world: World, trip: Saga) -> None:
        async def hang(ctx: StepContext) -> None:
            await asyncio.Event().wait()

        with registered(saga := one_step(world, hang, timeout=timedelta(seconds=0.5))):
            make_run(saga, key="hangs")
            for n in range(50):
                make_run(trip, key=f"well {n}")

            drive()

        rows = {run.business_key: run for run in SagaRun.objects.all()}
        hung = StepRecord.objects.get(run=rows.pop("hangs"))
        assert {run.status for run in rows.values()} == {"completed"}
        assert hung.error_code == "timeout"
        assert hung.ended_at is not None
        assert all(run.ended_at is not None and run.ended_at < hung.ended_at for run in rows.values())

    def test_a_look_up_that_never_returns_leaves_the_question_open(self, world: World) -> None:
        async def hang(ctx: StepContext) -> None:
            await asyncio.Event().wait()

        saga = one_step(world, world.lose, look_up=hang, timeout=TICK, retry=fast(attempts=2))
        with registered(saga):
            result = run_to_end(make_run(saga), clock=FrozenClock())

        assert result.status is RunStatus.NEEDS_ATTENTION
        assert "the outcome is unknown" in result.attention
        assert world.effects == ["hold"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


class OfItsOwnKind(BaseException):
    pass


def cycle() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["self"] = found
    return found


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"in": found}
    return found


class TestOddEnds:
    @pytest.mark.parametrize("kind", ["plain", "async"])
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (Unspeakable(), "Unspeakable: (it cannot be told: RuntimeError)"),
            (OfItsOwnKind("odd"), "OfItsOwnKind: odd"),
            (StopIteration("enough"), "StopIteration"),
            (GeneratorExit("gone"), "GeneratorExit"),
            (ExceptionGroup("many", [ValueError("one"), KeyError("two")]), "ExceptionGroup: many (2 sub-exceptions)"),
            (ValueError("x" * 100_000), "ValueError: " + "x" * 1000),
            (ValueError("a\0b\ud800"), "ValueError: ab?"),
        ],
        ids=["unspeakable", "of its own kind", "stop", "exit", "group", "long", "unprintable"],
    )
    def test_whatever_it_raises(
        self,
        world: World,
        trip: Saga,
        kind: str,
        error: BaseException,
        words: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # What is logged of them cannot all be written down where a test's log goes.
        monkeypatch.setattr(logging.getLogger("sagas.driver"), "disabled", True)

        def plain(ctx: StepContext) -> None:
            raise error

        async def coroutine(ctx: StepContext) -> None:
            raise error

        with registered(saga := one_step(world, plain if kind == "plain" else coroutine)):
            make_run(saga, key="odd")
            make_run(trip, key="well")
            drive()

        assert statuses() == {"odd": "needs_attention", "well": "completed"}
        record = StepRecord.objects.get(run__business_key="odd")
        assert (record.outcome, record.error_code) == ("unknown", "exception")
        assert words in record.error_message
        assert len(record.error_message) <= 2000

    @pytest.mark.parametrize(
        "make",
        [
            lambda: {"bytes": b"x"},
            lambda: {"nan": float("nan")},
            lambda: {("a", "tuple"): 1},
            lambda: {"surrogate": "\ud800"},
            lambda: {"number": 10**5000},
            lambda: {"set": {1}},
            lambda: [1, 2],
            lambda: "text",
            cycle,
            lambda: nested(100_000),
        ],
        ids=["bytes", "nan", "keys", "surrogate", "number", "set", "list", "text", "cycle", "nested"],
    )
    def test_what_json_cannot_hold(self, world: World, trip: Saga, make: Callable[[], Any]) -> None:
        with registered(saga := one_step(world, lambda ctx: make())):
            make_run(saga, key="odd")
            make_run(trip, key="well")
            drive()

        assert statuses() == {"odd": "needs_attention", "well": "completed"}
        record = StepRecord.objects.get(run__business_key="odd")
        assert (record.outcome, record.error_code, record.result) == ("unknown", "result_not_json", None)

    def test_ten_megabytes(self, world: World, trip: Saga) -> None:
        with registered(saga := one_step(world, lambda ctx: {"much": "x" * 10_000_000})):
            make_run(saga, key="fat")
            make_run(trip, key="well")
            drive()

        assert statuses() == {"fat": "needs_attention", "well": "completed"}
        record = StepRecord.objects.get(run__business_key="fat")
        assert record.error_message == "The result has 10000012 bytes; 65536 is the most that is kept."


class TestPressure:
    def test_a_provider_a_hundred_times_slower_than_the_others(self, world: World, trip: Saga) -> None:
        async def crawl(ctx: StepContext) -> dict[str, Any]:
            await asyncio.sleep(2)
            return {}

        with registered(saga := one_step(world, crawl)):
            for n in range(20):
                make_run(saga, key=f"slow {n}")
            for n in range(200):
                make_run(trip, key=f"quick {n}")
            begin = time.monotonic()
            drive()
            seconds = time.monotonic() - begin

        in_order = list(SagaRun.objects.order_by("ended_at").values_list("saga", flat=True))
        assert set(statuses().values()) == {"completed"}
        assert in_order == ["trip"] * 200 + ["poisoned"] * 20
        assert seconds < 20  # one after another the slow ones alone would take 40

    def test_memory_does_not_grow_with_the_runs(self, world: World) -> None:
        """A result of 20 kB each: keeping those of 1,500 runs would be 30 MB."""

        async def swell(ctx: StepContext) -> dict[str, Any]:
            return {"much": "x" * 20_000}

        with registered(saga := one_step(world, swell)):
            for n in range(300):
                make_run(saga, key=f"first {n}")
            drive()
            before = resident()
            for n in range(1500):
                make_run(saga, key=f"then {n}")
            drive(60)

        assert set(statuses().values()) == {"completed"}
        gc.collect()
        assert resident() - before < 20_000_000


def resident() -> int:
    """Bytes of this process in memory now. Source: proc(5), /proc/self/statm, in pages."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
