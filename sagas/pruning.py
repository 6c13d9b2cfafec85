"""Ended runs that are old enough give up their attempts and events, to a file or for good. The run itself stays.

It stays because its business key must: an order of long ago that is sent again is the order that was, not a new one.
What was settled or given up by hand stays whole, since the audit asks who answers for it, and what an abandoned run
left undone stands nowhere else. Nor does a run lose its history while somebody may still want it undone: with a
refusal of its own a saga says when that is over (an order, when its parcel has left).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import IO
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from sagas import journal
from sagas.acts import cancel_refusal
from sagas.export import exported
from sagas.models import Barrier, RunEvent, SagaRun, Signal, StepRecord, earliest_run_id
from sagas.states import ENDED, Outcome, RunStatus

LEAST = timedelta(days=31)
"""The overview looks back for a month."""
BY_HAND = (Outcome.SKIPPED.value, Outcome.RESOLVED.value)


def prunable(*, before: datetime, keep: Collection[RunStatus] = ()) -> QuerySet[SagaRun]:
    """Runs that ended before then, have their history, and were not settled or given up by hand; the oldest first."""
    wanted = [status for status in ENDED if status not in (*keep, RunStatus.ABANDONED)]
    by_hand = StepRecord.objects.filter(run=OuterRef("pk"), outcome__in=BY_HAND)
    runs = SagaRun.objects.in_states(*wanted).filter(pruned_at__isnull=True, ended_at__lt=before)
    return runs.filter(pk__lt=earliest_run_id(before)).exclude(Exists(by_hand)).order_by("pk")


def has_way_back(run: SagaRun) -> bool:
    """Whether it is completed and could still be undone, of a saga that says when that is over."""
    if run.status != RunStatus.COMPLETED.value:
        return False
    held = journal.load(run)
    return held.saga is not None and held.saga.refuse_cancel is not None and not cancel_refusal(held)


def prune(
    runs: QuerySet[SagaRun], *, now: datetime, batch: int, archive: IO[str] | None, even_undoable: bool = False
) -> Iterator[int]:
    """Take their histories away, a batch at a time; how many each time. Stopped anywhere, it goes on from there.

    With `archive` each run's whole export is a line of it, on the disk before anything is deleted. With `even_undoable`
    also of runs that have a way back, which is closed by it.
    """
    last: UUID | None = None
    while True:
        with transaction.atomic():
            rest = runs.filter(pk__gt=last) if last else runs
            found = list(journal.locked(rest, skip=True)[:batch])
            if not found:
                return
            last = found[-1].pk
            ids = [run.pk for run in found if even_undoable or not has_way_back(run)]
            if archive is not None:
                for pk in ids:
                    archive.write(json.dumps(exported(pk), ensure_ascii=False, default=str) + "\n")
                archive.flush()
                os.fsync(archive.fileno())
            keys = list(StepRecord.objects.filter(run__in=ids).values_list("key", flat=True).distinct())
            Barrier.objects.filter(key__in=keys).delete()
            for model in (StepRecord, RunEvent, Signal):
                model._default_manager.filter(run__in=ids).delete()
            SagaRun.objects.filter(pk__in=ids).update(pruned_at=now)
        yield len(ids)
