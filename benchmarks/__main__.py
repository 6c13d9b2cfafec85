"""Measure this project beside what people would use instead; print ratios, keep the figures, draw the plots.

python -m benchmarks                       everything (about half an hour)
python -m benchmarks engine shop           some parts: engine, flight, peers, idle, shop, history, memory
python -m benchmarks --scale 0.1           a tenth of the runs: a quick look, too short to be quoted

What a part finds replaces what docs/benchmarks/figures.json held of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import limits
from tests.servers import postgres, valkey

ROOT = Path(__file__).resolve().parent.parent
RAW = ROOT / "docs" / "benchmarks" / "figures.json"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
RESTATE_SERVER = ROOT / "var" / "peers" / "node_modules" / ".bin" / "restate-server"
TEMPORAL = ROOT / ".venv-peers" / "bin" / "temporal"

IN_FLIGHT = 2000
"""Runs at once, of actions that wait: the others' have no limit."""

Figures = dict[str, dict[str, Any]]

PEERS: dict[str, dict[str, int]] = {
    # Runs per kind: enough for a steady state, and no more minutes than the peer is worth.
    "restate": {"nothing": 4000, "waits": 3000, "refused": 3000, "idle": 60, "light": 100},
    "dbos": {"nothing": 1000, "waits": 800, "refused": 600, "idle": 60, "light": 100},
    "temporal": {"nothing": 150, "waits": 150, "refused": 100, "idle": 20},
    "sagaz": {"nothing": 4000, "waits": 2000, "refused": 2000, "idle": 60},
    "celery": {"nothing": 600, "waits": 400, "refused": 400, "idle": 60},
    "djangoq": {"nothing": 1500, "waits": 100, "refused": 1000, "idle": 60, "light": 100},
}


class Bench:
    """What was asked for, and what was found."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.found: Figures = {}
        self.folder = ""

    def runs(self, count: int) -> int:
        return max(int(count * self.scale), 20)

    def note(self, name: str, figure: dict[str, Any]) -> None:
        self.found[name] = figure
        plain = {key: value for key, value in figure.items() if key not in ("settings", "when_killed", "versions")}
        say(f"{name:<44}" + ", ".join(f"{key} {value}" for key, value in plain.items() if value is not None))

    @contextmanager
    def database(self, kind: str) -> Iterator[str]:
        """A new database that syncs each commit to the disk; its address."""
        if kind == "PostgreSQL":
            with postgres(fsync=True) as server:
                yield server.url
        else:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                yield f"sqlite:///{folder}/bench.sqlite3"

    def ours(self, module: str, *arguments: object, database: str, broker: str = "") -> dict[str, Any]:
        """Our own figures, from a process of its own: settings are read once."""
        env = {
            **os.environ,
            "DATABASE_URL": database,
            "VAR_DIR": self.folder,
            "EMAIL_URL": f"file://{self.folder}/mail",
            "SECRET_KEY": "measured, not trusted",
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "LOG_LEVEL": "ERROR",
            **({"BROKER_URL": broker} if broker else {}),
        }
        return told_by([sys.executable, "-m", module, *map(str, arguments)], env)


def told_by(command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """The JSON that a measuring process prints last."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def engine(bench: Bench) -> None:
    for kind in ("nothing", "refused", "waits"):
        for database, processes in (("PostgreSQL", 1), ("PostgreSQL", 2), ("SQLite", 1)):
            with bench.database(database) as url:
                figure = bench.ours("benchmarks.ours", kind, bench.runs(4000), processes, database=url)
            bench.note(f"ours, {database}, {kind}, {processes}", figure)
    runs = bench.runs(4000)
    with bench.database("PostgreSQL") as url:
        for together in (1, 50):
            rate = limits.postgres(url, runs=runs, together=together, connections=32 if together == 1 else 4)
            bench.note(f"plain psycopg, {together} a commit", {"runs_per_second": round(rate, 1)})
    for together in (1, 50):
        rate = limits.sqlite(Path(bench.folder) / f"plain-{together}.sqlite3", runs=runs, together=together)
        bench.note(f"plain sqlite3, {together} a commit", {"runs_per_second": round(rate, 1)})
    with bench.database("SQLite") as url:
        figure = bench.ours("benchmarks.same_rows", runs, 50, database=url)
    bench.note("plain sqlite3, the engine's statements, 50 a commit", figure)


def flight(bench: Bench) -> None:
    with bench.database("PostgreSQL") as url:
        figure = bench.ours("benchmarks.ours", "waits", bench.runs(4000), 1, IN_FLIGHT, database=url)
    bench.note(f"ours, PostgreSQL, waits, 1, {IN_FLIGHT} in flight", figure)


def peers(bench: Bench) -> None:
    env = {**os.environ, "RESTATE_SERVER": str(RESTATE_SERVER), "TEMPORAL": str(TEMPORAL)}
    for peer, kinds in PEERS.items():
        for kind, runs in kinds.items():
            for processes in (1, 2) if kind == "nothing" else (2,) if kind == "refused" else (1,):
                with bench.database("PostgreSQL") as url:
                    command = [str(PEERS_PYTHON), "-m", f"benchmarks.peers.{peer}", kind, str(bench.runs(runs))]
                    try:
                        figure = told_by([*command, str(processes), url], env)
                    except (subprocess.CalledProcessError, OSError) as error:
                        say(f"{peer}, {kind}, {processes}: not measured ({error})")
                        continue
                bench.note(f"{peer}, {kind}, {processes}", figure)


def idle(bench: Bench) -> None:
    for database in ("PostgreSQL", "SQLite"):
        for broker in ("ORM", "Valkey"):
            for kind, count in (("idle", 60), ("light", 200)):
                with ExitStack() as stack:
                    url = stack.enter_context(bench.database(database))
                    address = stack.enter_context(valkey()).url if broker == "Valkey" else ""
                    figure = bench.ours("benchmarks.shop", kind, bench.runs(count), 2, database=url, broker=address)
                bench.note(f"ours, {database}, {broker}, {kind}", figure)


def shop(bench: Bench) -> None:
    for processes in (1, 2):
        with bench.database("PostgreSQL") as url:
            figure = bench.ours("benchmarks.shop", "orders", bench.runs(1000), processes, database=url)
        bench.note(f"ours, PostgreSQL, whole shop, {processes}", figure)
    for kind in ("post", "post_alone"):
        with bench.database("PostgreSQL") as url:
            bench.note(
                f"ours, PostgreSQL, {kind}", bench.ours("benchmarks.shop", kind, bench.runs(500), 2, database=url)
            )


def history(bench: Bench) -> None:
    for ended in (10_000, 100_000, 1_000_000):
        with bench.database("PostgreSQL") as url:
            figure = bench.ours("benchmarks.shop", "history", bench.runs(ended), 1, database=url)
        bench.note(f"ours, PostgreSQL, history, {ended}", figure)


def memory(bench: Bench) -> None:
    for runs in (10_000, 100_000):
        with bench.database("PostgreSQL") as url:
            figure = bench.ours("benchmarks.ours", "nothing", bench.runs(runs), 1, database=url)
        bench.note(f"ours, PostgreSQL, memory, {runs}", figure)


PARTS: dict[str, Callable[[Bench], None]] = {
    "engine": engine,
    "flight": flight,
    "peers": peers,
    "idle": idle,
    "shop": shop,
    "memory": memory,
    "history": history,
}


def ratios(figures: Figures) -> dict[str, float]:
    """The goals' ratios, of what has been measured."""

    def rate(*names: str) -> float | None:
        found = [figures[name]["runs_per_second"] for name in names if name in figures]
        return max(found) if found else None

    ours = {kind: rate(f"ours, PostgreSQL, {kind}, 1", f"ours, PostgreSQL, {kind}, 2") for kind in KINDS}
    lite = rate("ours, SQLite, nothing, 1")
    best = {(peer, kind): rate(f"{peer}, {kind}, 1", f"{peer}, {kind}, 2") for peer in PEERS for kind in KINDS}
    wanted = {
        "restate_ratio": (ours["nothing"], best["restate", "nothing"]),
        "restate_ratio_refused": (ours["refused"], best["restate", "refused"]),
        "restate_ratio_waits": (
            rate("ours, PostgreSQL, waits, 1", f"ours, PostgreSQL, waits, 1, {IN_FLIGHT} in flight"),
            best["restate", "waits"],
        ),
        "dbos_ratio": (ours["nothing"], best["dbos", "nothing"]),
        "dbos_ratio_sqlite": (lite, best["dbos", "nothing"]),
        "temporal_ratio": (ours["nothing"], best["temporal", "nothing"]),
        "sagaz_ratio": (ours["nothing"], best["sagaz", "nothing"]),
        "celery_ratio": (ours["nothing"], best["celery", "nothing"]),
        "djangoq_ratio": (ours["nothing"], best["djangoq", "nothing"]),
        "shared_limit_ratio": (ours["nothing"], rate("plain psycopg, 50 a commit")),
        "shared_limit_ratio_sqlite": (lite, rate("plain sqlite3, 50 a commit")),
        "same_rows_ratio_sqlite": (lite, rate("plain sqlite3, the engine's statements, 50 a commit")),
        "two_workers_ratio_waits": (rate("ours, PostgreSQL, waits, 2"), rate("ours, PostgreSQL, waits, 1")),
    }
    return {name: round(one / other, 2) for name, (one, other) in wanted.items() if one and other}


KINDS = ("nothing", "refused", "waits")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="Which parts; all if none is named.")
    parser.add_argument("--scale", type=float, default=1, help="Times as many runs.")
    asked = parser.parse_args()
    bench = Bench(asked.scale)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        bench.folder = folder
        for name in asked.parts or PARTS:
            say(f"\n===== {name}")
            PARTS[name](bench)
    kept: Figures = json.loads(RAW.read_text())["figures"] if RAW.exists() else {}
    figures = {**kept, **bench.found}
    told = ratios(figures)
    say("\n===== ratios")
    for key, value in told.items():
        say(f"{key:<44}{value:>9.2f}")
    if asked.scale < 1:
        say("\nNothing was kept: these runs were too few.")
        return
    with postgres() as server, psycopg.connect(server.url) as connection:
        postgresql = str(connection.info.server_version // 10_000) + f".{connection.info.server_version % 10_000}"
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "django": version("django"),
        "django-q2": version("django-q2"),
        "psycopg": version("psycopg"),
        "postgresql": postgresql,
        "fsync": "on",
    }
    RAW.parent.mkdir(parents=True, exist_ok=True)
    RAW.write_text(json.dumps({"machine": machine, **told, "figures": figures}, indent=2) + "\n")
    subprocess.run([PEERS_PYTHON, "-m", "benchmarks.plots", RAW], check=True, cwd=ROOT)
    say(f"\nThe figures are in {RAW.relative_to(ROOT)}, the plots beside them.")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
