"""Who may see runs and act on them: the site's own rule, or superusers where it has none."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.module_loading import import_string


def may(request: HttpRequest, act: str) -> bool:
    """Whether whoever asks may do `act` to runs; settings.SAGA_MAY_ACT names the site's rule."""
    rule = getattr(settings, "SAGA_MAY_ACT", "")
    if rule:
        return bool(import_string(rule)(request.user, act))
    return bool(request.user.is_active and getattr(request.user, "is_superuser", False))


def require(request: HttpRequest, act: str) -> None:
    """Raises PermissionDenied unless whoever asks may do `act`, in the words that settings.SAGA_MAY_NOT_WORDS gives."""
    if not may(request, act):
        words = getattr(settings, "SAGA_MAY_NOT_WORDS", "")
        raise PermissionDenied(import_string(words)(request.user, act) if words else "Only superusers may do this.")


def actor_of(request: HttpRequest) -> str:
    """How the history names whoever asks."""
    return f"user:{request.user.get_username()}"
