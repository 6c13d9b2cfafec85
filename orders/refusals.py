"""What became of a request that somebody names by its id: what it did is found by the answer that is kept for it, and
what was refused is noted here, since a refusal leaves nothing else behind.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.db import DatabaseError, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

from orders.models import ApiKey, IdempotentRequest, RefusedRequest
from orders.roles import actor_of

KEPT_FOR = timedelta(days=7)
"""As long as the answers of what was done."""
FORGOTTEN_AT_A_TIME = 100
LONGEST_DETAIL = 1000
NOT_KEPT = frozenset({401, 429})
"""A flood of these must not become a flood of rows."""
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})


class RefusalsMiddleware(MiddlewareMixin):
    """Notes the problems that known callers of the API are answered with when they act, and all faults of ours."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_problem = response.headers.get("Content-Type", "") == "application/problem+json"
        if is_problem and response.status_code not in NOT_KEPT:
            is_ours = response.status_code >= 500
            if (is_ours or request.method not in LOOKING) and getattr(request, "user", None):
                with suppress(DatabaseError):  # the answer is worth more than the note of it
                    _note(request, response)
        return response


def refused(request_id: str) -> list[RefusedRequest]:
    """What a request of this id was refused, the newest first."""
    return list(RefusedRequest.objects.filter(request_id=request_id).order_by("-id")[:5])


def named_by(request_id: str) -> tuple[set[str], set[str]]:
    """(numbers of orders, ids of runs) that a request of this id made, acted on, or meant to."""
    places = [
        _place_of(headers.get("Location", ""))
        for headers in IdempotentRequest.objects.filter(request_id=request_id).values_list("headers", flat=True)[:5]
    ]
    orders = {str(place["order_id"]) for place in places if "order_id" in place}
    orders |= {one.order_id for one in refused(request_id) if one.order_id}
    return orders, {str(place["run_id"]) for place in places if "run_id" in place}


def _place_of(address: str) -> dict[str, Any]:
    try:
        return resolve(urlsplit(address).path).kwargs
    except Resolver404:
        return {}


def _note(request: HttpRequest, response: Any) -> None:
    user, key = request.user, getattr(request, "auth", None)
    if not user.is_authenticated:
        return
    told = json.loads(response.content)
    faults = [f"{one.get('pointer', '')}: {one.get('detail', '')}" for one in told.get("errors", ())]
    place = request.resolver_match.kwargs if request.resolver_match else {}
    with transaction.atomic():
        row = RefusedRequest.objects.create(
            request_id=request.META.get("REQUEST_ID", ""),
            actor=key.actor if isinstance(key, ApiKey) else actor_of(user),
            method=request.method or "",
            path=_storable(request.path[:200]),
            order_id=_storable(str(place.get("order_id", ""))[:40]),
            status=response.status_code,
            code=told.get("code", ""),
            detail=_storable("\n".join([told.get("detail", ""), *faults])[:LONGEST_DETAIL]),
            created_at=timezone.now(),
        )
        if row.pk % FORGOTTEN_AT_A_TIME == 0:
            _forget_old()


def _storable(text: str) -> str:
    """Without what no database keeps: what was refused may be quoted here, and be refused for just that."""
    return text.replace("\x00", "").encode(errors="replace").decode()


def _forget_old() -> None:
    old = RefusedRequest.objects.filter(created_at__lt=timezone.now() - KEPT_FOR).order_by("created_at")
    RefusedRequest.objects.filter(pk__in=list(old.values_list("pk", flat=True)[: FORGOTTEN_AT_A_TIME * 2])).delete()
