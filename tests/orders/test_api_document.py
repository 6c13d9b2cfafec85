"""The API's description of itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from jsonschema import Draft202012Validator

from orders.models import Order, WebhookEvent
from orders.webhooks.delivery import body_of
from orders.webhooks.outbox import TEST, TYPES
from orders.webhooks.signing import headers_for
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, make_caller

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Caller:
    """A customer's program, in a shop with enough of everything."""
    make_shop()
    return make_caller(make_user(username="ada"))


class TestDocument:
    def test_it_is_json_by_default_and_yaml_on_request(self) -> None:
        as_json = Client().get("/api/v1/schema")
        as_yaml = Client().get("/api/v1/schema", headers={"Accept": "application/yaml"})

        assert as_json.json()["openapi"] == "3.1.0"
        assert as_yaml.text.startswith("openapi: 3.1.0")
        assert as_json.headers["Cache-Control"] == "public, max-age=300"
        assert sorted(as_json.json()["paths"]) == [
            "/api/v1/api-keys",
            "/api/v1/api-keys/{key_id}",
            "/api/v1/bulk-operations",
            "/api/v1/bulk-operations/{operation_id}",
            "/api/v1/bulk-operations/{operation_id}/items",
            "/api/v1/health",
            "/api/v1/inventory-items",
            "/api/v1/inventory-items/{sku}",
            "/api/v1/me",
            "/api/v1/orders",
            "/api/v1/orders/{order_id}",
            "/api/v1/orders/{order_id}/cancellations",
            "/api/v1/orders/{order_id}/cancellations/{cancellation_id}",
            "/api/v1/orders/{order_id}/events",
            "/api/v1/orders/{order_id}/label",
            "/api/v1/orders/{order_id}/notes",
            "/api/v1/orders/{order_id}/stream",
            "/api/v1/provider-callbacks/{provider}",
            "/api/v1/saga-definitions",
            "/api/v1/saga-definitions/{name}",
            "/api/v1/saga-runs",
            "/api/v1/saga-runs/{run_id}",
            "/api/v1/saga-runs/{run_id}/compensations",
            "/api/v1/saga-runs/{run_id}/resolutions",
            "/api/v1/saga-runs/{run_id}/retries",
            "/api/v1/saga-runs/{run_id}/skips",
            "/api/v1/saga-runs/{run_id}/steps",
            "/api/v1/saga-runs/{run_id}/steps/{step}/attempts",
            "/api/v1/saga-statistics",
            "/api/v1/webhook-deliveries",
            "/api/v1/webhook-deliveries/{delivery_id}/redeliveries",
            "/api/v1/webhook-endpoints",
            "/api/v1/webhook-endpoints/{endpoint_id}",
            "/api/v1/webhook-endpoints/{endpoint_id}/secret-rotations",
            "/api/v1/webhook-endpoints/{endpoint_id}/test-deliveries",
        ]

    def test_it_is_valid_and_complete(self, tmp_path: Any) -> None:
        call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))

    def test_its_example_is_an_order_that_is_taken(self, ada: Caller) -> None:
        operation = Client().get("/api/v1/schema").json()["paths"]["/api/v1/orders"]["post"]
        (example,) = operation["requestBody"]["content"]["application/json"]["examples"].values()

        assert ada.post(ORDERS, example["value"]).status_code == 202

    def test_the_docs_page_asks_no_outside_host_and_keeps_the_strict_policy(self) -> None:
        page = Client().get("/api/v1/docs/console")
        script = Client().get("/api/v1/docs/console?script=")

        assert page.status_code == 200
        assert "//" not in page.text
        assert "unsafe" not in page.headers["Content-Security-Policy"]
        assert "<style" not in page.text
        assert script.headers["Content-Type"] == "application/javascript"
        assert "/api/v1/schema" in script.text

    def test_every_operation_names_its_errors_and_its_security(self) -> None:
        paths = Client().get("/api/v1/schema").json()["paths"]

        paths.pop("/api/v1/provider-callbacks/{provider}")  # who calls there has no key, but a signature
        for path, operations in paths.items():
            for method, operation in operations.items():
                said = set(operation["responses"])
                assert said >= {"401", "403", "405", "406", "500", "503"}, (method, path)
                assert ("404" in said) == ("{" in path), (method, path)
                takes_a_body = "requestBody" in operation
                assert takes_a_body or method not in {"patch"}, (method, path)
                assert ({"400", "409", "411", "413", "415"} <= said) == takes_a_body, (method, path)
                (key, session) = operation["security"]
                scopes = 0 if path == "/api/v1/me" else 1  # any key may ask whose it is
                assert (len(key["apiKey"]), session) == (scopes, {"cookieAuth": []}), (method, path)

    def test_what_we_send_is_what_the_document_says(self) -> None:
        told = Client().get("/api/v1/schema").json()
        sent = {}
        for type_ in told["webhooks"]:
            facts = {} if type_ == TEST else {"order_id": "ORD-123", "state": "running", "step": "process_payment"}
            event = WebhookEvent(pk=7, type=type_, created_at=datetime(2026, 11, 23, 9, 30, tzinfo=UTC), **facts)
            sent[type_] = json.loads(body_of(event))

        assert list(told["webhooks"]) == [*TYPES, TEST]
        for type_, message in sent.items():
            post = told["webhooks"][type_]["post"]
            schema = post["requestBody"]["content"]["application/json"]["schema"]
            named = {one["name"] for one in post["parameters"]}
            assert named == set(headers_for("msg_7", datetime.now(UTC), b"", []))
            fits = Draft202012Validator({**schema, "components": told["components"]})
            fits.validate(message)
            assert not fits.is_valid({**message, "type": "order.vanished"})
            assert not fits.is_valid({"type": type_, "data": message["data"]})


@pytest.mark.browser
def test_the_docs_page_places_an_order(live_server: Any, page: Any) -> None:
    make_shop()
    token = make_caller(make_user(username="ada")).headers["Authorization"].removeprefix("Bearer ")

    page.goto(f"{live_server.url}/api/v1/docs/console")
    page.click("#operations-Orders-place_order .opblock-summary")
    page.click(".btn.authorize")
    page.fill("input[aria-label='auth-bearer-value']", token)
    page.click(".auth-btn-wrapper .btn.authorize")
    page.click(".btn-done")
    page.click(".try-out__btn")
    page.fill("input[placeholder='Idempotency-Key']", "from-the-docs")
    page.click(".execute")
    page.wait_for_selector(".live-responses-table tbody .response-col_status")

    assert page.inner_text(".live-responses-table tbody .response-col_status").startswith("202")
    assert Order.objects.get().order_id == "ORD-123"
