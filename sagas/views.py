"""The runs' pages, for staff: translate a request, call a service or a selector, render."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from sagas import charts, health, selectors
from sagas.export import exported
from sagas.graph import picture
from sagas.models import SagaRun
from sagas.overview import ENDS, PERIODS, SAMPLE, overview_of
from sagas.permissions import may
from sagas.presentation import changes, timeline
from sagas.replay import test_case
from sagas.selectors import RunView
from sagas.states import RunStatus
from sagas.twins import command_of, curl_of, list_twins

PAGE = 50
ACTS = {
    "retry": "Retry now",
    "skip": "Skip",
    "resolve": "Settle by hand",
    "abandon": "Give up",
    "cancel": "Cancel",
}
MAY = (*ACTS, "assign", "bulk", "import")
END_WORDS = {
    "completed": "Completed",
    "compensated": "Undone",
    "under_way": "Under way",
    "needs_attention": "Needs attention",
    "abandoned": "Abandoned",
}
FILTERS = ("status", "saga", "key", "error", "since")
P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]


def staff_only(view: View[P]) -> View[P]:
    """For whoever may look at runs; to others there is nothing here."""

    def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if not may(request, "see_runs"):
            raise Http404
        return view(request, *args, **kwargs)

    return checked


@require_GET
@staff_only
def run_list(request: HttpRequest) -> HttpResponse:
    """sagas/run_list.html: runs, newest first, filtered by the address alone."""
    asked = {name: request.GET.get(name, "").replace("\x00", "").strip()[:200] for name in FILTERS}
    if asked["status"] not in set(RunStatus):
        asked["status"] = ""
    # Errors have no index of their own: without a limit, a rare one would have all of history read.
    period = PERIODS.get(asked["since"]) or (PERIODS["day"] if asked["error"] else None)
    since = timezone.now() - period.length if period else None
    runs = selectors.newest_runs(
        status=asked["status"],
        saga=asked["saga"],
        key=asked["key"],
        error=asked["error"],
        since=since,
        before=request.GET.get("before", ""),
    )
    page = list(runs[: PAGE + 1])
    views = selectors.views_for(page[:PAGE])
    kept = {name: value for name, value in asked.items() if value}
    command, curl = list_twins(request, asked, period, since)
    context = {
        "section": "runs",
        "views": [views[run.pk] for run in page[:PAGE]],
        "lines": {run.pk: selectors.step_line(views[run.pk]) for run in page[:PAGE]},
        "counts": selectors.counts(),
        "states": [
            (status.value, word, "?" + urlencode({**kept, "status": status.value}))
            for status, word in selectors.STATUS_WORDS.items()
        ],
        "every_state": "?" + urlencode({name: value for name, value in kept.items() if name != "status"}),
        "asked": asked,
        "is_filtered": bool(kept),
        "periods": [(one.name, one.words, one is period) for one in PERIODS.values()],
        "older": "?" + urlencode({**kept, "before": page[PAGE - 1].pk}) if len(page) > PAGE else "",
        "command": command,
        "curl": curl,
        "may": acts_of(request),
    }
    return render(request, "sagas/run_list.html", context)


@never_cache
@require_GET
@staff_only
def run_detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """sagas/run_detail.html: one run, where its time went, its context, its events and what may be done."""
    view, now = run_or_404(run_id), timezone.now()
    whole = timeline(view, now)
    tries, events = Paginator(whole.stretches, PAGE), Paginator(view.events, PAGE)
    api_address = reverse("api-saga-run", kwargs={"run_id": run_id})
    context = {
        "section": "runs",
        "view": view,
        "timeline": whole,
        # The newest first to be seen: of a run that has been tried for days it is the end that matters.
        "tries": tries.get_page(request.GET.get("tries") or tries.num_pages),
        "events": events.get_page(request.GET.get("events") or events.num_pages),
        "command": command_of("saga", "show", str(view.run.pk), "--events"),
        "test_case": test_case(view),
        "curl": curl_of(request, api_address),
        "changes": changes(view),
        "neighbours": selectors.neighbours(view, now),
        "picture": picture(view.definition, view) if view.definition is not None else None,
        "may": acts_of(request),
        "back": request.path,
    }
    return render(request, "sagas/run_detail.html", context)


@require_GET
@staff_only
def run_export(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The run and all that is recorded of it, as a JSON file; with `?redact=1` without the values."""
    try:
        told = exported(run_id, is_redacted=request.GET.get("redact") == "1")
    except SagaRun.DoesNotExist:
        raise Http404 from None
    response = JsonResponse(told, json_dumps_params={"indent": 2, "ensure_ascii": False})
    response["Content-Disposition"] = f'attachment; filename="run-{run_id}.json"'
    return response


@never_cache
@require_GET
@staff_only
def overview(request: HttpRequest) -> HttpResponse:
    """sagas/overview.html: outcomes over time, how long steps take, why runs turn back, what waits for what."""
    name = request.GET.get("period", "day")
    period = PERIODS.get(name)
    if period is None:
        messages.error(request, f"There is no period {name[:40]!r}. There are: {', '.join(PERIODS)}.")
        return redirect("overview")
    now = timezone.now()
    seen = overview_of(period, now)
    totals = seen.totals
    rects, top = charts.columns([part.counts for part in seen.parts], {end: end for end in ENDS})
    context = {
        "section": "overview",
        "period": period,
        "periods": [(one.name, one.words, one is period) for one in PERIODS.values()],
        "parts": seen.parts,
        "rects": rects,
        "top": top,
        "legend": [(end, END_WORDS[end], totals[end]) for end in ENDS],
        "ends": ENDS,
        "began": sum(totals.values()),
        "work": charts.beside(seen.work, [one.p50 for one in seen.work], [one.p95 for one in seen.work]),
        "sample": SAMPLE if seen.is_sample else 0,
        "causes": seen.causes,
        "waiting": seen.waiting,
        "command": command_of("saga", "stats", "--since", period.name),
        "curl": curl_of(request, f"{reverse('api-saga-statistics')}?since={period.name}"),
        "now": now,
    }
    return render(request, "sagas/overview.html", context)


@never_cache
@require_GET
@staff_only
def health_page(request: HttpRequest) -> HttpResponse:
    """sagas/health.html: what works, since when something does not, whom it hits, and what to do about it."""
    now = timezone.now()
    found = health.lines(now)
    context = {
        "section": "health",
        "lines": found,
        "worst": health.as_json(found, now)["state"],
        "providers_page": settings.SAGA_PROVIDERS_PAGE,
        "command": command_of("saga", "doctor"),
        "curl": curl_of(request, reverse("api-health")),
        "now": now,
    }
    return render(request, "sagas/health.html", context)


@never_cache
@require_GET
@staff_only
def health_json(request: HttpRequest) -> HttpResponse:
    """The same for programs."""
    now = timezone.now()
    return JsonResponse(health.as_json(health.lines(now), now))


@require_GET
@staff_only
def runbooks(request: HttpRequest) -> HttpResponse:
    """sagas/runbooks.html: what each line of the health page means, and what to do."""
    context = {"section": "health", "providers_page": settings.SAGA_PROVIDERS_PAGE}
    return render(request, "sagas/runbooks.html", context)


def run_or_404(run_id: UUID) -> RunView:
    """The run as people see it."""
    try:
        return selectors.run_view(run_id)
    except SagaRun.DoesNotExist:
        raise Http404 from None


def acts_of(request: HttpRequest) -> frozenset[str]:
    """What whoever asks may do to runs."""
    return frozenset(act for act in MAY if may(request, act))


def safe_back(request: HttpRequest, run_id: UUID) -> str:
    """Where the person came from, if that is on this site; else the run's page."""
    wanted = (request.POST if request.method == "POST" else request.GET).get("next", "")
    safe = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if safe else reverse("run_detail", args=[run_id])
