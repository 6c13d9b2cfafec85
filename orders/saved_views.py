"""Filters of the order list that people keep, the one they begin with, and the columns they see."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from orders import list_columns
from orders.models import Preference, SavedView, User
from orders.order_filter import OrderFilter, list_address
from orders.preferences import remember
from orders.roles import ONLY_LOOKS, is_staff, only_looks
from orders.views import storable


def views_of(request: HttpRequest) -> list[SavedView]:
    """One's own and the team's."""
    own = Q(user_id=request.user.pk)
    return list(SavedView.objects.filter(own | Q(is_shared=True) if is_staff(request.user) else own).order_by("name"))


@require_POST
@login_required
def view_save(request: HttpRequest) -> HttpResponse:
    """Keep the filters of the list under a name."""
    query = OrderFilter.read(QueryDict(request.POST.get("query", "")[:1000]), staff=is_staff(request.user)).query()
    name = " ".join(storable(request.POST.get("name", "")).split())
    is_shared = request.POST.get("is_shared") == "1" and is_staff(request.user)
    if is_shared and only_looks(request.user):
        raise PermissionDenied(ONLY_LOOKS)
    if not 1 <= len(name) <= 60:
        messages.error(request, "The view was not kept: its name has 1 to 60 characters.")
        return redirect(list_address(query))
    try:
        with transaction.atomic():
            SavedView.objects.create(user=cast(User, request.user), name=name, query=query, is_shared=is_shared)
    except IntegrityError:
        messages.error(request, f"You have a view named {name} already. Take another name, or delete that one.")
    else:
        messages.success(request, f"Kept as {name}{', for the team' if is_shared else ''}.")
    return redirect(list_address(query))


@require_POST
@login_required
def view_delete(request: HttpRequest, view_id: int) -> HttpResponse:
    """Forget a view of one's own."""
    view = SavedView.objects.filter(pk=view_id, user=cast(User, request.user)).first()
    if view is None:
        raise Http404
    view.delete()
    _refresh(request)
    messages.success(request, f"The view {view.name} is gone.")
    return redirect(list_address(""))


@require_POST
@login_required
def view_begin(request: HttpRequest, view_id: int) -> HttpResponse:
    """Begin with this view from now on, or, said of the one that it is, with all orders again."""
    view = next((one for one in views_of(request) if one.pk == view_id), None)
    if view is None:
        raise Http404
    is_taken_back = request.POST.get("begin") != "1"
    kept, _ = Preference.objects.get_or_create(user=cast(User, request.user))
    kept.first_view = None if is_taken_back else view
    kept.save(update_fields=["first_view"])
    remember(request, kept)
    said = (
        "The list begins with all orders again." if is_taken_back else f"The list begins with {view.name} from now on."
    )
    messages.success(request, said)
    return redirect(list_address(view.query))


@require_POST
@login_required
def columns_choose(request: HttpRequest) -> HttpResponse:
    """See these columns of the list from now on."""
    kept, _ = Preference.objects.get_or_create(user=cast(User, request.user))
    kept.columns = list_columns.known(request.POST.getlist("column"))
    kept.save(update_fields=["columns"])
    remember(request, kept)
    query = OrderFilter.read(QueryDict(request.POST.get("query", "")[:1000]), staff=is_staff(request.user)).query()
    return redirect(list_address(query))


def _refresh(request: HttpRequest) -> None:
    """Take into the session what the database holds: a view that is gone is nobody's first one."""
    kept = Preference.objects.select_related("first_view").filter(user=cast(User, request.user)).first()
    if kept is not None:
        remember(request, kept)
