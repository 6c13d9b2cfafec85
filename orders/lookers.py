"""Pages for whoever only looks: what they may send is listed here, and all else is refused, with the reason.

Pages that are made later are closed to them until they are named. The API has the same rule in orders/api_auth.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.deprecation import MiddlewareMixin

from orders.roles import ONLY_LOOKS, only_looks

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
OWN = frozenset(
    {
        *("login", "logout", "stay", "admin:logout", "admin:password_change"),
        *("preferences", "columns_choose", "view_save", "view_delete", "view_begin"),
        "order_export",  # the marked ones are named in a form, and only read
        "inbound_webhook",  # a provider's, whoever brings it: what is not signed comes to nothing
    }
)
"""What may be sent: it concerns nobody but the sender."""
DIALOGS = frozenset({"order_new", "order_cancel", "order_hand_over", "run_act", "run_import", "bulk_new"})
"""What is only opened to act."""


class LookersMiddleware(MiddlewareMixin):
    """Refuses with a 403 what a viewer sends, and the dialogs in which they would."""

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        name = request.resolver_match.view_name if request.resolver_match else ""
        is_safe = request.method in SAFE_METHODS and name not in DIALOGS
        if is_safe or name in OWN or request.path.startswith("/api"):
            return
        if only_looks(request.user):
            raise PermissionDenied(ONLY_LOOKS)
