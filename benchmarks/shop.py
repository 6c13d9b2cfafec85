"""The whole embedded shop. Run as a process of its own for each measure:

python -m benchmarks.shop orders 400 2      orders driven a second: stock, sandboxes, mail to files
python -m benchmarks.shop idle 40 2         submit to completed, one by one, through the queue; `light`: ten a second
python -m benchmarks.shop post 500 2        POST /api/v1/orders, fifty a second, while two workers drive them
python -m benchmarks.shop history 1000000 1 what a table full of ended runs costs
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import django
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import Max, Min

from tests.processes import free_port, wait_for

POSTS_A_SECOND = 50
LIGHT_A_SECOND = 10
SAMPLES = 60


def orders(count: int, processes: int) -> dict[str, Any]:
    from sagas.models import SagaRun, StepRecord

    _open_shop()
    for number in range(count):
        _place(f"ORD-{number}")
    connections.close_all()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", "--threads", "8"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    told = [json.loads(worker.communicate()[0]) for worker in workers]
    if set(SagaRun.objects.values_list("status", flat=True)) != {"completed"}:
        raise RuntimeError("Not every order was completed; nothing was measured.")
    first = StepRecord.objects.aggregate(at=Min("started_at"))["at"]
    last = SagaRun.objects.aggregate(at=Max("ended_at"))["at"]
    return {
        "runs_per_second": round(count / (last - first).total_seconds(), 1),
        "cpu_milliseconds_per_run": round(sum(one["cpu_seconds"] for one in told) * 1000 / count, 1),
    }


def idle(count: int, processes: int, *, a_second: float | None = None) -> dict[str, Any]:
    """From submit to completed, with actions that do nothing, through the queue and its cluster."""
    from benchmarks.sagas import SAGAS
    from sagas.models import SagaRun
    from sagas.services import start

    call_command("migrate", verbosity=0)
    took: list[float] = []
    lock = threading.Lock()

    def one(key: str) -> None:
        begin = time.monotonic()
        run = start(saga=SAGAS["nothing"], business_key=key, input={})
        while not SagaRun.objects.filter(pk=run.pk, ended_at__isnull=False).exists():
            time.sleep(0.002)
        with lock:
            took.append((time.monotonic() - begin) * 1000)
        if a_second:
            connections.close_all()  # this thread's own

    with _running("manage.py", "sagaworker"):
        one("first")
        one("second")
        took.clear()
        begin = time.monotonic()
        placing = []
        for number in range(count):
            if a_second:
                time.sleep(max(begin + number / a_second - time.monotonic(), 0))
                placing.append(threading.Thread(target=one, args=(f"run-{number}",)))
                placing[-1].start()
            else:
                time.sleep(0.23)  # not a multiple of the queue's own rhythm
                one(f"run-{number}")
        for thread in placing:
            thread.join()
    return _spread(took)


def post(count: int, processes: int, *, is_driven: bool = True) -> dict[str, Any]:
    """Orders placed over HTTP at an even rate, from their sending to their answer, while workers drive them, or not."""
    key = _open_shop()
    connections.close_all()
    port = free_port()
    web = ("-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port))
    took: list[float] = []
    lock = threading.Lock()

    def one(number: int) -> None:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        begin = time.monotonic()
        asked.request(
            "POST",
            "/api/v1/orders",
            json.dumps(as_api(f"POST-{number}")),
            {"Content-Type": "application/json", "Idempotency-Key": f"post-{number}", "Authorization": f"Bearer {key}"},
        )
        answer = asked.getresponse()
        text = answer.read()
        with lock:
            took.append((time.monotonic() - begin) * 1000)
        if answer.status != 202:
            raise RuntimeError(f"{answer.status}: {text.decode()[:300]}")

    with (
        _running(*web, "--workers", "2", "--blocking-threads", "4", "--no-ws", "config.wsgi:application"),
        _running("manage.py", "sagaworker") if is_driven else nullcontext(),
    ):
        wait_for("the web server", lambda: _is_open(port))
        one(-1)
        took.clear()
        begin = time.monotonic()
        placing = []
        for number in range(count):
            time.sleep(max(begin + number / POSTS_A_SECOND - time.monotonic(), 0))
            placing.append(threading.Thread(target=one, args=(number,)))
            placing[-1].start()
        for thread in placing:
            thread.join()
    if len(took) != count:
        raise RuntimeError(f"{count - len(took)} orders were not taken; nothing was measured.")
    return _spread(took)


def history(count: int, processes: int) -> dict[str, Any]:
    """The same looks and writes before and after `count` ended runs are in the tables."""
    from django.test import Client

    from orders.demo import LOGINS
    from orders.models import User

    _open_shop()
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.get(username=LOGINS[0].username))
    empty = _best_looks(client, "EMPTY")
    _multiply(count)
    full = _best_looks(client, "FULL")
    told: dict[str, Any] = {"ended_runs": count}
    for name, milliseconds in empty.items():
        told[f"{name}_ms_empty"], told[f"{name}_ms_full"] = milliseconds, full[name]
        told[f"{name}_ratio"] = round(full[name] / milliseconds, 2)
    return told


def _best_looks(client: Any, name: str) -> dict[str, float]:
    """The best of five rounds of each: what else the machine does must not pass for the tables' doing."""
    rounds = [_looks(client, f"{name}-{number}") for number in range(5)]
    return {look: min(one[look] for one in rounds) for look in rounds[0]}


def _looks(client: Any, name: str) -> dict[str, float]:
    """Milliseconds: the claim's p99, and the middle of placing, of the list and of an order's page."""
    from django.utils import timezone

    from sagas import journal
    from sagas.models import SagaRun

    placing = _timed(lambda number: _place(f"{name}-{number}"), SAMPLES * 3)
    listing = _timed(lambda _: _get(client, "/orders/"), SAMPLES)
    detail = _timed(lambda number: _get(client, f"/orders/{name}-{number}/"), SAMPLES)
    claiming = _timed(
        lambda number: journal.claim(
            worker=f"{name}-{number}", now=timezone.now(), lease=timedelta(minutes=10), limit=3, max_claims=5
        ),
        SAMPLES,
    )
    # What was claimed is left behind as it is; nothing of it may be due when the next look begins.
    SagaRun.objects.filter(ended_at__isnull=True).update(
        due_at=timezone.now() + timedelta(days=1), lease_owner="", lease_until=None
    )
    return {
        "claim_p99": round(sorted(claiming)[int(len(claiming) * 0.99)], 2),
        "submit": round(statistics.median(placing), 2),
        "list": round(statistics.median(listing), 2),
        "detail": round(statistics.median(detail), 2),
    }


def _multiply(count: int) -> None:
    """`count` copies of one order that was driven to its end, rows, records and all."""
    from orders.models import Order, OrderLine
    from sagas.models import RunEvent, SagaRun, StepRecord
    from sagas.testing import run_to_end

    order = _place("PATTERN")
    run = SagaRun.objects.get(pk=order.run_id)
    run_to_end(run)
    run_id = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
    # Ids of their own, far from those that the database gives.
    copied = {
        SagaRun: {"id": run_id, "business_key": "'OLD-' || n", "created_at": _long_ago("created_at")},
        Order: {
            "id": "n + 1000000000",
            "order_id": "'OLD-' || n",
            "run_id": run_id,
            "placed_at": _long_ago("placed_at"),
        },
        OrderLine: {"id": "id * 10000000 + 1000000000000 + n", "order_id": "n + 1000000000"},
        StepRecord: {"id": "id * 10000000 - 1000000000000000 + n", "run_id": run_id, "key": "step || ':' || n"},
        RunEvent: {"id": "id * 10000000 - 1000000000000000 + n", "run_id": run_id},
    }
    of_pattern = {SagaRun: ("id", run.pk), Order: ("id", order.pk), OrderLine: ("order_id", order.pk)}
    with connection.cursor() as cursor:
        for model, changes in copied.items():
            column, value = of_pattern.get(model, ("run_id", run.pk))
            names = [str(field.column) for field in model._meta.concrete_fields if not field.generated]
            chosen = ", ".join(changes.get(name, f'"{name}"') for name in names)
            quoted = ", ".join(f'"{name}"' for name in names)
            cursor.execute(
                f'INSERT INTO "{model._meta.db_table}" ({quoted}) '  # noqa: S608  (our own models' names)
                f'SELECT {chosen} FROM "{model._meta.db_table}", generate_series(1, %s) AS n WHERE "{column}" = %s',
                [count, value],
            )
        cursor.execute("VACUUM ANALYZE")


def filled_shop(orders: int, *, stuck: int) -> Any:
    """That many orders of long ago, WATCHED, which is completed, and STUCK-0 and on, which need a person.

    The client of a supervisor, to look at them.
    """
    from django.test import Client

    from orders.models import User
    from orders.services import place_order
    from sagas.models import SagaRun
    from sagas.testing import run_to_end

    _open_shop()
    _multiply(orders)
    run_to_end(SagaRun.objects.get(business_key=_place("WATCHED").order_id))
    refused = {**_fields(), "ship_postcode": "00000", "card_token": "tok_refund_fails"}
    for number in range(stuck):
        order, _ = place_order(order_id=f"STUCK-{number}", **refused)
        run_to_end(SagaRun.objects.get(business_key=order.order_id))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.get(username="supervisor"))
    return client


def _long_ago(column: str) -> str:
    return f"{column} - make_interval(secs => n)"


def _timed(act: Callable[[int], object], times: int) -> list[float]:
    took = []
    for number in range(times):
        begin = time.perf_counter()
        act(number)
        took.append((time.perf_counter() - begin) * 1000)
    return took


def _get(client: Any, path: str) -> None:
    answer = client.get(path)
    if answer.status_code != 200:
        raise RuntimeError(f"{path} answered {answer.status_code}.")


def _open_shop() -> str:
    """Migrated, seeded, with stock for all; the API key."""
    from orders.seeding import seed
    from orders.services import receive_stock

    call_command("migrate", verbosity=0)
    seeded = seed()
    for sku in ("ITEM-001", "ITEM-002"):
        receive_stock(sku=sku, quantity=1_000_000, actor="benchmark", reason="enough for all")
    return seeded.api_key


def _fields() -> dict[str, Any]:
    return {
        "user": None,
        "customer_ref": "USER-789",
        "items": [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 1}],
        "currency": "EUR",
        "email": "ada@example.com",
        "ship_name": "Ada",
        "ship_line1": "Street 1",
        "ship_city": "Town",
        "ship_postcode": "12345",
        "ship_country": "DE",
        "card_token": "tok_visa",
        "actor": "benchmark",
    }


def as_api(order_id: str) -> dict[str, Any]:
    fields = _fields()
    return {
        "order_id": order_id,
        "user_id": fields["customer_ref"],
        "items": fields["items"],
        "total_amount": {"amount": "99.99", "currency": fields["currency"]},
        "email": fields["email"],
        "shipping_address": {
            name.removeprefix("ship_"): value for name, value in fields.items() if name.startswith("ship_")
        },
        "payment": {"token": fields["card_token"]},
    }


def _place(order_id: str) -> Any:
    from orders.services import place_order

    return place_order(order_id=order_id, **_fields())[0]


def _spread(took: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(took)
    return {
        "p50_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)], 1),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)], 1),
    }


def _is_open(port: int) -> bool:
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        asked.request("GET", "/livez")
        return asked.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


MEASURES: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "orders": orders,
    "idle": idle,
    "light": lambda count, processes: idle(count, processes, a_second=LIGHT_A_SECOND),
    "post": post,
    "post_alone": lambda count, processes: post(count, processes, is_driven=False),
    "history": history,
}

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    django.setup()
    sys.stdout.write(json.dumps(MEASURES[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))) + "\n")
