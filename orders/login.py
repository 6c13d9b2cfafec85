"""Logging in, but not by trying passwords until one fits."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from orders import rates
from orders.exceptions import TooOften

NAME, ADDRESS = "login-name", "login-address"


class LimitedLogin(LoginView):
    """Failed tries are counted by the name that was tried and by the address they came from."""

    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            # Before the password is looked at: a right one must not be told from a wrong one by who is shut out.
            rates.check(NAME, self._name(), settings.LOGIN_NAME_RATE)
            rates.check(ADDRESS, self._address(), settings.LOGIN_ADDRESS_RATE)
        except TooOften as error:
            return too_often(request, error)
        return super().post(request, *args, **kwargs)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        try:
            rates.count(NAME, self._name(), settings.LOGIN_NAME_RATE)
            rates.count(ADDRESS, self._address(), settings.LOGIN_ADDRESS_RATE)
        except TooOften as error:
            return too_often(self.request, error)
        return super().form_invalid(form)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        rates.forget(NAME, self._name())
        return super().form_valid(form)

    def _name(self) -> str:
        return str(self.request.POST.get("username", "")).strip().lower()

    def _address(self) -> str:
        return str(self.request.META.get(settings.CLIENT_ADDRESS, ""))


def admin_door(request: HttpRequest) -> HttpResponse:
    """The admin's login: one way in for all, so that there is one place where tries are counted.

    Whoever is logged in and may not enter is told so; sent to log in again, they would be sent back without end.
    """
    if request.user.is_authenticated and not admin.site.has_permission(request):
        raise PermissionDenied
    query = request.META.get("QUERY_STRING", "")
    return HttpResponseRedirect(reverse("login") + (f"?{query}" if query else ""))


def too_often(request: HttpRequest, error: TooOften) -> HttpResponse:
    """429.html: when to come again."""
    minutes = -(-error.retry_after // 60)
    wait = f"{error.retry_after} seconds" if error.retry_after < 90 else f"{minutes} minutes"
    response = render(request, "429.html", {"wait": wait}, status=429)
    response.headers["Retry-After"] = str(error.retry_after)
    return response
