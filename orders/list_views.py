"""The list of orders: narrowed, kept, exported, and acted on many at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from django.contrib.auth.decorators import login_required
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from orders import list_columns, list_copies, selectors
from orders.list_acts import BULK_ACTS
from orders.list_columns import Column
from orders.models import Order
from orders.order_filter import COUNTED, SORTS, VIEWS, OrderFilter, after, count_of, list_address
from orders.order_processing import ORDER_SAGA
from orders.preferences import FIRST_VIEW
from orders.refusals import refused
from orders.roles import Act, actor_of, can, is_staff
from orders.saved_views import views_of
from orders.views import storable
from sagas.selectors import SagaRun
from sagas.twins import curl_of

PAGE = 25
MOST_NEWER = 100
"""Up to this many new orders are told exactly."""


@require_GET
@login_required
def order_list(request: HttpRequest) -> HttpResponse:
    """orders/order_list.html: newest first, filtered by the address alone."""
    first_view = request.session.get(FIRST_VIEW, "")
    if first_view and not request.GET:
        return redirect(list_address(first_view))
    staff, now, me = is_staff(request.user), timezone.now(), actor_of(request.user)
    asked = OrderFilter.read(request.GET, staff=staff)
    visible = selectors.orders_visible_to(request.user)
    found = selectors.find_by_any_id(visible, asked.q) if asked.q else None
    refusals = refused(asked.q) if staff and asked.q else []
    if found is not None and len(found) == 1 and not refusals and not asked.query(q=""):
        return redirect("order_detail", *found.values())
    orders = asked.apply(visible, now, me=me, found=found)
    edge, at, top = (storable(request.GET.get(name, "")).strip()[:100] for name in ("before", "at", "top"))
    seen, newer = rows_of(orders, asked.sort, edge=edge, at=at, top=top)
    tag = tag_of(seen, newer)
    if request.headers.get("X-Live") and request.headers.get("If-None-Match") == tag:
        return HttpResponseNotModified(headers={"ETag": tag})
    page = seen[:PAGE]
    wanted = {order.pk: place for place, order in enumerate(page)}
    rows = selectors.order_rows(
        sorted(selectors.with_facts(visible.filter(pk__in=list(wanted))), key=lambda order: wanted[order.pk])
    )
    query, is_narrowed = asked.query(), asked.is_narrowed()
    looser = asked.loosened(visible, now, me=me) if not rows and is_narrowed else []
    last = page[-1] if len(seen) > PAGE else None
    columns = list_columns.shown(request.session, staff=staff)
    context = {
        "rows": rows,
        "columns": columns,
        "heads": _heads(asked, staff, request),
        "older": _older(asked, query, last) if last is not None else "",
        "newest": list_address(query) if edge else "",
        "newer": newer,
        "newer_address": list_address(query),
        "is_many": newer >= MOST_NEWER,
        "may_bulk": can(request.user, Act.BULK),
        "is_narrowed": is_narrowed,
        "loosened": [(words, number, list_address(query)) for words, number, query in looser],
        "asked": asked,
        "me": me,
        "now": now,
    }
    if request.headers.get("X-Live"):
        response = render(request, "orders/_rows.html", context)
        response["ETag"], response["Cache-Control"] = tag, "private, no-cache"
        return response
    is_whole = last is None and not (edge or newer)
    count = len(page) if is_whole else count_of(orders)
    first = page[0].order_id if page and not edge and not asked.sort else ""
    every = list_address(asked.query(state="")) if asked.query(state="") or not first_view else list_address("state=")
    context |= {
        "section": "orders",
        "views": [
            (label, name == asked.state, list_address(asked.query(state=name)) if name else every)
            for name, label in VIEWS
        ],
        "saved": views_of(request),
        "saved_now": query,
        "first_view": first_view,
        "chips": [(words, value, list_address(query)) for words, value, query in asked.chips()],
        "faults": asked.faults,
        "refusals": refusals,
        "count": f"{COUNTED:,}+" if count > COUNTED else f"{count:,}",
        "is_one": count == 1,
        "query": asked.q,
        "sorts": [(name, words, name == asked.sort) for name, words in SORTS],
        "steps": [(step.name, step.display, step.name == asked.step) for step in ORDER_SAGA.steps],
        "choices": [(column, column in columns) for column in list_columns.COLUMNS if staff or not column.is_staffs],
        "export": reverse("order_export") + (f"?{query}" if query else ""),
        "copies": _copies(request, asked, now, staff=staff),
        "bulk_acts": BULK_ACTS.items(),
        "live_address": list_address(query, before=edge, at=at, top=top or first),
    }
    return render(request, "orders/order_list.html", context)


def rows_of(orders: QuerySet[Order], sort: str, *, edge: str, at: str, top: str) -> tuple[list[Order], int]:
    """(a page of the list and one row more, how many new ones stand above it): in one look, if they are not many.

    Each row has only what tells whether it has changed since it was last shown.
    """
    orders = _with_version(orders)
    if edge:
        return list(after(orders, edge, sort=sort, at=at)[: PAGE + 1]), 0
    if not top or sort:
        return list(orders[: PAGE + 1]), 0
    seen = list(orders[: PAGE + 1 + MOST_NEWER])
    newer = next((place for place, order in enumerate(seen) if order.order_id == top), None)
    if newer is not None and newer < MOST_NEWER:
        return seen[newer : newer + PAGE + 1], newer
    return _below(orders, top)


def tag_of(rows: Sequence[Order], newer: int) -> str:
    """Made from the rows' versions, never from whoever looks."""
    parts = [(row.pk, row.status, row.changed_at, row.owner) for row in rows]  # type: ignore[attr-defined]
    return f'"{hashlib.sha256(repr((parts, newer)).encode()).hexdigest()[:20]}"'


def _with_version(orders: QuerySet[Order]) -> QuerySet[Order]:
    run = SagaRun.objects.filter(pk=OuterRef("run_id"))
    versions = {
        name: Subquery(run.values(column)[:1])
        for name, column in (("status", "status"), ("changed_at", "updated_at"), ("owner", "assignment__owner"))
    }
    return orders.only("pk", "order_id").annotate(**versions)


def _copies(request: HttpRequest, asked: OrderFilter, now: datetime, *, staff: bool) -> list[tuple[str, str]]:
    """(the button's words, what it copies): the list as it is now, as a request, and for staff as a command."""
    command, command_lacks = list_copies.command(asked)
    query, api_lacks = list_copies.api_query(asked, now)
    return [
        *([(list_copies.named("Copy as command", command_lacks), command)] if staff else []),
        (list_copies.named("Copy as curl", api_lacks), curl_of(request, list_copies.api_address(query))),
    ]


def _older(asked: OrderFilter, query: str, last: Order) -> str:
    """The address of the page after the one that ends with `last`."""
    is_moving = asked.sort in ("changed", "unchanged")
    at = last.changed_at.isoformat() if is_moving else ""  # type: ignore[attr-defined]  # from _with_version
    return list_address(query, before=last.order_id, at=at)


def _heads(asked: OrderFilter, staff: bool, request: HttpRequest) -> list[tuple[Column, str, str]]:
    """(column, address that sorts by it, how it is sorted now: ascending, descending or not) of each one shown."""
    found = []
    for column in list_columns.shown(request.session, staff=staff):
        if column.sorts is None:
            found.append((column, "", ""))
            continue
        falling, rising = column.sorts
        now = {falling: "descending", rising: "ascending"}.get(asked.sort, "")
        found.append((column, list_address(asked.query(sort=rising if asked.sort == falling else falling)), now))
    return found


def _below(orders: QuerySet[Order], top: str) -> tuple[list[Order], int]:
    """(from the order `top` on, MOST_NEWER): so many stand above it that they are not counted. Rows must not move
    under somebody's pointer. If it is not there any more, the list as it is."""
    edge = Order.objects.filter(order_id=top).only("pk", "placed_at").first()
    if edge is None:
        return list(orders[: PAGE + 1]), 0
    above = Q(placed_at__gt=edge.placed_at) | Q(placed_at=edge.placed_at, pk__gt=edge.pk)
    number = orders.filter(above).order_by()[:MOST_NEWER].count()
    return list(orders.exclude(above)[: PAGE + 1]), number
