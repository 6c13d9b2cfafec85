"""Cancelling over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from orders.models import SentMessage
from orders.services import hand_over
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, faults, make_caller, order_body, problem

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Caller:
    """A customer's program, in a shop with enough of everything."""
    make_shop()
    return make_caller(make_user(username="ada"))


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
        assert second.headers["Retry-After"] == "1"

    def test_asked_again_after_its_end_there_is_nothing_to_wait_for(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "one"})
        run_to_end(SagaRun.objects.get())

        again = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "two"})

        assert (again.status_code, again.json()["state"]) == (202, "done")
        assert "Retry-After" not in again.headers

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
