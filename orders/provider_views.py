"""How the providers stand, for staff; and a supervisor's word that one of them is well again."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from orders.models import InboundEvent
from orders.provider_status import KINDS, provider_statuses
from orders.providers import guard, paths_of
from orders.roles import Act, can, require

SHOWN = 20


@require_GET
@login_required
def provider_list(request: HttpRequest) -> HttpResponse:
    """orders/provider_list.html: who does what for the shop, whether they answer, and what they told us lately."""
    if not can(request.user, Act.SEE_RUNS):
        raise Http404
    context = {
        "section": "health",
        "providers": provider_statuses(),
        "events": InboundEvent.objects.defer("body").order_by("-id")[:SHOWN],
        "may_close": can(request.user, Act.BULK),
        "now": timezone.now(),
    }
    return render(request, "orders/provider_list.html", context)


@require_POST
@login_required
def provider_close(request: HttpRequest, name: str) -> HttpResponse:
    """Have the next call made, without waiting for the trial."""
    if not can(request.user, Act.SEE_RUNS) or not any(name in paths_of(kind) for kind in KINDS):
        raise Http404
    require(request.user, Act.BULK)
    if guard.close(name):
        messages.success(request, f"{name} is asked again from now on.")
    else:
        messages.info(request, f"{name} was not known to be down.")
    return redirect("provider_list")
