"""The list of orders: narrowed, kept, exported, and acted on many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from orders import selectors
from orders.models import Order, SavedView, User
from orders.money import quantize
from orders.order_filter import COUNTED, SORTS, VIEWS, OrderFilter, after, count_of
from orders.order_processing import ORDER_SAGA
from orders.roles import Act, actor_of, can, is_agent
from orders.views import fragment, storable
from sagas import InvalidOperation
from sagas.csv_files import csv_file
from sagas.operations import MOST, Target, begin, check

PAGE = 25
AT_A_TIME = 500
MOST_NEWER = 100
"""Up to this many new orders are told exactly."""
BULK_ACTS = {"retry": "Retry", "cancel": "Cancel", "assign": "Take on"}
SHOWN = 20
CSV_COLUMNS = ("order", "state", "step", "customer", "total", "currency", "placed", "last change", "turned back with")


@require_GET
@login_required
def order_list(request: HttpRequest) -> HttpResponse:
    """orders/order_list.html: newest first, filtered by the address alone."""
    staff, now = is_agent(request.user), timezone.now()
    asked = OrderFilter.read(request.GET, staff=staff)
    edge = storable(request.GET.get("before", "")).strip()[:100]
    top = storable(request.GET.get("top", "")).strip()[:100]
    visible = selectors.orders_visible_to(request.user)
    found = selectors.find_by_any_id(visible, asked.q) if asked.q else None
    if found is not None and len(found) == 1 and not asked.query(q=""):
        return redirect("order_detail", found[0].order_id)
    orders = asked.apply(visible, now, found=found)
    oldest_first = asked.sort == "oldest"
    older, newer = orders, 0
    if edge:
        older = after(orders, edge, oldest_first=oldest_first)
    elif top and not oldest_first:
        older, newer = _below(orders, top)
    page = list(older[: PAGE + 1])
    rows = selectors.order_rows(page[:PAGE])
    query = asked.query()
    first = rows[0].order.order_id if rows and not edge and not oldest_first else ""
    is_narrowed = asked.is_narrowed()
    looser = asked.loosened(visible, now) if not rows and is_narrowed else []
    context = {
        "rows": rows,
        "older": _address(query, before=page[PAGE - 1].order_id) if len(page) > PAGE else "",
        "newest": _address(query) if edge else "",
        "newer": newer,
        "newer_address": _address(query),
        "is_many": newer >= MOST_NEWER,
        "may_bulk": can(request.user, Act.BULK),
        "is_narrowed": is_narrowed,
        "loosened": [(words, number, _address(query)) for words, number, query in looser],
        "now": now,
    }
    if request.headers.get("X-Live"):
        return fragment(request, "orders/_rows.html", context)
    is_whole = len(page) <= PAGE and not (edge or newer)
    count = len(page) if is_whole else count_of(orders)
    context |= {
        "section": "orders",
        "asked": asked,
        "views": [(label, name == asked.state, _address(asked.query(state=name))) for name, label in VIEWS],
        "saved": _saved(request),
        "saved_now": query,
        "chips": [(words, value, _address(query)) for words, value, query in asked.chips()],
        "faults": asked.faults,
        "count": f"{COUNTED:,}+" if count > COUNTED else f"{count:,}",
        "is_one": count == 1,
        "query": asked.q,
        "sorts": [(name, words, name == asked.sort) for name, words in SORTS],
        "steps": [(step.name, step.display, step.name == asked.step) for step in ORDER_SAGA.steps],
        "export": reverse("order_export") + (f"?{query}" if query else ""),
        "bulk_acts": BULK_ACTS.items(),
        "live_address": _address(query, before=edge, top=top or first),
    }
    return render(request, "orders/order_list.html", context)


@require_GET
@login_required
def order_export(request: HttpRequest) -> StreamingHttpResponse:
    """The orders that the address asks for, as a file for spreadsheets, written while it is being read."""
    asked = OrderFilter.read(request.GET, staff=is_agent(request.user))
    orders = asked.apply(selectors.orders_visible_to(request.user), timezone.now())
    return csv_file(_csv_rows(orders, asked.sort == "oldest"), name="orders.csv")


@require_POST
@login_required
def view_save(request: HttpRequest) -> HttpResponse:
    """Keep the filters of the list under a name."""
    query = OrderFilter.read(QueryDict(request.POST.get("query", "")[:1000]), staff=is_agent(request.user)).query()
    name = " ".join(storable(request.POST.get("name", "")).split())
    is_shared = request.POST.get("is_shared") == "1" and is_agent(request.user)
    if not 1 <= len(name) <= 60:
        messages.error(request, "The view was not kept: its name has 1 to 60 characters.")
        return redirect(_address(query))
    try:
        with transaction.atomic():
            SavedView.objects.create(user=cast(User, request.user), name=name, query=query, is_shared=is_shared)
    except IntegrityError:
        messages.error(request, f"You have a view named {name} already. Take another name, or delete that one.")
    else:
        messages.success(request, f"Kept as {name}{', for the team' if is_shared else ''}.")
    return redirect(_address(query))


@require_POST
@login_required
def view_delete(request: HttpRequest, view_id: int) -> HttpResponse:
    """Forget a view of one's own."""
    view = SavedView.objects.filter(pk=view_id, user=cast(User, request.user)).first()
    if view is None:
        raise Http404
    view.delete()
    messages.success(request, f"The view {view.name} is gone.")
    return redirect("order_list")


@never_cache
@require_POST
@login_required
def order_bulk(request: HttpRequest) -> HttpResponse:
    """orders/order_bulk.html: what an act on many orders will do; asked again with `seen`, has it done."""
    if not can(request.user, Act.BULK):
        raise Http404
    act = request.POST.get("act", "")
    if act not in BULK_ACTS:
        raise Http404
    query = request.POST.get("query", "")[:1000]
    is_all = request.POST.get("all") == "1"
    chosen = [storable(number)[:100] for number in request.POST.getlist("order")][:AT_A_TIME]
    orders = selectors.orders_visible_to(request.user)
    if is_all:
        orders = OrderFilter.read(QueryDict(query), staff=True).apply(orders, timezone.now())
    else:
        orders = orders.filter(order_id__in=chosen)
    found = list(orders.exclude(run_id=None).values_list("order_id", "run_id")[: MOST + 1])
    fault, reason = "", request.POST.get("reason", "").replace("\x00", "")
    if "seen" in request.POST:
        about = f"{len(found)} orders" + (f" of the list {query}" if is_all and query else "")
        if request.POST["seen"] != str(len(found)):
            fault = "Other orders fit now than when you were asked. Here is what would be done."
        else:
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
            return redirect(_address(query))
    fields = [("act", act), ("query", query), ("seen", str(len(found))), ("all", "1" if is_all else "")]
    context = {
        "section": "orders",
        "act": act,
        "title": BULK_ACTS[act],
        "count": len(found),
        "shown": [number for number, _ in found[:SHOWN]],
        "more": max(len(found) - SHOWN, 0),
        "fields": fields + ([] if is_all else [("order", number) for number in chosen]),
        "fault": fault,
        "reason": reason,
        "back": _address(query),
    }
    return render(request, "orders/order_bulk.html", context, status=400 if fault else 200)


def _below(orders: QuerySet[Order], top: str) -> tuple[QuerySet[Order], int]:
    """(from the order `top` on, how many stand above it): rows must not move under somebody's pointer."""
    edge = Order.objects.filter(order_id=top).only("pk", "placed_at").first()
    if edge is None:
        return orders, 0
    above = Q(placed_at__gt=edge.placed_at) | Q(placed_at=edge.placed_at, pk__gt=edge.pk)
    return orders.exclude(above), orders.filter(above).order_by()[:MOST_NEWER].count()


def _csv_rows(orders: QuerySet[Order], oldest_first: bool) -> Iterator[list[str]]:
    yield list(CSV_COLUMNS)
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
            ]
        page = list(after(orders, page[-1].order_id, oldest_first=oldest_first)[:AT_A_TIME])


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _saved(request: HttpRequest) -> list[SavedView]:
    """One's own and the team's."""
    own = Q(user_id=request.user.pk)
    return list(SavedView.objects.filter(own | Q(is_shared=True) if is_agent(request.user) else own).order_by("name"))


def _address(query: str, *, before: str = "", top: str = "") -> str:
    more = QueryDict(mutable=True)
    more.update({name: value for name, value in (("before", before), ("top", top)) if value})
    whole = "&".join(part for part in (query, more.urlencode()) if part)
    return reverse("order_list") + (f"?{whole}" if whole else "")
