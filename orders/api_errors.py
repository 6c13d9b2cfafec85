"""Every error of the API in one shape: problem+json. Source: RFC 9457.

Views and services raise; here it is decided what the caller is told. Whatever nobody foresaw is logged with its
trace and told without it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.views import defaults
from rest_framework import exceptions
from rest_framework.settings import api_settings

from orders.api_problems import PROBLEMS, Problem
from orders.exceptions import EndpointOff, InvalidOrder, OrderConflict, OrderNotCancellable, TooOften
from sagas import ActRefused, InvalidOperation
from sagas.api_fields import InvalidQuery

logger = logging.getLogger("orders.api")

MOST_ERRORS = 100
"""A body of ten thousand faulty lines gets an answer that somebody can read."""

# What an order calls its parts, and where the API has them in its body.
POINTERS = {
    "ship_name": "/shipping_address/name",
    "ship_line1": "/shipping_address/line1",
    "ship_city": "/shipping_address/city",
    "ship_postcode": "/shipping_address/postcode",
    "ship_country": "/shipping_address/country",
    "card_token": "/payment/token",
}

BY_STATUS = {
    400: "bad-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "state-conflict",
    413: "payload-too-large",
    415: "unsupported-media-type",
    503: "overloaded",
}

Found = tuple[str, str, dict[str, Any]]
"""A code, what to say about it, and members beyond the usual ones."""


@dataclass(frozen=True)
class Fault:
    """One entry of `errors`."""

    pointer: str
    """A JSON pointer into the body; `?name` for a parameter of the query, `Name:` for a header."""
    code: str
    detail: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "detail": self.detail}


class ProblemError(exceptions.APIException):
    """Raised by a view that knows which problem it is."""

    def __init__(
        self, code: str, detail: str = "", *, faults: Sequence[Fault] = (), retry_after: int | None = None
    ) -> None:
        self.problem = PROBLEMS[code]
        self.status_code = self.problem.status
        self.faults = tuple(faults)
        self.retry_after = retry_after
        super().__init__(detail or self.problem.cause, code)


def problem_handler(error: Exception, context: Mapping[str, Any]) -> JsonResponse:
    """The answer to whatever a view raised."""
    code, detail, more = found_in(error)
    problem = PROBLEMS[code]
    request: HttpRequest = context["request"]._request
    if problem.status >= 500:
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
    response = problem_answer(request, problem, detail, more)
    if getattr(error, "auth_header", None):
        response.headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    retry_after = getattr(error, "retry_after", None) or (1 if problem.code == "overloaded" else None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if isinstance(error, TooOften):
        response.headers["RateLimit-Policy"] = f'"{error.what}";q={error.most};w={error.seconds}'
        response.headers["RateLimit"] = f'"{error.what}";r=0;t={error.retry_after}'
    return response


def problem_answer(
    request: HttpRequest, problem: Problem, detail: str = "", more: Mapping[str, Any] | None = None
) -> JsonResponse:
    """A problem as it goes out."""
    body = {
        "type": problem.type,
        "title": problem.title,
        "status": int(problem.status),
        "detail": detail or problem.cause,
        "instance": request.path,
        "code": problem.code,
        "request_id": request.META.get("REQUEST_ID", ""),
        "retryable": problem.retryable,
        "errors": [],
        **(more or {}),
    }
    return JsonResponse(
        body,
        status=problem.status,
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"},
    )


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: what never reached an operation is a problem all the same, or a page to people."""
    if is_for_api(request):
        return problem_answer(request, PROBLEMS["bad-request"])
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, likewise."""
    if is_for_api(request):
        error = sys.exc_info()[1]
        code = found_in(error)[0] if isinstance(error, Exception) else "internal"
        return problem_answer(request, PROBLEMS[code])
    return defaults.server_error(request)


def is_for_api(request: HttpRequest) -> bool:
    """Whether a program asked."""
    return request.path.startswith("/api/")


def found_in(error: Exception) -> Found:
    """Which problem an exception is."""
    match error:
        case ProblemError():
            return error.problem.code, str(error.detail), {"errors": [fault.as_json() for fault in error.faults]}
        case exceptions.ValidationError():
            return _invalid(list(faults_of(error.detail, query=isinstance(error, InvalidQuery))))
        case InvalidOrder():
            return _invalid([Fault(pointer_of(item.field), item.code, item.message) for item in error.errors])
        case InvalidOperation():
            return _invalid([Fault(f"/{error.field}", "invalid", str(error))])
        case ActRefused():
            return "state-conflict", str(error), {"state": error.state, "possible": list(error.possible)}
        case EndpointOff():
            return "state-conflict", str(error), {"state": "switched_off", "possible": ["switch it on"]}
        case OrderNotCancellable():
            return _not_cancellable(error)
        case OrderConflict():
            return _conflict(error)
        case TooOften():
            return "rate-limited", str(error), {}
        case Http404():
            return "not-found", str(error), {}
        case PermissionDenied():
            return "forbidden", str(error), {}
        case exceptions.APIException():
            return _framework(error)
        case RequestDataTooBig():
            return "payload-too-large", "", {}
        case SuspiciousOperation() | UnreadablePostError():
            return "bad-request", "", {}
        case OperationalError() | InterfaceError():
            return "overloaded", "", {}
        case _:
            return "internal", "", {}


def faults_of(detail: Any, *, query: bool = False, path: str = "") -> Iterator[Fault]:
    """What the framework found, flattened to places."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            # Faults of a whole object or list come under this name; their place is the object itself.
            step = "" if name == api_settings.NON_FIELD_ERRORS_KEY else f"/{escaped(str(name))}"
            yield from faults_of(inner, query=query, path=path + step)
    elif isinstance(detail, list):
        for position, inner in enumerate(detail):
            # A list of texts is said of this place; a list of objects goes on below it.
            here = path if isinstance(inner, str) else f"{path}/{position}"
            yield from faults_of(inner, query=query, path=here)
    else:
        pointer = f"?{path[1:]}" if query else path
        yield Fault(readable(pointer), getattr(detail, "code", "invalid"), readable(str(detail)))


def escaped(name: str) -> str:
    """A member's name inside a JSON pointer. Source: RFC 6901, 3. Cut: it may be a stranger's, and of any length."""
    return name[:100].replace("~", "~0").replace("/", "~1")


def readable(text: str) -> str:
    """What a stranger sent, as text that every reader of JSON takes: half a surrogate pair is none."""
    return text.encode(errors="replace").decode()


def pointer_of(field: str) -> str:
    """Where the API's body has what an order calls `field`."""
    return POINTERS.get(field) or "/" + field.replace(".", "/")


def _invalid(faults: list[Fault]) -> Found:
    shown = faults[:MOST_ERRORS]
    if len(faults) == 1:
        detail = faults[0].detail
    elif len(shown) < len(faults):
        detail = f"{len(faults)} things are wrong; the first {len(shown)} are listed."
    else:
        detail = f"{len(faults)} things are wrong."
    return "validation-error", detail, {"errors": [fault.as_json() for fault in shown]}


def _not_cancellable(error: OrderNotCancellable) -> Found:
    refusal = error.__cause__
    if isinstance(refusal, ActRefused):
        return found_in(refusal)
    return "state-conflict", str(error), {"state": "", "possible": []}


def _conflict(error: OrderConflict) -> Found:
    faults = [
        Fault(pointer_of(name), "differs", "This differs from the order placed first.") for name in error.differing
    ]
    return "order-conflict", str(error), {"errors": [fault.as_json() for fault in faults]}


def _framework(error: exceptions.APIException) -> Found:
    """An error of Django REST framework's own, or of one that names one of our codes."""
    named = str(getattr(error.detail, "code", ""))
    code = named if named in PROBLEMS else BY_STATUS.get(error.status_code, "internal")
    return code, str(error.detail), {}
