"""The shop's pages: translate a request, call a service or a selector, render."""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from orders import selectors
from orders.api_shapes import as_text
from orders.effect_words import consequence, standing
from orders.exceptions import InvalidOrder
from orders.models import Order
from orders.roles import SUPERVISOR_ACTS, Act, actor_of, can, is_staff, only_looks, require
from orders.selectors import OrderView
from orders.services import add_note, hand_over_refusal
from orders.story import KINDS, story
from sagas.selectors import owner_of, retriable
from sagas.states import RunStatus
from sagas.twins import command_of, curl_of


@never_cache
@require_GET
@login_required
def order_detail(request: HttpRequest, order_id: str) -> HttpResponse:
    """orders/order_detail.html: the order, its steps and undos, its money, parcel and mail."""
    context = _detail(request, order_id)
    if context["staff"]:
        context["as_json"] = as_text(context["view"])
    return render(request, "orders/order_detail.html", context)


@require_GET
@login_required
def order_live(request: HttpRequest, order_id: str) -> HttpResponse:
    """orders/_order.html, or 304 while nothing has changed: told from versions, never from whoever looks."""
    version = selectors.version_of(selectors.orders_visible_to(request.user), storable(order_id))
    if version is None:
        raise Http404
    tag = f'"{hashlib.sha256(repr(version).encode()).hexdigest()[:20]}"'
    if request.headers.get("If-None-Match") == tag:
        return HttpResponseNotModified(headers={"ETag": tag})
    response = render(request, "orders/_order.html", _detail(request, order_id))
    response["ETag"], response["Cache-Control"] = tag, "private, no-cache"
    return response


@require_POST
@login_required
def order_note(request: HttpRequest, order_id: str) -> HttpResponse:
    """Write something down about an order, for staff."""
    visible_order(request, order_id)
    require(request.user, Act.ASSIGN)  # whoever may help an order on may write about it
    try:
        add_note(order_id=order_id, author=actor_of(request.user), text=request.POST.get("text", ""))
    except InvalidOrder as error:
        messages.error(request, f"The note was not kept: {error.errors[0].message}")
    else:
        messages.success(request, "The note is kept.")
    return redirect("order_detail", order_id)


def storable(text: str) -> str:
    """PostgreSQL refuses to compare with a text that holds NUL: no stored text has one, so none can be meant."""
    return text.replace("\x00", "\ufffd")


def visible_order(request: HttpRequest, order_id: str) -> OrderView:
    """The order's page, for whoever may see it. Raises Http404."""
    order_id = storable(order_id)
    try:
        return selectors.order_page(order_id, request.user)
    except Order.DoesNotExist:
        raise Http404 from None


def may_cancel(request: HttpRequest, order: Order) -> bool:
    """Staff who may cancel any order, or the customer whose order it is."""
    return can(request.user, Act.CANCEL) or (order.user_id == request.user.pk and not only_looks(request.user))


def _detail(request: HttpRequest, order_id: str) -> dict[str, Any]:
    view = visible_order(request, order_id)
    run, staff, page = view.run, is_staff(request.user), reverse("order_detail", args=[order_id])
    kind = request.GET.get("history", "")
    kind = kind if kind in dict(KINDS) else ""
    api_address = reverse("api-order", kwargs={"order_id": order_id})
    ended = run is not None and RunStatus(run.run.status) in (
        RunStatus.COMPLETED,
        RunStatus.COMPENSATED,
        RunStatus.ABANDONED,
    )
    return {
        "section": "orders",
        "view": view,
        "ended": ended,
        "may": frozenset(act.value for act in SUPERVISOR_ACTS if can(request.user, act)),
        "may_cancel": run is not None and "cancel" in run.can and may_cancel(request, view.order),
        "may_hand_over": run is not None
        and can(request.user, Act.HAND_OVER)
        and not hand_over_refusal(run, view.shipment),
        "staff": staff,
        "back": page,
        "history_kind": kind,
        "history_kinds": [(name, words, _with_kind(page, name)) for name, words in KINDS if staff or name != "notes"],
        "standing": standing(view, to_customer=not staff),
        "consequence": consequence(view, to_customer=not staff),
        "owner": owner_of(run.run) if run is not None else "",
        "me": actor_of(request.user),
        "waits": run is not None and run.run.status == RunStatus.NEEDS_ATTENTION.value,
        "retriable": _retriable(view) if can(request.user, Act.RETRY) else [],
        "command": command_of("saga", "show", order_id),
        "api_address": api_address,
        "curl": curl_of(request, api_address),
        "live_address": _with_kind(reverse("order_live", args=[order_id]), kind),
        "history": story(view, kind=kind, with_notes=staff),
        "now": timezone.now(),
    }


def _with_kind(address: str, kind: str) -> str:
    return f"{address}?history={kind}" if kind else address


def _retriable(view: OrderView) -> list[tuple[str, str, str]]:
    """(step, direction, title) of what may be tried again now, while the run waits for a person."""
    if view.run is None or view.run.run.status != RunStatus.NEEDS_ATTENTION.value:
        return []
    titles = {(one.name, "action"): one.title for one in view.run.steps}
    titles |= {(one.name, "compensation"): one.undo_title for one in view.run.steps}
    return [(step, direction, titles[step, direction]) for step, direction in retriable(view.run)]
