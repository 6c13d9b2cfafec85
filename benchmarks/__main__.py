"""Measure, print a table with ratios, and keep the raw figures: `python -m benchmarks [--runs 4000]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import limits
from tests.servers import postgres

RAW = Path("docs/benchmarks/engine.json")


def ours(database_url: str, folder: str, kind: str, runs: int, processes: int) -> dict[str, Any]:
    """Our own figures, from a process of its own: the settings are read once."""
    env = {
        **os.environ,
        "DATABASE_URL": database_url,
        "VAR_DIR": folder,
        "SECRET_KEY": "measured, not trusted",
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "benchmarks.ours", kind, str(runs), str(processes)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=4000)
    runs: int = parser.parse_args().runs
    figures: dict[str, dict[str, Any]] = {}

    def note(name: str, figure: dict[str, Any]) -> None:
        figures[name] = figure
        more = ", ".join(f"{key} {value}" for key, value in figure.items() if key != "runs_per_second")
        say(f"{name:<52}{figure['runs_per_second']:>9,.0f} runs/s  {more}")

    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for kind, count in (("nothing", runs), ("refused", runs), ("waits", runs)):
            for processes in (1, 2):
                with postgres(fsync=True) as server:
                    note(
                        f"PostgreSQL, {kind}, {processes} process(es)", ours(server.url, folder, kind, count, processes)
                    )
            file = Path(folder) / f"{kind}.sqlite3"
            note(f"SQLite, {kind}, 1 process(es)", ours(f"sqlite:///{file}", folder, kind, count, 1))
        with postgres(fsync=True) as server:
            for together in (1, 50):
                rate = limits.postgres(server.url, runs=runs, together=together, connections=32 if together == 1 else 4)
                note(f"plain psycopg, {together} run(s) a commit", {"runs_per_second": round(rate, 1)})
        for together in (1, 50):
            rate = limits.sqlite(Path(folder) / f"plain-{together}.sqlite3", runs=runs, together=together)
            note(f"plain sqlite3, {together} run(s) a commit", {"runs_per_second": round(rate, 1)})
    say("\nRatios")
    waiting = "PostgreSQL, waits, {} process(es)"
    ratios = {
        "PostgreSQL, 2 processes, of the shared limit": (
            "PostgreSQL, nothing, 2 process(es)",
            "plain psycopg, 50 run(s) a commit",
        ),
        "SQLite, of the shared limit": ("SQLite, nothing, 1 process(es)", "plain sqlite3, 50 run(s) a commit"),
        "two processes against one, waiting": (waiting.format(2), waiting.format(1)),
    }
    told = {}
    for name, (one, other) in ratios.items():
        told[name] = round(figures[one]["runs_per_second"] / figures[other]["runs_per_second"], 2)
        say(f"{name:<52}{told[name]:>9.2f}")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "django": version("django")}
    RAW.parent.mkdir(parents=True, exist_ok=True)
    RAW.write_text(json.dumps({"machine": machine, "figures": figures, "ratios": told}, indent=2) + "\n")
    say(f"\nThe raw figures are in {RAW}.")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
