"""Sends spans where OTEL_TRACES_EXPORTER says, by OpenTelemetry's SDK, which reads the rest of its own variables.

    OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318

Whoever has set up the SDK already, `opentelemetry-instrument` for one, is left alone.
"""

from __future__ import annotations

import threading
from importlib.metadata import entry_points
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from opentelemetry import trace

from sagas import traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

GROUP = "opentelemetry_traces_exporter"
"""The entry points by which exporters are found, as the SDK's own set-up does."""
NAMES = {"otlp": "otlp_proto_http"}
LAST_SECONDS = 2.0
"""What a process that ends waits for its last spans to be taken: a collector that is away keeps nobody from ending."""


def begin() -> None:
    """Set the SDK up if it is asked for. Raises ImproperlyConfigured, with the way out, if it cannot be."""
    name = settings.TRACES_EXPORTER
    if name in {"", "none"} or traces.is_on():
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise _not_there(name) from error
    named = Resource.create({})
    if str(named.attributes["service.name"]).startswith("unknown_service"):
        named = named.merge(Resource({"service.name": "orders"}))
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    processor = BatchSpanProcessor(_exporter(name))
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    _end_well(processor)
    # The queue's workers are forked, and no process of theirs runs what was meant for the end of this one.
    util.register_after_fork(processor, _end_well)


def _exporter(name: str) -> Any:
    found = list(entry_points(group=GROUP, name=NAMES.get(name, name)))
    if not found:
        raise _not_there(name)
    try:
        return found[0].load()()
    except ImportError as error:
        raise _not_there(name) from error


def _not_there(name: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"OTEL_TRACES_EXPORTER={name!r}: no such exporter is installed. `pip install --require-hashes -r "
        "requirements/traces.txt` brings otlp and console; others are packages of their own."
    )


def _end_well(processor: SpanProcessor) -> None:
    util.Finalize(None, _last_words, args=(processor,), exitpriority=0)


def _last_words(processor: SpanProcessor) -> None:
    """Send what is left, and wait a moment for it."""
    sending = threading.Thread(target=processor.shutdown, daemon=True)
    sending.start()
    sending.join(LAST_SECONDS)
