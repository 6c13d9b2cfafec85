"""What people may do to a run. Each act is an event with its actor, refuses a state in which it makes no sense,
naming what is possible instead, and is harmless when it comes twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from sagas import journal, registry
from sagas.acts import possible_acts
from sagas.decide import Stand, progress, undo_order
from sagas.definition import Kind, Saga
from sagas.driver import Driver
from sagas.exceptions import ActRefused, DuplicateRun
from sagas.journal import Held
from sagas.models import RunEvent, SagaRun, Signal
from sagas.queue import wake
from sagas.states import DONE, ENDED, Direction, Outcome, RunStatus

LONGEST_REASON = 500


@transaction.atomic
def start(
    *, saga: Saga, business_key: str, input: Mapping[str, Any], actor: str = "engine", ring: bool = True
) -> SagaRun:
    """Store a run and ring for it, both or neither. The same key and input again: the run that is there.

    Raises DuplicateRun, naming the fields, if the key's run was started with another input. With `ring` off the
    caller drives it himself.
    """
    registry.get(saga.name, saga.version)
    merged = {**saga.defaults, **input}
    run = SagaRun.objects.filter(saga=saga.name, business_key=business_key).order_by("-created_at").first()
    if run is None:
        try:
            with transaction.atomic():
                run = journal.open_run(
                    saga=saga, business_key=business_key, input=merged, actor=actor, now=timezone.now()
                )
        except IntegrityError:  # the same key, started in the same moment
            run = SagaRun.objects.get(saga=saga.name, business_key=business_key)
        else:
            if ring:
                wake()
            return run
    differing = sorted(key for key in {*run.input, *merged} if run.input.get(key) != merged.get(key))
    if differing:
        raise DuplicateRun(saga.name, business_key, differing)
    return run


@transaction.atomic
def cancel(*, run_id: UUID | str, actor: str, reason: str) -> SagaRun:
    """Have everything undone: after the step under way, or, for a completed run, now. Twice is once.

    Raises ActRefused where it cannot be undone any more, with the reason.
    """
    held = _hold(run_id)
    run = held.run
    _check_reason("cancel", held, reason)
    if run.cancel_requested_at is not None or (run.turned_back_at is not None and not _is(run, ENDED)):
        return run
    if run.status in (RunStatus.COMPENSATED.value, RunStatus.ABANDONED.value):
        raise _refused("cancel", held, "it has ended, and nothing is left to undo")
    refusal = cancel_refusal(held)
    if refusal:
        raise _refused("cancel", held, refusal)
    now = timezone.now()
    changes: dict[str, Any] = {"cancel_requested_at": now, "cancel_reason": reason}
    if run.lease_until is None or _is(run, ENDED):
        changes["due_at"] = now
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


def cancel_refusal(held: Held) -> str:
    """Why the definition does not let this run be cancelled any more; empty: it does."""
    if held.saga is None:
        return "its definition is not installed here"
    if held.saga.refuse_cancel is None:
        return ""
    return held.saga.refuse_cancel(held.run.input, results_of(held), held.signals)


def results_of(held: Held) -> dict[str, Mapping[str, Any]]:
    """The done steps' results by step name."""
    return {
        record.step: record.result or {}
        for record in held.records
        if record.direction == Direction.ACTION.value and record.outcome in DONE
    }


@transaction.atomic
def retry(*, run_id: UUID | str, step: str, direction: Direction | str, actor: str, reason: str = "") -> SagaRun:
    """Try a failed or waiting attempt again now, with a fresh budget and the same key. Twice is once."""
    held = _hold(run_id)
    run, way = held.run, Direction(direction)
    place = f"{step}:{way.value}"
    last = max((r.number for r in held.records if r.step == step and r.direction == way.value), default=0)
    if last and run.fresh_from.get(place) == last and run.status != RunStatus.NEEDS_ATTENTION.value:
        return run  # asked for already, and not begun yet
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
    if not evidence.strip():
        held = _hold(run_id)
        raise _refused("resolve", held, "it wants evidence: the reference under which it was done")
    data = {"evidence": evidence}
    return _settle("resolve", Outcome.RESOLVED, run_id, step, direction, actor, reason, data, dict(result or {}))


@transaction.atomic
def abandon(*, run_id: UUID | str, actor: str, reason: str) -> SagaRun:
    """Give a run up that needs attention, leaving undone what is undone; the event lists it."""
    held = _hold(run_id)
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
        run, now=now, event=event, status=RunStatus.ABANDONED.value, ended_at=now, due_at=None, attention_reason=""
    )
    return run


def left_undone(held: Held, now: datetime) -> list[str]:
    """The steps whose effect stands although the run does not: what an abandoned run leaves behind."""
    if held.saga is None:
        return sorted(results_of(held))
    history = held.history()
    return [
        step.name
        for step in undo_order(held.saga, history)
        if progress(held.saga, history, step, Direction.COMPENSATION, now).stand is not Stand.DONE
    ]


@transaction.atomic
def signal(*, run_id: UUID | str, name: str, payload: Mapping[str, Any], actor: str = "engine") -> bool:
    """Tell a run what happened outside. Early is kept, twice is heard once: False if it was heard before."""
    held = _hold(run_id)
    now = timezone.now()
    _, heard = Signal.objects.get_or_create(
        run=held.run, name=name, defaults={"payload": dict(payload), "actor": actor, "received_at": now}
    )
    if not heard:
        return False
    waits = any(r.outcome == Outcome.WAITING.value and r.wait_signal == name for r in held.records)
    changes = {"due_at": now} if waits and not _is(held.run, ENDED) else {}
    journal.amend(held.run, now=now, event=_event("signal", actor, name, now), **changes)
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
    held = _hold(run_id)
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


def _hold(run_id: UUID | str) -> Held:
    """The run, locked until the caller's transaction ends. Raises SagaRun.DoesNotExist."""
    return journal.load(journal.locked(SagaRun.objects.filter(pk=run_id)).get())


def _is(run: SagaRun, statuses: frozenset[RunStatus]) -> bool:
    return RunStatus(run.status) in statuses


def _back_to_work(held: Held) -> dict[str, Any]:
    """The columns that take a run out of needs_attention again."""
    if held.run.status != RunStatus.NEEDS_ATTENTION.value:
        return {}
    back = RunStatus.COMPENSATING if held.run.turned_back_at is not None else RunStatus.RUNNING
    return {"status": back.value, "attention_reason": ""}


def _check_reason(act: str, held: Held, reason: str) -> None:
    if not reason.strip():
        raise _refused(act, held, "it wants a reason")
    if len(reason) > LONGEST_REASON:
        raise _refused(act, held, f"the reason has {len(reason)} characters; {LONGEST_REASON} is the most")


def _check_possible(act: str, held: Held, step: str, direction: Direction) -> None:
    if held.saga is None:
        raise _refused(act, held, "its definition is not installed here")
    known = {item.name for item in held.saga.steps}
    if step not in known:
        raise _refused(act, held, f"there is no step {step}; there are {', '.join(sorted(known))}")
    acts = possible_acts(held, timezone.now())
    if act in acts.of(step, direction):
        return
    what = "the undo of " if direction is Direction.COMPENSATION else ""
    stand = progress(held.saga, held.history(), held.saga.step(step), direction, timezone.now()).stand
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
