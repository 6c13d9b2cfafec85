"""The dialogs of what people do to one order: what will follow, with amounts, the reason, and then the act itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from orders.effect_words import handing_over, words_of
from orders.exceptions import HandOverRefused, InvalidOrder, OrderNotCancellable
from orders.order_processing import HANDED_OVER
from orders.roles import Act, actor_of, refusal, require
from orders.selectors import OrderView
from orders.services import cancel_order, checked_reason, hand_over, hand_over_refusal
from orders.views import may_cancel, visible_order
from sagas.plans import SHORTEST_REASON, Plan, plan, reason_fault, seen_of
from sagas.selectors import RunView

MOVED = "The order has moved on since you were asked. Here is how it stands now, and what would follow."


@dataclass(frozen=True, kw_only=True)
class Dialog:
    """An act on an order as its page asks for it."""

    title: str
    button: str
    look: str
    leave: str
    """On the link that leads back, with nothing done."""
    follows: str
    """Above what will follow."""
    nothing: str
    """In its place, where nothing will."""
    cannot: str
    done: str
    do: Callable[..., Any]
    plan: Callable[[OrderView, RunView], Plan]
    refusal: Callable[[OrderView, RunView], str | None]
    """Why it cannot be done as the order stands, perhaps in no words; None: it can."""
    noted: Callable[[str], tuple[str, str]]
    """(kind, reason) of the event that it leaves."""


def _cancel_refusal(view: OrderView, run: RunView) -> str | None:
    return None if "cancel" in run.can else run.cancel_refusal


CANCEL = Dialog(
    title="Cancel",
    button="Cancel the order",
    look="care",
    leave="Keep it",
    follows="What was done is undone, in this order",
    nothing="Nothing has been done yet that would have to be undone.",
    cannot="It cannot be cancelled",
    done="The cancellation is under way: everything that was done is being undone.",
    do=cancel_order,
    plan=lambda view, run: plan(run, "cancel", "", "", words_of(view)),
    refusal=_cancel_refusal,
    noted=lambda reason: ("cancel_requested", reason),
)
HAND_OVER = Dialog(
    title="Parcel handed over",
    button="Note it as handed over",
    look="main",
    leave="Not yet",
    follows="The carrier has taken the parcel, and so",
    nothing="",
    cannot="It cannot be noted as handed over",
    done="The parcel is noted as handed over. From now on it can only come back as a return.",
    do=hand_over,
    plan=lambda view, run: handing_over(view),
    refusal=lambda view, run: hand_over_refusal(run, view.shipment) or None,
    noted=lambda reason: ("signal", f"{HANDED_OVER}: {reason}"),
)


@require_http_methods(["GET", "POST"])
@login_required
def order_cancel(request: HttpRequest, order_id: str) -> HttpResponse:
    """Have everything that was done for the order undone."""
    view = visible_order(request, order_id)
    if not may_cancel(request, view.order):
        raise PermissionDenied(refusal(request.user, Act.CANCEL))
    return _answer(request, view, CANCEL)


@require_http_methods(["GET", "POST"])
@login_required
def order_hand_over(request: HttpRequest, order_id: str) -> HttpResponse:
    """Note that the carrier has taken the parcel."""
    view = visible_order(request, order_id)
    require(request.user, Act.HAND_OVER)
    return _answer(request, view, HAND_OVER)


def _answer(request: HttpRequest, view: OrderView, dialog: Dialog) -> HttpResponse:
    """orders/order_act.html: says what an act will do and asks for the reason, then does it. Twice is once."""
    # Whoever presses Enter in the field means no more than a blank.
    reason = re.sub(r"[\r\n\t]+", " ", request.POST.get("reason", ""))
    actor, fault, moved, status = actor_of(request.user), "", "", 200
    if request.method == "POST":
        if _has_moved(view, request.POST.get("seen", ""), (dialog.noted(reason.strip()), actor)):
            moved, status = MOVED, 409
        elif fault := _done_or_fault(request, view, dialog, actor, reason):
            status = 400
        else:
            return redirect("order_detail", view.order.order_id)
    run = view.run
    context = {
        "section": "orders",
        "view": view,
        "dialog": dialog,
        "refusal": dialog.refusal(view, run) if run is not None else "",
        "plan": dialog.plan(view, run) if run is not None else None,
        "seen": seen_of(run) if run is not None else "",
        "shortest": SHORTEST_REASON,
        "reason": reason,
        "fault": fault,
        "moved": moved,
    }
    return render(request, "orders/order_act.html", context, status=status)


def _done_or_fault(request: HttpRequest, view: OrderView, dialog: Dialog, actor: str, reason: str) -> str:
    """Do it, and have the next page say what came of it; or what is wrong with the reason, and nothing is done."""
    try:
        if fault := reason_fault(checked_reason(reason)):
            return fault
        dialog.do(order_id=view.order.order_id, actor=actor, reason=reason)
    except (OrderNotCancellable, HandOverRefused) as error:
        messages.error(request, str(error))
    except InvalidOrder as error:
        return error.errors[0].message
    else:
        messages.success(request, dialog.done)
    return ""


def _has_moved(view: OrderView, seen: str, mine: tuple[tuple[str, str], str]) -> bool:
    """Whether the run has moved since the page was made, and not by this very request, sent twice."""
    if not seen or view.run is None or seen == seen_of(view.run):
        return False
    return mine not in [((event.kind, event.reason), event.actor) for event in view.run.events]
