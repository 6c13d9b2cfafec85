"""Who is calling the API, and whether they may: by API key or by the browser's session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from orders.api_errors import ProblemError
from orders.api_keys import key_of, note_use
from orders.api_limits import note_known
from orders.models import ApiKey, Scope, User
from orders.roles import ONLY_LOOKS, only_looks
from orders.roles import actor_of as user_actor

if TYPE_CHECKING:
    # At run time it is just being made: its defaults, from the settings, are in this module.
    from rest_framework.views import APIView

SCHEME = "Bearer"


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer osk_…`. The caller is the key's user; `request.auth` is the key."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        """None if another scheme, or none, is used: then the session is asked."""
        scheme, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != SCHEME.lower():
            return None
        key = key_of(token.strip())
        # One answer for every reason: which of them it is helps nobody but a thief.
        if key is None or not key.is_live(timezone.now()) or not key.user.is_active:
            raise AuthenticationFailed("This API key is unknown, revoked or expired, or its user is inactive.")
        note_use(key, now=timezone.now())
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return f'{SCHEME} realm="orders"'


class Allowed(BasePermission):
    """Logged in; with the scope that the operation asks of a key; in a role that does more than look, if it changes
    something. Who may help runs on, the engine asks by SAGA_MAY_ACT."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not request.user.is_authenticated:
            return False
        note_known(request._request)
        # Django answers HEAD with what GET does, and it tells as much.
        method = "GET" if request.method == "HEAD" else request.method
        scope = getattr(view, "scopes", {}).get(method)
        if isinstance(request.auth, ApiKey) and scope is not None and scope not in request.auth.scopes:
            raise ProblemError("scope-missing", f"This needs a key with the scope {scope}.")
        # First of all that follows: a new operation is closed to who only looks until it says that it is theirs.
        if method not in SAFE_METHODS and not getattr(view, "is_own", False) and only_looks(request.user):
            raise ProblemError("forbidden", ONLY_LOOKS)
        return True


def caller_of(request: Request) -> User:
    """Who is calling; an operation that asks for it lets nobody else in."""
    if not isinstance(request.user, User):
        raise NotAuthenticated
    return request.user


def actor_of(request: Request) -> str:
    """How the history names the caller."""
    return request.auth.actor if isinstance(request.auth, ApiKey) else user_actor(request.user)


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """The key in the OpenAPI document."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        scopes = ", ".join(f"`{scope.value}`" for scope in Scope)
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "osk_<prefix>_<secret>",
            "description": f"A key made with `manage.py apikey create`. Scopes: {scopes}.",
        }

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[Any]]:
        method = str(auto_schema.method)
        scope = cast(dict[str, str], getattr(auto_schema.view, "scopes", {})).get(method)
        # OpenAPI 3.1 takes roles here for any scheme.
        return {self.name: [scope] if scope else []}
