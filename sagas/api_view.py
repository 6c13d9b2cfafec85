"""What every operation of the API has in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, cast

from django.conf import settings
from django.http import HttpRequest
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.exceptions import APIException, ErrorDetail, ValidationError
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from sagas.permissions import may_look_after, require

IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match",
    str,
    OpenApiParameter.HEADER,
    description="An `ETag` of before: the answer is an empty 304 if nothing changed.",
)
ETAG = OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200, 304])
NOT_MODIFIED = OpenApiResponse(description="Nothing changed.")


IF_MATCH = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    required=True,
    description="The `ETag` of what you looked at: a 412 tells that it has changed since, and nothing is done. `*` "
    "acts on it however it is now.",
)
KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]{1,255}$"},
    OpenApiParameter.HEADER,
    description="Sent again with the same key it is done once, and answered as the first time. Kept for 7 days.",
)


class VersionMismatch(APIException):
    """What the caller acted on has changed since they looked."""

    status_code = HTTPStatus.PRECONDITION_FAILED
    default_code = "version-mismatch"
    default_detail = "It has changed since the ETag in If-Match. Look at it again, and decide again."


class VersionRequired(APIException):
    """Two people who change the same thing must not overwrite each other unseen."""

    status_code = HTTPStatus.PRECONDITION_REQUIRED
    default_code = "version-required"
    default_detail = "Send the ETag of what you looked at as If-Match, or * to act on it however it is now."


class LengthRequired(APIException):
    """A body that does not say how long it is; servers below us would pass it on as empty."""

    status_code = HTTPStatus.LENGTH_REQUIRED
    default_code = "length-required"
    default_detail = "Send a body with its Content-Length, not in chunks."


class ApiView(APIView):
    """One class an operation, or two where they share an address.

    `scopes` says which scope a key needs for which method; the site's permission class asks for it.
    """

    scopes: ClassVar[dict[str, str]] = {}
    metadata_class = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "Transfer-Encoding" in request.headers and not request.headers.get("Content-Length"):
            raise LengthRequired

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """Which methods there are is in `Allow`, what they take in the OpenAPI document."""
        return Response(status=HTTPStatus.NO_CONTENT)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Nobody between us and the caller keeps an answer: orders are private, and change."""
        final = super().finalize_response(request, response, *args, **kwargs)
        final.headers.setdefault("Cache-Control", "no-store")
        patch_vary_headers(final, ["Authorization", "Cookie"])
        return final


class MayAct(BasePermission):
    """Whoever may do it on the pages, and in their words. Others get a 403: that there are runs is no secret, whose
    they are is."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        require(request._request, "see_runs")
        act = getattr(view, "acts", {}).get(request.method, "") or getattr(view, "act", "")
        if act:
            require(request._request, act)
        return True


class StaffView(ApiView):
    """An operation for staff; what the site asks of everybody, it asks of them too."""

    permission_classes = [*cast(list[type[BasePermission]], api_settings.DEFAULT_PERMISSION_CLASSES), MayAct]
    act: ClassVar[str] = ""
    """What a person needs leave for beyond looking: retry, skip, resolve."""
    acts: ClassVar[dict[str, str]] = {}
    """The same by method, where not all of them need it."""


def answer_with_tag(request: Request | HttpRequest, data: Any, *, tag: str = "") -> Response:
    """`data`, or a 304 if the caller has it already.

    The tag is made of the answer itself. A version of the row would miss what changes beside it, a parcel handed
    over for one, and nothing of the caller's goes in.
    """
    tag = tag or tag_of(data)
    if _is_among(tag, request.headers.get("If-None-Match", "")):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return Response(data, headers={"ETag": tag})


def check_version(request: Request, data: Any) -> None:
    """Hold `data`, as it would be answered now, against the caller's If-Match. Raises VersionMismatch, VersionRequired.

    A kindness to people who look before they act, not a lock: what the state allows is checked by the act itself.
    """
    known = request.headers.get("If-Match", "")
    if not known:
        raise VersionRequired
    if not _is_among(tag_of(data), known):
        raise VersionMismatch


def check_owner(owner: str, *, asked_by: str) -> None:
    """Raises ValidationError unless `owner` may look after a run. An empty one is everybody."""
    if not may_look_after(owner, asked_by=asked_by):
        words = f"{owner} is nobody who may look after it. Name yourself, or somebody of the staff, as user:gina."
        raise ValidationError({"owner": [ErrorDetail(words, code="unknown_owner")]})


def once(request: Request, work: Callable[[], Response]) -> Response:
    """The answer of `work`, done once for each Idempotency-Key if the site keeps them: SAGA_API_ONCE."""
    keeper = getattr(settings, "SAGA_API_ONCE", "")
    if keeper and "Idempotency-Key" in request.headers:
        return cast(Response, import_string(keeper)(request, work))
    return work()


def tag_of(data: Any) -> str:
    return f'"{hashlib.sha256(JSONRenderer().render(data)).hexdigest()[:32]}"'


def _is_among(tag: str, header: str) -> bool:
    known = [part.strip().removeprefix("W/") for part in header.split(",")]
    return tag in known or "*" in known
