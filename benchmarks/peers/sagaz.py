"""sagaz with its PostgreSQL storage: `python -m benchmarks.peers.sagaz KIND RUNS PROCESSES DATABASE_URL`.

Its saga class writes one row when a run starts and once more when it ends, and nothing for a step. What comes nearest
to a journal is the older class in sagaz.core.saga with a snapshot after each step: that is measured. What the first
makes of the same order is told beside it, as runs_per_second_unjournaled.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import asyncpg
from sagaz import Saga, SagaConfig, configure
from sagaz.core.replay import ReplayConfig, SnapshotStrategy
from sagaz.core.saga import Saga as SnapshotSaga
from sagaz.core.storage import PostgreSQLSagaStorage
from sagaz.core.storage.backends.postgresql.snapshot import PostgreSQLSnapshotStorage

from benchmarks.peers.order import RESULTS, STEPS, UNDOES, WAIT_SECONDS, Refused, one_by_one, tell

AT_A_TIME = 100
POOL = 20
REPLAY = ReplayConfig(enable_snapshots=True, snapshot_strategy=SnapshotStrategy.AFTER_EACH_STEP)
# What is stored of one run, as status and number of rows: with snapshots, the last one says that it completed.
SNAPSHOTS = {"refused": Counter(executing=2), "": Counter(executing=4, completed=1)}
ROWS = {"refused": Counter(rolled_back=1), "": Counter(completed=1)}


def action(step: str, kind: str) -> Callable[[Any], Awaitable[dict[str, Any]]]:
    async def act(ctx: Any) -> dict[str, Any]:
        if kind == "waits":
            await asyncio.sleep(WAIT_SECONDS)
        if kind == "refused" and step == "create_shipment":
            raise Refused("No delivery to this address.")
        return RESULTS[step]

    return act


def undoing(step: str, undone: list[str]) -> Callable[..., Awaitable[None]]:
    async def undo(*_: Any) -> None:
        undone.append(step)

    return undo


async def with_snapshots(kind: str, storage: Any) -> list[str]:
    """What was undone; what sagaz keeps does not tell."""
    undone: list[str] = []
    saga = SnapshotSaga(name="order", replay_config=REPLAY, snapshot_storage=storage)
    for step in STEPS:
        await saga.add_step(step, action(step, kind), undoing(step, undone), max_retries=0)
    expect((await saga.execute()).status.value, "rolled_back" if kind == "refused" else "completed")
    return undone


async def unjournaled(kind: str, storage: Any) -> list[str]:
    undone: list[str] = []
    saga = Saga(name="order")
    for step, before in zip(STEPS, (None, *STEPS), strict=False):
        saga.add_step(step, action(step, kind), undoing(step, undone), depends_on=[before] if before else [])
    with suppress(Refused):
        await saga.run({})
    return undone


async def run_once(how: Any, kind: str, storage: Any) -> None:
    expect(await how(kind, storage), list(UNDOES) if kind == "refused" else [])


async def run_many(how: Any, kind: str, runs: int, storage: Any) -> list[float]:
    """When the first began and the last ended, in this process."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one() -> None:
        async with places:
            await run_once(how, kind, storage)

    begin = time.time()
    await asyncio.gather(*(one() for _ in range(runs)))
    return [begin, time.time()]


def work(how: str, kind: str, runs: int, url: str) -> dict[str, Any]:
    logging.disable()
    options: dict[str, Any] = {"pool_min_size": POOL, "pool_max_size": POOL}
    # The pools open at first use, and several would at once: the run before the others opens it.
    with asyncio.Runner() as runner:
        if how == "unjournaled":
            configure(SagaConfig(storage=PostgreSQLSagaStorage(url, **options)))
            runner.run(run_once(unjournaled, kind, None))
            return {"span": runner.run(run_many(unjournaled, kind, runs, None))}
        storage = PostgreSQLSnapshotStorage(url, **options)
        runner.run(run_once(with_snapshots, kind, storage))
        if kind in ("idle", "light"):
            run = one_by_one(lambda _: runner.run(run_once(with_snapshots, kind, storage)), runs, kind)
            return {"runs_per_second": None, **run}
        return {"span": runner.run(run_many(with_snapshots, kind, runs, storage))}


def spread(how: str, kind: str, runs: int, processes: int, url: str) -> list[dict[str, Any]]:
    """What each process told; each does its share, and one run more before."""
    shares = [runs // processes + (n < runs % processes) for n in range(processes)]
    command = [sys.executable, "-m", "benchmarks.peers.sagaz", "worker", how, kind]
    workers = [subprocess.Popen([*command, str(n), url], stdout=subprocess.PIPE, text=True) for n in shares]
    try:
        told = [worker.communicate(timeout=600)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    if any(worker.returncode for worker in workers):
        raise RuntimeError("A process failed; nothing was measured.")
    return [json.loads(one.splitlines()[-1]) for one in told]


def measure(kind: str, runs: int, processes: int, url: str) -> dict[str, Any]:
    asyncio.run(make_tables(url))
    if kind in ("idle", "light"):
        return spread("snapshots", kind, runs, 1, url)[0]
    rates = {}
    for how, table, of_one in (("snapshots", "saga_snapshots", SNAPSHOTS), ("unjournaled", "sagas", ROWS)):
        spans = [one["span"] for one in spread(how, kind, runs, processes, url)]
        rates[how] = round(runs / (max(end for _, end in spans) - min(begin for begin, _ in spans)), 1)
        per_run = of_one.get(kind, of_one[""])
        stored = asyncio.run(count(table, url))
        expect(stored, {status: number * (runs + processes) for status, number in per_run.items()})
    return {
        "runs_per_second": rates["snapshots"],
        "p50_ms": None,
        "p99_ms": None,
        "runs_per_second_unjournaled": rates["unjournaled"],
    }


async def make_tables(url: str) -> None:
    """Before the processes start: made by two at once, the database refuses one."""
    connection = await asyncpg.connect(url)
    await connection.execute(PostgreSQLSagaStorage.CREATE_TABLES_SQL)
    await connection.execute(PostgreSQLSnapshotStorage.CREATE_TABLES_SQL)
    await connection.close()


async def count(table: str, url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(f"SELECT status, count(*) AS number FROM {table} GROUP BY status")  # noqa: S608
    await connection.close()
    return {row["status"]: row["number"] for row in rows}


def expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise RuntimeError(f"Found {found} and not {expected}; nothing was measured.")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        tell(work(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]))
    else:
        tell(
            {
                **measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]),
                "versions": {"sagaz": version("sagaz")},
                "settings": (
                    f"The older saga class with a snapshot after each step, {AT_A_TIME} orders at a time a process, a "
                    f"pool of {POOL} connections; its usual class with its storage (beside) writes no step at all."
                ),
                "when_killed": (
                    "The context after each ended step is kept, undoing is not, and a snapshot that fails is only "
                    "logged; nobody takes a run up again, a program may from its snapshot."
                ),
            }
        )
