"""What every request is given: an id, its trace and, for the answer, a Content-Security-Policy.

All work with sync and async views. Django 6.0 brings a CSP middleware of its own; this one serves 5.2 too.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode

from sagas import traces

# Only what we ship ourselves may run, load or frame; an injected tag of any kind is inert.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data:",  # the admin's style sheets carry small pictures inside them
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)

# Short enough for a log line, and nothing in it that could end the line or a header.
WELL_FORMED_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{7,63}")

_request_id: ContextVar[str] = ContextVar("request_id", default="-")


class ContentSecurityPolicyMiddleware(MiddlewareMixin):
    """Set the policy, unless the view has already set one that suits it better."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response


class RequestIdMiddleware(MiddlewareMixin):
    """Give each request an id, the caller's own if it is well-formed, and send it back in `X-Request-Id`."""

    def process_request(self, request: HttpRequest) -> None:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
        request.META["REQUEST_ID"] = request_id
        _request_id.set(request_id)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers["X-Request-Id"] = request.META["REQUEST_ID"]
        return response


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds, by machines that want to know nothing of traces."""


@sync_and_async_middleware
def trace_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Have each request handled in its caller's trace, or in a new one; by `traceparent`, of W3C Trace Context."""
    if iscoroutinefunction(get_response):

        async def later(request: HttpRequest) -> HttpResponseBase:
            with _trace_of(request) as span:
                coming: Awaitable[HttpResponseBase] = get_response(request)
                response = await coming
                _tell(span, request, response)
            return response

        return later

    def now(request: HttpRequest) -> HttpResponseBase:
        with _trace_of(request) as span:
            response: HttpResponseBase = get_response(request)
            _tell(span, request, response)
        return response

    return now


@contextmanager
def _trace_of(request: HttpRequest) -> Iterator[Span]:
    if request.path in UNTRACED:
        yield INVALID_SPAN
        return
    with traces.serving(_method(request), traceparent=request.headers.get(traces.HEADER, "")) as span:
        yield span


def _tell(span: Span, request: HttpRequest, response: HttpResponseBase) -> None:
    """What was asked for and how it went. The address as its pattern: what stands in its places, and behind it, may
    name a customer."""
    if not span.is_recording():
        return
    span.set_attribute("http.request.method", _method(request))
    span.set_attribute("http.response.status_code", response.status_code)
    span.set_attribute("request_id", request.META["REQUEST_ID"])
    if request.resolver_match:
        span.set_attribute("http.route", f"/{request.resolver_match.route}")
        span.update_name(f"{_method(request)} /{request.resolver_match.route}")
    if response.status_code >= 500:
        span.set_attribute("error.type", str(response.status_code))
        span.set_status(StatusCode.ERROR)


def _method(request: HttpRequest) -> str:
    return request.method if request.method in METHODS else "_OTHER"


class RequestIdFilter(logging.Filter):
    """Lets log lines say which request they belong to; `-` outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        return True
