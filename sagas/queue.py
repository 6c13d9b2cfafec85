"""The doorbell: the only module that knows django-q2. The rows are the truth; a wake-up only says "look"."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django_q.brokers import Broker, get_broker
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule
from django_q.signals import post_execute_in_worker, pre_enqueue, pre_execute
from django_q.tasks import async_task

from sagas import chores, counting, heartbeats, journal, tallies, traces
from sagas.driver import Driver, Limits
from sagas.models import BulkOperation, StepRecord
from sagas.states import BulkState
from sagas.threads import threads

log = logging.getLogger(__name__)

DRIVE = "sagas.queue.drive"
SWEEP = "sagas.queue.sweep"
SWEEP_NAME = "saga sweep"
OPERATE = "sagas.operations.work_off"
STOP_FLAG = "SAGA_STOP_FLAG"
"""The setting that names a file; once it is there, drives finish what is under way and end."""
CLUSTER: str = Conf.CLUSTER_NAME
"""Which queue workers of this installation work for."""
UNWATCHED = "without sagaworker"
"""Clusters that nobody watches are seen by the sweep that they run, each minute, and told as one."""
UNWATCHED_LASTS = timedelta(seconds=150)
LAST_SECONDS = 5
"""What a drive leaves between its own end and the queue's timeout."""
MANY = 20

_is_unheard = False
_at_work = ExitStack()
"""The span of the task that this worker is at, where there is one: a worker is at one task at a time."""


def rings_in_transaction() -> bool:
    """Whether the wake-up is a row in the caller's own database, and so commits or rolls back with its work."""
    return bool(Conf.ORM) and Conf.ORM == "default"


@contextmanager
def unheard() -> Iterator[None]:
    """Nobody is rung for: what is done meanwhile is in a database that no cluster looks at."""
    global _is_unheard
    before, _is_unheard = _is_unheard, True
    try:
        yield
    finally:
        _is_unheard = before


def wake(what: str = DRIVE) -> None:
    """Ring: with the caller's transaction on the ORM broker, after its commit on any other."""
    if _is_unheard:
        return
    if rings_in_transaction():
        _ring(what)
    else:
        transaction.on_commit(partial(_ring_safely, what))


def _ring(what: str) -> None:
    # A broker made anew opens its connection anew, which took longer than all the rest of placing a run.
    broker = None if Conf.ORM else _broker()
    async_task(what, group="saga", save=False, ack_failure=True, broker=broker)


@cache
def _broker() -> Broker:
    return get_broker()


def _ring_safely(what: str = DRIVE) -> None:
    """The order is stored: a broker that is away must not fail it. The sweep finds what nobody was told of."""
    try:
        _ring(what)
    except Exception:
        log.exception("The queue took no wake-up; the run waits for the next sweep.")


def drive() -> int:
    """Take up due runs until nothing is due soon; how many were taken up. Ends well before the queue's timeout."""
    seconds = settings.SAGA_DRIVE_SECONDS
    limits = Limits.from_settings()
    if Conf.TIMEOUT is not None:
        limits.grace = timedelta(seconds=max(Conf.TIMEOUT - seconds - LAST_SECONDS, 1))
    taken: int = async_to_sync(partial(Driver(limits=limits).drive, seconds=seconds, stop=is_told_to_stop))()
    if threads().stuck >= settings.SAGA_THREADS:
        # The queue starts another process in place of this one, which gives back what they hold.
        log.error("%d plain functions have never returned; this worker ends and makes room.", threads().stuck)
        sys.exit(1)
    counting.write_down_when_due()
    # Not while stopping: this very cluster would hear it, and again, and never come to an end.
    if not is_told_to_stop() and journal.due(timezone.now()).exists():
        _ring_safely()
    return taken


def sweep() -> int:
    """What clusters do each minute by themselves: the last net, and the only sign of life of those nobody watches."""
    waiting = ring_for_due()
    if not settings.SAGA_STOP_FLAG:
        heartbeats.beat(UNWATCHED, cluster=CLUSTER, now=timezone.now(), lasts=UNWATCHED_LASTS)
    return waiting


def ring_for_due() -> int:
    """Ring if anything is due and held by nobody; how many runs are."""
    waiting = journal.due(timezone.now()).count()
    if waiting and not bell_is_ringing():
        _ring_safely()
    if waiting_operations().exists() and not bell_is_ringing(OPERATE):
        _ring_safely(OPERATE)
    for what in chores.waiting():
        if not bell_is_ringing(what):
            _ring_safely(what)
    tallies.note_sweep()
    return waiting


def waiting_operations() -> QuerySet[BulkOperation]:
    """Acts on many runs that are open and in nobody's hands."""
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=timezone.now())
    return BulkOperation.objects.filter(free, state=BulkState.OPEN.value)


def bell_is_ringing(what: str = DRIVE) -> bool:
    """Whether a wake-up lies in the queue, free to be taken: one is enough.

    One that is taken and not acknowledged does not count: whoever took it may be dead, and the broker shows it again
    only after Q_CLUSTER['retry']. On the ORM broker it is looked for among the newest, since others may use the same
    queue; another broker only tells how much lies in it.
    """
    if not rings_in_transaction():
        try:
            return bool(_broker().queue_size() >= MANY)
        except Exception:  # each broker has errors of its own
            log.exception("The queue does not say how much lies in it.")
            return True
    newest = OrmQ.objects.filter(lock__lte=timezone.now()).order_by("-id")[:MANY]
    return any(waiting.task.get("func") == what for waiting in newest)


def is_told_to_stop() -> bool:
    """Whether whoever supervises this process wants it to end: see STOP_FLAG."""
    return bool(settings.SAGA_STOP_FLAG) and Path(settings.SAGA_STOP_FLAG).exists()


def schedule_sweep() -> None:
    """Have the cluster sweep by itself every minute, the finest its scheduler knows. Harmless when repeated."""
    named = Schedule.objects.filter(name=SWEEP_NAME)
    wanted = {"func": SWEEP, "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
    if not named.update(**wanted):
        Schedule.objects.create(name=SWEEP_NAME, **wanted)
    # Of two workers that start at the same moment each makes one: nothing in django-q2's table forbids it.
    named.exclude(pk=named.order_by("pk").values_list("pk", flat=True).first()).delete()


def stalled(*, longer_than: timedelta) -> bool:
    """Whether work has been due for longer than that and no attempt has begun meanwhile: nobody answers the bell.

    A queue that is merely long does not count: there, attempts begin all the time. Nor do workers that are busy with
    slow steps: they renew their leases, so that more than half of one is always left.
    """
    now = timezone.now()
    since = now - longer_than
    if not journal.due(since).exists() or journal.is_held_after(now + timedelta(seconds=settings.SAGA_LEASE / 2 - 1)):
        return False
    last = StepRecord.objects.exclude(worker="").order_by("-id").values_list("started_at", flat=True).first()
    return last is None or last < since


def backlog() -> int | None:
    """How many wake-ups lie in the ORM broker; None: another broker, which is not asked."""
    return OrmQ.objects.count() if rings_in_transaction() else None


def oldest_wake_up() -> datetime | None:
    """Since when the oldest wake-up lies in the ORM broker, free to be taken; None: none does, or nobody can say."""
    if not rings_in_transaction():
        return None
    free = OrmQ.objects.filter(lock__lte=timezone.now()).order_by("lock")
    return cast("datetime | None", free.values_list("lock", flat=True).first())


def sweep_due_at() -> datetime | None:
    """When the cluster's scheduler sweeps next; long past: no scheduler is at work. None: it is not scheduled."""
    planned = Schedule.objects.filter(func=SWEEP).order_by("next_run")
    return cast("datetime | None", planned.values_list("next_run", flat=True).first())


def _note_who_rings(task: dict[str, Any], **_: Any) -> None:
    """A wake-up says in which trace it was rung, for the span of the task alone: an attempt goes by its run's row."""
    traceparent = traces.outgoing() if traces.is_on() else ""
    if traceparent:
        task[traces.HEADER] = traceparent


def _begin_task(task: dict[str, Any], **_: Any) -> None:
    _at_work.close()  # the one before, should nobody have said that it ended
    if traces.is_on():
        name = task["func"] if isinstance(task["func"], str) else getattr(task["func"], "__name__", "task")
        _at_work.enter_context(traces.hearing(name, traceparent=str(task.get(traces.HEADER, ""))))


def _end_task(task: dict[str, Any], **_: Any) -> None:
    _at_work.close()


pre_enqueue.connect(_note_who_rings, dispatch_uid="sagas.traces")
pre_execute.connect(_begin_task, dispatch_uid="sagas.traces")
post_execute_in_worker.connect(_end_task, dispatch_uid="sagas.traces")
