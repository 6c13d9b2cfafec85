"""What every page's frame shows."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from orders.roles import is_staff, only_looks


def frame(request: HttpRequest) -> dict[str, Any]:
    """Who is looking, and for staff how many runs wait for them and whether anybody takes work."""
    user = getattr(request, "user", None)
    session: Any = getattr(request, "session", {})
    staff = user is not None and is_staff(user)
    return {
        "staff": staff,
        "only_looks": user is not None and only_looks(user),
        "page_theme": session.get("theme", ""),
        "page_zone": session.get("zone", ""),
        "page_keys": getattr(user, "is_authenticated", False) and session.get("keys", True),
        "nobody_works": staff and getattr(user, "nobody_works", False),
        "no_worker": staff and not getattr(user, "worker_alive", True),
        "attention_count": getattr(user, "attention_count", 0) if staff else 0,
        "site_label": settings.SITE_LABEL,
        "session_ends": session.get("ends", 0),
    }
