"""What people may do to a run. Each act is an event with its actor, refuses a state in which it makes no sense,
naming what is possible instead, and is harmless when it comes twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from sagas import journal, plans, registry
from sagas.acts import IMPORTED, cancel_refusal, in_hand, possible_acts, results_of
from sagas.attention import waits_since
from sagas.decide import Stand, progress, undo_order
from sagas.definition import Kind, Saga
from sagas.driver import Driver
from sagas.exceptions import ActRefused, DefinitionError, DuplicateRun
from sagas.journal import Held
from sagas.models import Assignment, RunEvent, SagaRun, Signal
from sagas.queue import wake
from sagas.states import ENDED, Direction, Outcome, RunStatus

LONGEST_REASON = plans.LONGEST_REASON
LONGEST_REST = timedelta(days=30)


@transaction.atomic
def start(
    *, saga: Saga, business_key: str, input: Mapping[str, Any], actor: str = "engine", ring: bool = True
) -> SagaRun:
    """Store a run and ring for it, both or neither. The same key and input again: the run that is there.

    Raises DuplicateRun, naming the fields, if the key's run was started with another input. With `ring` off the
    caller drives it himself.
    """
    registry.get(saga.name, saga.version)
    # As it will be read back: a tuple sent twice is to be equal to the list it was stored as.
    merged: dict[str, Any] = json.loads(json.dumps({**saga.defaults, **input}, allow_nan=False))
    runs = SagaRun.objects.filter(saga=saga.name, business_key=business_key).order_by("-created_at")
    run = runs.first()
    if run is None:
        opened = journal.open_run(saga=saga, business_key=business_key, input=merged, actor=actor, now=timezone.now())
        if opened is not None:
            if ring:
                wake()
            return opened
        run = runs.get(ended_at__isnull=True)  # the same key, started in the same moment
    differing = sorted(key for key in {*run.input, *merged} if run.input.get(key) != merged.get(key))
    if differing:
        raise DuplicateRun(saga.name, business_key, differing)
    return run


@transaction.atomic
def cancel(*, run_id: UUID | str, actor: str, reason: str) -> SagaRun:
    """Have everything undone: after the step under way, or, for a completed run, now. Twice is once.

    Raises ActRefused where it cannot be undone any more, with the reason.
    """
    held = _hold("cancel", run_id)
    run = held.run
    _check_reason("cancel", held, reason)
    going_back = run.cancel_requested_at is not None or (run.turned_back_at is not None and not _is(run, ENDED))
    if going_back and run.status != RunStatus.ABANDONED.value:
        return run
    if run.status in (RunStatus.COMPENSATED.value, RunStatus.ABANDONED.value):
        raise _refused("cancel", held, "it has ended, and nothing is left to undo")
    refusal = cancel_refusal(held)
    if refusal:
        raise _refused("cancel", held, refusal)
    now = timezone.now()
    changes: dict[str, Any] = {"cancel_requested_at": now, "cancel_reason": reason, "claims": 0, "due_at": now}
    if run.status == RunStatus.COMPLETED.value:
        changes |= {
            "status": RunStatus.COMPENSATING.value,
            "turned_back_at": now,
            "ended_at": None,
            "failure_code": "cancelled",
            "failure_message": reason,
        }
    journal.amend(run, now=now, event=_event("cancel_requested", actor, reason, now), **changes)
    wake()
    return run


@transaction.atomic
def retry(*, run_id: UUID | str, step: str, direction: Direction | str, actor: str, reason: str = "") -> SagaRun:
    """Try a failed or waiting attempt again now, with a fresh budget and the same key. Twice is once."""
    held = _hold("retry", run_id)
    run, way = held.run, Direction(direction)
    place = f"{step}:{way.value}"
    tries = [r for r in held.records if r.step == step and r.direction == way.value]
    last = tries[-1].number if tries else 0
    under_way = bool(tries) and not tries[-1].outcome
    if run.status != RunStatus.NEEDS_ATTENTION.value and run.fresh_from.get(place) == last - under_way:
        return run  # asked for already, and not ended yet
    _check_possible("retry", held, step, way)
    now = timezone.now()
    journal.amend(
        run,
        now=now,
        event=_event("retry_requested", actor, reason, now, step, way),
        fresh_from={**run.fresh_from, place: last},
        due_at=now,
        claims=0,
        **_back_to_work(held),
    )
    wake()
    return run


@transaction.atomic
def skip(*, run_id: UUID | str, step: str, direction: Direction | str, actor: str, reason: str) -> SagaRun:
    """Go on without this step or undo. What it would have done stays undone, and the history says so."""
    return _settle("skip", Outcome.SKIPPED, run_id, step, direction, actor, reason, {}, {})


@transaction.atomic
def resolve(
    *,
    run_id: UUID | str,
    step: str,
    direction: Direction | str,
    actor: str,
    reason: str,
    evidence: str,
    result: Mapping[str, Any] | None = None,
) -> SagaRun:
    """Say that it was done outside, with the evidence: a reference that somebody else can check."""
    if not evidence.strip() or "\0" in evidence:
        held = _hold("resolve", run_id)
        raise _refused("resolve", held, "it wants evidence: the reference under which it was done")
    data = {"evidence": evidence}
    return _settle("resolve", Outcome.RESOLVED, run_id, step, direction, actor, reason, data, dict(result or {}))


@transaction.atomic
def abandon(*, run_id: UUID | str, actor: str, reason: str) -> SagaRun:
    """Give a run up that needs attention, leaving undone what is undone; the event lists it."""
    held = _hold("abandon", run_id)
    run = held.run
    if run.status == RunStatus.ABANDONED.value:
        return run
    _check_reason("abandon", held, reason)
    if "abandon" not in possible_acts(held, timezone.now()).run:
        raise _refused("abandon", held, "only a run that needs attention can be given up")
    now = timezone.now()
    event = _event("abandoned", actor, reason, now)
    event.data = {"left_undone": left_undone(held, now)}
    journal.amend(
        run,
        now=now,
        event=event,
        status=RunStatus.ABANDONED.value,
        ended_at=now,
        due_at=None,
        lease_owner="",
        lease_until=None,
        attention_reason="",
    )
    return run


def left_undone(held: Held, now: datetime) -> list[str]:
    """The steps whose effect stands although the run does not: what an abandoned run leaves behind."""
    if held.saga is None:
        return sorted(results_of(held))
    history = held.history()
    try:
        steps = undo_order(held.saga, history)
    except DefinitionError:  # a step was taken out of the definition
        return sorted(results_of(held))
    return [
        step.name
        for step in steps
        if progress(held.saga, history, step, Direction.COMPENSATION, now).stand is not Stand.DONE
    ]


@transaction.atomic
def assign(*, run_id: UUID | str, owner: str, actor: str) -> Assignment:
    """Say who looks after a run that waits for a person; an empty `owner` gives it back to everybody. Twice is once."""
    held = _hold("assign", run_id)
    assignment, _ = Assignment.objects.get_or_create(run=held.run)
    if assignment.owner == owner:
        return assignment
    if owner:
        _check_waits("assign", held)
    assignment.owner = owner
    assignment.save(update_fields=["owner"])
    event = _event("assigned" if owner else "released", actor, "", timezone.now())
    event.run, event.data = held.run, {"owner": owner}
    event.save()
    return assignment


@transaction.atomic
def snooze(*, run_id: UUID | str, until: datetime | None, actor: str) -> Assignment:
    """Let a run that waits for a person rest until then; None wakes it. It goes on resting only as long as it waits."""
    held = _hold("snooze", run_id)
    assignment, _ = Assignment.objects.get_or_create(run=held.run)
    now = timezone.now()
    if assignment.snoozed_until == until:
        return assignment
    if until is not None:
        _check_waits("snooze", held)
        if not now < until <= now + LONGEST_REST:
            why = f"{until:%Y-%m-%d %H:%M} is not within the next {LONGEST_REST.days} days"
            raise _refused("snooze", held, why)
    since = waits_since([held.run.pk]).get(held.run.pk, held.run.created_at)
    assignment.snoozed_until, assignment.snoozed_since = until, since if until is not None else None
    assignment.save(update_fields=["snoozed_until", "snoozed_since"])
    event = _event("snoozed" if until is not None else "woken", actor, "", now)
    event.run, event.data = held.run, {"until": until.isoformat() if until is not None else ""}
    event.save()
    return assignment


@transaction.atomic
def signal(
    *, run_id: UUID | str, name: str, payload: Mapping[str, Any], actor: str = "engine", reason: str = ""
) -> bool:
    """Tell a run what happened outside. Early is kept, twice is heard once: False if it was heard before.

    The history names the signal, and behind it the `reason`, if somebody gave one.
    """
    held = _hold("signal", run_id)
    now = timezone.now()
    _, heard = Signal.objects.get_or_create(
        run=held.run, name=name, defaults={"payload": dict(payload), "actor": actor, "received_at": now}
    )
    if not heard:
        return False
    waits = any(r.outcome == Outcome.WAITING.value and r.wait_signal == name for r in held.records)
    changes = {"due_at": now} if waits and not _is(held.run, ENDED) else {}
    journal.amend(
        held.run, now=now, event=_event("signal", actor, f"{name}: {reason}" if reason else name, now), **changes
    )
    if changes:
        wake()
    return True


async def execute(*, run_id: UUID | str, patience: timedelta | None = None) -> SagaRun:
    """Drive this run here and now until it ends, needs a person or waits for the world. Returns it as it then is."""
    return await Driver(inline=True).drive_run(UUID(str(run_id)), patience=patience)


def _settle(
    act: str,
    outcome: Outcome,
    run_id: UUID | str,
    step: str,
    direction: Direction | str,
    actor: str,
    reason: str,
    data: dict[str, Any],
    result: dict[str, Any],
) -> SagaRun:
    held = _hold(act, run_id)
    run, way = held.run, Direction(direction)
    tries = [r for r in held.records if r.step == step and r.direction == way.value]
    if tries and tries[-1].outcome == outcome.value:
        return run
    _check_reason(act, held, reason)
    _check_possible(act, held, step, way)
    now = timezone.now()
    journal.record_by_hand(
        run,
        step=step,
        direction=way,
        number=(tries[-1].number if tries else 0) + 1,
        outcome=outcome,
        actor=actor,
        result=result,
        now=now,
    )
    event = _event({"skip": "skipped", "resolve": "resolved"}[act], actor, reason, now, step, way)
    event.data = data
    journal.amend(run, now=now, event=event, due_at=now, claims=0, **_back_to_work(held))
    wake()
    return run


def _hold(act: str, run_id: UUID | str) -> Held:
    """The run, locked until the transaction ends. Raises SagaRun.DoesNotExist, and ActRefused for one from a file."""
    held = journal.load(journal.locked(SagaRun.objects.filter(pk=run_id)).get())
    if held.run.imported_at is not None:
        raise _refused(act, held, IMPORTED)
    return held


def _is(run: SagaRun, statuses: frozenset[RunStatus]) -> bool:
    return RunStatus(run.status) in statuses


def _back_to_work(held: Held) -> dict[str, Any]:
    """The columns that take a run out of needs_attention again."""
    if held.run.status != RunStatus.NEEDS_ATTENTION.value:
        return {}
    back = RunStatus.COMPENSATING if held.run.turned_back_at is not None else RunStatus.RUNNING
    return {"status": back.value, "attention_reason": ""}


def _check_waits(act: str, held: Held) -> None:
    if held.run.status != RunStatus.NEEDS_ATTENTION.value:
        raise _refused(act, held, "only a run that waits for a person is looked after or put off")


def _check_reason(act: str, held: Held, reason: str) -> None:
    if not reason.strip():
        raise _refused(act, held, "it wants a reason")
    if len(reason) > LONGEST_REASON:
        raise _refused(act, held, f"the reason has {len(reason)} characters; {LONGEST_REASON} is the most")
    if "\0" in reason:
        raise _refused(act, held, "the reason holds a NUL character")


def _check_possible(act: str, held: Held, step: str, direction: Direction) -> None:
    if held.saga is None:
        raise _refused(act, held, "its definition is not installed here")
    known = {item.name for item in held.saga.steps}
    if step not in known:
        raise _refused(act, held, f"there is no step {step}; there are {', '.join(sorted(known))}")
    now = timezone.now()
    if act in possible_acts(held, now).of(step, direction):
        return
    if in_hand(held, now):
        raise _refused(act, held, "a worker is at it, and what is under way ends first")
    what = "the undo of " if direction is Direction.COMPENSATION else ""
    stand = progress(held.saga, held.history(), held.saga.step(step), direction, now).stand
    why = f"{what}{step} is {stand.name.lower().replace('_', ' ')}"
    if act == "skip" and direction is Direction.ACTION and held.saga.step(step).kind is not Kind.RETRIABLE:
        why = f"{step} is {held.saga.step(step).kind.value}; only a retriable step may be left out"
    raise _refused(act, held, why)


def _refused(act: str, held: Held, why: str) -> ActRefused:
    return ActRefused(act, held.run.status, why, possible_acts(held, timezone.now()).names())


def _event(
    kind: str, actor: str, reason: str, now: datetime, step: str = "", direction: Direction | None = None
) -> RunEvent:
    return RunEvent(
        kind=kind,
        actor=actor,
        reason=reason,
        step=step,
        direction=direction.value if direction else "",
        created_at=now,
    )
