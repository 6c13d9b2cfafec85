"""The doorbell: the only module that knows django-q2. The rows are the truth; a wake-up only says "look"."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task

from sagas import journal
from sagas.driver import Driver
from sagas.models import StepRecord

log = logging.getLogger(__name__)

DRIVE = "sagas.queue.drive"
SWEEP = "sagas.queue.sweep"


def rings_in_transaction() -> bool:
    """Whether the wake-up is a row in the caller's own database, and so commits or rolls back with its work."""
    return bool(Conf.ORM) and Conf.ORM == "default"


def wake() -> None:
    """Ring: with the caller's transaction on the ORM broker, after its commit on any other."""
    if rings_in_transaction():
        _ring()
    else:
        transaction.on_commit(_ring_safely)


def _ring() -> None:
    async_task(DRIVE, group="saga", save=False, ack_failure=True)


def _ring_safely() -> None:
    """The order is stored: a broker that is away must not fail it. The sweep finds what nobody was told of."""
    try:
        _ring()
    except Exception:
        log.exception("The queue took no wake-up; the run waits for the next sweep.")


def drive() -> int:
    """Take up due runs until nothing is due soon; how many were taken up. Ends well before the queue's timeout."""
    taken: int = async_to_sync(partial(Driver().drive, seconds=settings.SAGA_DRIVE_SECONDS))()
    if journal.due(timezone.now()).exists():
        _ring_safely()
    return taken


def sweep() -> int:
    """Ring if anything is due and held by nobody; how many runs are. Scheduled, and the last net."""
    waiting = journal.due(timezone.now()).count()
    if waiting and not bell_is_ringing():
        _ring_safely()
    return waiting


def bell_is_ringing() -> bool:
    """Whether a wake-up lies in the ORM broker already: one is enough. Other brokers cannot be asked."""
    return rings_in_transaction() and OrmQ.objects.exists()


def schedule_sweep() -> None:
    """Have the cluster sweep by itself every minute, the finest its scheduler knows. Harmless when repeated."""
    Schedule.objects.update_or_create(
        name="saga sweep", defaults={"func": SWEEP, "schedule_type": Schedule.MINUTES, "minutes": 1, "repeats": -1}
    )


def stalled(*, longer_than: timedelta) -> bool:
    """Whether work has been due for longer than that and no attempt has begun meanwhile: nobody answers the bell.

    A queue that is merely long does not count: there, attempts begin all the time.
    """
    since = timezone.now() - longer_than
    if not journal.due(since).exists():
        return False
    last = StepRecord.objects.exclude(worker="").order_by("-id").values_list("started_at", flat=True).first()
    return last is None or last < since


def backlog() -> int | None:
    """How many wake-ups lie in the ORM broker; None: another broker, which is not asked."""
    return OrmQ.objects.count() if rings_in_transaction() else None
