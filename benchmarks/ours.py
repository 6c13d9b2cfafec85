"""This project: submit as fast as possible, then drain. Run as a process of its own for each database:

python -m benchmarks.ours nothing 4000 2
python -m benchmarks.ours waits 4000 1 2000    with so many runs in flight instead of 500
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import django
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import Max, Min
from django.utils import timezone

from benchmarks.worker import BATCH

SUBMITTED = 5000


def measure(kind: str, runs: int, processes: int, batch: int = BATCH) -> dict[str, Any]:
    """What it takes `processes` workers to drive `runs` runs; all counted in the rows they leave."""
    from benchmarks.sagas import SAGAS
    from sagas.models import SagaRun, StepRecord
    from sagas.services import start

    call_command("migrate", verbosity=0)
    begin = time.monotonic()
    submitted_runs = min(runs, SUBMITTED)
    for number in range(submitted_runs):
        start(saga=SAGAS[kind], business_key=f"{number}", input={"order": number}, ring=False)
    submitted = submitted_runs / (time.monotonic() - begin)
    _place(SAGAS[kind], range(submitted_runs, runs))
    written, commits = _wal(), _commits()
    connections.close_all()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", "--batch", str(batch)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    told = [json.loads(worker.communicate()[0]) for worker in workers]
    statuses = sorted(set(SagaRun.objects.values_list("status", flat=True)))
    expected = ["compensated"] if kind == "refused" else ["completed"]
    if statuses != expected:
        raise RuntimeError(f"The runs ended as {statuses} and not as {expected}; nothing was measured.")
    first = StepRecord.objects.aggregate(at=Min("started_at"))["at"]
    last = SagaRun.objects.aggregate(at=Max("ended_at"))["at"]
    return {
        "runs_per_second": round(runs / (last - first).total_seconds(), 1),
        "submitted_per_second": round(submitted, 1),
        "cpu_milliseconds_per_run": round(sum(one["cpu_seconds"] for one in told) * 1000 / runs, 3),
        "commits_per_run": None if commits is None else round(((_commits() or 0) - commits) / runs, 2),
        "wal_bytes_per_run": None if written is None else round((_wal() or 0) / runs - written / runs),
        "peak_megabytes": max(one["peak_megabytes"] for one in told),
    }


def _place(saga: Any, numbers: range) -> None:
    """The rows that `start` would write, many at a time: what is measured then is not the submitting."""
    from sagas.models import SagaRun

    for first in range(numbers.start, numbers.stop, SUBMITTED):
        now = timezone.now()
        part = range(first, min(first + SUBMITTED, numbers.stop))
        rows = [
            SagaRun(
                saga=saga.name,
                version=saga.version,
                business_key=f"{number}",
                input={"order": number},
                due_at=now,
                created_at=now,
                updated_at=now,
            )
            for number in part
        ]
        SagaRun.objects.bulk_create(rows)


def _wal() -> int | None:
    """Bytes of write-ahead log so far; None on SQLite."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return int(cursor.fetchone()[0])


def _commits() -> int | None:
    """Transactions committed so far, those that only read among them; None on SQLite, which does not count them."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    django.setup()
    sys.stdout.write(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))) + "\n")
