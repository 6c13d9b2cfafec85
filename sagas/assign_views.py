"""The page of who looks after a run that waits for a person: taken on, given back, handed to somebody else."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from sagas import services
from sagas.exceptions import ActRefused
from sagas.permissions import actor_of, may_look_after, owners, require
from sagas.selectors import SagaRun, owner_of
from sagas.states import RunStatus
from sagas.twins import assign_twin
from sagas.views import run_or_404, safe_back, staff_only

ME = "me"


@never_cache
@require_http_methods(["GET", "POST"])
@staff_only
def run_assign(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """sagas/run_assign.html: asks who is to look after a run, then notes it; an empty `owner` is everybody."""
    require(request, "assign")
    me, back, fault = actor_of(request), safe_back(request, run_id), ""
    if request.method == "POST":
        owner = request.POST.get("owner", "").replace("\x00", "\ufffd").strip()[:150]
        owner = me if owner == ME else owner
        if may_look_after(owner, asked_by=me):
            _assign(request, run_id, owner)
            return redirect(back)
        fault = f"{owner} is nobody who may look after it. Choose one of the list."
    view = run_or_404(run_id)
    now = owner_of(view.run)
    context = {
        "section": "runs",
        "view": view,
        "waits": view.run.status == RunStatus.NEEDS_ATTENTION.value,
        "owner": now,
        "owners": [one for one in owners() if one != now],
        "me": me,
        "fault": fault,
        "back": back,
        "curl": assign_twin(request, run_id),
    }
    return render(request, "sagas/run_assign.html", context, status=400 if fault else 200)


def _assign(request: HttpRequest, run_id: UUID, owner: str) -> None:
    me = actor_of(request)
    try:
        services.assign(run_id=run_id, owner=owner, actor=me)
    except SagaRun.DoesNotExist:
        raise Http404 from None
    except ActRefused as error:
        messages.error(request, str(error))
    else:
        whose = "You look" if owner == me else f"{owner.removeprefix('user:')} looks"
        messages.success(request, f"{whose} after it now." if owner else "It is everybody's again.")
