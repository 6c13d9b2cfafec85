"""Operations that are about to go: told on each answer, counted by key, and marked in the OpenAPI document.

The API only grows within its version: new members, new operations, new values. What has to go is named here at least
SHORTEST before it does, and is taken out when `retired_uses` says that nobody asks for it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import http_date

from orders.models import ApiKey, RetiredUse

SHORTEST = timedelta(days=180)


@dataclass(frozen=True, kw_only=True)
class Retirement:
    """An operation that goes."""

    since: datetime
    """When it was announced."""
    ends: datetime
    instead: str
    """What to use, in a sentence."""

    def __post_init__(self) -> None:
        if self.ends - self.since < SHORTEST:
            raise ValueError(f"Whoever uses it has {SHORTEST.days} days to change over, not {self.ends - self.since}.")


RETIRING: dict[tuple[str, str], Retirement] = {}
"""By the route's name and the method: ("api-orders", "GET"). None are at present."""


class RetiringMiddleware(MiddlewareMixin):
    """Says `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and where to read more, on answers of such operations."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        match = request.resolver_match
        found = RETIRING.get((match.url_name or "", request.method or "")) if match else None
        if match is not None and found is not None:
            response.headers["Deprecation"] = f"@{int(found.since.timestamp())}"
            response.headers["Sunset"] = http_date(found.ends.timestamp())
            page = settings.SITE_URL + reverse("docs") + "#retiring"
            response.headers["Link"] = f'<{page}>; rel="deprecation"; type="text/html"'
            key = getattr(request, "auth", None)
            if isinstance(key, ApiKey):
                _count(f"{request.method} {match.url_name}", key.actor)
        return response


def _count(operation: str, caller: str) -> None:
    now = timezone.now()
    row, is_new = RetiredUse.objects.get_or_create(
        operation=operation, caller=caller, defaults={"count": 1, "last_at": now}
    )
    if not is_new:
        RetiredUse.objects.filter(pk=row.pk).update(count=F("count") + 1, last_at=now)
