"""Traces of real processes: web server and workers send their spans to a collector, from the request to the end."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orders.api_keys import create_key
from orders.models import Scope
from sagas.models import SagaRun
from sagas.states import RunStatus
from tests.collector import Collector, collector
from tests.factories import make_shop, make_user
from tests.orders.api_client import order_body
from tests.processes import Site, family, wait_for
from tests.sagas.toyapp.saga import ERRAND
from tests.sagas.toys import attempts_of, registered

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
ACTIONS = ["reserve_inventory", "process_payment", "create_shipment", "send_confirmation_email"]


@pytest.fixture
def seen(site: Site) -> Iterator[Collector]:
    """What the site's processes send to a collector."""
    with collector() as there:
        site.env |= {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": there.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "LOG_FORMAT": "json",
        }
        yield there


def post(site: Site, **changes: Any) -> SagaRun:
    """An order from a shop whose own trace goes on here."""
    make_shop()
    _, token = create_key(user=make_user(username="webshop"), name="webshop", scopes=tuple(Scope))
    asked = urllib.request.Request(  # noqa: S310  (our own server)
        f"{site.url}/api/v1/orders",
        json.dumps(order_body(**changes)).encode(),
        {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": "traced",
            "traceparent": TRACEPARENT,
        },
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        assert answer.status == 202
    return SagaRun.objects.get(business_key="ORD-123")


def has_status(run: SagaRun, status: RunStatus) -> bool:
    run.refresh_from_db()
    return run.status == status


def start_asgi(site: Site) -> None:
    web = site.start(
        "asgi",
        *("-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(site.port)),
        *("--no-ws", "config.asgi:application"),
    )
    wait_for("the ASGI server", lambda: not web.is_running() or site._answers())
    assert web.is_running(), web.output()


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_an_order_is_one_trace_from_the_request_to_its_end(site: Site, seen: Collector, server: str) -> None:
    start_asgi(site) if server == "asgi" else site.start_web()
    site.start_worker()

    run = post(site)
    wait_for("the order's end", lambda: has_status(run, RunStatus.COMPLETED), seconds=60)
    wait_for("its spans", lambda: len(seen.attempts(run.pk)) == 4)
    wait_for("the request's span", lambda: seen.named("POST /api/v1/orders"))
    rung = wait_for("the wake-up that the request rang", lambda: [s for s in tasks(seen) if s.links])

    (request,) = seen.named("POST /api/v1/orders")
    assert (request.kind, request.trace_id, request.parent_id, request.links) == ("server", TRACE, CALLER, ())
    assert {name: value for name, value in request.attributes.items() if name != "request_id"} == {
        "http.request.method": "POST",
        "http.route": "/api/v1/orders",
        "http.response.status_code": 202,
        "saga.run_id": str(run.pk),
    }
    assert (run.traceparent, run.trace_id) == (f"00-{TRACE}-{request.span_id}-01", TRACE)
    # A task serves whatever is due, and is a trace of its own; that of the request's wake-up leads back to it.
    assert [(s.kind, s.parent_id, s.links) for s in rung] == [("consumer", "", (request.place,))]
    assert TRACE not in {s.trace_id for s in tasks(seen)}

    spans = seen.attempts(run.pk)
    assert [span.name for span in spans] == [f"{step} action" for step in ACTIONS]
    for span, step in zip(spans, ACTIONS, strict=True):
        assert (span.kind, span.trace_id, span.parent_id) == ("internal", TRACE, request.span_id)
        assert span.attributes == {
            "saga.name": "order_processing",
            "saga.order_id": "ORD-123",
            "saga.run_id": str(run.pk),
            "saga.step": step,
            "saga.direction": "action",
            "saga.attempt": 1,
            "saga.outcome": "succeeded",
        }
        asked, drove = span.links
        assert asked == request.place
        assert drove in {s.place for s in wait_for("the worker's task", lambda: tasks(seen))}
    assert {span.service for span in seen.spans} == {"orders"}
    assert "Failed to detach" not in site.logs()
    # No card, no address, no mail, in any of them.
    assert not [s for s in seen.spans for word in ("tok_", "ada@", "Pereira", "Torstra", "osk_") if word in s.text]


def tasks(seen: Collector) -> list[Any]:
    return seen.named("sagas.queue.drive")


def test_an_order_that_is_undone_shows_what_turned_it_back_and_each_undo(site: Site, seen: Collector) -> None:
    site.start_web()
    site.start_worker()

    run = post(site, payment={"token": "tok_declined"})
    wait_for("the order's end", lambda: has_status(run, RunStatus.COMPENSATED), seconds=60)
    wait_for("its spans", lambda: len(seen.attempts(run.pk)) == 3)
    (request,) = wait_for("the request's span", lambda: seen.named("POST /api/v1/orders"))

    spans = seen.attempts(run.pk)
    told = [(s.name, s.attributes["saga.outcome"], s.attributes.get("error.type"), s.is_error) for s in spans]
    assert told == [
        ("reserve_inventory action", "succeeded", None, False),
        ("process_payment action", "refused", "card_declined", False),  # an ordinary no, and no error
        ("reserve_inventory compensation", "succeeded", None, False),
    ]
    assert {(s.trace_id, s.parent_id, s.links[0]) for s in spans} == {(TRACE, request.span_id, request.place)}
    assert logged(site, "step_done", run) == [
        (TRACE, "reserve_inventory", "action", 1),
        (TRACE, "reserve_inventory", "compensation", 1),
    ]


def logged(site: Site, event: str, run: SagaRun) -> list[tuple[Any, ...]]:
    """(trace, step, direction, attempt) of the run's lines in the worker's log."""
    told = []
    for line in site.processes[-1].output().splitlines():
        if line.startswith("{") and json.loads(line).get("run_id") == str(run.pk):
            one = json.loads(line)
            if one["event"] == event:
                told.append((one["trace_id"], one["step"], one["direction"], one["attempt"]))
    return told


TOY = {"DJANGO_SETTINGS_MODULE": "tests.sagas.toyapp.settings", "Q_WORKERS": "1", "SAGA_LEASE_SECONDS": "5"}


@pytest.mark.parametrize("site", [TOY], indirect=True)
def test_whoever_takes_a_run_over_draws_it_into_the_same_trace(site: Site, seen: Collector, tmp_path: Path) -> None:
    world = tmp_path / "world"
    world.mkdir()
    (tmp_path / "input.json").write_text(json.dumps({"world": str(world), "gate": True}))
    with registered(ERRAND):
        site.start_worker()
        file = str(tmp_path / "input.json")
        site.manage("saga", "start", "errand", file, "--key", "E-1", "--traceparent", TRACEPARENT)
        run = SagaRun.objects.get()
        wait_for("the effect", lambda: list(world.glob(f"{run.pk}:*")), seconds=60)

        for pid in family(site):
            os.kill(pid, signal.SIGKILL)
        wait_for("the end of all processes", lambda: not family(site))
        (world / "gate").touch()
        site.start_worker("another")
        wait_for("the errand's end", lambda: has_status(run, RunStatus.COMPLETED), seconds=60)
        wait_for("its spans", lambda: len(seen.attempts(run.pk)) == 2)

    # The first try's span died with its worker; its row tells of it.
    assert attempts_of(run)[0] == ("fetch", "action", 1, "unknown")
    (command,) = seen.named("saga start")
    assert (command.trace_id, command.parent_id) == (TRACE, CALLER)
    assert run.traceparent == f"00-{TRACE}-{command.span_id}-01"
    spans = seen.attempts(run.pk)
    assert [(s.name, s.attributes["saga.attempt"], s.attributes["saga.outcome"]) for s in spans] == [
        ("fetch action", 2, "succeeded"),
        ("deliver action", 1, "succeeded"),
    ]
    assert {(s.trace_id, s.parent_id, s.links[0]) for s in spans} == {(TRACE, command.span_id, command.place)}
