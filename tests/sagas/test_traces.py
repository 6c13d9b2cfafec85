"""A run keeps the trace it was asked for in; its attempts say so in the log and, where spans are made, in theirs."""

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
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import StatusCode

from config.logs import JsonFormatter, TraceFilter
from sagas import Saga, StepContext, traces
from sagas.driver import Driver
from sagas.models import SagaRun
from sagas.services import execute
from sagas.testing import FrozenClock, drive_once, run_to_end
from tests.sagas.toys import World, away, cannot_tell, make_run, make_saga, make_step, refuse, registered
from tests.spans import recorded

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
WRITTEN = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00")


def asked_in(traceparent: str, saga: Saga, **changes: Any) -> SagaRun:
    """A run that somebody asked for in that trace."""
    with traces.serving("ask", traceparent=traceparent):
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
        with traces.serving("ask", traceparent=""):
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
        with traces.serving("ask", traceparent=TRACEPARENT):
            log = logging.getLogger("tests.said")
            log.warning("of this request")
            log.warning("of a run of another", extra={"trace_id": "another", "run_id": "7"})

        assert said.lines() == [
            {"event": "of this request", "trace_id": TRACE},
            {"event": "of a run of another", "trace_id": "another", "run_id": "7"},
        ]


def places(spans: tuple[ReadableSpan, ...]) -> list[tuple[str, str, str, list[str]]]:
    """(name, trace, parent, links) of each."""
    return [
        (
            one.name,
            trace.format_trace_id(one.context.trace_id),
            trace.format_span_id(one.parent.span_id) if one.parent else "",
            [trace.format_span_id(link.context.span_id) for link in one.links],
        )
        for one in spans
        if one.context is not None
    ]


class Broken(Sampler):
    """As one that somebody wrote."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        raise ZeroDivisionError("no")

    def get_description(self) -> str:
        return "broken"


class TestSpans:
    @pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
    def test_an_attempt_is_a_span_of_the_request_and_what_it_calls_is_within(
        self, world: World, trip: Saga, inline: bool
    ) -> None:
        def call(ctx: StepContext) -> dict[str, Any]:
            with trace.get_tracer("a step's own").start_as_current_span("world hold"):
                return {}

        world.plan("hold", call)
        world.plan("pay", away, refuse)
        run = asked_in(TRACEPARENT, trip)
        with recorded() as kept:
            clock = FrozenClock(run.created_at)
            for _ in range(2):
                async_to_sync(Driver(clock=clock, inline=inline).drive_run)(run.pk, patience=timedelta(seconds=-1))
                clock.advance(timedelta(seconds=5))
        spans = kept.get_finished_spans()

        caller = "b7ad6b7169203331"
        hold = trace.format_span_id(spans[1].context.span_id)
        assert places(spans) == [
            ("world hold", TRACE, hold, []),
            ("hold action", TRACE, caller, [caller]),
            ("pay action", TRACE, caller, [caller]),
            ("pay action", TRACE, caller, [caller]),
            ("hold compensation", TRACE, caller, [caller]),
        ]
        told = [dict(one.attributes or {}) for one in spans[1:]]
        assert [(t["saga.attempt"], t["saga.outcome"], t.get("error.type")) for t in told] == [
            (1, "succeeded", None),
            (1, "unavailable", "away"),
            (2, "refused", "said_no"),
            (1, "succeeded", None),
        ]
        assert [one.status.status_code for one in spans[1:]] == [
            StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET,
        ]  # fmt: skip
        assert [event for one in spans for event in one.events] == []

    async def test_within_another_span_that_one_is_linked_too(self, trip: Saga) -> None:
        run = await sync_to_async(asked_in)(TRACEPARENT, trip)
        with recorded() as kept, traces.hearing("a task", traceparent=""):
            await execute(run_id=run.pk)
        *attempts, task = kept.get_finished_spans()

        assert task.context is not None
        drove = trace.format_span_id(task.context.span_id)
        assert [links for *_, links in places(tuple(attempts))] == [["b7ad6b7169203331", drove]] * 3

    def test_a_run_of_long_ago_has_no_trace_and_its_attempts_are_of_their_own(self, trip: Saga) -> None:
        run = make_run(trip)
        SagaRun.objects.update(traceparent="")
        with recorded() as kept:
            run_to_end(run).assert_done(["hold", "pay", "tell"])

        spans = places(kept.get_finished_spans())
        assert [(name, parent, links) for name, _, parent, links in spans] == [
            ("hold action", "", []), ("pay action", "", []), ("tell action", "", []),
        ]  # fmt: skip

    def test_a_run_begun_outside_of_any_request_has_a_span_to_hang_on(self, trip: Saga) -> None:
        with recorded() as kept:
            run = make_run(trip)
            run_to_end(run)
        begun, *attempts = places(kept.get_finished_spans())

        assert (begun[0], begun[1], begun[2]) == ("start trip", run.trace_id, "")
        assert {(where, parent) for _, where, parent, _ in attempts} == {(run.trace_id, run.traceparent[36:52])}

    def test_an_order_that_is_not_sampled_has_no_spans_at_all(self, trip: Saga) -> None:
        with recorded(ParentBased(ALWAYS_OFF)) as kept:
            with traces.serving("ask", traceparent=""):
                run = make_run(trip)
            run_to_end(run)

        assert kept.get_finished_spans() == ()
        assert (len(run.trace_id), int(run.traceparent[-2:], 16) & 1) == (32, 0)

    def test_what_is_wrong_with_tracing_keeps_no_order_from_its_end(
        self, trip: Saga, caplog: pytest.LogCaptureFixture
    ) -> None:
        with recorded(Broken()), traces.serving("ask", traceparent=TRACEPARENT):
            run_to_end(make_run(trip)).assert_done(["hold", "pay", "tell"])

        assert {record.getMessage() for record in caplog.records if record.name == "sagas.traces"} == {
            "No span could be begun; the work goes on without."
        }

    def test_no_word_of_an_error_is_in_a_span(self, world: World, trip: Saga) -> None:
        world.plan("hold", cannot_tell, break_down)
        run = asked_in(TRACEPARENT, trip)
        with recorded() as kept:
            clock = FrozenClock(run.created_at)
            for _ in range(2):
                drive_once(run, clock=clock)
                clock.advance(timedelta(seconds=5))

        text = "".join(one.to_json() for one in kept.get_finished_spans())
        assert ("books_closed" in text, "closed." in text, "as a mistake would" in text) == (True, False, False)


class TestRung:
    def test_a_wake_up_says_in_which_trace_it_was_rung_where_spans_are_made(self, trip: Saga) -> None:
        with recorded(), traces.serving("ask", traceparent=TRACEPARENT) as span:
            make_run(trip, ring=True)
            asked = trace.format_span_id(span.get_span_context().span_id)
        with traces.serving("ask", traceparent=TRACEPARENT):
            make_run(trip, key="T-2", ring=True)
        traced, plain = (waiting.task for waiting in OrmQ.objects.order_by("id"))

        assert traced["traceparent"] == f"00-{TRACE}-{asked}-01"
        assert traced.keys() - plain.keys() == {"traceparent"}
