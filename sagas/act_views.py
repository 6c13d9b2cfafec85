"""The dialogs of what people do to one run: what will follow, step by step, the reason, and then the act itself."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from sagas import plans, services
from sagas.exceptions import ActRefused
from sagas.permissions import actor_of, require
from sagas.plans import SHORTEST_REASON, reason_fault
from sagas.presentation import ACT_EVENTS
from sagas.selectors import RunView
from sagas.states import Direction
from sagas.twins import act_twins
from sagas.views import ACTS, run_or_404, safe_back, staff_only

LONGEST_EVIDENCE = 500
MOVED = "It has moved on since you were asked. Here is how it stands now, and what would follow."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody wants done, as the form holds it."""

    act: str
    step: str
    direction: str
    reason: str
    evidence: str
    seen: str
    """What the dialog was made of; empty where there was no dialog."""

    @classmethod
    def read(cls, request: HttpRequest, act: str) -> Asked:
        given = request.POST if request.method == "POST" else request.GET
        direction = given.get("direction", Direction.ACTION.value)
        if direction not in set(Direction):
            raise Http404
        return cls(
            act=act,
            step=given.get("step", "")[:100],
            direction=direction,
            reason=" ".join(given.get("reason", "").replace("\x00", "").split()),
            evidence=given.get("evidence", "").replace("\x00", "").strip(),
            seen=given.get("seen", "")[:100],
        )

    def faults(self) -> dict[str, str]:
        """By field, what is wrong with it."""
        found = {}
        if fault := reason_fault(self.reason, is_needed=self.act != "retry"):
            found["reason"] = fault
        if self.act == "resolve" and not self.evidence:
            found["evidence"] = "Give the reference under which somebody else can check it."
        if len(self.evidence) > LONGEST_EVIDENCE:
            found["evidence"] = f"These are {len(self.evidence)} characters; at most {LONGEST_EVIDENCE} are kept."
        return found


@never_cache
@require_http_methods(["GET", "POST"])
@staff_only
def run_act(request: HttpRequest, run_id: UUID, act: str) -> HttpResponse:
    """sagas/run_act.html: says what an act will do and asks for the reason, then does it. Twice is once."""
    if act not in ACTS:
        raise Http404
    require(request, act)
    view, asked, back = run_or_404(run_id), Asked.read(request, act), safe_back(request, run_id)
    faults: dict[str, str] = {}
    status = 200
    if request.method == "POST":
        if asked.seen and asked.seen != plans.seen_of(view) and not _did_it(view, asked, actor_of(request)):
            faults, status = {"run": MOVED}, 409
        elif faults := asked.faults():
            status = 400
        else:
            _do(request, run_id, asked)
            return redirect(back)
    command, curl = act_twins(request, run_id, act, asked.step, asked.direction)
    context = {
        "section": "runs",
        "view": view,
        "act": act,
        "title": ACTS[act],
        "asked": asked,
        "what": _title(view, asked),
        "can": _can(view, asked),
        "plan": plans.plan(view, act, asked.step, asked.direction, plans.words_of(view)),
        "seen": plans.seen_of(view),
        "faults": faults,
        "shortest": SHORTEST_REASON,
        "back": back,
        "command": command,
        "curl": curl,
    }
    return render(request, "sagas/run_act.html", context, status=status)


def _do(request: HttpRequest, run_id: UUID, asked: Asked) -> None:
    actor, step, direction = actor_of(request), asked.step, asked.direction
    try:
        if asked.act == "cancel":
            services.cancel(run_id=run_id, actor=actor, reason=asked.reason)
        elif asked.act == "abandon":
            services.abandon(run_id=run_id, actor=actor, reason=asked.reason)
        elif asked.act == "retry":
            services.retry(run_id=run_id, step=step, direction=direction, actor=actor, reason=asked.reason)
        elif asked.act == "skip":
            services.skip(run_id=run_id, step=step, direction=direction, actor=actor, reason=asked.reason)
        else:
            services.resolve(
                run_id=run_id, step=step, direction=direction, actor=actor, reason=asked.reason, evidence=asked.evidence
            )
    except ActRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{ACTS[asked.act]}: done. The history says so.")


def _did_it(view: RunView, asked: Asked, actor: str) -> bool:
    """Whether the newest thing that a person did is this very act by the same person: a double click."""
    by_hand = [event for event in view.events if event.actor != "engine"]
    if not by_hand:
        return False
    last = by_hand[-1]
    return (last.kind, last.actor, last.reason) == (ACT_EVENTS[asked.act], actor, asked.reason)


def _can(view: RunView, asked: Asked) -> bool:
    """Whether the run's state allows it at this moment."""
    if asked.act in ("cancel", "abandon"):
        return asked.act in view.can
    is_undo = asked.direction == Direction.COMPENSATION.value
    return any(asked.act in (one.undo_can if is_undo else one.can) for one in view.steps if one.name == asked.step)


def _title(view: RunView, asked: Asked) -> str:
    for one in view.steps:
        if one.name == asked.step:
            return one.undo_title if asked.direction == Direction.COMPENSATION.value else one.title
    return ""
