"""DBOS Transact on PostgreSQL: `python -m benchmarks.peers.dbos KIND RUNS PROCESSES DATABASE_URL`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import psycopg
from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.peers.order import RESULTS, STEPS, UNDOES, WAIT_SECONDS, Refused, end_of, one_by_one, tell, wait_for

QUEUE = "orders"
AT_A_TIME = 100
# Each write goes through a thread. Without a limit a hundred of them fight for the interpreter, at twice the CPU a run.
THREADS = 4
POOL = 20
WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
OPEN = "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING')"
TOOK = "SELECT max(updated_at) - min(started_at_epoch_ms) FROM dbos.workflow_status"


@DBOS.step()
async def act(step: str, kind: str) -> dict[str, Any]:
    if kind == "waits":
        await asyncio.sleep(WAIT_SECONDS)
    if kind == "refused" and step == "create_shipment":
        raise Refused("No delivery to this address.")
    return RESULTS[step]


@DBOS.step()
async def undo(step: str) -> dict[str, Any]:
    return {"undone": step}


@DBOS.workflow()
async def order(kind: str) -> str:
    try:
        for step in STEPS:
            await act(step, kind)
    except Refused:
        for step in UNDOES:
            await undo(step)
        return "compensated"
    return "completed"


def launch(url: str, name: str) -> None:
    config: DBOSConfig = {
        "name": "orders",
        "system_database_url": url,
        "application_version": "1",
        "executor_id": name,
        "sys_db_pool_size": POOL,
        "max_executor_threads": THREADS,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


def work(url: str, name: str) -> None:
    """One worker process; ends when it is told to."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    launch(url, name)
    threading.Event().wait()


def alone(kind: str, runs: int, url: str) -> dict[str, Any]:
    """Called where the order is placed, as its documentation does where somebody waits for the end."""
    launch(url, "alone")
    with asyncio.Runner() as runner:
        runner.run(order("nothing"))
        figures = one_by_one(lambda _: expect([runner.run(order("nothing"))], kind), runs, kind)
    DBOS.destroy()
    return {"runs_per_second": None, **figures}


def enqueue(kind: str, runs: int, url: str) -> None:
    launch(url, "setup")  # makes the tables
    DBOS.register_queue(QUEUE, worker_concurrency=AT_A_TIME, polling_interval_sec=0.05)
    DBOS.destroy()
    client = DBOSClient(system_database_url=url)
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(runs):
            threads.submit(
                client.enqueue, {"queue_name": QUEUE, "workflow_name": order.__qualname__, "app_version": "1"}, kind
            )
    client.destroy()


def measure(kind: str, runs: int, processes: int, url: str) -> dict[str, Any]:
    if kind in ("idle", "light"):
        return alone(kind, runs, url)
    enqueue(kind, runs, url)
    with psycopg.connect(url, autocommit=True) as connection:
        written = number(connection, WRITTEN)
        workers = [
            subprocess.Popen([sys.executable, "-m", "benchmarks.peers.dbos", "worker", f"worker-{n}", url])
            for n in range(processes)
        ]
        try:
            wait_for("all orders", lambda: number(connection, OPEN) == 0, pause=0.2)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        written = number(connection, WRITTEN) - written
        seconds = number(connection, TOOK) / 1000
    client = DBOSClient(system_database_url=url)
    ends = [flow.output for flow in client.list_workflows(limit=runs + 1)]
    client.destroy()
    expect(ends, kind)
    if len(ends) != runs:
        raise RuntimeError(f"{len(ends)} of {runs} orders are there; nothing was measured.")
    return {
        "runs_per_second": round(runs / seconds, 1),
        "p50_ms": None,
        "p99_ms": None,
        "wal_bytes_per_run": round(written / runs),
    }


def number(connection: psycopg.Connection[Any], statement: str) -> float:
    row = connection.execute(statement).fetchone()
    return float(row[0]) if row else 0.0


def expect(ends: list[Any], kind: str) -> None:
    if set(ends) != {end_of(kind)}:
        raise RuntimeError(f"The orders ended as {set(ends)} and not as {end_of(kind)}; nothing was measured.")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(sys.argv[3], sys.argv[2])
    else:
        tell(
            {
                **measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]),
                "versions": {"dbos": version("dbos")},
                "settings": (
                    f"Async workflows from a queue filled beforehand, {AT_A_TIME} at a time a process, polled every "
                    f"50 ms, {THREADS} threads and a pool of {POOL} connections; idle and light call the workflow in "
                    "the process that places the order."
                ),
                "when_killed": (
                    "The order and the outputs of its ended steps are kept; the step under way is done again, once a "
                    "process with the same executor id and version starts, or sooner where Conductor (paid) watches."
                ),
            }
        )
