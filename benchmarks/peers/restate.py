"""Restate: one node, its Python SDK on hypercorn: `python -m benchmarks.peers.restate KIND RUNS PROCESSES`

RESTATE_SERVER is the path of the server's binary, from the npm package @restatedev/restate-server.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.order import answers, end_of, free_port, one_by_one, tell, wait_for

CLIENTS = 16


def measure(kind: str, runs: int, processes: int) -> dict[str, Any]:
    ingress, admin, node, endpoint = free_port(), free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="restate-") as folder:
        ends = Path(folder) / "ends"
        ends.touch()
        server = subprocess.Popen(
            [os.environ["RESTATE_SERVER"], "--no-logo"],
            env={
                **os.environ,
                "RESTATE_BASE_DIR": f"{folder}/data",
                "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
                "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
                "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
                "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}/",
                "RESTATE_LOG_FILTER": "warn",
                "DO_NOT_TRACK": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # HTTP/2 without TLS is what the SDK's own examples serve.
        service = subprocess.Popen(
            [
                *(sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{endpoint}", "--workers", str(processes)),
                "benchmarks.peers.restate_service:app",
            ],
            env={**os.environ, "ENDS": str(ends)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for("the server", lambda: answers(f"http://127.0.0.1:{admin}/health"), seconds=60, pause=0.2)
            wait_for("the service", lambda: answers(f"http://127.0.0.1:{endpoint}/discover"), seconds=60, pause=0.2)
            wait_for("the deployment", lambda: _register(admin, endpoint), seconds=60, pause=0.5)
            wait_for("the first order", lambda: _call(ingress, kind) == end_of(kind), seconds=60, pause=0.5)
            if kind in ("idle", "light"):
                return {
                    "runs_per_second": None,
                    **one_by_one(lambda _: _expect(_call(ingress, kind), kind), runs, kind),
                }
            already = ends.stat().st_size
            begin = time.monotonic()
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(lambda n: _send(ingress, kind, len(range(n, runs, CLIENTS))), range(CLIENTS)))
            wait_for("all orders", lambda: ends.stat().st_size >= already + runs)
            seconds = time.monotonic() - begin
            _expect({"c": "completed", "u": "compensated"}["".join(set(ends.read_text()[already:]))], kind)
            return {"runs_per_second": round(runs / seconds, 1), "p50_ms": None, "p99_ms": None}
        finally:
            for process in (service, server):
                process.terminate()
            for process in (service, server):
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _register(admin: int, endpoint: int) -> bool:
    body = json.dumps({"uri": f"http://127.0.0.1:{endpoint}", "use_http_11": False}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/deployments", body, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except OSError:
        return False
    return True


def _call(ingress: int, kind: str) -> str:
    """One order, awaited; its end, or nothing while the server is not ready."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{ingress}/Order/run", json.dumps(kind).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.loads(answer.read()))
    except OSError:
        return ""


def _send(ingress: int, kind: str, count: int) -> None:
    """That many orders, one after another, on one connection; each is acknowledged once it is stored."""
    connection = http.client.HTTPConnection("127.0.0.1", ingress, timeout=60)
    for _ in range(count):
        connection.request("POST", "/Order/run/send", json.dumps(kind), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status not in (200, 202):
            raise RuntimeError(f"The server took no order: {answer.status}.")
    connection.close()


def _expect(end: str, kind: str) -> None:
    if end != end_of(kind):
        raise RuntimeError(f"An order ended as {end!r} and not as {end_of(kind)!r}; nothing was measured.")


if __name__ == "__main__":
    server_version = subprocess.run(
        [os.environ["RESTATE_SERVER"], "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    tell(
        {
            **measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])),
            "versions": {"restate-server": server_version, "restate-sdk": version("restate-sdk")},
            "settings": "One node with its defaults (RocksDB, its log synced in groups); hypercorn, HTTP/2.",
            "when_killed": "The server keeps the journal and calls another process, which replays to the last entry.",
        }
    )
