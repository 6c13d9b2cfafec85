"""What every page's frame shows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from orders.roles import is_agent
from sagas.selectors import overdue, runs_needing_attention

UNTAKEN_AFTER = timedelta(seconds=30)


def frame(request: HttpRequest) -> dict[str, Any]:
    """Whether staff is looking, and how many runs wait for them; asked only by pages that show it."""
    user = getattr(request, "user", None)
    staff = user is not None and is_agent(user)
    session: Any = getattr(request, "session", {})
    return {
        "staff": staff,
        "page_theme": session.get("theme", ""),
        "page_keys": getattr(user, "is_authenticated", False) and session.get("keys", True),
        "nobody_works": SimpleLazyObject(_nobody_works) if staff else False,
        "attention_count": SimpleLazyObject(lambda: runs_needing_attention().count()) if staff else 0,
    }


def _nobody_works() -> bool:
    """Whether a run has been due for so long that whoever looks should know, whatever page they are on."""
    return overdue(now=timezone.now(), longer_than=UNTAKEN_AFTER).exists()
