"""What is done with many orders of the list at once: exported, or acted on after a dry run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from orders import selectors
from orders.models import Order
from orders.money import format_money, quantize
from orders.order_filter import OrderFilter, after, in_order, list_address
from orders.roles import Act, actor_of, is_staff, require
from orders.views import storable
from sagas import InvalidOperation
from sagas.csv_files import csv_file
from sagas.operations import MOST, Target, begin, check, digest_of
from sagas.plans import SHORTEST_REASON, reason_fault
from sagas.selectors import RunView, SagaRun, retriable, views_for
from sagas.states import RunStatus

AT_A_TIME = 500
BULK_ACTS = {"retry": "Retry", "cancel": "Cancel", "assign": "Take on"}
TRIED = 100
"""Of so many it is said beforehand what would be done with each."""
CSV_COLUMNS = (
    *("order", "state", "step", "customer", "total", "currency", "placed", "last change", "turned back with"),
    *("items", "refund", "looked after by"),
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What an act on many would do with one of them."""

    order_id: str
    what: str
    is_refused: bool


@require_http_methods(["GET", "POST"])
@login_required
def order_export(request: HttpRequest) -> StreamingHttpResponse:
    """The orders that the address asks for, or the marked ones, as a file that is written while it is being read."""
    staff, me = is_staff(request.user), actor_of(request.user)
    orders = selectors.orders_visible_to(request.user)
    if request.method == "POST" and request.POST.get("all") != "1":
        chosen = [storable(number)[:100] for number in request.POST.getlist("order")][:AT_A_TIME]
        return csv_file(_csv_rows(in_order(orders.filter(order_id__in=chosen), ""), ""), name="orders.csv")
    data = request.GET if request.method == "GET" else QueryDict(request.POST.get("query", "")[:1000])
    asked = OrderFilter.read(data, staff=staff)
    return csv_file(_csv_rows(asked.apply(orders, timezone.now(), me=me), asked.sort), name="orders.csv")


@never_cache
@require_POST
@login_required
def order_bulk(request: HttpRequest) -> HttpResponse:
    """orders/order_bulk.html: what an act on many orders will do; asked again with `seen`, has it done."""
    require(request.user, Act.BULK)
    act = request.POST.get("act", "")
    if act not in BULK_ACTS:
        raise Http404
    query = request.POST.get("query", "")[:1000]
    is_all = request.POST.get("all") == "1"
    chosen = [storable(number)[:100] for number in request.POST.getlist("order")][:AT_A_TIME]
    orders = selectors.orders_visible_to(request.user)
    if is_all:
        orders = OrderFilter.read(QueryDict(query), staff=True).apply(orders, timezone.now(), me=actor_of(request.user))
    else:
        orders = orders.filter(order_id__in=chosen)
    found = list(orders.exclude(run_id=None).values_list("order_id", "run_id")[: MOST + 1])
    seen = digest_of(run_id for _, run_id in found if run_id is not None)
    fault, reason = "", request.POST.get("reason", "").replace("\x00", "")
    if "seen" in request.POST:
        about = f"{len(found)} orders" + (f" of the list {query}" if is_all and query else "")
        if request.POST["seen"] != seen:
            fault = "Other orders fit now than when you were asked. Here is what would be done."
        elif not (fault := reason_fault(reason)):
            targets = [Target(run_id=run_id) for _, run_id in found if run_id is not None]
            try:
                operation = begin(act=act, targets=targets, about=about, actor=actor_of(request.user), reason=reason)
            except InvalidOperation as error:
                fault = str(error)
            else:
                return redirect("bulk_detail", operation.pk)
    else:
        try:
            check(act=act, count=len(found), reason="not asked for yet")
        except InvalidOperation as error:
            messages.error(request, str(error))
            return redirect(list_address(query))
    fields = [("act", act), ("query", query), ("seen", seen), ("all", "1" if is_all else "")]
    trial = _trial(act, [run_id for _, run_id in found[:TRIED]])
    context = {
        "section": "orders",
        "act": act,
        "title": BULK_ACTS[act],
        "count": len(found),
        "trial": trial,
        "would": sum(not one.is_refused for one in trial),
        "refused": sum(one.is_refused for one in trial),
        "tried": TRIED,
        "shortest": SHORTEST_REASON,
        "more": max(len(found) - TRIED, 0),
        "fields": fields + ([] if is_all else [("order", number) for number in chosen]),
        "fault": fault,
        "reason": reason,
        "back": list_address(query),
    }
    return render(request, "orders/order_bulk.html", context, status=400 if fault else 200)


def _trial(act: str, run_ids: Sequence[Any]) -> list[Trial]:
    """What the act would do with each of these runs as they stand now: a dry run."""
    views = views_for(SagaRun.objects.filter(pk__in=run_ids))
    numbers = [views[run_id] for run_id in run_ids if run_id in views]
    amounts = selectors.amounts_held([view.run.business_key for view in numbers]) if act == "cancel" else {}
    return [_tried(act, view, amounts.get(view.run.business_key, {})) for view in numbers]


def _tried(act: str, view: RunView, held: Mapping[str, Decimal]) -> Trial:
    refusal = ""
    what = "you look after it"
    if act == "cancel":
        money = ", ".join(format_money(amount, currency) for currency, amount in held.items())
        what = f"undone, {money} back" if money else "undone"
        if "cancel" not in view.can:
            refusal = view.cancel_refusal or f"it is {view.status_word.lower()}"
    elif act == "retry":
        what = "tried again"
        refusal = "" if retriable(view) else "nothing of it has failed or waits for another try"
    elif view.run.status != RunStatus.NEEDS_ATTENTION.value:
        refusal = "it does not wait for a person"
    return Trial(order_id=view.run.business_key, what=refusal or what, is_refused=bool(refusal))


def _csv_rows(orders: QuerySet[Order], sort: str) -> Iterator[list[str]]:
    yield list(CSV_COLUMNS)
    orders = selectors.with_facts(orders)
    page = list(orders[:AT_A_TIME])
    while page:
        for row in selectors.order_rows(page):
            order = row.order
            yield [
                order.order_id,
                row.status,
                row.step_line,
                order.customer_ref,
                str(quantize(order.total_amount, order.currency)),
                order.currency,
                _instant(order.placed_at),
                _instant(row.last_change),
                row.failure_code,
                row.items,
                row.refund,
                row.owner,
            ]
        at = getattr(page[-1], "last_change", None)
        more = after(orders, page[-1].order_id, sort=sort, at=at.isoformat() if at else "")
        page = list(more[:AT_A_TIME])


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
