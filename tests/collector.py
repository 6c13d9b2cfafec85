"""A collector of traces: what OpenTelemetry's exporters send to over HTTP, kept to be looked at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span that came in. Ids as W3C Trace Context writes them; an empty parent: it has none."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    """(trace id, span id)."""
    attributes: dict[str, Any]
    is_error: bool
    service: str
    text: str
    """All of it, to look for what must not be in it."""

    @property
    def place(self) -> tuple[str, str]:
        return self.trace_id, self.span_id


@dataclass
class Collector:
    """Where it listens, and what came in."""

    url: str
    spans: list[Seen] = field(default_factory=list)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def attempts(self, run_id: object) -> list[Seen]:
        """Of a run, by the time they were sent."""
        return [
            one
            for one in self.spans
            if one.attributes.get("saga.run_id") == str(run_id) and "saga.step" in one.attributes
        ]

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_seen(span, about["service.name"]) for span in scope.spans]


def _seen(span: Sent, service: str) -> Seen:
    return Seen(
        name=span.name,
        kind=Sent.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes={one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        service=service,
        text=str(span),
    )


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens, on an address of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            there.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = Collector(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
