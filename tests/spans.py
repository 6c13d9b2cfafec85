"""Spans as they are ended, in memory: what a site that has set up OpenTelemetry's SDK would send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler


@contextmanager
def recorded(sampler: Sampler | None = None) -> Iterator[InMemorySpanExporter]:
    """Have spans recorded meanwhile. The API lets its provider be set once in a process, so it is lent one."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with mock.patch.object(trace, "_TRACER_PROVIDER", provider):
        yield kept
