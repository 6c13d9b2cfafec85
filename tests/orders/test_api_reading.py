"""Orders as the API shows them: one, many, and page by page."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from orders.models import Order, Shipment
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, faults, make_caller, order_body, problem

pytestmark = pytest.mark.django_db(transaction=True)


def cursor_in(address: str) -> str:
    return parse_qs(urlsplit(address).query)["cursor"][0]


@pytest.fixture
def ada() -> Caller:
    """A customer's program, in a shop with enough of everything."""
    make_shop()
    return make_caller(make_user(username="ada"))


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
            headers={"Idempotency-Key": "1", "If-Match": "*"},
        )

        body = ada.get(f"{ORDERS}/ORD-123/events").json()

        assert [(row["kind"], row["actor"], row["reason"]) for row in body["results"]] == [
            ("started", "key", ""),
            ("completed", "engine", ""),
            ("cancel_requested", "staff", "the customer called"),
        ]
        assert [row["sequence"] for row in body["results"]] == sorted(row["sequence"] for row in body["results"])
        assert (body["next"], body["previous"]) == (None, None)

    def test_the_run_is_left_out_on_request_under_the_same_tag(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        whole = ada.get(f"{ORDERS}/ORD-123", {"expand": "run.steps.attempts"})
        less = ada.get(f"{ORDERS}/ORD-123", {"expand": "none"})

        assert less.json() == {**whole.json(), "run": None}
        assert less.headers["ETag"] == whole.headers["ETag"] == ada.get(f"{ORDERS}/ORD-123").headers["ETag"]
        assert faults(ada.get(f"{ORDERS}/ORD-123", {"expand": "all"})) == [("?expand", "invalid_choice")]

    def test_orders_are_found_by_why_they_turned_back_and_where_they_are(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(order_id="ORD-1", payment={"token": "tok_declined"}))
        ada.post(ORDERS, order_body(order_id="ORD-2", shipping_address={**order_body()["shipping_address"]}))
        make_order(order_id="ORD-3", card_token="tok_refund_fails", ship_postcode="00000")
        for number in ("ORD-1", "ORD-3"):
            run_to_end(SagaRun.objects.get(business_key=number))
        agent = make_caller(make_user(username="agent", role="agent"))

        def found(**query: str) -> list[str]:
            return [row["order_id"] for row in agent.get(ORDERS, query).json()["results"]]

        assert found(error_code="card_declined") == ["ORD-1"]
        assert found(step="process_payment") == ["ORD-3"]
        assert found(step="process_payment", error_code="card_declined") == []


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
        shipment = Shipment.objects.get(order__order_id="ORD-3")
        assert self.numbers(orders, q=shipment.tracking_number) == ["ORD-3"]
        assert self.numbers(orders, step="process_payment") == []
        assert self.numbers(orders, error_code="card_declined") == []
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

    def test_a_misspelt_filter_is_told_which_there_are(self, orders: Caller) -> None:
        (fault,) = orders.get(ORDERS, {"status": "completed"}).json()["errors"]

        assert fault["detail"].startswith("There is no parameter of this name here. There are: limit, cursor, state, ")

    @pytest.mark.parametrize(
        "cursor", ["x", "!", "bnVsbA", "WyJhIiwwXQ", "WyI5OTk5OTk5OTk5OTk5OTk5OTk5OTkiLDBd", "\xe9"]
    )
    def test_a_cursor_that_is_not_ours_is_refused(self, orders: Caller, cursor: str) -> None:
        problem(orders.get(ORDERS, {"cursor": cursor}), 400, "malformed-cursor")

    @pytest.mark.parametrize("key", ["9" * 30, "-1", "x", 7, None])
    def test_nor_is_one_of_ours_that_was_changed(self, orders: Caller, key: Any) -> None:
        ours = cursor_in(orders.get(ORDERS, {"limit": 1}).json()["next"])
        _, backwards, mark = json.loads(base64.urlsafe_b64decode(ours + "=" * (-len(ours) % 4)))

        made_up = base64.urlsafe_b64encode(json.dumps([key, backwards, mark]).encode()).decode().rstrip("=")

        problem(orders.get(ORDERS, {"limit": 1, "cursor": made_up}), 400, "malformed-cursor")

    def test_a_cursor_goes_through_the_list_it_came_from_and_no_other(self, orders: Caller) -> None:
        cursor = cursor_in(orders.get(ORDERS, {"limit": 1}).json()["next"])

        assert orders.get(ORDERS, {"limit": 2, "cursor": cursor}).status_code == 200
        others: list[tuple[str, dict[str, str]]] = [
            (ORDERS, {"state": "pending"}),
            (ORDERS, {"sort": "placed_at"}),
            (f"{ORDERS}/ORD-1/events", {}),
        ]
        for path, asked in others:
            problem(orders.get(path, {**asked, "cursor": cursor}), 400, "malformed-cursor")

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
