"""Orders over HTTP, as a program meets them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.api_keys import revoke_key
from orders.api_problems import PROBLEMS
from orders.models import ApiKey, IdempotentRequest, Order, Scope, SentMessage, Shipment
from orders.services import hand_over
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, make_caller, order_body

pytestmark = pytest.mark.django_db(transaction=True)

PROBLEM_MEMBERS = {
    "type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "errors",
}  # fmt: skip


@pytest.fixture
def ada() -> Caller:
    """A customer's program, in a shop with enough of everything."""
    make_shop()
    return make_caller(make_user(username="ada"))


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem in an answer, checked to be whole."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    body: dict[str, Any] = response.json()
    assert body.keys() >= PROBLEM_MEMBERS
    assert (body["status"], body["code"], body["title"]) == (status, code, PROBLEMS[code].title)
    assert body["type"] == f"http://testserver/api/v1/problems/{code}"
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert response.headers["Cache-Control"] == "no-store"
    return body


def faults(response: Any) -> list[tuple[str, str]]:
    """What a 400 complains of: (pointer, code)."""
    return [(item["pointer"], item["code"]) for item in problem(response, 400, "validation-error")["errors"]]


def nothing_is_stored() -> bool:
    return not (Order.objects.exists() or SagaRun.objects.exists() or IdempotentRequest.objects.exists())


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


class TestWhoMay:
    def test_without_a_key_nobody_gets_in(self, ada: Caller) -> None:
        for response in (Caller().get(ORDERS), Caller().post(ORDERS, order_body())):
            problem(response, 401, "unauthenticated")
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="orders"'
        assert nothing_is_stored()

    @pytest.mark.parametrize("token", ["", "x", "osk_", "osk_000000000000_" + "0" * 64, "osk_\xe9", "a b c"])
    def test_a_made_up_key_opens_nothing(self, ada: Caller, token: str) -> None:
        response = Client().get(ORDERS, headers={"Authorization": f"Bearer {token}"})

        problem(response, 401, "unauthenticated")

    def test_a_key_with_one_letter_changed_opens_nothing(self, ada: Caller) -> None:
        token = ada.headers["Authorization"]
        changed = token[:-1] + ("0" if token[-1] != "0" else "1")

        problem(Client().get(ORDERS, headers={"Authorization": changed}), 401, "unauthenticated")

    def test_the_secret_is_not_stored(self, ada: Caller) -> None:
        secret = ada.headers["Authorization"].rpartition("_")[2]

        assert len(secret) == 64
        assert all(secret not in str(value) for value in ApiKey.objects.values_list()[0])

    def test_a_revoked_an_expired_and_an_inactive_one_open_nothing(self, ada: Caller) -> None:
        eva, kim = (make_caller(make_user(username=name)) for name in ("eva", "kim"))
        revoke_key(name="ada's key")
        past = timezone.now() - timedelta(seconds=1)
        ApiKey.objects.filter(name="eva's key").update(created_at=past - timedelta(days=1), expires_at=past)
        assert kim.key is not None
        kim.key.user.is_active = False
        kim.key.user.save()

        for caller in (ada, eva, kim):
            problem(caller.get(ORDERS), 401, "unauthenticated")

    def test_the_last_use_is_noted_once_a_minute(self, ada: Caller) -> None:
        assert ApiKey.objects.get().last_used_at is None

        ada.get(ORDERS)
        first = ApiKey.objects.get().last_used_at
        ada.get(ORDERS)

        assert first is not None
        assert ApiKey.objects.get().last_used_at == first

    def test_a_scope_that_is_missing_is_named(self, ada: Caller) -> None:
        reader = make_caller(make_user(username="eva"), Scope.ORDERS_READ)
        writer = make_caller(make_user(username="kim"), Scope.ORDERS_WRITE)

        assert "orders:write" in problem(reader.post(ORDERS, order_body()), 403, "scope-missing")["detail"]
        assert "orders:read" in problem(writer.get(ORDERS), 403, "scope-missing")["detail"]
        assert reader.get(ORDERS).status_code == 200
        assert writer.post(ORDERS, order_body()).status_code == 202

    def test_a_session_needs_its_csrf_token_to_write(self, ada: Caller) -> None:
        browser = Client(enforce_csrf_checks=True)
        browser.login(username="ada", password="ada-password")
        sent = {"content_type": "application/json", "data": json.dumps(order_body())}

        refused = browser.post(ORDERS, headers={"Idempotency-Key": "1"}, **sent)  # type: ignore[arg-type]
        browser.cookies["csrftoken"] = "a" * 32
        token = {"X-CSRFToken": "a" * 32, "Idempotency-Key": "1"}
        taken = browser.post(ORDERS, headers=token, **sent)  # type: ignore[arg-type]

        problem(refused, 403, "forbidden")
        assert taken.status_code == 202
        assert Order.objects.get().placed_by == "customer:ada"
        assert browser.get(ORDERS).json()["results"][0]["order_id"] == "ORD-123"

    def test_anothers_order_is_not_there_by_any_address(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        cancelled = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "changed my mind"})
        eva = make_caller(make_user(username="eva"))

        assert eva.get(ORDERS).json()["results"] == []
        assert eva.get(ORDERS, {"q": "ORD-123"}).json()["results"] == []
        for path in (f"{ORDERS}/ORD-123", f"{ORDERS}/ORD-123/events", cancelled.headers["Location"]):
            assert problem(eva.get(path), 404, "not-found")["detail"] == "There is no order ORD-123."
        problem(eva.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "not mine"}), 404, "not-found")
        stolen = problem(eva.post(ORDERS, order_body()), 409, "order-conflict")
        assert [item["pointer"] for item in stolen["errors"]] == ["/order_id"]
        assert "ada" not in json.dumps(stolen)

    def test_staff_see_every_order(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        agent = make_caller(make_user(username="agent", role="agent"))

        assert agent.get(f"{ORDERS}/ORD-123").json()["order_id"] == "ORD-123"
        assert [row["order_id"] for row in agent.get(ORDERS).json()["results"]] == ["ORD-123"]


class TestReading:
    def test_a_completed_order_shows_steps_attempts_money_parcel_and_mail(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        run_to_end(SagaRun.objects.get())

        body = ada.get(f"{ORDERS}/ORD-123").json()

        assert (body["state"], body["failure"], body["sentence"]) == ("completed", None, "All 4 steps are done.")
        assert [line["line_total"]["amount"] for line in body["items"]] == ["60.00", "39.99"]
        assert body["payment"]["charged"] == {"amount": "99.99", "currency": "EUR"}
        assert body["payment"]["refunded"] == {"amount": "0.00", "currency": "EUR"}
        assert [(row["kind"], row["status"]) for row in body["payment"]["operations"]] == [("charge", "succeeded")]
        assert body["shipment"]["tracking_number"] == Shipment.objects.get().tracking_number
        assert [(row["kind"], row["status"]) for row in body["messages"]] == [("confirmation", "sent")]
        assert [(row["sku"], row["quantity"]) for row in body["reservations"]] == [("ITEM-001", 2), ("ITEM-002", 1)]
        payment = body["run"]["steps"][1]
        assert (payment["name"], payment["state"], payment["result"]["amount"]) == ("process_payment", "done", 99.99)
        assert [attempt["outcome"] for attempt in payment["attempts"]] == ["succeeded"]
        assert payment["attempts"][0]["key"] == f"{body['run']['id']}:process_payment:action"
        assert payment["compensation"]["state"] == "not_needed"
        assert payment["compensation"]["attempts"] == []

    def test_an_order_that_turned_back_says_why_and_what_was_undone(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(payment={"token": "tok_declined"}))
        run_to_end(SagaRun.objects.get())

        body = ada.get(f"{ORDERS}/ORD-123").json()

        assert (body["state"], body["failure"]["step"], body["failure"]["code"]) == (
            "compensated",
            "process_payment",
            "card_declined",
        )
        reserve, payment, *_ = body["run"]["steps"]
        assert (reserve["state"], reserve["compensation"]["state"]) == ("done", "undone")
        assert (payment["state"], payment["attempts"][0]["error"]["code"]) == ("failed", "card_declined")
        assert (body["can"], body["shipment"], body["messages"]) == ([], None, [])

    def test_a_tag_spares_an_answer_that_did_not_change(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        first = ada.get(f"{ORDERS}/ORD-123")
        tag = first.headers["ETag"]

        same = ada.get(f"{ORDERS}/ORD-123", If_None_Match=f'"other", W/{tag}')
        run_to_end(SagaRun.objects.get())
        changed = ada.get(f"{ORDERS}/ORD-123", If_None_Match=tag)

        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        assert changed.status_code == 200
        assert changed.headers["ETag"] != tag

    def test_the_tag_is_the_same_for_staff(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        agent = make_caller(make_user(username="agent", role="agent"))

        assert agent.get(f"{ORDERS}/ORD-123").headers["ETag"] == ada.get(f"{ORDERS}/ORD-123").headers["ETag"]

    def test_events_come_oldest_first_and_name_no_names(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        agent = make_caller(make_user(username="agent", role="agent"), name="agent's key")
        browser = Client()
        browser.force_login(agent.key.user)  # type: ignore[union-attr]
        run_to_end(SagaRun.objects.get())
        browser.post(
            f"{ORDERS}/ORD-123/cancellations",
            json.dumps({"reason": "the customer called"}),
            content_type="application/json",
            headers={"Idempotency-Key": "1"},
        )

        body = ada.get(f"{ORDERS}/ORD-123/events").json()

        assert [(row["kind"], row["actor"], row["reason"]) for row in body["results"]] == [
            ("started", "key", ""),
            ("completed", "engine", ""),
            ("cancel_requested", "staff", "the customer called"),
        ]
        assert [row["sequence"] for row in body["results"]] == sorted(row["sequence"] for row in body["results"])
        assert (body["next"], body["previous"]) == (None, None)


class TestListing:
    @pytest.fixture
    def orders(self, ada: Caller) -> Caller:
        assert ada.key is not None
        for number in range(1, 8):
            make_order(order_id=f"ORD-{number}", customer_ref=f"USER-{number % 2}", user=ada.key.user)
        return ada

    def numbers(self, caller: Caller, **query: Any) -> list[str]:
        response = caller.get(ORDERS, query)
        assert response.status_code == 200, response.text
        return [row["order_id"] for row in response.json()["results"]]

    def test_pages_go_forward_and_back_without_a_gap(self, orders: Caller) -> None:
        seen, url, pages = [], f"{ORDERS}?limit=3", []
        while url:
            body = orders.get(url).json()
            seen.append([row["order_id"] for row in body["results"]])
            pages.append(body)
            url = body["next"]
        back = orders.get(pages[-1]["previous"]).json()
        first = orders.get(back["previous"]).json()

        assert seen == [["ORD-7", "ORD-6", "ORD-5"], ["ORD-4", "ORD-3", "ORD-2"], ["ORD-1"]]
        assert pages[0]["previous"] is None
        assert [row["order_id"] for row in back["results"]] == seen[1]
        assert [row["order_id"] for row in first["results"]] == seen[0]
        assert first["previous"] is None
        assert orders.get(first["next"]).json()["results"] == back["results"]

    def test_a_row_says_what_a_list_needs(self, orders: Caller) -> None:
        row = orders.get(ORDERS, {"limit": 1}).json()["results"][0]

        order = Order.objects.get(order_id="ORD-7")
        assert row.pop("placed_at").startswith(f"{order.placed_at:%Y-%m-%dT%H:%M:%S}")
        assert row.pop("updated_at")
        assert row == {
            "order_id": "ORD-7",
            "state": "pending",
            "step": "",
            "user_id": "USER-1",
            "total_amount": {"amount": "99.99", "currency": "EUR"},
            "url": "/api/v1/orders/ORD-7",
        }

    def test_filters_and_order(self, orders: Caller) -> None:
        run_to_end(SagaRun.objects.get(business_key="ORD-3"))
        middle = Order.objects.get(order_id="ORD-4").placed_at.isoformat()

        assert self.numbers(orders, state="completed") == ["ORD-3"]
        assert self.numbers(orders, user_id="USER-0") == ["ORD-6", "ORD-4", "ORD-2"]
        assert self.numbers(orders, placed_from=middle, sort="placed_at") == ["ORD-4", "ORD-5", "ORD-6", "ORD-7"]
        assert self.numbers(orders, placed_to=middle) == ["ORD-3", "ORD-2", "ORD-1"]
        assert self.numbers(orders, q="rd-5") == ["ORD-5"]
        assert self.numbers(orders, q="%") == []
        assert self.numbers(orders, q="' OR 1=1 --") == []
        assert self.numbers(orders, state="pending", user_id="USER-1", limit=2) == ["ORD-7", "ORD-5"]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("state=sideways", [("?state", "invalid_choice")]),
            ("limit=0", [("?limit", "min_value")]),
            ("limit=201", [("?limit", "max_value")]),
            ("limit=many", [("?limit", "invalid")]),
            ("placed_from=yesterday", [("?placed_from", "invalid")]),
            ("placed_from=0001-01-01T00:00:00%2B23:59", [("?placed_from", "overflow")]),
            ("q=%00", [("?q", "null_characters_not_allowed")]),
            ("q=", [("?q", "blank")]),
            ("status=completed", [("?status", "unknown_field")]),
            ("format=json", [("?format", "unknown_field")]),
            ("state=pending&state=completed", [("?state", "repeated")]),
            ("sort=email", [("?sort", "invalid_choice")]),
        ],
    )
    def test_a_bad_filter_is_named(self, orders: Caller, query: str, expected: list[tuple[str, str]]) -> None:
        assert faults(orders.get(f"{ORDERS}?{query}")) == expected

    @pytest.mark.parametrize(
        "cursor", ["x", "!", "bnVsbA", "WyJhIiwwXQ", "WyI5OTk5OTk5OTk5OTk5OTk5OTk5OTkiLDBd", "\xe9"]
    )
    def test_a_cursor_that_is_not_ours_is_refused(self, orders: Caller, cursor: str) -> None:
        problem(orders.get(ORDERS, {"cursor": cursor}), 400, "malformed-cursor")

    def test_the_number_of_queries_does_not_grow_with_the_rows(self, orders: Caller) -> None:
        orders.get(ORDERS)  # notes the key's use
        counts = []
        for limit in (1, 7):
            with CaptureQueriesContext(
                connection,
            ) as queries:
                assert len(orders.get(ORDERS, {"limit": limit}).json()["results"]) == limit
            counts.append(len(queries))

        assert counts[0] == counts[1] <= 8

    def test_one_order_takes_a_fixed_number_of_queries(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        run_to_end(SagaRun.objects.get())

        with CaptureQueriesContext(connection) as queries:
            ada.get(f"{ORDERS}/ORD-123")

        assert len(queries) <= 14


class TestCancelling:
    def test_a_completed_order_is_undone_and_the_cancellation_tells_how(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        run_to_end(SagaRun.objects.get())

        asked = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "changed my mind"})
        address = asked.headers["Location"]
        run_to_end(SagaRun.objects.get())
        done = ada.get(address)

        assert (asked.status_code, asked.headers["Retry-After"]) == (202, "1")
        body = asked.json()
        assert (body["state"], body["reason"], body["requested_by"]) == ("undoing", "changed my mind", "key")
        assert address == body["url"] == f"/api/v1/orders/ORD-123/cancellations/{body['id']}"
        assert done.status_code == 200
        assert "Retry-After" not in done.headers
        assert (done.json()["state"], done.json()["id"]) == ("done", body["id"])
        assert [(step["step"], step["state"]) for step in done.json()["steps"]] == [
            ("reserve_inventory", "undone"),
            ("process_payment", "undone"),
            ("create_shipment", "undone"),
            ("send_confirmation_email", "undone"),
        ]
        assert list(SentMessage.objects.order_by("id").values_list("kind", flat=True)) == [
            "confirmation",
            "cancellation",
        ]

    def test_a_pending_order_is_cancelled_before_anything_happens(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        body = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "too late?"}).json()

        assert (body["state"], [step["state"] for step in body["steps"]]) == ("requested", ["not_needed"] * 4)

    def test_asked_twice_it_is_the_same_cancellation(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        first = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "one"})
        second = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "two"})

        assert second.status_code == 202
        assert second.headers["Location"] == first.headers["Location"]
        assert second.json()["reason"] == "one"

    def test_after_hand_over_it_is_too_late(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        run_to_end(SagaRun.objects.get())
        hand_over(order_id="ORD-123", actor="user:supervisor")

        response = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "changed my mind"})

        body = problem(response, 409, "state-conflict")
        assert body["state"] == "completed"
        assert "handed over" in body["detail"]
        assert SagaRun.objects.get().status == "completed"
        assert ada.get(f"{ORDERS}/ORD-123").json()["can"] == []

    def test_an_undone_order_cannot_be_undone_again(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(payment={"token": "tok_declined"}))
        run_to_end(SagaRun.objects.get())

        response = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "changed my mind"})

        assert problem(response, 409, "state-conflict")["state"] == "compensated"

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({}, [("/reason", "required")]),
            ({"reason": ""}, [("/reason", "blank")]),
            ({"reason": "  "}, [("/reason", "blank")]),
            ({"reason": "x" * 501}, [("/reason", "max_length")]),
            ({"reason": 7}, [("/reason", "invalid")]),
            ({"reason": "a\x1bb"}, [("/reason", "control_character")]),
            ({"reason": "ok", "force": True}, [("/force", "unknown_field")]),
        ],
    )
    def test_a_reason_is_needed(self, ada: Caller, body: dict[str, Any], expected: list[tuple[str, str]]) -> None:
        ada.post(ORDERS, order_body())

        assert faults(ada.post(f"{ORDERS}/ORD-123/cancellations", body)) == expected
        assert SagaRun.objects.get().cancel_requested_at is None

    def test_an_order_that_was_not_cancelled_has_no_cancellation(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        problem(ada.get(f"{ORDERS}/ORD-123/cancellations/1"), 404, "not-found")
        problem(ada.get(f"{ORDERS}/ORD-123/cancellations/{'9' * 40}"), 404, "not-found")


class TestDocument:
    def test_it_is_json_by_default_and_yaml_on_request(self) -> None:
        as_json = Client().get("/api/v1/schema")
        as_yaml = Client().get("/api/v1/schema", headers={"Accept": "application/yaml"})

        assert as_json.json()["openapi"] == "3.1.0"
        assert as_yaml.text.startswith("openapi: 3.1.0")
        assert sorted(as_json.json()["paths"]) == [
            "/api/v1/orders",
            "/api/v1/orders/{order_id}",
            "/api/v1/orders/{order_id}/cancellations",
            "/api/v1/orders/{order_id}/cancellations/{cancellation_id}",
            "/api/v1/orders/{order_id}/events",
            "/api/v1/saga-runs",
            "/api/v1/saga-runs/{run_id}",
            "/api/v1/saga-runs/{run_id}/resolutions",
            "/api/v1/saga-runs/{run_id}/retries",
            "/api/v1/saga-runs/{run_id}/skips",
        ]

    def test_it_is_valid_and_complete(self, tmp_path: Any) -> None:
        call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))

    def test_its_example_is_an_order_that_is_taken(self, ada: Caller) -> None:
        operation = Client().get("/api/v1/schema").json()["paths"]["/api/v1/orders"]["post"]
        (example,) = operation["requestBody"]["content"]["application/json"]["examples"].values()

        assert ada.post(ORDERS, example["value"]).status_code == 202

    def test_the_docs_page_asks_no_outside_host(self) -> None:
        page = Client().get("/api/v1/docs")
        script = Client().get("/api/v1/docs?script=")

        assert page.status_code == 200
        assert "//" not in page.text.replace("http://www.w3.org", "")
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        assert script.headers["Content-Type"] == "application/javascript"
        assert "/api/v1/schema" in script.text


class TestKeyCommand:
    def test_a_key_is_made_listed_and_revoked(self, capsys: pytest.CaptureFixture[str]) -> None:
        make_user(username="ada")

        call_command("apikey", "create", "--user", "ada", "--name", "shop", "--expires", "90d")
        token = capsys.readouterr().out.strip()
        assert Caller(token).get(ORDERS).status_code == 200
        call_command("apikey", "list")
        listed = capsys.readouterr().out
        call_command("apikey", "revoke", "shop")

        assert "shop  ada   osk_" in listed
        assert "orders:read orders:write  live until" in listed
        assert token.rpartition("_")[2] not in listed
        assert Caller(token).get(ORDERS).status_code == 401

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["create", "--user", "nobody", "--name", "x"], "There is no user nobody."),
            (["create", "--user", "ada", "--name", "taken"], "There is a key named taken already."),
            (["create", "--user", "ada", "--name", "x", "--expires", "soon"], "expected a date like"),
            (["create", "--user", "ada", "--name", "x", "--expires", "2020-01-01"], "that is over already"),
            (["revoke", "nothing"], "There is no key nothing."),
        ],
    )
    def test_what_cannot_be_is_said(self, arguments: list[str], message: str) -> None:
        make_caller(make_user(username="ada"), name="taken")

        with pytest.raises(CommandError, match=message):
            call_command("apikey", *arguments)
        assert ApiKey.objects.count() == 1
