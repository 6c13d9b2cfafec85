"""How somebody wants the pages: light or dark, in which time zone, and with or without single keys.

Kept in the session, so that no page has to ask for it, and in a row for the next login.
"""

from __future__ import annotations

import time
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from orders.models import Preference, User

THEME, ZONE, KEYS, COLUMNS, FIRST_VIEW = "theme", "zone", "keys", "columns", "first_view"
ENDS = "ends"
"""When the session is over, in seconds since 1970."""
THEMES = Preference.Theme.choices
AUTO = "auto"
"""The browser's own zone, which a script on the pages puts into the cookie `zone`."""


@require_http_methods(["GET", "POST"])
@login_required
def preferences(request: HttpRequest) -> HttpResponse:
    """orders/preferences.html: theme, time zone, single keys."""
    fault = ""
    if request.method == "POST":
        theme, zone = request.POST.get("theme", ""), request.POST.get("zone", "").strip()
        has_keys = request.POST.get("keys") == "1"
        if theme not in dict(THEMES):
            fault = f"There is no theme {theme[:20]!r}."
        elif zone and zone != AUTO and zone_named(zone) is None:
            fault = (
                f"There is no time zone {zone[:60]!r}. Zones are named like Europe/Berlin, and auto is your browser's."
            )
        else:
            wanted: dict[str, Any] = {"theme": theme, "zone": zone if zone != "UTC" else "", "has_keys": has_keys}
            kept, _ = Preference.objects.update_or_create(user=cast(User, request.user), defaults=wanted)
            remember(request, kept)
            messages.success(request, "From now on the pages are as you want them.")
            return redirect("preferences")
    context = {
        "themes": THEMES,
        "theme": request.session.get(THEME, ""),
        "zone": request.POST.get("zone") if fault else request.session.get(ZONE, "") or "UTC",
        "zones": [AUTO, *sorted(available_timezones())],
        "has_keys": request.session.get(KEYS, True),
        "fault": fault,
    }
    return render(request, "orders/preferences.html", context, status=400 if fault else 200)


def zone_named(name: str) -> ZoneInfo | None:
    """The zone of that name, if there is one. Names come from people and browsers, and may be anything."""
    # Not by the list of all names: making it opens some six hundred files.
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def remember(request: HttpRequest, kept: Preference) -> None:
    """Put it where every page finds it without a query."""
    session, first = request.session, kept.first_view
    session[THEME], session[ZONE], session[KEYS] = kept.theme, kept.zone, kept.has_keys
    session[COLUMNS], session[FIRST_VIEW] = kept.columns, first.query if first is not None else ""


def at_login(sender: Any, request: HttpRequest, user: User, **kwargs: Any) -> None:
    """What was kept from the last time."""
    begin_session(request)
    kept = Preference.objects.select_related("first_view").filter(user=user).first()
    if kept is not None:
        remember(request, kept)


@require_POST
@login_required
def stay(request: HttpRequest) -> HttpResponse:
    """Let the login last as long again, and go back to where somebody was; a script is told until when."""
    begin_session(request)
    if request.headers.get("X-Live"):
        return JsonResponse({"ends": request.session[ENDS]})
    back = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    messages.success(request, "You stay logged in.")
    return redirect(back if is_ours else "order_list")


def begin_session(request: HttpRequest) -> None:
    """Note in the session when it is over; storing it puts its end off."""
    request.session[ENDS] = int(time.time()) + settings.SESSION_COOKIE_AGE


class PreferencesMiddleware(MiddlewareMixin):
    """Tell times in the zone of whoever looks. Programs are told UTC."""

    def process_request(self, request: HttpRequest) -> None:
        if request.path.startswith("/api/"):
            return
        kept = request.session.get(ZONE, "")
        zone = zone_named(request.COOKIES.get(ZONE, "") if kept == AUTO else kept)
        if zone is not None:  # one that was taken out of the database since is UTC
            timezone.activate(zone)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        timezone.deactivate()
        return response


user_logged_in.connect(at_login, dispatch_uid="orders.preferences")
