"""A request's trace: taken from its caller, kept with the order's run, shown to whoever looks into it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from orders.models import Scope
from orders.order_processing import OrderProcessingSaga
from orders.providers.errors import Unavailable
from orders.providers.http import Http, close_all
from orders.providers.sessions import Session
from sagas import traces
from sagas.export import exported
from sagas.models import SagaRun
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, make_caller, order_body
from tests.orders.pages import run_of
from tests.orders.test_order_form import typed
from tests.processes import free_port
from tests.spans import recorded

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.fixture
def webshop() -> Caller:
    return make_caller(make_user(username="webshop"), *Scope)


class TestKept:
    def test_an_order_by_the_api(self, webshop: Caller) -> None:
        assert webshop.post(ORDERS, order_body(), traceparent=TRACEPARENT).status_code == 202

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_a_traceparent_that_is_none_is_passed_over(self, webshop: Caller) -> None:
        assert webshop.post(ORDERS, order_body(), traceparent="00-abc-def-01").status_code == 202

        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", SagaRun.objects.get().traceparent)

    def test_the_same_order_again_is_of_its_first_request(self, webshop: Caller) -> None:
        for traceparent in (TRACEPARENT, f"00-{'1' * 32}-{'2' * 16}-01"):
            webshop.post(ORDERS, order_body(), traceparent=traceparent)

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_an_order_by_the_page(self, client: Client) -> None:
        client.force_login(make_user(username="ada"))

        client.post("/orders/new/", typed(), headers={"traceparent": TRACEPARENT})

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_an_order_by_a_command(self, tmp_path: Path) -> None:
        (tmp_path / "order.json").write_text(json.dumps(order_body()))

        call_command("saga", "start", "order", str(tmp_path / "order.json"), "--traceparent", TRACEPARENT)

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_an_order_from_python_begins_a_trace(self) -> None:
        items = [{"sku": "ITEM-001", "quantity": 1}]

        run = OrderProcessingSaga(order_id="ORD-1", user_id="U-1", items=items, total_amount=30).start()

        assert re.fullmatch(r"[0-9a-f]{32}", run.trace_id)


class TestShown:
    def test_on_the_runs_page_with_a_way_to_it(self, gina: Client, settings: Any) -> None:
        with traces.serving("ask", traceparent=TRACEPARENT):
            run = run_of(make_order())

        page = gina.get(f"/runs/{run.pk}/").content.decode()

        assert f"<span>trace <code>{TRACE}</code> " in page
        assert f'data-copy="{TRACE}" hidden>Copy<span class="hidden-text"> trace id {TRACE}</span></button>' in page
        assert "Trace of this run" not in page

        settings.SAGA_TRACE_LINK = 'https://traces.example.com/{trace}?q="{run}"&days=7'

        page = gina.get(f"/runs/{run.pk}/").content.decode()
        link = f"https://traces.example.com/{TRACE}?q=&quot;{run.pk}&quot;&amp;days=7"
        assert f'href="{link}" rel="noopener noreferrer">Trace of this run<' in page

    def test_a_run_of_long_ago_has_none(self, gina: Client, settings: Any) -> None:
        settings.SAGA_TRACE_LINK = "https://traces.example.com/{trace}"
        run = run_of(make_order())
        SagaRun.objects.update(traceparent="")

        page = gina.get(f"/runs/{run.pk}/").content.decode()

        assert "race of this run" not in page
        assert "<span>trace <code>" not in page

    def test_in_the_api_and_in_the_export(self, webshop: Caller, gina: Client) -> None:
        webshop.post(ORDERS, order_body(), traceparent=TRACEPARENT)
        run = SagaRun.objects.get()

        assert webshop.get(f"{ORDERS}/ORD-123", {"expand": "run.steps.attempts"}).json()["run"]["trace_id"] == TRACE
        assert gina.get(f"/api/v1/saga-runs/{run.pk}").json()["trace_id"] == TRACE
        assert [one["trace_id"] for one in gina.get("/api/v1/saga-runs").json()["results"]] == [TRACE]
        assert exported(run.pk, is_redacted=True)["run"]["traceparent"] == TRACEPARENT

    def test_in_the_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        with traces.serving("ask", traceparent=TRACEPARENT):
            make_order()

        call_command("saga", "show", "ORD-123")

        assert f"\ntrace {TRACE}\n" in capsys.readouterr().out


class TestSpans:
    def test_a_request_is_named_by_its_page_and_not_by_what_it_shows(self, gina: Client) -> None:
        make_order()
        with recorded() as kept:
            gina.get("/orders/ORD-123/?q=ada@example.com", headers={"traceparent": TRACEPARENT})
            request_id = gina.get("/nowhere/ada@example.com").headers["X-Request-Id"]
        page, nowhere = kept.get_finished_spans()

        assert (page.name, page.kind) == ("GET /orders/<str:order_id>/", SpanKind.SERVER)
        assert page.context is not None
        assert trace.format_trace_id(page.context.trace_id) == TRACE
        assert (nowhere.name, nowhere.parent) == ("GET", None)
        assert dict(nowhere.attributes or {}) == {
            "http.request.method": "GET",
            "http.response.status_code": 404,
            "request_id": request_id,
        }
        assert "ada@" not in page.to_json() + nowhere.to_json()

    def test_what_went_wrong_here_is_an_error_and_what_was_asked_wrongly_is_none(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*args: object) -> None:
            raise ZeroDivisionError("ada@example.com")

        client.raise_request_exception = False
        with recorded() as kept:
            client.get("/nowhere/")
            monkeypatch.setattr("django.middleware.common.CommonMiddleware.process_request", broken)
            client.get("/orders/")
        wrongly, here = kept.get_finished_spans()

        assert [one.status.is_ok for one in (wrongly, here)] == [True, False]
        assert (here.attributes or {})["error.type"] == "500"
        assert "ada@" not in here.to_json()

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
    def test_probes_have_none(self, client: Client, path: str) -> None:
        with recorded() as kept:
            client.get(path)

        assert kept.get_finished_spans() == ()


class Stock(BaseHTTPRequestHandler):
    """A stock system that says what it was sent, and is ill at times."""

    def do_GET(self) -> None:
        body = json.dumps({"traceparent": self.headers.get("traceparent", "")}).encode()
        self.send_response(500 if self.path == "/ill" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def stock() -> Iterator[str]:
    """Where it answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Stock) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestProviders:
    def test_a_call_is_a_span_and_no_vendor_hears_of_it(self, stock: str) -> None:
        http = Http("fedex", stock, seconds=5)
        with recorded() as kept, traces.serving("ask", traceparent=TRACEPARENT):
            answer = http.ask("track", "GET", "/parcels/ada@example.com?key=secret")
        call, request = kept.get_finished_spans()

        assert answer.said == {"traceparent": ""}
        assert request.context is not None
        assert (call.name, call.kind, call.parent) == ("fedex track", SpanKind.CLIENT, request.context)
        assert dict(call.attributes or {}) == {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "http.response.status_code": 200,
        }
        http.close()

    def test_a_system_of_ones_own_is_told(self, stock: str, settings: Any) -> None:
        settings.TRACEPARENT_TO = ["http"]
        http = Http("http", stock, seconds=5)
        with recorded() as kept, traces.serving("ask", traceparent=TRACEPARENT):
            answer = http.ask("find", "GET", "/")
        call, _ = kept.get_finished_spans()
        with traces.serving("ask", traceparent=TRACEPARENT):
            passed_on = http.ask("find", "GET", "/")
        outside = http.ask("find", "GET", "/")

        assert call.context is not None
        assert answer.said == {"traceparent": f"00-{TRACE}-{trace.format_span_id(call.context.span_id)}-01"}
        # Without spans of ours it is in the caller's, and outside of any request it hears nothing.
        assert (passed_on.said, outside.said) == ({"traceparent": TRACEPARENT}, {"traceparent": ""})
        http.close()

    def test_what_fails_says_so_and_not_what_was_sent(self, stock: str) -> None:
        http = Http("fedex", f"http://127.0.0.1:{free_port()}", seconds=5)
        with recorded() as kept:
            with pytest.raises(Unavailable):
                http.ask("track", "GET", "/parcels/ada@example.com")
            with pytest.raises(Unavailable):
                Http("fedex", stock, seconds=5).ask("track", "GET", "/ill")
            with pytest.raises(requests.exceptions.ConnectionError):
                Session(5).get(f"http://127.0.0.1:{free_port()}/ada@example.com")
        away, ill, by_an_sdk = kept.get_finished_spans()

        assert [(one.status.is_ok, (one.attributes or {}).get("error.type")) for one in (away, ill, by_an_sdk)] == [
            (False, "ConnectError"),
            (False, "500"),
            (False, "ConnectionError"),
        ]
        assert by_an_sdk.name == "GET 127.0.0.1"
        assert "ada@" not in away.to_json() + by_an_sdk.to_json()
        close_all()

    def test_an_unknown_name_is_found_at_the_start(self, settings: Any) -> None:
        settings.TRACEPARENT_TO = ["htpp"]

        (fault,) = [one for one in run_checks() if one.id == "orders.E001"]
        assert (
            fault.msg == "TRACEPARENT_TO names 'htpp', which is no provider in use; those are django, local, sandbox."
        )
