"""Draw docs/benchmarks/*.svg from the figures: `python -m benchmarks.plots docs/benchmarks/figures.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plot

PEERS = {
    "temporal": "Temporal (development server)",
    "dbos": "DBOS",
    "celery": "Celery",
    "djangoq": "django-q2 alone",
    "restate": "Restate",
    "sagaz": "sagaz, a snapshot a step",
}
OURS = "#1f5fbf"
OTHERS = "#8a94a6"
LIMIT = "#c9ced6"


def best(figures: dict[str, Any], *names: str) -> float:
    return max((figures[name]["runs_per_second"] or 0 for name in names if name in figures), default=0)


def throughput(figures: dict[str, Any], folder: Path) -> None:
    """Runs a second against peers, and against what the database allows."""
    picture, axes = plot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, kind, title in zip(
        axes, ("nothing", "waits"), ("actions that do nothing", "actions that wait 50 ms"), strict=True
    ):
        bars = [(name, best(figures, f"{key}, {kind}, 1", f"{key}, {kind}, 2"), OTHERS) for key, name in PEERS.items()]
        bars.append(("this project, SQLite", best(figures, f"ours, SQLite, {kind}, 1"), OURS))
        ours = best(figures, f"ours, PostgreSQL, {kind}, 1", f"ours, PostgreSQL, {kind}, 2")
        bars.append(("this project, PostgreSQL", ours, OURS))
        # The limits wait for nothing.
        limits = (
            {1: 0.0, 50: 0.0}
            if kind == "waits"
            else {n: best(figures, f"plain psycopg, {n} a commit") for n in (1, 50)}
        )
        bars.append(("plain psycopg, a commit a step", limits[1], LIMIT))
        bars.append(("plain psycopg, 50 runs a commit", limits[50], LIMIT))
        drawn = axis.barh([name for name, _, _ in bars], [rate for _, rate, _ in bars], color=[c for _, _, c in bars])
        axis.bar_label(drawn, labels=[f"{rate:,.0f}" if rate else "" for _, rate, _ in bars], padding=3, fontsize=8)
        axis.set_xlim(0, max(rate for _, rate, _ in bars) * 1.15)
        axis.set_title(f"Order sagas a second, {title}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    save(picture, folder / "throughput.svg")


def latency(figures: dict[str, Any], folder: Path) -> None:
    """Submit to completed, alone and at ten a second; the thin line goes to the 99th percentile."""
    rows = [
        (f"{database}, {broker}: {kind}", figures.get(f"ours, {database}, {broker}, {kind}"), OURS)
        for database in ("PostgreSQL", "SQLite")
        for broker in ("ORM", "Valkey")
        for kind in ("idle", "light")
    ]
    rows += [
        (f"{name}: {kind}", figures.get(f"{peer}, {kind}, 1"), OTHERS)
        for peer, name in PEERS.items()
        for kind in ("idle", "light")
    ]
    known = [(name, figure, color) for name, figure, color in rows if figure][::-1]
    if not known:
        return
    picture, axis = plot.subplots(figsize=(9, 0.32 * len(known) + 1))
    names = [name for name, _, _ in known]
    axis.barh(names, [figure["p50_ms"] for _, figure, _ in known], color=[color for _, _, color in known])
    axis.hlines(
        names, [f["p50_ms"] for _, f, _ in known], [f["p99_ms"] for _, f, _ in known], color="#444", linewidth=1
    )
    axis.set_title("Milliseconds from submit to completed: p50, and a line to p99", fontsize=10)
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
    save(picture, folder / "latency.svg")


def history(figures: dict[str, Any], folder: Path) -> None:
    """What a table full of ended runs costs, against an empty one."""
    found = [figure for name, figure in figures.items() if name.startswith("ours, PostgreSQL, history")]
    if not found:
        return
    picture, axis = plot.subplots(figsize=(9, 3.6))
    for look in ("claim_p99", "submit", "list", "detail"):
        axis.plot(
            [figure["ended_runs"] for figure in found], [figure[f"{look}_ratio"] for figure in found], "o-", label=look
        )
    axis.axhline(1.3, color="#c0392b", linewidth=1, linestyle="--")
    axis.set_xscale("log")
    axis.set_ylim(0, 2)
    axis.set_title("Times as long as with empty tables, by ended runs (the goal: below 1.3)", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    save(picture, folder / "history.svg")


def save(picture: Any, file: Path) -> None:
    picture.tight_layout()
    # Without date and random ids, so that the same figures are the same file.
    picture.savefig(file, metadata={"Date": None})
    plot.close(picture)


if __name__ == "__main__":
    raw = Path(sys.argv[1])
    matplotlib.rcParams["svg.hashsalt"] = "plots"
    told = json.loads(raw.read_text())["figures"]
    for draw in (throughput, latency, history):
        draw(told, raw.parent)
