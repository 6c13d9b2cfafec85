"""The only writer of runs and records: open, claim, commit many at once, amend. Every write is fenced.

A worker holds a run by its lease and its fence. Claiming raises the fence, so whoever held the run before finds
that its writes miss, and lets go.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from sagas import points, registry, run_log, traces
from sagas.bulk import insert_many, insert_missing, lock_many, update_many
from sagas.decide import Attempt, Begin, Decision, Failure, History, decide, retry_at
from sagas.definition import Saga, step_key
from sagas.exceptions import UnknownSaga
from sagas.models import RunEvent, SagaRun, Signal, StepRecord
from sagas.notices import STEP_DONE, Notice, tell
from sagas.retry import full_jitter
from sagas.states import ENDED, RUN_MOVES, WORKER_LOST, Direction, Outcome, RunStatus

log = logging.getLogger(__name__)

RUN_FIELDS = (
    "status",
    "current_step",
    "due_at",
    "lease_owner",
    "lease_until",
    "fence",
    "claims",
    "turned_back_at",
    "failure_step",
    "failure_code",
    "failure_message",
    "attention_reason",
    "updated_at",
    "ended_at",
)
"""What a worker writes of a run."""

SERVICE_FIELDS = ("cancel_requested_at", "cancel_reason", "fresh_from")
"""What people may change of a run while a worker holds it; read afresh at each commit."""

SUSPECT_AFTER = 2
"""Claims without anything recorded, after which a run is driven alone: should it kill its worker, it takes no
other run along, and the others are not counted as killers with it."""

LONGEST_MESSAGE = 2000
LONGEST_RETRY_AFTER = timedelta(days=1)

RECORD_FIELDS = (
    "outcome",
    "ended_at",
    "retry_at",
    "wait_signal",
    "settled",
    "result",
    "error_code",
    "error_message",
    "provider",
    "provider_id",
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How an attempt ended, as the driver saw it."""

    outcome: Outcome
    result: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""
    provider: str = ""
    provider_id: str = ""
    retry_after: timedelta | None = None
    settled: bool = False
    wait_signal: str = ""
    wait_until: datetime | None = None


@dataclass(kw_only=True)
class Held:
    """A run in a worker's hands: its row, its definition and everything recorded of it."""

    run: SagaRun
    saga: Saga | None
    records: list[StepRecord]
    signals: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    in_flight: set[tuple[str, Direction]] = field(default_factory=set)
    begun: list[tuple[Begin, StepRecord]] = field(default_factory=list)
    """What the last write told the worker to begin."""

    def history(self) -> History:
        return history_of(self.run, self.records, self.signals, frozenset(self.in_flight))

    def is_suspect(self) -> bool:
        return self.run.claims > SUSPECT_AFTER

    def same(self, record: StepRecord) -> StepRecord:
        """Our row of that attempt: after a reload it is another object."""
        wanted = (record.step, record.direction, record.number)
        return next(r for r in self.records if (r.step, r.direction, r.number) == wanted)


def history_of(
    run: SagaRun,
    records: Iterable[StepRecord],
    signals: Mapping[str, Mapping[str, Any]],
    in_flight: frozenset[tuple[str, Direction]] = frozenset(),
) -> History:
    """The rows as `decide` reads them."""
    return History(
        attempts=tuple(_attempt(record) for record in records),
        turned_back=run.turned_back_at is not None,
        cancel_requested=run.cancel_requested_at is not None,
        cancel_reason=run.cancel_reason,
        deadline_at=run.deadline_at,
        signals=signals,
        fresh_from=run.fresh_from,
        in_flight=in_flight,
    )


def _attempt(record: StepRecord) -> Attempt:
    return Attempt(
        step=record.step,
        direction=Direction(record.direction),
        number=record.number,
        outcome=Outcome(record.outcome) if record.outcome else None,
        started_at=record.started_at,
        retry_at=record.retry_at,
        wait_signal=record.wait_signal,
        settled=record.settled,
        error_code=record.error_code,
        error_message=record.error_message,
    )


def open_run(*, saga: Saga, business_key: str, input: Mapping[str, Any], actor: str, now: datetime) -> SagaRun | None:
    """Store a new run, due at once, in the caller's transaction; None if the key has a live run."""
    run = SagaRun(
        saga=saga.name,
        version=saga.version,
        business_key=business_key,
        input=dict(input),
        due_at=now,
        deadline_at=now + saga.deadline if saga.deadline else None,
        created_at=now,
        updated_at=now,
        traceparent=traces.kept(saga.name),
    )
    if not insert_missing(run):
        return None
    traces.about(run.pk)
    started = RunEvent(run=run, kind="started", actor=actor, created_at=now)
    insert_many(RunEvent, [started])
    tell([_notice(started)])
    return run


def due(now: datetime) -> QuerySet[SagaRun]:
    """Runs that are due and held by nobody, the longest due first."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    return SagaRun.objects.filter(free, due_at__lte=now).order_by("due_at")


def next_due() -> datetime | None:
    """The earliest moment at which an unheld run is due; None if none is."""
    waiting = SagaRun.objects.filter(lease_until__isnull=True, due_at__isnull=False)
    return waiting.order_by("due_at").values_list("due_at", flat=True).first()


def is_held_after(moment: datetime) -> bool:
    """Whether some run's lease goes beyond `moment`."""
    return SagaRun.objects.filter(due_at__isnull=False, lease_until__gt=moment).exists()


def locked(runs: QuerySet[SagaRun], *, skip: bool = False) -> QuerySet[SagaRun]:
    """`runs` under row locks where the database has them; SQLite's transactions are immediate and need none."""
    if connection.features.has_select_for_update:
        return runs.select_for_update(skip_locked=skip and connection.features.has_select_for_update_skip_locked)
    return runs


def claim(
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
    limit: int,
    max_claims: int,
    run_id: UUID | None = None,
    alone: bool = False,
) -> list[Held]:
    """Take up to `limit` due runs: one transaction for leases, fences, lost attempts and what begins next.

    Returns only runs in which something begins; of the others the new state is stored and the lease given back.
    A suspect is taken only by a worker that is `alone`, with nothing else in hand, and then by itself.
    """
    wanted = due(now)
    if run_id is not None:
        wanted = wanted.filter(pk=run_id)
    if not wanted.exists():  # no write lock for a look that finds nothing
        return []
    points.reach("before_claim")
    with transaction.atomic():
        runs = list(locked(wanted, skip=True)[:limit])
        if run_id is None:
            runs = _apart(runs, alone=alone)
        held = _load(runs)
        closed: list[StepRecord] = []
        events: list[RunEvent] = []
        for one in held:
            one.run.fence += 1
            one.run.claims += 1
            one.run.lease_owner = worker
            one.run.lease_until = now + lease
            closed += _close_lost(one.records, now)
            _plan(one, worker=worker, now=now, lease=lease, max_claims=max_claims, events=events)
        _write(held, closed, events, raised=True)
    points.reach("after_claim")
    return [one for one in held if one.begun]


def _apart(runs: list[SagaRun], *, alone: bool) -> list[SagaRun]:
    suspects = [run for run in runs if run.claims >= SUSPECT_AFTER]
    if suspects and alone:
        return suspects[:1]
    return [run for run in runs if run.claims < SUSPECT_AFTER]


def commit(
    finished: Sequence[tuple[Held, StepRecord, Ended]],
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
    begin: bool = True,
    afresh: bool = False,
) -> list[Held]:
    """Record how attempts ended and what follows, all in one transaction. Returns the runs still held.

    A run whose fence was raised meanwhile is left alone: another worker owns it, and nothing of ours is written.
    Without `begin` nothing new is begun, and the runs are given back for somebody else. With `afresh` an earlier
    try of the same failed midway: what it left in memory is not trusted, and what it wrote is not written again.
    """
    by_run: dict[UUID, list[tuple[StepRecord, Ended]]] = defaultdict(list)
    holders: dict[UUID, Held] = {}
    for one, record, ended in finished:
        by_run[one.run.pk].append((record, ended))
        holders[one.run.pk] = one
    points.reach("before_commit")
    with transaction.atomic():
        fresh = lock_many(SagaRun, holders, ("fence", "lease_owner", *SERVICE_FIELDS))
        if afresh:
            _reload(holders, worker)
        waiting = {one.run.pk for one, _, ended in finished if ended.outcome is Outcome.WAITING}
        signals = _signals(pk for pk, one in holders.items() if pk in waiting or _has_waited(one.records))
        still: list[Held] = []
        closed: list[StepRecord] = []
        events: list[RunEvent] = []
        for pk, one in holders.items():
            fence, owner, *changed = fresh.get(pk, (None, ""))
            if fence != one.run.fence or owner != worker:
                continue
            ends = [(one.same(record), ended) for record, ended in by_run[pk]]
            if any(record.outcome for record, _ in ends):  # the earlier try was written, only its answer was lost
                continue
            for name, value in zip(SERVICE_FIELDS, changed, strict=True):
                setattr(one.run, name, value)
            one.run.claims = 0
            one.signals = signals.get(pk, {})
            for record, ended in ends:
                _close(one, record, ended, now)
                closed.append(record)
            _plan(one, worker=worker, now=now, lease=lease, max_claims=0, events=events, begin=begin)
            still.append(one)
        _write(still, closed, events)
    points.reach("after_commit")
    return still


def _reload(holders: Mapping[UUID, Held], worker: str) -> None:
    for loaded in _load(list(SagaRun.objects.filter(pk__in=list(holders)))):
        one = holders[loaded.run.pk]
        if loaded.run.fence == one.run.fence:  # or it is another worker's, and ours is to be told so
            one.run = loaded.run
        one.records, one.begun = loaded.records, []
        one.in_flight = {(r.step, Direction(r.direction)) for r in one.records if not r.outcome and r.worker == worker}


def renew(*, worker: str, run_ids: Iterable[UUID], now: datetime, lease: timedelta) -> None:
    """Hold the runs a lease longer. A run that changed hands has another owner and is not touched."""
    SagaRun.objects.filter(pk__in=list(run_ids), lease_owner=worker, lease_until__gte=now).update(
        lease_until=now + lease
    )


def amend(run: SagaRun, *, now: datetime, event: RunEvent, **changes: Any) -> SagaRun:
    """Store a person's act on a run that the caller has locked and checked: the changed columns and the event.

    A change of status must be in the table of moves and, being a change of hands, raises the fence.
    """
    status = changes.get("status")
    if status is not None and status != run.status:
        if RunStatus(status) not in RUN_MOVES[RunStatus(run.status)]:
            raise ValueError(f"Run {run.pk} cannot go from {run.status} to {status}.")
        changes["fence"] = run.fence + 1
    held = SagaRun.objects.filter(pk=run.pk, fence=run.fence, status=run.status)
    if held.update(updated_at=now, **changes) != 1:
        raise RuntimeError(f"Run {run.pk} changed hands under a lock: the database does not lock rows as it should.")
    for name, value in changes.items():
        setattr(run, name, value)
    event.run = run
    event.save(force_insert=True)
    tell([_notice(event)])
    return run


def record_by_hand(
    run: SagaRun,
    *,
    step: str,
    direction: Direction,
    number: int,
    outcome: Outcome,
    actor: str,
    result: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Add the record of what a person settled: begun and ended in the same moment."""
    record = StepRecord.objects.create(
        run=run,
        step=step,
        direction=direction.value,
        number=number,
        outcome=outcome.value,
        key=step_key(str(run.pk), step, direction),
        started_by=actor,
        fence=run.fence,
        started_at=now,
        ended_at=now,
        result=dict(result) if result is not None else None,
    )
    if outcome is Outcome.RESOLVED:
        tell([_done(run, record)])


def waits_for(run: SagaRun, now: datetime) -> str:
    """What an unheld run waits for: "signal", "date", or "retry"; empty: for nothing, it is due."""
    if run.due_at is None or run.due_at <= now:
        return ""
    held = load(run)
    latest = {(record.step, record.direction): record for record in held.records}
    waits = [
        r for r in latest.values() if r.retry_at and r.retry_at >= run.due_at and r.wait_signal not in held.signals
    ]
    if not waits or any(record.outcome != Outcome.WAITING.value for record in waits):
        return "retry"
    # The deadline may come before the end of the wait; what it waits for is the same.
    return "signal" if any(record.wait_signal for record in waits) else "date"


def load(run: SagaRun) -> Held:
    """A run with its history, for reading."""
    held = _load([run])[0]
    held.signals = _signals([run.pk]).get(run.pk, {})  # also those that nobody has waited for yet
    return held


def _load(runs: Sequence[SagaRun]) -> list[Held]:
    records: dict[UUID, list[StepRecord]] = defaultdict(list)
    begun = [run.pk for run in runs if run.fence]  # one that nobody has held yet has none
    if begun:
        for record in StepRecord.objects.filter(run__in=begun).order_by("id"):
            records[record.run_id].append(record)
    signals = _signals(pk for pk, rows in records.items() if _has_waited(rows))
    return [
        Held(run=run, saga=_definition(run), records=records[run.pk], signals=signals.get(run.pk, {})) for run in runs
    ]


def _definition(run: SagaRun) -> Saga | None:
    try:
        return registry.get(run.saga, run.version)
    except UnknownSaga:
        return None


def _has_waited(records: Iterable[StepRecord]) -> bool:
    """Only who has waited hears: of the others nobody asks what signals came."""
    return any(record.outcome == Outcome.WAITING.value for record in records)


def _signals(run_ids: Iterable[UUID]) -> dict[UUID, dict[str, Mapping[str, Any]]]:
    heard: dict[UUID, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    wanted = list(run_ids)
    if wanted:
        for run_id, name, payload in Signal.objects.filter(run__in=wanted).values_list("run_id", "name", "payload"):
            heard[run_id][name] = payload
    return heard


def _close_lost(records: Iterable[StepRecord], now: datetime) -> list[StepRecord]:
    """An attempt found begun and not ended: its worker was lost, and it may have happened."""
    lost = [record for record in records if not record.outcome]
    for record in lost:
        record.outcome = Outcome.UNKNOWN.value
        record.ended_at = max(now, record.started_at)
        record.retry_at = now
        record.error_code = WORKER_LOST
        record.error_message = "The worker was lost before the outcome was recorded."
    return lost


def _close(one: Held, record: StepRecord, ended: Ended, now: datetime) -> None:
    direction = Direction(record.direction)
    if ended.outcome is Outcome.WAITING:
        record.retry_at = ended.wait_until
    elif ended.outcome in (Outcome.UNAVAILABLE, Outcome.UNKNOWN) and one.saga is not None:
        record.retry_at = retry_at(
            one.saga, one.history(), _attempt(record), now=now, draw=full_jitter(), retry_after=_bounded(ended)
        )
    one.in_flight.discard((record.step, direction))
    record.outcome = ended.outcome.value
    record.ended_at = max(now, record.started_at)
    record.wait_signal = ended.wait_signal
    record.settled = ended.settled
    record.result = dict(ended.result) if ended.result is not None else None
    record.error_code = _clean(ended.code, 100)
    record.error_message = _clean(ended.message, LONGEST_MESSAGE)
    record.provider = _clean(ended.provider, 100)
    record.provider_id = _clean(ended.provider_id, 200)


def _clean(text: str, longest: int) -> str:
    """What every database can store: an outside system's words are not to fail the commit that many runs share."""
    return text.replace("\0", "").encode(errors="replace").decode()[:longest]


def _bounded(ended: Ended) -> timedelta | None:
    if ended.retry_after is None:
        return None
    return min(max(ended.retry_after, timedelta(0)), LONGEST_RETRY_AFTER)


def _plan(
    one: Held,
    *,
    worker: str,
    now: datetime,
    lease: timedelta,
    max_claims: int,
    events: list[RunEvent],
    begin: bool = True,
) -> None:
    """Ask for the next move and put it into the rows, in memory."""
    run = one.run
    decision = _decision(one, now, max_claims)
    one.begun = []
    if decision.begin and not begin:
        decision = replace(decision, begin=(), due_at=now)
    for beginning in decision.begin:
        record = StepRecord(
            run=run,
            step=beginning.step.name,
            direction=beginning.direction.value,
            number=beginning.number,
            key=step_key(str(run.pk), beginning.step.name, beginning.direction),
            worker=worker,
            fence=run.fence,
            started_at=now,
        )
        one.begun.append((beginning, record))
        one.records.append(record)
        one.in_flight.add((beginning.step.name, beginning.direction))
    _move(run, decision, now, events)
    if one.in_flight:
        # Due as soon as the lease is over: that is all there is to recovery. It was due when it was claimed and stays
        # so: an indexed column that does not change lets PostgreSQL write the row in place. One that was lost with a
        # worker goes to the end of the line.
        if run.claims > 1:
            run.due_at = now
        run.lease_until = now + lease
    else:
        run.due_at = decision.due_at
        run.lease_owner, run.lease_until = "", None
        if decision.status is not RunStatus.NEEDS_ATTENTION:
            run.claims = 0  # it was looked at, and nobody died of it


def _decision(one: Held, now: datetime, max_claims: int) -> Decision:
    if one.saga is None:
        return Decision(
            status=RunStatus.NEEDS_ATTENTION,
            attention=f"No definition {one.run.saga} version {one.run.version} is installed here.",
            current_step=one.run.current_step,
        )
    if max_claims and one.run.claims > max_claims:
        return Decision(
            status=RunStatus.NEEDS_ATTENTION,
            attention=f"Taken up {one.run.claims - 1} times and nothing came of it: {one.run.current_step} may be "
            "killing its workers.",
            current_step=one.run.current_step,
        )
    try:
        return decide(one.saga, one.history(), now)
    except Exception as error:
        # One run that cannot be decided must not keep the others of its batch from going on.
        log.exception("Run %s cannot be decided", one.run.pk, extra=run_log.of(one.run))
        return Decision(
            status=RunStatus.NEEDS_ATTENTION,
            attention=f"The next move cannot be told: {error}",
            current_step=one.run.current_step,
        )


def _move(run: SagaRun, decision: Decision, now: datetime, events: list[RunEvent]) -> None:
    if decision.failure is not None and run.turned_back_at is None:
        failure: Failure = decision.failure
        run.turned_back_at = now
        run.failure_step, run.failure_code = failure.step, failure.code[:100]
        run.failure_message = failure.message
        events.append(
            RunEvent(
                run=run,
                kind="turned_back",
                step=failure.step,
                reason=failure.message,
                data={"code": failure.code},
                created_at=now,
            )
        )
    if decision.status.value != run.status:
        if decision.status not in RUN_MOVES[RunStatus(run.status)]:
            raise ValueError(f"Run {run.pk} cannot go from {run.status} to {decision.status}.")
        if decision.status in ENDED or decision.status is RunStatus.NEEDS_ATTENTION:
            events.append(
                RunEvent(
                    run=run,
                    kind=decision.status.value,
                    step=decision.current_step,
                    reason=decision.attention,
                    created_at=now,
                )
            )
        run.status = decision.status.value
    run.attention_reason = decision.attention
    run.current_step = decision.current_step
    run.updated_at = now
    run.ended_at = now if decision.status in ENDED else None


def _write(
    held: Sequence[Held], closed: Sequence[StepRecord], events: Sequence[RunEvent], *, raised: bool = False
) -> None:
    """The batch's statements: a fixed number, however many runs. `raised`: the fence is one above the stored one."""
    if not held:
        return
    runs = [one.run for one in held]
    update_many(StepRecord, closed, RECORD_FIELDS, guard="outcome", guarded=lambda _: "")
    # Before the runs themselves: what is added names a row that is locked, and not yet a new one to be locked as well.
    insert_many(StepRecord, [record for one in held for _, record in one.begun])
    insert_many(RunEvent, events)
    update_many(SagaRun, runs, RUN_FIELDS, guard="fence", guarded=lambda run: run.fence - 1 if raised else run.fence)
    of = {run.pk: run for run in runs}
    done = [_done(of[record.run_id], record) for record in closed if record.outcome == Outcome.SUCCEEDED.value]
    tell([*done, *(_notice(event) for event in events)])


def _notice(event: RunEvent) -> Notice:
    return Notice(run=event.run, kind=event.kind, step=event.step, direction=event.direction, at=event.created_at)


def _done(run: SagaRun, record: StepRecord) -> Notice:
    at = record.ended_at or record.started_at
    return Notice(run=run, kind=STEP_DONE, step=record.step, direction=record.direction, at=at, attempt=record.number)
