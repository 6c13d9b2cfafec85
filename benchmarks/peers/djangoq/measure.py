"""Place the orders, let a cluster carry them, and look at what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import Count, Max, Min
from django_q.tasks import async_task

from benchmarks.peers.djangoq.models import Run, StepRow
from benchmarks.peers.order import STEPS, UNDOES, end_of, one_by_one, wait_for


@transaction.atomic
def place(kind: str) -> Run:
    """The run and its task commit together."""
    run = Run.objects.create(kind=kind)
    async_task("benchmarks.peers.djangoq.tasks.order", run.pk)
    return run


def one_alone(number: int) -> None:
    run = place("nothing")
    wait_for("the order", lambda: Run.objects.filter(pk=run.pk, ended_at__isnull=False).exists(), pause=0.005)


def measure(kind: str, runs: int) -> dict[str, Any]:
    call_command("migrate", verbosity=0, run_syncdb=True)
    alone = kind in ("idle", "light")
    for _ in range(0 if alone else runs):
        place(kind)
    written = wal()
    connections.close_all()
    cluster = subprocess.Popen(
        [sys.executable, "-m", "django", "qcluster"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if alone:
            one_alone(-1)
            return {"runs_per_second": None, **one_by_one(one_alone, runs, kind)}
        wait_for("all orders", lambda: not Run.objects.filter(ended_at__isnull=True).exists(), pause=0.2)
    finally:
        # The whole group: the cluster's processes would go on without it.
        os.killpg(cluster.pid, signal.SIGKILL)
        cluster.wait()
    check(kind)
    first = StepRow.objects.aggregate(at=Min("created_at"))["at"]
    last = Run.objects.aggregate(at=Max("ended_at"))["at"]
    return {
        "runs_per_second": round(runs / (last - first).total_seconds(), 1),
        "p50_ms": None,
        "p99_ms": None,
        "wal_bytes_per_run": round((wal() - written) / runs),
    }


def check(kind: str) -> None:
    """Raises RuntimeError if a run ended in another way, or with too few or too many steps."""
    steps = len(STEPS) if kind != "refused" else len(STEPS) - 2 + len(UNDOES)
    found = set(Run.objects.annotate(steps=Count("steprow")).values_list("status", "steps"))
    if found != {(end_of(kind), steps)}:
        raise RuntimeError(f"The orders ended as {found}; nothing was measured.")


def wal() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return int(cursor.fetchone()[0])
