"""Which trace a run belongs to, by W3C Trace Context: kept on the run's row, told in the log, drawn by OpenTelemetry.

    request ── traceparent ──▶ the run's row ──▶ each attempt: a span in the request's trace, wherever it runs

Spans are made where somebody has set up OpenTelemetry's SDK. Without it ids are kept and told all the same, and that
is all it costs. Why attempts are in the request's trace: docs/decisions/0010-attempts-in-the-requests-trace.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import TracebackType
from typing import Any
from uuid import UUID

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sagas.definition import StepContext
from sagas.states import Outcome

log = logging.getLogger(__name__)

HEADER = "traceparent"
LONGEST_VALUE = 200
"""Characters of an attribute."""
OUR_FAULT = frozenset({Outcome.UNAVAILABLE.value, Outcome.UNKNOWN.value})
"""The outcomes that are errors. A no from outside is an ordinary end, and so is waiting."""

running: ContextVar[StepContext | None] = ContextVar("saga_attempt", default=None)
"""The attempt that this code works for."""

_propagator = TraceContextTextMapPropagator()


def is_on() -> bool:
    """Whether somebody has set up where spans go."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def trace_id(traceparent: str) -> str:
    """The id of the trace in it: 32 hexadecimal digits; empty, if there is none."""
    return traceparent[3:35]


@contextmanager
def serving(name: str, *, traceparent: str, kind: SpanKind = SpanKind.SERVER) -> Iterator[Span]:
    """The trace that a caller is in, or a new one, while it is served. A `traceparent` that is none is ignored.

    Who is served within another such stays in that one's.
    """
    given = trace.get_current_span().get_span_context()
    if given.is_valid:  # by an instrumentation of the site's own
        yield trace.get_current_span()
        return
    parent = _propagator.extract({HEADER: traceparent})
    if is_on():
        with _span(name, parent, kind=kind) as span:
            yield span
        return
    passed_on = trace.get_current_span(parent)
    if not passed_on.get_span_context().is_valid:
        passed_on = NonRecordingSpan(_new())
    with trace.use_span(passed_on, record_exception=False, set_status_on_exception=False):
        yield passed_on


def kept(saga: str) -> str:
    """What a run that begins now keeps: where in which trace it was asked for. Outside of any it begins one."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        current = _new()
        if is_on():
            with _span(f"start {saga}", Context(), kind=SpanKind.PRODUCER) as span:
                current = span.get_span_context() if span.get_span_context().is_valid else current
    return _written(current)


def about(run_id: UUID) -> None:
    """Say which run the request is about, so that it is found beside the run's attempts."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute("saga.run_id", str(run_id))


@contextmanager
def attempting(context: StepContext) -> Iterator[Span]:
    """The span of an attempt; only where is_on(). What it calls is drawn within it."""
    around = trace.get_current_span().get_span_context()
    parent = _propagator.extract({HEADER: context.traceparent})
    asked = trace.get_current_span(parent).get_span_context()
    # The request, which is the parent too, and the wake-up that the worker was at: as the conventions for messages say.
    links = {(one.trace_id, one.span_id): Link(one) for one in (asked, around) if one.is_valid}
    with _span(
        f"{context.step} {context.direction.value}",
        parent,
        links=list(links.values()),
        attributes={
            "saga.name": context.saga[:LONGEST_VALUE],
            "saga.order_id": context.business_key[:LONGEST_VALUE],
            "saga.run_id": context.run_id,
            "saga.step": context.step,
            "saga.direction": context.direction.value,
            "saga.attempt": context.attempt,
        },
    ) as span:
        yield span


def ended(span: Span, *, outcome: str, code: str) -> None:
    """How the attempt ended. Not why: an outside system's words may name a customer."""
    span.set_attribute("saga.outcome", outcome)
    if code:
        span.set_attribute("error.type", code[:LONGEST_VALUE])
    if outcome in OUR_FAULT:
        span.set_status(Status(StatusCode.ERROR, code[:LONGEST_VALUE]))


@contextmanager
def calling(name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
    """The span of a call to an outside system."""
    if not is_on():
        yield trace.INVALID_SPAN
        return
    with _span(name, kind=SpanKind.CLIENT, attributes=dict(attributes)) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise


def answered(span: Span, status: int) -> None:
    """What an outside system answered: 4xx and 5xx are errors of the call, as the conventions for HTTP say."""
    span.set_attribute("http.response.status_code", status)
    if status >= 400:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


@contextmanager
def hearing(name: str, *, traceparent: str) -> Iterator[Span]:
    """The span of a task of the queue: a trace of its own, since it serves whatever is due, with a link to who rang."""
    rang = trace.get_current_span(_propagator.extract({HEADER: traceparent})).get_span_context()
    links = [Link(rang)] if rang.is_valid else []
    with _span(name, Context(), kind=SpanKind.CONSUMER, links=links) as span:
        yield span


def outgoing() -> str:
    """The traceparent to send along to a system that takes part in the trace; empty outside of any."""
    current = trace.get_current_span().get_span_context()
    if current.is_valid:
        return _written(current)
    attempt = running.get()
    return attempt.traceparent if attempt is not None else ""


def said() -> dict[str, object]:
    """What a line of the log says of where it comes from, by the names that the log has for it."""
    attempt = running.get()
    if attempt is None:
        current = trace.get_current_span().get_span_context()
        return {"trace_id": trace.format_trace_id(current.trace_id)} if current.is_valid else {}
    return {
        "trace_id": trace_id(attempt.traceparent),
        "order_id": attempt.business_key,
        "run_id": attempt.run_id,
        "saga": attempt.saga,
        "step": attempt.step,
        "direction": attempt.direction.value,
        "attempt": attempt.attempt,
    }


class Within:
    """Where a thread of its own takes up an attempt: its log lines and spans are the attempt's there too."""

    __slots__ = ("_around", "_attempt", "_token", "_was")

    def __init__(self, attempt: StepContext, around: Context | None) -> None:
        self._attempt = attempt
        self._around = around

    def __enter__(self) -> None:
        self._was = running.set(self._attempt)
        self._token = contexts.attach(self._around) if self._around is not None else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        if self._token is not None:
            contexts.detach(self._token)
        running.reset(self._was)


@contextmanager
def _span(name: str, parent: Context | None = None, **more: Any) -> Iterator[Span]:
    """A span, and the current one for as long as it lasts. Whatever is wrong with tracing, the work goes on without.

    What an exception says may name a customer and is not recorded; an attempt's row has it, for those who may see it.
    """
    try:
        span = _tracer().start_span(name, parent, record_exception=False, set_status_on_exception=False, **more)
    except Exception:
        log.exception("No span could be begun; the work goes on without.")
        yield trace.INVALID_SPAN
        return
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield span
    finally:
        try:
            span.end()
        except Exception:
            log.exception("A span could not be handed on.")


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _new() -> SpanContext:
    """A trace that nobody records: its id is in the log and on the row."""
    number = int.from_bytes(os.urandom(24), "big") | 1 << 64 | 1  # neither id is ever nothing but zeros
    return SpanContext(number >> 64, number & (1 << 64) - 1, is_remote=False, trace_flags=TraceFlags(0))


def _tracer() -> trace.Tracer:
    return _tracer_of(trace.get_tracer_provider())


@cache
def _tracer_of(provider: trace.TracerProvider) -> trace.Tracer:
    return provider.get_tracer("sagas")
