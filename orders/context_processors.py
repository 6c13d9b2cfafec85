"""What every page's frame shows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from orders.roles import is_agent
from sagas.selectors import runs_needing_attention


def frame(request: HttpRequest) -> dict[str, Any]:
    """Whether staff is looking, and how many runs wait for them; asked only by pages that show it."""
    user = getattr(request, "user", None)
    staff = user is not None and is_agent(user)
    return {
        "staff": staff,
        "attention_count": SimpleLazyObject(lambda: runs_needing_attention().count()) if staff else 0,
    }
