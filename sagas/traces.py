"""Which trace a run belongs to, by W3C Trace Context: kept on the run's row, and told in the log.

    request ── traceparent ──▶ the run's row ──▶ each attempt, wherever it runs

OpenTelemetry's API knows the request's context; where nobody has set up its SDK, ids are kept and told all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sagas.definition import StepContext

HEADER = "traceparent"

running: ContextVar[StepContext | None] = ContextVar("saga_attempt", default=None)
"""The attempt that this code works for."""

_propagator = TraceContextTextMapPropagator()


def trace_id(traceparent: str) -> str:
    """The id of the trace in it: 32 hexadecimal digits; empty, if there is none."""
    return traceparent[3:35]


@contextmanager
def serving(*, traceparent: str) -> Iterator[None]:
    """The trace that a caller is in, or a new one, while it is served. A `traceparent` that is none is ignored.

    Who is served within another such stays in that one's.
    """
    if trace.get_current_span().get_span_context().is_valid:  # by an instrumentation of the site's own
        yield
        return
    passed_on = trace.get_current_span(_propagator.extract({HEADER: traceparent}))
    if not passed_on.get_span_context().is_valid:
        passed_on = NonRecordingSpan(_new())
    with trace.use_span(passed_on, record_exception=False, set_status_on_exception=False):
        yield


def kept() -> str:
    """What a run that begins now keeps: where in which trace it was asked for. Outside of any it begins one."""
    current = trace.get_current_span().get_span_context()
    return _written(current if current.is_valid else _new())


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
    """Where a thread of its own takes up an attempt: its log lines are the attempt's there too."""

    __slots__ = ("_attempt", "_was")

    def __init__(self, attempt: StepContext) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._was = running.set(self._attempt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        running.reset(self._was)


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _new() -> SpanContext:
    """A trace that nobody records: its id is in the log and on the row."""
    number = int.from_bytes(os.urandom(24), "big") | 1 << 64 | 1  # neither id is ever nothing but zeros
    return SpanContext(number >> 64, number & (1 << 64) - 1, is_remote=False, trace_flags=TraceFlags(0))
