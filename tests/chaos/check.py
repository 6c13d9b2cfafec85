"""The end of an attack: the shop comes to rest by itself, and then everything that was promised is held against it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from orders.audit import audit_shop
from orders.models import Order
from sagas.audit import audit_runs
from sagas.health import STALLED_AFTER
from sagas.models import SagaRun
from sagas.queue import stalled
from sagas.selectors import overdue
from sagas.states import LIVE, RunStatus

REST_SECONDS = 120
LONGEST_WAIT_SECONDS = 60
"""What is due is taken within this time, whatever was killed."""


class Watch:
    """How long work that was due lay there untaken, at the worst, and how often the health page spoke of it."""

    def __init__(self) -> None:
        self.longest = timedelta(0)
        self.told = 0
        self._tells = False

    def look(self) -> None:
        now = timezone.now()
        try:
            oldest = overdue(now=now, longer_than=timedelta(0)).order_by("due_at").values_list("due_at", flat=True)
            due_at = oldest.first()
            tells = stalled(longer_than=STALLED_AFTER)
        except (DatabaseError, InterfaceError):
            connection.close()
            return
        if due_at is not None:
            self.longest = max(self.longest, now - due_at)
        self.told += tells and not self._tells
        self._tells = tells


def moving() -> int:
    """Runs that have neither ended nor wait for a person."""
    status = [one.value for one in LIVE if one is not RunStatus.NEEDS_ATTENTION]
    return SagaRun.objects.filter(status__in=status).count()


def come_to_rest(watch: Watch, tick: Callable[[], None]) -> float | None:
    """Seconds until nothing moved any more; None if something still did after REST_SECONDS."""
    begin = time.monotonic()
    while time.monotonic() - begin < REST_SECONDS:
        if not moving():
            return time.monotonic() - begin
        tick()
        watch.look()
        time.sleep(0.5)
    return None


def broken_promises(acknowledged: set[str], cancelled: set[str], watch: Watch) -> list[str]:
    """Everything that is not as it was promised, a line each."""
    found = []
    orders = dict(Order.objects.values_list("order_id", "run_id"))
    runs = {run.pk: run for run in SagaRun.objects.all()}
    found += [f"{order_id} was acknowledged and is gone" for order_id in sorted(acknowledged - set(orders))]
    for order_id in sorted(acknowledged & set(orders)):
        run_id = orders[order_id]
        if run_id is None:
            found.append(f"{order_id} was stored without a run")
            continue
        run = runs[run_id]
        if run.status == RunStatus.NEEDS_ATTENTION.value and not run.attention_reason:
            found.append(f"{order_id} needs attention and does not say why")
        elif run.status not in {"completed", "compensated", "needs_attention"}:
            found.append(f"{order_id} is still {run.status}: due {run.due_at}, lease until {run.lease_until}")
        if order_id in cancelled and run.status == RunStatus.COMPLETED.value:
            found.append(f"{order_id} was cancelled, as was acknowledged, and is completed")
    if watch.longest > timedelta(seconds=LONGEST_WAIT_SECONDS):
        found.append(f"work lay due and untaken for {watch.longest.total_seconds():.0f} s")
    found += [f"audit: {finding}" for finding in (*audit_runs(stale_after=timedelta(minutes=1)), *audit_shop())]
    return found


def ends() -> tuple[Counter[str], Counter[str]]:
    """Runs by status, and those that need attention by the reason that they state."""
    status = Counter(SagaRun.objects.values_list("status", flat=True))
    reasons = SagaRun.objects.filter(status=RunStatus.NEEDS_ATTENTION.value).values_list("attention_reason", flat=True)
    return status, Counter(reasons)
