"""The engine's own statements, sent again by plain sqlite3: what its rows and indexes allow, with nothing to decide.

DATABASE_URL=sqlite:///file python -m benchmarks.same_rows 4000 50
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
import time
from datetime import timedelta
from typing import Any

import django
from django.core.management import call_command
from django.db import connection, connections
from django.db.backends.signals import connection_created

Statement = tuple[str, Any, bool]
"""What was asked, with which values, and whether it was for many rows."""


def measure(runs: int, together: int) -> dict[str, Any]:
    """Have the engine drive `runs` runs, `together` at a time, and send what it sent once more to a copy."""
    from benchmarks.ours import _place
    from benchmarks.sagas import SAGAS
    from sagas.driver import Driver, Limits
    from sagas.models import SagaRun

    call_command("migrate", verbosity=0)
    _place(SAGAS["nothing"], range(runs))
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connections.close_all()
    file = str(connection.settings_dict["NAME"])
    shutil.copy(file, f"{file}.copy")

    sent: list[Statement] = []

    def listen(connection: Any, **_: Any) -> None:
        connection.execute_wrappers.append(note)

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        sent.append((sql.replace("%s", "?"), list(params) if params else (), many))
        return execute(sql, params, many, context)

    connection_created.connect(listen)
    limits = Limits.from_settings()
    limits.batch, limits.linger = together, timedelta(0)
    asyncio.run(Driver(limits=limits).drive(seconds=600))
    seconds = _send(f"{file}.copy", sent)
    with sqlite3.connect(f"{file}.copy") as copy:
        (ended,) = copy.execute("SELECT count(*) FROM sagas_sagarun WHERE status = 'completed'").fetchone()
    if not ended == runs == SagaRun.objects.filter(status="completed").count():
        raise RuntimeError(f"Only {ended} of {runs} runs ended in the copy; nothing was measured.")
    return {"runs_per_second": round(runs / seconds, 1), "statements_per_run": round(len(sent) / runs, 2)}


def _send(file: str, statements: list[Statement]) -> float:
    """Seconds that they take, each transaction committed to the disk."""
    plain = sqlite3.connect(file, isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=FULL")
    begin = time.monotonic()
    for sql, params, many in statements:
        if sql.startswith("BEGIN") and plain.in_transaction:
            plain.execute("COMMIT")  # Django commits without saying so
        if many:
            plain.executemany(sql, params)
        else:
            plain.execute(sql, params).fetchall()
    if plain.in_transaction:
        plain.execute("COMMIT")
    seconds = time.monotonic() - begin
    plain.close()
    return seconds


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    django.setup()
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))) + "\n")
