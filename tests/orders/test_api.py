"""Orders over HTTP, as a program meets them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from orders.api_problems import PROBLEMS
from orders.models import Order
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, faults, make_caller, nothing_is_stored, order_body, problem

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Caller:
    """A customer's program, in a shop with enough of everything."""
    make_shop()
    return make_caller(make_user(username="ada"))


class TestPlacing:
    def test_an_order_is_stored_and_under_way_when_the_answer_comes(self, ada: Caller) -> None:
        response = ada.post(ORDERS, order_body())

        assert response.status_code == 202
        assert response.headers["Location"] == "/api/v1/orders/ORD-123"
        assert response.headers["Retry-After"] == "1"
        assert response.headers["Cache-Control"] == "no-store"
        body = response.json()
        assert (body["order_id"], body["state"], body["user_id"]) == ("ORD-123", "pending", "USER-456")
        assert body["total_amount"] == {"amount": "99.99", "currency": "EUR"}
        assert body["can"] == ["cancel"]
        assert [(step["name"], step["state"]) for step in body["run"]["steps"]] == [
            ("reserve_inventory", "not_reached"),
            ("process_payment", "not_reached"),
            ("create_shipment", "not_reached"),
            ("send_confirmation_email", "not_reached"),
        ]
        order = Order.objects.get()
        assert (order.placed_by, order.api_key, str(order.run_id)) == ("key:ada's key", ada.key, body["run"]["id"])
        assert "tok_visa" not in response.text

    @pytest.mark.parametrize("amount", ['"99.99"', "99.99", "99.990", '{"amount": "99.99", "currency": "EUR"}'])
    def test_a_total_is_exact_however_it_is_written(self, ada: Caller, amount: str) -> None:
        body = json.dumps(order_body(total_amount="HERE")).replace('"HERE"', amount)

        response = ada.post(ORDERS, body)

        assert response.status_code == 202
        assert response.json()["total_amount"] == {"amount": "99.99", "currency": "EUR"}

    def test_what_may_be_left_out_is_filled_in(self, ada: Caller) -> None:
        response = ada.post(ORDERS, order_body(order_id=None, user_id=None, total_amount=None))

        assert response.status_code == 202
        body = response.json()
        assert body["order_id"].startswith("ORD-")
        assert (body["user_id"], body["total_amount"]) == ("ada", {"amount": "99.99", "currency": "EUR"})

    def test_the_same_order_under_two_keys_is_one_order(self, ada: Caller) -> None:
        first = ada.post(ORDERS, order_body())

        second = ada.post(ORDERS, order_body())

        assert (second.status_code, second.headers.get("Idempotent-Replayed")) == (202, None)
        assert second.json() == first.json()
        assert (Order.objects.count(), SagaRun.objects.count()) == (1, 1)

    def test_another_order_under_the_same_number_is_refused_with_what_differs(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        body = problem(ada.post(ORDERS, order_body(email="eva@example.com")), 409, "order-conflict")

        assert [item["pointer"] for item in body["errors"]] == ["/email"]
        assert Order.objects.get().email == "ada@example.com"

    def test_prefer_wait_answers_with_the_end_when_it_comes_in_time(
        self, ada: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = "wait-for-it"
        ada.post(ORDERS, order_body())
        run_to_end(SagaRun.objects.get())

        response = ada.post(ORDERS, order_body(), Prefer="respond-async, wait=5", Idempotency_Key=key)

        assert response.status_code == 202
        assert response.headers["Preference-Applied"] == "wait=5"
        assert response.json()["state"] == "completed"
        again = ada.post(ORDERS, order_body(), Prefer="respond-async, wait=5", Idempotency_Key=key)
        assert (again.headers["Idempotent-Replayed"], again.json()) == ("true", response.json())

    def test_prefer_wait_gives_up_in_time(self, ada: Caller) -> None:
        response = ada.post(ORDERS, order_body(), Prefer="wait=0")

        assert (response.status_code, response.json()["state"]) == (202, "pending")
        assert response.headers["Preference-Applied"] == "wait=0"


class TestBadOrders:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"items": [{"sku": "NOPE", "quantity": 1}]}, [("/items/0/sku", "unknown_sku")]),
            ({"items": [{"sku": "ITEM-001", "quantity": 0}]}, [("/items/0/quantity", "out_of_range")]),
            ({"items": [{"sku": "ITEM-001", "quantity": -1}]}, [("/items/0/quantity", "out_of_range")]),
            ({"items": [{"sku": "ITEM-001", "quantity": 10**12}]}, [("/items/0/quantity", "out_of_range")]),
            ({"items": [{"sku": "ITEM-001", "quantity": "2"}]}, [("/items/0/quantity", "invalid")]),
            ({"items": [{"sku": "ITEM-001", "quantity": 2.5}]}, [("/items/0/quantity", "invalid")]),
            ({"items": [{"sku": "ITEM-001", "quantity": True}]}, [("/items/0/quantity", "invalid")]),
            ({"items": [{"sku": 1, "quantity": 1}]}, [("/items/0/sku", "invalid")]),
            ({"items": [{"sku": "ITEM-001"}]}, [("/items/0/quantity", "required")]),
            (
                {"items": [{"sku": "ITEM-001", "quantity": 1}, {"sku": "ITEM-002", "quantity": 1, "price": 1}]},
                [("/items/1/price", "unknown_field")],
            ),
            ({"items": [7]}, [("/items/0", "invalid")]),
            ({"items": []}, [("/items", "required")]),
            ({"items": "ITEM-001"}, [("/items", "not_a_list")]),
            ({"items": [{"sku": "I", "quantity": 1}] * 10_000}, [("/items", "max_length")]),
            ({"total_amount": "99.98"}, [("/total_amount", "total_mismatch")]),
            ({"total_amount": {"amount": "1", "currency": "EUR"}}, [("/total_amount/amount", "total_mismatch")]),
            ({"total_amount": "99.999"}, [("/total_amount", "invalid_amount")]),
            ({"total_amount": "much"}, [("/total_amount", "invalid_amount")]),
            ({"total_amount": "-99.99"}, [("/total_amount", "invalid_amount")]),
            ({"total_amount": "NaN"}, [("/total_amount", "invalid_amount")]),
            ({"total_amount": [99.99]}, [("/total_amount", "invalid")]),
            ({"total_amount": {"amount": "99.99"}}, [("/total_amount/currency", "required")]),
            (
                {"total_amount": {"amount": "99.99", "currency": "XXX"}},
                [("/total_amount/currency", "unknown_currency")],
            ),
            ({"currency": "USD"}, [("/currency", "differs")]),
            ({"email": "ada"}, [("/email", "invalid")]),
            ({"email": "ada\x00@example.com"}, [("/email", "null_characters_not_allowed")]),
            ({"email": None}, [("/email", "required")]),
            ({"order_id": "ORD 1/2"}, [("/order_id", "invalid")]),
            ({"order_id": "../admin"}, [("/order_id", "invalid")]),
            ({"order_id": ""}, [("/order_id", "invalid")]),
            ({"user_id": "U\u202e1"}, [("/user_id", "control_character")]),
            ({"user_id": "U\x1b[31m"}, [("/user_id", "control_character")]),
            ({"user_id": "\ud800"}, [("/user_id", "surrogate_characters_not_allowed")]),
            ({"\ud800": 1}, [("/?", "unknown_field")]),
            ({"payment": {"token": "4242 4242 4242 4242"}}, [("/payment/token", "card_number")]),
            ({"payment": {}}, [("/payment/token", "required")]),
            ({"payment": "tok_visa"}, [("/payment", "invalid")]),
            ({"emial": "ada@example.com"}, [("/emial", "unknown_field")]),
            ({"a/b~c": 1}, [("/a~1b~0c", "unknown_field")]),
        ],
    )
    def test_a_fault_is_named_and_nothing_stored(
        self, ada: Caller, changes: dict[str, Any], expected: list[tuple[str, str]]
    ) -> None:
        response = ada.post(ORDERS, order_body(**changes))

        assert faults(response) == expected
        assert nothing_is_stored()

    def test_every_fault_is_told_at_once(self, ada: Caller) -> None:
        address = {"name": "", "line1": "x" * 201, "city": "Berlin", "postcode": "10115", "country": "Germany"}

        response = ada.post(ORDERS, order_body(email="ada", shipping_address=address))

        assert sorted(faults(response)) == [
            ("/email", "invalid"),
            ("/shipping_address/country", "too_long"),
            ("/shipping_address/line1", "too_long"),
            ("/shipping_address/name", "required"),
        ]

    def test_a_card_number_is_not_repeated(self, ada: Caller) -> None:
        response = ada.post(ORDERS, order_body(payment={"token": "4242424242424242"}))

        assert faults(response) == [("/payment/token", "card_number")]
        assert "4242" not in response.text

    @pytest.mark.parametrize("text", ["'; DROP TABLE orders_order; --", "<script>alert(1)</script>", "{{ 7*7 }}"])
    def test_sql_and_html_are_texts_like_any_other(self, ada: Caller, text: str) -> None:
        address = order_body()["shipping_address"] | {"name": text, "line1": text, "city": text}

        response = ada.post(ORDERS, order_body(user_id=text, shipping_address=address))

        assert (response.status_code, response.headers["Content-Type"]) == (202, "application/json")
        assert (response.json()["user_id"], response.json()["shipping_address"]["name"]) == (text, text)

    def test_many_faults_are_counted_and_the_first_hundred_listed(self, ada: Caller) -> None:
        response = ada.post(ORDERS, order_body(**{f"more{number}": 1 for number in range(150)}))

        body = problem(response, 400, "validation-error")
        assert len(body["errors"]) == 100
        assert body["detail"] == "150 things are wrong; the first 100 are listed."


class TestBadBodies:
    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            ("", "4 things are wrong."),
            ("{", "The body is not JSON: Expecting property name enclosed in double quotes at line 1, column 2."),
            ("null", "The body must be a JSON object, in braces."),
            ("[]", "The body must be a JSON object, in braces."),
            ('"text"', "The body must be a JSON object, in braces."),
            ('{"total_amount": NaN}', "JSON has no NaN."),
            ('{"total_amount": -Infinity}', "JSON has no -Infinity."),
            ('{"total_amount": 1e400}', "A number in the body is beyond all measure."),
            ('{"total_amount": ' + "9" * 5000 + "}", "A number in the body is beyond all measure."),
            ('{"email": "a", "email": "b"}', "The member 'email' is given more than once."),
            ('{"items": ' + "[" * 100_000 + "]" * 100_000 + "}", "The body is nested too deeply."),
            (b'{"email": "\xff"}', "The body is not text in UTF-8."),
        ],
    )
    def test_what_is_not_json_is_said_so(self, ada: Caller, body: str | bytes, detail: str) -> None:
        response = ada.post(ORDERS, body)

        code = "validation-error" if body == "" else "malformed-json"
        assert problem(response, 400, code)["detail"] == detail
        assert nothing_is_stored()

    def test_a_body_beyond_the_limit_is_not_read(self, ada: Caller) -> None:
        response = ada.post(ORDERS, json.dumps(order_body(user_id="x" * 1_000_000)))

        problem(response, 413, "payload-too-large")
        assert nothing_is_stored()

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "nonsense"]
    )
    def test_another_content_type_is_refused(self, ada: Caller, kind: str) -> None:
        response = ada.post(ORDERS, json.dumps(order_body()).encode(), content_type=kind)

        problem(response, 415, "unsupported-media-type")
        assert nothing_is_stored()


class TestEveryError:
    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/api", 404, "not-found"),
            ("GET", "/api/v2/orders", 404, "not-found"),
            ("GET", "/api/v1", 404, "not-found"),
            ("GET", "/api/v1/", 404, "not-found"),
            ("GET", "/api/v1/nothing/here", 404, "not-found"),
            ("POST", "/api/v1/nothing/here", 404, "not-found"),
            ("GET", "/api/v1/orders/", 404, "not-found"),
            ("GET", "/api/v1/orders/NOPE", 404, "not-found"),
            ("GET", "/api/v1/orders/%00", 404, "not-found"),
            ("GET", "/api/v1/orders/%ff%fe", 404, "not-found"),
            ("GET", "/api/v1/orders/" + "x" * 41, 404, "not-found"),
            ("GET", "/api/v1/orders/NOPE/cancellations/1", 404, "not-found"),
            ("GET", "/api/v1/orders/NOPE/events", 404, "not-found"),
            ("GET", "/api/v1/problems/nope", 404, "not-found"),
            ("GET", "/api/v1/saga-runs/nope", 404, "not-found"),
            ("PUT", "/api/v1/orders", 405, "method-not-allowed"),
            ("DELETE", "/api/v1/orders/ORD-123", 405, "method-not-allowed"),
            ("TRACE", "/api/v1/orders", 405, "method-not-allowed"),
        ],
    )
    def test_is_a_problem(self, ada: Caller, method: str, path: str, status: int, code: str) -> None:
        response = ada.client.generic(method, path, headers=ada.headers)

        problem(response, status, code)

    @pytest.mark.parametrize("path", ["docs", "problems", "problems/internal", "orders/ORD-123/stream"])
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
    def test_what_is_only_looked_at_says_so_to_every_method(self, ada: Caller, method: str, path: str) -> None:
        client = Client(enforce_csrf_checks=True)

        response = client.generic(method, f"/api/v1/{path}", headers=ada.headers)

        if (method, path) == ("OPTIONS", "problems/internal"):
            assert (response.status_code, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
        else:
            problem(response, 405, "method-not-allowed")
            assert response.headers["Allow"].startswith("GET")

    def test_an_answer_we_do_not_have_in_that_format(self, ada: Caller) -> None:
        problem(ada.get(ORDERS, Accept="text/csv"), 406, "not-acceptable")

    def test_a_mistake_of_ours_tells_no_trace(self, ada: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object, **kwargs: object) -> None:
            raise ZeroDivisionError("the secret inside")

        monkeypatch.setattr("orders.services.place_order", broken)

        response = ada.post(ORDERS, order_body(), Idempotency_Key="again")

        body = problem(response, 500, "internal")
        assert body["retryable"] is True
        assert "secret" not in response.text
        assert "Zero" not in response.text
        monkeypatch.undo()
        assert ada.post(ORDERS, order_body(), Idempotency_Key="again").status_code == 202

    def test_a_request_that_reaches_no_operation(self, ada: Caller) -> None:
        problem(ada.client.get(ORDERS, headers={"Host": "elsewhere.example"}), 400, "bad-request")
        page = ada.client.get("/", headers={"Host": "elsewhere.example"})

        assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [(OperationalError("away"), 503, "overloaded"), (ZeroDivisionError("secret"), 500, "internal")],
    )
    def test_a_failure_outside_every_operation(
        self, ada: Caller, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
    ) -> None:
        def broken(*args: object) -> None:
            raise error

        monkeypatch.setattr("django.middleware.common.CommonMiddleware.process_request", broken)
        ada.client.raise_request_exception = False

        assert "secret" not in json.dumps(problem(ada.get(ORDERS), status, code))

    def test_a_body_in_chunks(self, ada: Caller) -> None:
        response = ada.client.generic("POST", ORDERS, headers={**ada.headers, "Transfer-Encoding": "chunked"})

        problem(response, 411, "length-required")

    def test_options_says_which_methods_there_are(self, ada: Caller) -> None:
        response = ada.client.options(ORDERS, headers=ada.headers)

        assert (response.status_code, response.headers["Allow"]) == (204, "GET, POST, HEAD, OPTIONS")

    @pytest.mark.parametrize("slug", sorted(PROBLEMS))
    def test_every_problem_has_its_page(self, slug: str) -> None:
        told = Client().get(f"/api/v1/problems/{slug}")
        page = Client().get(f"/api/v1/problems/{slug}", headers={"Accept": "text/html"})

        assert (told.status_code, told.json()["title"]) == (200, PROBLEMS[slug].title)
        assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert f"<code>{slug}</code>" in page.text
