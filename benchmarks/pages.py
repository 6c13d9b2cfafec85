"""How fast pages are, and how heavy, with 100,000 orders in the tables: `make bench-pages`.

python -m benchmarks.pages                 on a PostgreSQL of its own; the table, and docs/benchmarks/pages.json
python -m benchmarks.pages measure 100000  the measure itself, in a process with the settings it needs
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import django
from django.db import connection

from benchmarks.__main__ import Bench, say

ROOT = Path(__file__).resolve().parent.parent
RAW = ROOT / "docs" / "benchmarks" / "pages.json"
ORDERS = 100_000
STUCK = 20
ROUNDS = 60
GOALS = {
    "list": 150,
    "list, filtered": 150,
    "list, deep page": 0,
    "order": 150,
    "run": 150,
    "inbox": 200,
    "search by tracking number": 50,
    "search by e-mail": 50,
    "live rows, unchanged": 15,
    "API: place an order": 100,
}
"""Milliseconds of server time, p95; 0: compared with the first page instead."""
WEIGHTS = {"html": 30, "css": 20, "js": 25}
"""kB on the first visit, compressed."""


def measure(orders: int) -> dict[str, Any]:
    """Server time, queries and weight of each page."""
    from benchmarks.shop import as_api, filled_shop
    from orders.models import Order, Shipment
    from sagas.models import SagaRun

    client = filled_shop(orders, stuck=STUCK)
    deep = Order.objects.order_by("-placed_at").values_list("order_id", flat=True)[orders * 9 // 10]
    tracking = Shipment.objects.get(order__order_id="WATCHED").tracking_number
    run = SagaRun.objects.get(business_key="STUCK-0")
    top = client.get("/orders/?top=WATCHED", headers={"X-Live": "1"})
    numbers = count()

    def look(path: str, **headers: str) -> Callable[[], Any]:
        return lambda: client.get(path, headers=headers)

    def place() -> Any:
        number = next(numbers)
        return client.post(
            "/api/v1/orders",
            as_api(f"PLACED-{number}"),
            content_type="application/json",
            headers={"Idempotency-Key": f"placed-{number}"},
        )

    looks = {
        "list": look("/orders/"),
        "list, filtered": look("/orders/?state=completed&least=50&customer=USER-789"),
        "list, deep page": look(f"/orders/?before={deep}"),
        "order": look("/orders/WATCHED/"),
        "run": look(f"/runs/{run.pk}/"),
        "inbox": look("/runs/attention/"),
        "overview": look("/overview/"),
        "search by tracking number": look(f"/orders/?q={tracking}"),
        "search by e-mail": look("/orders/?q=ada@example.com"),
        "live rows, unchanged": look("/orders/?top=WATCHED", **{"X-Live": "1", "If-None-Match": top.headers["ETag"]}),
        "API: an order": look("/api/v1/orders/WATCHED"),
        "API: a page of 50 orders": look("/api/v1/orders?limit=50"),
    }
    # Placing last: it changes the list that others look at.
    found = {**_measured(looks), **_measured({"API: place an order": place})}
    if found["live rows, unchanged"]["status"] != 304:
        raise RuntimeError("The rows were rendered anew, and their time is not that of an unchanged list.")
    static = ROOT / "sagas" / "static" / "sagas"
    found["weights"] = {
        kind: round(len(gzip.compress((static / name).read_bytes())) / 1000, 1)
        for kind, name in (("css", "console.css"), ("js", "live.js"))
    }
    return found


def _measured(asks: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Of each: its queries and weight, and how long it takes."""
    found: dict[str, Any] = {}
    for name, ask in asks.items():
        sent: list[str] = []

        def note(execute: Any, sql: str, *rest: Any, sent: list[str] = sent) -> Any:
            sent.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            answer = ask()
        if answer.status_code >= 400:
            raise RuntimeError(f"{name} was answered {answer.status_code}: {answer.content.decode()[:300]}")
        found[name] = {
            "status": answer.status_code,
            "queries": len(sent),
            "kilobytes_compressed": round(len(gzip.compress(answer.content)) / 1000, 1),
        }
    took: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(ROUNDS):  # in turn, so that a slow moment of the machine falls on all of them
        for name, ask in asks.items():
            begin = time.perf_counter()
            ask()
            took[name].append((time.perf_counter() - begin) * 1000)
    for name, each in took.items():
        found[name] |= {
            "p50_ms": round(statistics.median(each), 1),
            "p95_ms": round(sorted(each)[int(ROUNDS * 0.95)], 1),
        }
    return found


def main() -> None:
    bench = Bench(1)
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        bench.folder = folder
        with bench.database("PostgreSQL") as url:
            found = bench.ours("benchmarks.pages", "measure", ORDERS, database=url)
        with bench.database("PostgreSQL") as url:
            felt = bench.ours("benchmarks.browsing", ORDERS, database=url)
    weights = found.pop("weights")
    say(f"{'page':<28}{'p50':>9}{'p95':>9}{'goal':>7}{'queries':>9}{'kB':>7}")
    for name, one in found.items():
        goal = GOALS.get(name) or "–"
        numbers = f"{one['p50_ms']:>9}{one['p95_ms']:>9}{goal:>7}{one['queries']:>9}{one['kilobytes_compressed']:>7}"
        say(f"{name:<28}{numbers}")
    deep = round(found["list, deep page"]["p50_ms"] / found["list"]["p50_ms"], 2)
    say(f"a deep page beside the first: {deep} (goal 1.2)")
    for kind, kilobytes in weights.items():
        say(f"{kind}: {kilobytes} kB compressed (goal {WEIGHTS[kind]})")
    for name, one in felt.items():
        say(f"{name:<28}" + ", ".join(f"{key} {value}" for key, value in one.items()))
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    told = {
        "machine": machine,
        "orders": ORDERS,
        "deep_page_ratio": deep,
        "weights": weights,
        "pages": found,
        "felt": felt,
    }
    RAW.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        django.setup()
        sys.stdout.write(json.dumps(measure(int(sys.argv[2]))) + "\n")
    else:
        main()
