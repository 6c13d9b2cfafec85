"""Who may see runs and act on them: the site's own rule, or superusers where it has none."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import get_user_model
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
        plain = "Your role does not allow this." if getattr(settings, "SAGA_MAY_ACT", "") else "Only superusers may."
        raise PermissionDenied(import_string(words)(request.user, act) if words else plain)


def owners() -> list[str]:
    """Who may look after a run, as the history names people: settings.SAGA_OWNERS names the site's list, or superusers
    where it has none."""
    rule = getattr(settings, "SAGA_OWNERS", "")
    if rule:
        return list(import_string(rule)())
    users = get_user_model().objects.filter(is_active=True, is_superuser=True).order_by("pk")
    return [f"user:{user.get_username()}" for user in users]


def may_look_after(owner: str, *, asked_by: str) -> bool:
    """Whether a run may be given to `owner`: to nobody, to whoever asks, be it a program, or to one of owners()."""
    return owner in ("", asked_by) or owner in owners()


def actor_of(request: HttpRequest) -> str:
    """How the history names whoever asks."""
    return f"user:{request.user.get_username()}"
