"""Signs of life of workers, as rows: whoever is asked for the metrics or the health page tells the same of all hosts.

    sagaworker, every ten seconds while its cluster is at work ── beat() ──▶ a row a worker ◀── alive(), last_seen()

One that stops says so; one that is killed is missed when its last sign is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Count, Max, QuerySet

from sagas.models import Heartbeat

EVERY = timedelta(seconds=10)
LASTS = timedelta(seconds=30)
"""So long a sign of life holds: three that did not come are no accident."""
KEPT = timedelta(days=1)


def beat(name: str, *, cluster: str, now: datetime, lasts: timedelta = LASTS) -> None:
    """Say that `name`, of the cluster of that name, is alive. A new one sweeps out those of long ago."""
    seen = {"seen_at": now, "alive_until": now + lasts}
    if not Heartbeat.objects.filter(name=name).update(**seen):
        Heartbeat.objects.filter(seen_at__lt=now - KEPT).delete()
        Heartbeat.objects.update_or_create(name=name, defaults={**seen, "cluster": cluster})


def stop(name: str, *, now: datetime) -> None:
    """Say that `name` takes no more work."""
    Heartbeat.objects.filter(name=name, alive_until__gt=now).update(alive_until=now)


def alive_ones(now: datetime) -> QuerySet[Heartbeat]:
    return Heartbeat.objects.filter(alive_until__gt=now)


def alive(now: datetime) -> Mapping[str, int]:
    """How many are alive, by cluster."""
    found = alive_ones(now).values_list("cluster").annotate(count=Count("id"))
    return dict(found.order_by())


def last_seen() -> Mapping[str, datetime]:
    """When one was last seen, by cluster."""
    return dict(Heartbeat.objects.values_list("cluster").annotate(last=Max("seen_at")).order_by())
