"""What every request is given: an id, its trace and, for the answer, a Content-Security-Policy.

All work with sync and async views. Django 6.0 brings a CSP middleware of its own; this one serves 5.2 too.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

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


@sync_and_async_middleware
def trace_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Have each request handled in its caller's trace, or in a new one; by `traceparent`, of W3C Trace Context."""
    if iscoroutinefunction(get_response):

        async def later(request: HttpRequest) -> HttpResponseBase:
            with traces.serving(traceparent=request.headers.get(traces.HEADER, "")):
                coming: Awaitable[HttpResponseBase] = get_response(request)
                return await coming

        return later

    def now(request: HttpRequest) -> HttpResponseBase:
        with traces.serving(traceparent=request.headers.get(traces.HEADER, "")):
            response: HttpResponseBase = get_response(request)
            return response

    return now


class RequestIdFilter(logging.Filter):
    """Lets log lines say which request they belong to; `-` outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = _request_id.get()
        return True
