"""The pages of what waits for a person, for staff: by cause, taken on, put off, and helped on many at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import ObjectDoesNotExist
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from sagas import attention, charts, operations, services
from sagas.attention import Cause
from sagas.csv_files import csv_file
from sagas.exceptions import ActRefused, InvalidOperation
from sagas.models import BulkOperation, SagaRun
from sagas.operations import Target
from sagas.permissions import actor_of, may, require
from sagas.plans import SHORTEST_REASON, reason_fault
from sagas.presentation import ITEM_BADGES
from sagas.states import BulkState, ItemState, RunStatus
from sagas.twins import command_of, curl_of, many_twins
from sagas.views import acts_of, safe_back, staff_only

SHOWN = 20
"""Of a preview's runs."""
PAGE = 100
RESTS = (("1h", "for an hour"), ("tomorrow", "until tomorrow, 8:00"), ("week", "for a week"))


@never_cache
@require_GET
@staff_only
def run_attention(request: HttpRequest) -> HttpResponse:
    """sagas/run_attention.html: what waits for a person, by cause, the longest waiting first."""
    now, me = timezone.now(), actor_of(request)
    mine, resting = request.GET.get("mine") == "1", request.GET.get("resting") == "1"
    owner = me if mine else ""
    # The version before what it is the version of: what changes in between is told at the next look.
    tag = f'"{_short_hash(attention.version(now, owner=owner, resting=resting))}"'
    if request.headers.get("X-Live") and request.headers.get("If-None-Match") == tag:
        return HttpResponseNotModified(headers={"ETag": tag})
    inbox = attention.inbox(now, owner=owner, resting=resting)
    context = {
        "section": "attention",
        "inbox": inbox,
        "groups": [
            {
                "group": group,
                "place": _short_hash(group.cause),
                "rects": charts.columns([{"run": count} for count in group.arrivals], {"run": "arrived"})[0],
                "lateness": attention.lateness(group.since, now),
                "query": urlencode(group.cause._asdict()),
            }
            for group in inbox.groups
        ],
        "lateness": attention.lateness(inbox.oldest, now) if inbox.oldest else "",
        "mine": mine,
        "resting": resting,
        "me": me,
        "rests": RESTS,
        "may": acts_of(request),
        "may_bulk": may(request, "bulk"),
        "back": request.get_full_path(),
        "tag": tag,
        "command": command_of("saga", "list", "--state", RunStatus.NEEDS_ATTENTION.value),
        "curl": curl_of(request, f"{reverse('api-saga-runs')}?state={RunStatus.NEEDS_ATTENTION.value}"),
        "now": now,
    }
    template = "sagas/_attention.html" if request.headers.get("X-Live") else "sagas/run_attention.html"
    response = render(request, template, context)
    response["ETag"] = tag
    return response


def _short_hash(of: object) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:20]


@require_POST
@staff_only
def run_snooze(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Put a run off for a while, or with an empty `rest` have it back."""
    require(request, "assign")
    rest = request.POST.get("rest", "")
    if rest and rest not in dict(RESTS):
        raise Http404
    try:
        services.snooze(run_id=run_id, until=_rest_until(rest, timezone.now()), actor=actor_of(request))
    except SagaRun.DoesNotExist:
        raise Http404 from None
    except ActRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"Put off {dict(RESTS)[rest]}." if rest else "It is no longer put off.")
    return redirect(safe_back(request, run_id))


@never_cache
@require_http_methods(["GET", "POST"])
@staff_only
def bulk_new(request: HttpRequest) -> HttpResponse:
    """sagas/bulk_new.html: what an act on all runs of a cause will do, then has it done."""
    require(request, "bulk")
    given = request.POST if request.method == "POST" else request.GET
    act = given.get("act", "retry")
    if act not in ("retry", "assign"):
        raise Http404
    cause = Cause(**{name: given.get(name, "")[:200].replace("\x00", "") for name in Cause._fields})
    items = [item for item in attention.waiting_items(timezone.now(), cause=cause) if item.snoozed_until is None]
    about = f"{len(items)} that wait at “{_title(cause, items)}”" + (f" with {cause.error}" if cause.error else "")
    fault, seen = "", operations.digest_of(item.run.pk for item in items)
    if request.method == "POST":
        reason = request.POST.get("reason", "").replace("\x00", "")
        if request.POST.get("seen") != seen:
            fault = "Other runs wait now than when you were asked. Here is what would be done."
        elif not (fault := reason_fault(reason)):
            targets = [Target(run_id=i.run.pk, step=cause.step, direction=cause.direction) for i in items]
            try:
                operation = operations.begin(
                    act=act, targets=targets, about=about, actor=actor_of(request), reason=reason
                )
            except InvalidOperation as error:
                fault = str(error)
            else:
                return redirect("bulk_detail", operation.pk)
    command, curl = many_twins(request, act, [item.run.pk for item in items], cause.step, cause.direction)
    context = {
        "section": "attention",
        "act": act,
        "cause": cause,
        "title": _title(cause, items),
        "items": items[:SHOWN],
        "count": len(items),
        "more": max(len(items) - SHOWN, 0),
        "amounts": attention.added_up(item.amounts for item in items),
        "fault": fault,
        "shortest": SHORTEST_REASON,
        "reason": given.get("reason", ""),
        "fields": [*cause._asdict().items(), ("act", act), ("seen", seen)],
        "command": command,
        "curl": curl,
    }
    return render(request, "sagas/bulk_new.html", context, status=400 if fault else 200)


@never_cache
@require_GET
@staff_only
def bulk_list(request: HttpRequest) -> HttpResponse:
    """sagas/bulk_list.html: acts on many runs, newest first."""
    return render(request, "sagas/bulk_list.html", {"section": "attention", "operations": operations.recent()})


@never_cache
@require_GET
@staff_only
def bulk_detail(request: HttpRequest, operation_id: UUID) -> HttpResponse:
    """sagas/bulk_detail.html: how far an act on many runs is, and what came of it on each."""
    operation = _operation(operation_id)
    state = request.GET.get("state", "")
    rows = operations.items(operation)
    if state in set(ItemState):
        rows = rows.filter(state=state)
    counts = operations.counts(operation)
    page = Paginator(rows, PAGE).get_page(request.GET.get("page"))
    context = {
        "section": "attention",
        "operation": operation,
        "state": state,
        "states": [(s.value, ITEM_BADGES[s].word, counts[s.value]) for s in ItemState],
        "of": sum(counts.values()),
        "pending": counts[ItemState.PENDING.value],
        "page": page,
        "rows": [(item, ITEM_BADGES[ItemState(item.state)]) for item in page],
        "may_bulk": may(request, "bulk"),
        "is_open": operation.state == BulkState.OPEN.value,
        "is_stopped": operation.state == BulkState.STOPPED.value,
        "live_address": request.get_full_path(),
        "curl": curl_of(request, reverse("api-bulk-items", kwargs={"operation_id": operation_id})),
    }
    template = "sagas/_bulk.html" if request.headers.get("X-Live") else "sagas/bulk_detail.html"
    return render(request, template, context)


@require_POST
@staff_only
def bulk_act(request: HttpRequest, operation_id: UUID, act: str) -> HttpResponse:
    """Stop an operation, or go on with it."""
    if act not in ("stop", "resume"):
        raise Http404
    require(request, "bulk")
    _operation(operation_id)
    if act == "stop":
        operations.stop(operation_id=operation_id)
        messages.success(request, "Stopped: the runs that were still pending stay as they are.")
    else:
        operations.resume(operation_id=operation_id)
        messages.success(request, "It goes on with the runs that were still pending.")
    return redirect("bulk_detail", operation_id)


@require_GET
@staff_only
def bulk_csv(request: HttpRequest, operation_id: UUID) -> StreamingHttpResponse:
    """Each run of an operation and what came of it, as a file for spreadsheets."""
    operation = _operation(operation_id)

    def rows() -> Iterator[list[str]]:
        yield ["run", "key", "result", "note", "done at", "run is now"]
        for item in operations.items(operation).iterator(chunk_size=1000):
            at = item.done_at.isoformat() if item.done_at else ""
            yield [str(item.run_id), item.run.business_key, item.state, item.note, at, item.run.status]

    return csv_file(rows(), name=f"operation-{operation_id}.csv")


def _title(cause: Cause, items: list[attention.Item]) -> str:
    return attention.title_of(cause, items[0].run.version) if items else cause.step


def _operation(operation_id: UUID) -> BulkOperation:
    try:
        return BulkOperation.objects.get(pk=operation_id)
    except ObjectDoesNotExist:
        raise Http404 from None


def _rest_until(rest: str, now: datetime) -> datetime | None:
    if not rest:
        return None
    if rest == "tomorrow":
        return (timezone.localtime(now) + timedelta(days=1)).replace(hour=8, minute=0, second=0, microsecond=0)
    return now + (timedelta(hours=1) if rest == "1h" else timedelta(days=7))
