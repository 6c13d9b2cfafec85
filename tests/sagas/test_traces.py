"""A run keeps the trace it was asked for in, and its attempts say so in the log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.logs import JsonFormatter, TraceFilter
from sagas import Saga, StepContext, traces
from sagas.driver import Driver
from sagas.models import SagaRun
from sagas.testing import FrozenClock, drive_once, run_to_end
from tests.sagas.toys import World, away, make_run, make_saga, make_step, refuse, registered

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
WRITTEN = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00")


def asked_in(traceparent: str, saga: Saga, **changes: Any) -> SagaRun:
    """A run that somebody asked for in that trace."""
    with traces.serving(traceparent=traceparent):
        return make_run(saga, **changes)


class TestKept:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (TRACEPARENT, TRACEPARENT),
            (f"00-{TRACE}-b7ad6b7169203331-00", f"00-{TRACE}-b7ad6b7169203331-00"),
            (f"  {TRACEPARENT} ", TRACEPARENT),
            # Of a version to come, what this one knows of it.
            (f"cc-{TRACE}-b7ad6b7169203331-01-what-the-future-adds", TRACEPARENT),
        ],
    )
    def test_what_the_caller_gave(self, trip: Saga, given: str, kept: str) -> None:
        run = asked_in(given, trip)

        assert (SagaRun.objects.get(pk=run.pk).traceparent, run.trace_id) == (kept, TRACE)

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "no trace",
            TRACEPARENT.upper(),
            TRACEPARENT[:-1],
            f"{TRACEPARENT}-more",
            f"{TRACEPARENT},{TRACEPARENT}",
            f"ff-{TRACE}-b7ad6b7169203331-01",
            f"00-{'0' * 32}-b7ad6b7169203331-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-b7ad6b7169203331-0x",
            f"00_{TRACE}_b7ad6b7169203331_01",
            "\0" * 55,
            "0" * 100_000,
        ],
    )
    def test_what_is_no_traceparent_begins_a_trace_of_our_own(self, trip: Saga, given: str) -> None:
        run = asked_in(given, trip)

        assert WRITTEN.fullmatch(SagaRun.objects.get(pk=run.pk).traceparent)
        assert run.trace_id != TRACE

    def test_each_run_that_nobody_asked_for_is_a_trace(self, trip: Saga) -> None:
        kept = {make_run(trip, key=f"T-{n}").trace_id for n in range(3)}

        assert (len(kept), {len(one) for one in kept}) == (3, {32})

    def test_what_is_asked_for_together_is_one_trace(self, trip: Saga) -> None:
        with traces.serving(traceparent=""):
            first, second = (make_run(trip, key=f"T-{n}") for n in range(2))

        assert first.traceparent == second.traceparent

    def test_it_is_written_once_and_with_the_run(self, trip: Saga) -> None:
        with CaptureQueriesContext(connection) as queries:
            run_to_end(make_run(trip))

        writing = [q["sql"].split()[0] for q in queries if "traceparent" in q["sql"] and "SELECT" not in q["sql"][:6]]
        assert writing == ["INSERT"]

    def test_whoever_does_not_know_the_column_writes_runs_all_the_same(self, trip: Saga) -> None:
        """The web servers of the version before, while this one is deployed."""
        names = [f.column for f in SagaRun._meta.concrete_fields if not f.generated and f.name != "traceparent"]
        run = make_run(trip)
        listed = ", ".join(f'"{name}"' for name in names)
        chosen = ", ".join("'T-2'" if name == "business_key" else f'"{name}"' for name in names[1:])
        new = "'00000000000000000000000000000002'"
        new = f"{new}::uuid" if connection.vendor == "postgresql" else new
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO sagas_sagarun ({listed}) SELECT {new}, {chosen} FROM sagas_sagarun")  # noqa: S608

        (other,) = SagaRun.objects.exclude(pk=run.pk)
        assert (other.traceparent, other.trace_id) == ("", "")
        run_to_end(other).assert_done(["hold", "pay", "tell"])

    def test_an_action_is_told(self, trip: Saga, world: World) -> None:
        run_to_end(asked_in(TRACEPARENT, trip))

        assert [ctx.traceparent for ctx in world.contexts] == [TRACEPARENT] * 3


class Said:
    """The log, read while a test goes on."""

    def __init__(self) -> None:
        self.text = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        hidden = {"ts", "level", "logger", "request_id"}
        return [
            {name: value for name, value in json.loads(line).items() if name not in hidden}
            for line in self.text.getvalue().splitlines()
        ]


@pytest.fixture
def said() -> Iterator[Said]:
    log = Said()
    handler = logging.StreamHandler(log.text)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(TraceFilter())
    loggers = [logging.getLogger(name) for name in ("tests.said", "sagas.driver")]
    for logger in loggers:
        logger.addHandler(handler)
    yield log
    for logger in loggers:
        logger.removeHandler(handler)


def say(ctx: StepContext) -> dict[str, Any]:
    logging.getLogger("tests.said").warning("at work")
    return {}


async def say_later(ctx: StepContext) -> dict[str, Any]:
    await asyncio.sleep(0)
    return say(ctx)


def break_down(ctx: StepContext) -> dict[str, Any]:
    raise ZeroDivisionError("as a mistake would")


def about(run: SagaRun, event: str, step: str, direction: str, attempt: int) -> dict[str, Any]:
    return {
        "trace_id": TRACE,
        "event": event,
        "order_id": "T-1",
        "run_id": str(run.pk),
        "saga": "trip",
        "step": step,
        "direction": direction,
        "attempt": attempt,
    }


class TestSaid:
    @pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
    def test_what_a_step_says_names_its_attempt(self, world: World, said: Said, inline: bool) -> None:
        world.plan("undo hold", away, say)
        steps = (
            make_step(world, "hold", action=say),
            make_step(world, "pay", action=say_later),
            make_step(world, "ship", action=world.act),
        )
        world.plan("ship", refuse)
        with registered(saga := make_saga(steps)):
            run = asked_in(TRACEPARENT, saga)
            clock = FrozenClock(run.created_at)
            for _ in range(2):
                async_to_sync(Driver(clock=clock, inline=inline).drive_run)(run.pk, patience=timedelta(seconds=-1))
                clock.advance(timedelta(seconds=5))
        logging.getLogger("tests.said").warning("outside")

        assert said.lines() == [
            about(run, "at work", "hold", "action", 1),
            about(run, "at work", "pay", "action", 1),
            about(run, "at work", "hold", "compensation", 2),
            {"event": "outside", "trace_id": "-"},
        ]

    def test_a_step_that_breaks_is_told_with_its_attempt(self, world: World, said: Said) -> None:
        with registered(saga := make_saga([make_step(world, "hold", action=break_down)])):
            run = asked_in(TRACEPARENT, saga)
            drive_once(run, clock=FrozenClock(run.created_at))

        (line,) = said.lines()
        assert line.pop("error").endswith("ZeroDivisionError: as a mistake would")
        assert line == about(run, f"hold action of run {run.pk} raised", "hold", "action", 1)

    def test_whoever_writes_a_line_knows_better(self, said: Said) -> None:
        with traces.serving(traceparent=TRACEPARENT):
            log = logging.getLogger("tests.said")
            log.warning("of this request")
            log.warning("of a run of another", extra={"trace_id": "another", "run_id": "7"})

        assert said.lines() == [
            {"event": "of this request", "trace_id": TRACE},
            {"event": "of a run of another", "trace_id": "another", "run_id": "7"},
        ]
