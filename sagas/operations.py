"""One act on many runs: stored first, then done run by run in the background, each with what came of it.

The queue only rings, as for runs: whoever answers takes up every operation that is open and in nobody's hands. A run
is acted on and its item written in one transaction, so that a crash in the middle repeats nothing.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from sagas import points, queue, selectors, services
from sagas.exceptions import ActRefused, InvalidOperation, SagaError
from sagas.models import BulkItem, BulkOperation, SagaRun
from sagas.states import BulkState, ItemState

log = logging.getLogger(__name__)

ACTS = ("retry", "cancel", "assign")
MOST = 10_000
"""Runs of one operation: a list that somebody can still look through."""
FASTEST = 100
LEASE = timedelta(seconds=60)
DRIVE_SECONDS = 20.0
"""How long one wake-up works at operations; the queue ends what takes longer than its timeout."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A run, and the step and direction that the act is about; without them, all that the act fits."""

    run_id: UUID
    step: str = ""
    direction: str = ""


@transaction.atomic
def begin(
    *, act: str, targets: Iterable[Target], about: str, actor: str, reason: str, per_second: int = 20
) -> BulkOperation:
    """Store the operation with its runs, and ring. Raises InvalidOperation; then nothing is stored."""
    chosen = list({target.run_id: target for target in targets}.values())
    check(act=act, count=len(chosen), reason=reason, per_second=per_second)
    operation = BulkOperation.objects.create(
        act=act, about=about[:300], actor=actor, reason=reason, per_second=per_second, created_at=timezone.now()
    )
    BulkItem.objects.bulk_create(
        [BulkItem(operation=operation, run_id=t.run_id, step=t.step, direction=t.direction) for t in chosen],
        batch_size=1000,
    )
    queue.wake(queue.OPERATE)
    return operation


def check(*, act: str, count: int, reason: str, per_second: int = 20) -> None:
    """Raises InvalidOperation, naming what is wrong and the way out."""
    if act not in ACTS:
        raise InvalidOperation("act", f"There is no act {act[:40]!r} on many runs; there are {', '.join(ACTS)}.")
    if not count:
        raise InvalidOperation("runs", "No run was chosen, or none fits any more.")
    if count > MOST:
        raise InvalidOperation("runs", f"{count} runs are meant; {MOST} are the most. Narrow the filter.")
    if not 1 <= per_second <= FASTEST:
        raise InvalidOperation("max_per_second", f"{per_second} a second are not possible; 1 to {FASTEST} are.")
    if not reason.strip():
        raise InvalidOperation("reason", "A reason is needed: it stands in every run's history.")
    if len(reason) > services.LONGEST_REASON or "\0" in reason:
        raise InvalidOperation("reason", f"The reason is text of at most {services.LONGEST_REASON} characters.")


def digest_of(run_ids: Iterable[UUID]) -> str:
    """What tells a selection from another one: others than were shown are not acted on, be they as many."""
    return hashlib.sha256("".join(sorted(str(run_id) for run_id in run_ids)).encode()).hexdigest()[:20]


def stop(*, operation_id: UUID) -> BulkOperation:
    """Leave the runs that are still pending as they are. One that has ended stays so."""
    BulkOperation.objects.filter(pk=operation_id, state=BulkState.OPEN.value).update(
        state=BulkState.STOPPED.value, ended_at=timezone.now()
    )
    return BulkOperation.objects.get(pk=operation_id)


@transaction.atomic
def resume(*, operation_id: UUID) -> BulkOperation:
    """Go on with the runs that are still pending."""
    stopped = BulkOperation.objects.filter(pk=operation_id, state=BulkState.STOPPED.value)
    if stopped.update(state=BulkState.OPEN.value, ended_at=None):
        queue.wake(queue.OPERATE)
    return BulkOperation.objects.get(pk=operation_id)


def counts(operation: BulkOperation) -> Mapping[str, int]:
    """Items by state; a state that none is in counts 0."""
    rows = BulkItem.objects.filter(operation=operation).order_by().values_list("state").annotate(count=Count("id"))
    found = dict(rows)
    return {state.value: found.get(state.value, 0) for state in ItemState}


def items(operation: BulkOperation) -> QuerySet[BulkItem]:
    """Every run of it, in the order in which they are taken."""
    return BulkItem.objects.filter(operation=operation).select_related("run").order_by("id")


def work_off() -> int:
    """Take up every open operation that nobody has in hand; how many runs were acted on. What the queue calls."""
    until = time.monotonic() + DRIVE_SECONDS
    acted = 0
    for pk in list(queue.waiting_operations().order_by("pk").values_list("pk", flat=True)):
        acted += _carry_on(pk, until)
    if queue.waiting_operations().exists() and not queue.is_told_to_stop():
        queue.wake(queue.OPERATE)
    return acted


def _carry_on(pk: UUID, until: float) -> int:
    if not queue.waiting_operations().filter(pk=pk).update(lease_until=timezone.now() + LEASE):
        return 0  # somebody was quicker
    acted = 0
    try:
        while time.monotonic() < until and not queue.is_told_to_stop():
            began = time.monotonic()
            operation = BulkOperation.objects.get(pk=pk)
            if operation.state != BulkState.OPEN.value or not _next(operation):
                break
            acted += 1
            BulkOperation.objects.filter(pk=pk).update(lease_until=timezone.now() + LEASE)
            time.sleep(max(1 / operation.per_second - (time.monotonic() - began), 0))
    finally:
        _let_go(pk)
    return acted


@transaction.atomic
def _next(operation: BulkOperation) -> bool:
    """Act on the first run that is still pending; False: none is."""
    pending = BulkItem.objects.filter(operation=operation, state=ItemState.PENDING.value).order_by("id")
    if connection.features.has_select_for_update:
        pending = pending.select_for_update()
    item = pending.first()
    if item is None:
        return False
    try:
        with transaction.atomic():
            note = _act(operation, item)
    except ActRefused as error:
        item.state, item.note = ItemState.REFUSED.value, error.reason
    except (SagaError, SagaRun.DoesNotExist) as error:
        item.state, item.note = ItemState.FAILED.value, str(error)
    except Exception:
        # One run that cannot be acted on must not keep the others waiting for ever.
        log.exception("%s of run %s failed", operation.act, item.run_id)
        item.state, item.note = ItemState.FAILED.value, "It broke; the log says how. Nothing was changed."
    else:
        item.state, item.note = ItemState.DONE.value, note
    points.reach("after_bulk_act")
    item.done_at = timezone.now()
    item.save(update_fields=["state", "note", "done_at"])
    return True


def _act(operation: BulkOperation, item: BulkItem) -> str:
    """What was done, in words."""
    actor, reason = operation.actor, operation.reason
    if operation.act == "cancel":
        services.cancel(run_id=item.run_id, actor=actor, reason=reason)
        return "is being undone"
    if operation.act == "assign":
        services.assign(run_id=item.run_id, owner=actor, actor=actor)
        return f"now looked after by {actor}"
    places = [(item.step, item.direction)] if item.step else selectors.retriable(selectors.run_view(item.run_id))
    if not places:
        run = SagaRun.objects.get(pk=item.run_id)
        raise ActRefused("retry", run.status, "nothing of it has failed or waits for another try")
    for step, direction in places:
        services.retry(run_id=item.run_id, step=step, direction=direction, actor=actor, reason=reason)
    return "is tried again"


def _let_go(pk: UUID) -> None:
    with transaction.atomic():
        BulkOperation.objects.filter(pk=pk).update(lease_until=None)
        if not BulkItem.objects.filter(operation=pk, state=ItemState.PENDING.value).exists():
            open_ones = BulkOperation.objects.filter(pk=pk, state=BulkState.OPEN.value)
            open_ones.update(state=BulkState.ENDED.value, ended_at=timezone.now())


def recent(count: int = 50) -> list[BulkOperation]:
    """The newest operations, newest first, each with `pending`, the number of its runs that wait."""
    pending = Count("items", filter=Q(items__state=ItemState.PENDING.value))
    return list(BulkOperation.objects.annotate(pending=pending, of=Count("items")).order_by("-id")[:count])
