"""The API's own description: the OpenAPI document, its page, and what is the same for every operation in it."""

from __future__ import annotations

import copy
import re
from http import HTTPStatus
from typing import Any

from django.http import Http404
from django.urls import get_resolver
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer, TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from orders import api_beside
from orders.api_problems import PROBLEMS
from orders.api_retiring import RETIRING
from sagas.api_view import ApiView

Data = dict[str, Any]

PROBLEM_SCHEMA: Data = {
    "type": "object",
    "description": "What went wrong, in one shape for every error. RFC 9457.",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "A page that explains it."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "This case in words."},
        "instance": {"type": "string", "description": "The path that was asked for."},
        "code": {
            "type": "string",
            "description": "For programs. More may come: treat an unknown one by its status.",
            "enum": sorted(PROBLEMS),
        },
        "request_id": {"type": "string", "description": "Name it when you ask us."},
        "retryable": {"type": "boolean", "description": "The same request may succeed later."},
        "errors": {
            "type": "array",
            "description": "Every place that is wrong.",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "A JSON pointer into the body; `?name` for a parameter of the query, `Name:` "
                        "for a header.",
                        "examples": ["/items/0/quantity"],
                    },
                    "code": {"type": "string", "examples": ["out_of_range"]},
                    "detail": {"type": "string"},
                },
                "required": ["pointer", "code", "detail"],
            },
        },
        "state": {"type": "string", "description": "With `state-conflict`: how it stands."},
        "possible": {
            "type": "array",
            "items": {"type": "string"},
            "description": "With `state-conflict`: what can be done instead.",
        },
    },
    "required": [
        "type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "errors",
    ],
}  # fmt: skip

COMMON_HEADERS: Data = {
    "X-Request-Id": {
        "description": "Your own `X-Request-Id` if it was well-formed, else one of ours.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "How many more, `r`, and in how many seconds the count begins anew, `t`.",
        "schema": {"type": "string", "examples": ['"request";r=2999;t=10']},
    },
    "RateLimit-Policy": {
        "description": "How many, `q`, in how many seconds, `w`.",
        "schema": {"type": "string", "examples": ['"request";q=3000;w=10']},
    },
}


def complete(result: Data, **_: Any) -> Data:
    """Add what the framework does not know of, and to every operation what every operation has: the problems it can
    answer with, and common headers."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {}).update({"Problem": PROBLEM_SCHEMA, "WebhookMessage": api_beside.MESSAGE})
    components["headers"] = COMMON_HEADERS
    # Named once: on each of a thousand answers they would be half of the document.
    common = {name: {"$ref": f"#/components/headers/{name}"} for name in COMMON_HEADERS}
    for (path, method), (operation, _statuses) in api_beside.OPERATIONS.items():
        result["paths"][path] = {method: copy.deepcopy(operation)}
    result["webhooks"] = api_beside.webhooks()
    for path, methods in result["paths"].items():
        for method, operation in methods.items():
            _mark_retiring(operation, path, method)
            _, known = api_beside.OPERATIONS.get((path, method), ({}, set()))
            for status in known or _problem_statuses(operation):
                operation["responses"].setdefault(str(int(status)), _problem_response(status))
            for response in operation["responses"].values():
                response.setdefault("headers", {}).update(common)
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return result


def _mark_retiring(operation: Data, path: str, method: str) -> None:
    """Say of an operation that it goes, until when it stays, and what to use."""
    for (name, verb), gone in RETIRING.items():
        if verb.lower() == method and path == _path_of(name):
            operation["deprecated"] = True
            words = f"Goes on {gone.ends:%Y-%m-%d}. {gone.instead}"
            operation["description"] = f"{operation.get('description', '')} {words}".strip()


def _path_of(name: str) -> str:
    """The route of that name, with its places as the document writes them."""
    (route, _), *_ = get_resolver().reverse_dict.getlist(name)[0][0]
    return "/" + re.sub(r"%\((\w+)\)s", r"{\1}", route)


def _problem_statuses(operation: Data) -> set[HTTPStatus]:
    found = {
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.NOT_ACCEPTABLE,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
    places = {parameter["in"] for parameter in operation.get("parameters", [])}
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    if operation.get("security") != [{}]:
        found |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    if "path" in places:
        found.add(HTTPStatus.NOT_FOUND)
    if "query" in places or "requestBody" in operation:
        found.add(HTTPStatus.BAD_REQUEST)
    if "requestBody" in operation:
        found |= {
            HTTPStatus.CONFLICT,
            HTTPStatus.LENGTH_REQUIRED,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        }
    if "Idempotency-Key" in names:
        found.add(HTTPStatus.UNPROCESSABLE_ENTITY)
    if "If-Match" in names:
        found |= {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED}
    return found


def _problem_response(status: HTTPStatus) -> Data:
    codes = [problem.code for problem in PROBLEMS.values() if problem.status is status]
    headers: Data = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = {"description": "How to say who you are.", "schema": {"type": "string"}}
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = {"description": "The methods there are.", "schema": {"type": "string"}}
    if status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        headers["Retry-After"] = {
            "description": "Seconds after which to try again, where that may help.",
            "schema": {"type": "integer"},
        }
    return {
        "description": " · ".join(f"`{code}`" for code in codes),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "headers": headers,
    }


class SchemaApi(SpectacularAPIView):
    """The OpenAPI document, as JSON unless YAML is asked for."""

    renderer_classes = [OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer, OpenApiYamlRenderer2]
    authentication_classes = []

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """The same for everybody until the next release."""
        final = super().finalize_response(request, response, *args, **kwargs)
        final.headers["Cache-Control"] = "public, max-age=300"
        return final


class DocsApi(SpectacularSwaggerSplitView):
    """The document as a page on which operations can be tried out. Everything on it comes from here.

    The framework's own template wants styles inside the page; ours does not, and the site's strict policy holds.
    """

    authentication_classes = []
    url_name = "schema"
    template_name = "orders/api_docs.html"


class ProblemApi(ApiView):
    """What a problem's `type` leads to: cause and remedy, for people and programs."""

    authentication_classes = []
    permission_classes = [AllowAny]
    renderer_classes = [JSONRenderer, TemplateHTMLRenderer]

    @extend_schema(exclude=True)
    def get(self, request: Request, slug: str) -> Response:
        problem = PROBLEMS.get(slug)
        if problem is None:
            raise Http404(f"There is no problem {slug}.")
        told = {
            "type": problem.type,
            "code": problem.code,
            "status": int(problem.status),
            "title": problem.title,
            "cause": problem.cause,
            "remedy": problem.remedy,
            "retryable": problem.retryable,
        }
        headers = {"Cache-Control": "public, max-age=3600"}
        return Response(told, template_name="orders/api_problem.html", headers=headers)


class NowhereApi(ApiView):
    """Every other address below the API's: a problem like any other, not a page."""

    authentication_classes = []
    permission_classes = [AllowAny]
    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise Http404("There is nothing at this address.")
