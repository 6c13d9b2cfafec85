"""Who looks at the pages: the user, their roles and what every page's frame tells them, in one look at the database."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Group
from django.db.models import Count, Exists, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

from orders.models import User
from orders.roles import GROUPS, is_staff
from sagas.heartbeats import alive_ones
from sagas.selectors import UNTAKEN_AFTER, overdue, runs_needing_attention


class VisitorBackend(ModelBackend):
    """Passwords as everywhere; the user of a session comes with what pages ask of them again and again."""

    def get_user(self, user_id: Any) -> User | None:
        user: Any = _with_frame().filter(pk=user_id).first()
        if user is None or not self.user_can_authenticate(user):
            return None
        user._order_roles = frozenset(name for name in GROUPS if getattr(user, f"in_{name}"))
        return cast(User, user)


class AttentionMiddleware(MiddlewareMixin):
    """Tells a page that looks whether it is up to date how many runs wait for a person: the badge in its frame follows.

    In a header, so that an unchanged answer has it too, and of the user who was looked up for it: it asks for nothing.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        user = getattr(request, "_cached_user", None)  # where AuthenticationMiddleware keeps who was looked up
        if request.headers.get("X-Live") and user is not None and is_staff(user):
            response.headers["X-Needs-Attention"] = str(getattr(user, "attention_count", 0))
        return response


def _with_frame() -> Any:
    """What the frame tells staff comes with everybody: to ask first who is staff takes longer than both of it."""
    in_group = {f"in_{name}": _is_in(name) for name in GROUPS}
    waiting = runs_needing_attention().order_by().values("status").annotate(count=Count("pk")).values("count")
    now = timezone.now()
    return User.objects.annotate(
        **in_group,
        attention_count=Coalesce(Subquery(waiting), 0),
        nobody_works=Exists(overdue(now=now, longer_than=UNTAKEN_AFTER)),
        worker_alive=Exists(alive_ones(now)),
    )


def _is_in(name: str) -> Exists:
    """Without joining the groups in: one row for each of them would come back."""
    return Exists(Group.objects.filter(name=name, user=OuterRef("pk")))
