"""The order's story, told through the front door."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.core import mail
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient
from django.urls import path
from pytest_django import Settings

from orders.exceptions import InvalidOrder, OrderConflict
from orders.models import (
    FaultPlan,
    Order,
    Payment,
    PaymentOperation,
    Reservation,
    SandboxCharge,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
    StockItem,
    StockMovement,
)
from orders.order_processing import OrderProcessingSaga
from orders.services import cancel_order
from sagas.selectors import SagaRun
from sagas.testing import RunReport, run_to_end
from tests.factories import make_shop

pytestmark = pytest.mark.django_db(transaction=True)

ACTIONS = ["reserve_inventory", "process_payment", "create_shipment", "send_confirmation_email"]


def order_saga(**changes: Any) -> OrderProcessingSaga:
    """The README's order."""
    return OrderProcessingSaga(
        **{
            "order_id": "ORD-123",
            "user_id": "USER-456",
            "items": [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 1}],
            "total_amount": 99.99,
            **changes,
        }
    )


def run(saga: OrderProcessingSaga) -> RunReport:
    return run_to_end(saga.start(ring=False))


def stock() -> dict[str, tuple[int, int]]:
    """SKU -> (on hand, allocated)."""
    return {item.product.sku: (item.on_hand, item.allocated) for item in StockItem.objects.select_related("product")}


def movements() -> list[tuple[str, str, int]]:
    """(SKU, kind, change of what is allocated) since the goods came in."""
    return [
        (movement.stock.product.sku, movement.kind, movement.delta_allocated)
        for movement in StockMovement.objects.exclude(kind="receive").select_related("stock__product").order_by("id")
    ]


def operations() -> list[tuple[str, str, Decimal]]:
    return [(row.kind, row.status, row.amount) for row in PaymentOperation.objects.order_by("id")]


def money() -> tuple[Decimal, Decimal]:
    """(charged, refunded)."""
    payment = Payment.objects.get()
    return payment.charged, payment.refunded


def subjects() -> list[str]:
    return [str(message.subject) for message in mail.outbox]


async def buy(request: HttpRequest) -> JsonResponse:
    """Somebody's view that waits for the order's end."""
    result = await order_saga().execute()
    return JsonResponse({"status": result.status, "amount": result.results["process_payment"]["amount"]})


urlpatterns = [path("buy/", buy)]

FULL = {"ITEM-001": (10, 0), "ITEM-002": (10, 0)}
HELD = {"ITEM-001": (10, 2), "ITEM-002": (10, 1)}
TOTAL = Decimal("99.99")


class TestOrderProcessingSaga:
    """All well; then each step's failure, and what it undoes; then what is undone later."""

    @pytest.fixture(autouse=True)
    def shop(self) -> Iterator[None]:
        make_shop()
        yield
        # The thread that async code keeps for the database has a connection of its own, and would hold on to it.
        SyncToAsync.single_thread_executor.submit(connections.close_all).result()

    def test_all_steps_done_leaves_an_order_paid_booked_and_confirmed(self) -> None:
        report = run(order_saga())

        assert (report.status, report.done, report.undone) == ("completed", ACTIONS, [])
        assert report.attempts == [(step, "action", 1, "succeeded") for step in ACTIONS]
        assert stock() == HELD
        assert movements() == [("ITEM-001", "reserve", 2), ("ITEM-002", "reserve", 1)]
        assert money() == (TOTAL, Decimal(0))
        assert operations() == [("charge", "succeeded", TOTAL)]
        assert Shipment.objects.get().status == "created"
        assert subjects() == ["Your order ORD-123 is on its way"]
        assert list(SentMessage.objects.values_list("kind", "status")) == [("confirmation", "sent")]

    def test_each_step_returns_the_shape_it_is_known_by(self) -> None:
        results = run(order_saga()).results

        reserved = {row.stock.product.sku: row.reservation_id for row in Reservation.objects.all()}
        parcel = Shipment.objects.get()
        message = SentMessage.objects.get()
        assert results == {
            "reserve_inventory": {
                "reserved_items": [
                    {"sku": "ITEM-001", "quantity": 2, "reservation_id": reserved["ITEM-001"]},
                    {"sku": "ITEM-002", "quantity": 1, "reservation_id": reserved["ITEM-002"]},
                ]
            },
            "process_payment": {
                "transaction_id": SandboxCharge.objects.get().transaction_id,
                "amount": 99.99,
                "status": "completed",
            },
            "create_shipment": {
                "shipment_id": parcel.shipment_id,
                "tracking_number": parcel.tracking_number,
                "estimated_delivery": str(parcel.estimated_delivery),
            },
            "send_confirmation_email": {"email_sent": True, "email_id": message.email_id},
        }
        assert reserved["ITEM-001"].startswith("RES-")
        assert results["process_payment"]["transaction_id"].startswith("TXN-")
        assert parcel.shipment_id.startswith("SHIP-")
        assert parcel.tracking_number.startswith("TRK-")
        assert message.email_id.startswith("EMAIL-")

    def test_insufficient_inventory_leaves_nothing_to_undo(self) -> None:
        items = [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 11}]

        report = run(order_saga(items=items, total_amount=499.89))

        assert (report.status, report.done, report.undone) == ("compensated", [], [])
        assert (report.failed_step, report.error_code) == ("reserve_inventory", "insufficient_inventory")
        assert report.attempts == [("reserve_inventory", "action", 1, "refused")]
        assert stock() == FULL
        assert movements() == []
        assert not Reservation.objects.exists()
        assert not PaymentOperation.objects.exists()
        assert not SandboxCharge.objects.exists()
        assert not Shipment.objects.exists()
        assert mail.outbox == []

    def test_payment_failure_releases_the_inventory(self) -> None:
        report = run(order_saga(card_token="tok_declined"))

        assert (report.status, report.error_code) == ("compensated", "card_declined")
        assert report.attempts == [
            ("reserve_inventory", "action", 1, "succeeded"),
            ("process_payment", "action", 1, "refused"),
            ("reserve_inventory", "compensation", 1, "succeeded"),
        ]
        assert stock() == FULL
        assert movements() == [
            ("ITEM-001", "reserve", 2),
            ("ITEM-002", "reserve", 1),
            ("ITEM-001", "release", -2),
            ("ITEM-002", "release", -1),
        ]
        assert set(Reservation.objects.values_list("status", flat=True)) == {"released"}
        assert operations() == [("charge", "refused", TOTAL)]
        assert money() == (Decimal(0), Decimal(0))
        assert not SandboxRefund.objects.exists()
        assert not Shipment.objects.exists()
        assert mail.outbox == []

    def test_shipment_failure_refunds_the_payment_then_releases_the_inventory(self) -> None:
        report = run(order_saga(ship_postcode="00000"))

        assert (report.status, report.error_code) == ("compensated", "address_not_served")
        assert report.attempts == [
            ("reserve_inventory", "action", 1, "succeeded"),
            ("process_payment", "action", 1, "succeeded"),
            ("create_shipment", "action", 1, "refused"),
            ("process_payment", "compensation", 1, "succeeded"),
            ("reserve_inventory", "compensation", 1, "succeeded"),
        ]
        assert stock() == FULL
        assert operations() == [("charge", "succeeded", TOTAL), ("refund", "succeeded", TOTAL)]
        assert money() == (TOTAL, TOTAL)
        assert SandboxRefund.objects.get().amount == TOTAL
        assert Shipment.objects.get().status == "refused"
        assert not SandboxParcel.objects.exists()
        assert mail.outbox == []

    def test_a_mail_server_that_is_away_never_undoes_a_paid_order(self) -> None:
        report = run(order_saga(email="mail-away-then-back@example.com"))

        assert (report.status, report.done, report.undone) == ("completed", ACTIONS, [])
        assert report.attempts[3:] == [
            ("send_confirmation_email", "action", 1, "unavailable"),
            ("send_confirmation_email", "action", 2, "unavailable"),
            ("send_confirmation_email", "action", 3, "succeeded"),
        ]
        assert money() == (TOTAL, Decimal(0))
        assert stock() == HELD
        assert subjects() == ["Your order ORD-123 is on its way"]

    def test_a_mail_server_that_stays_away_leaves_a_paid_order_for_a_person(self) -> None:
        FaultPlan.objects.create(provider="mail", operation="send", kind="unavailable", remaining=100)

        report = run(order_saga())

        assert (report.status, report.done, report.undone) == ("needs_attention", ACTIONS[:3], [])
        assert money() == (TOTAL, Decimal(0))
        assert Shipment.objects.get().status == "created"
        assert mail.outbox == []

    def test_a_lost_payment_answer_is_looked_up_and_not_charged_twice(self) -> None:
        report = run(order_saga(card_token="tok_lose_answer"))

        assert (report.status, report.done) == ("completed", ACTIONS)
        assert report.attempts[1:3] == [
            ("process_payment", "action", 1, "unknown"),
            ("process_payment", "action", 2, "succeeded"),
        ]
        assert SandboxCharge.objects.count() == 1
        assert operations() == [("charge", "succeeded", TOTAL)]
        assert money() == (TOTAL, Decimal(0))

    def test_a_carrier_that_comes_back_books_one_parcel(self) -> None:
        report = run(order_saga(ship_postcode="00001"))

        assert (report.status, report.done, report.undone) == ("completed", ACTIONS, [])
        assert report.attempts[2:5] == [
            ("create_shipment", "action", 1, "unavailable"),
            ("create_shipment", "action", 2, "unavailable"),
            ("create_shipment", "action", 3, "succeeded"),
        ]
        assert SandboxParcel.objects.count() == 1

    def test_a_refund_that_keeps_failing_releases_the_inventory_and_asks_a_person(self) -> None:
        report = run(order_saga(card_token="tok_refund_fails", ship_postcode="00000"))

        assert report.status == "needs_attention"
        assert report.undone == ["reserve_inventory"]
        assert "Refund payment" in report.attention
        assert stock() == FULL
        assert money() == (TOTAL, Decimal(0))
        assert operations() == [("charge", "succeeded", TOTAL), ("refund", "unavailable", TOTAL)]
        assert not SandboxRefund.objects.exists()

    def test_cancelling_a_completed_order_undoes_all_four_steps_in_reverse(self) -> None:
        saga_run = order_saga().start(ring=False)
        run_to_end(saga_run)

        cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind")
        report = run_to_end(saga_run)

        assert (report.status, report.undone) == ("compensated", ACTIONS[::-1])
        assert report.attempts[4:] == [(step, "compensation", 1, "succeeded") for step in ACTIONS[::-1]]
        assert (report.error_code, report.error) == ("cancelled", "changed their mind")
        assert stock() == FULL
        assert money() == (TOTAL, TOTAL)
        assert Shipment.objects.get().status == "cancelled"
        assert SandboxParcel.objects.get().status == "cancelled"
        assert subjects() == ["Your order ORD-123 is on its way", "Your order ORD-123 is cancelled"]

    async def test_execute_runs_the_order_here_and_now(self) -> None:
        result = await order_saga().execute()

        assert (result.status, result.is_completed, result.error) == ("completed", True, "")
        assert list(result.results) == ACTIONS
        assert result.results["process_payment"]["amount"] == 99.99
        order = await Order.objects.aget(order_id="ORD-123")
        assert result.run_id == str(order.run_id)
        assert (order.customer_ref, order.user_id) == ("USER-456", None)

    async def test_a_failed_order_is_a_result_and_not_an_exception(self) -> None:
        result = await order_saga(ship_postcode="00000").execute()

        assert (result.status, result.failed_step) == ("compensated", "create_shipment")
        assert result.undone == ("process_payment", "reserve_inventory")
        assert result.error == "No delivery to postcode 00000."

    def test_execute_works_from_a_script(self) -> None:
        result = asyncio.run(order_saga().execute())

        assert result.status == "completed"
        assert money() == (TOTAL, Decimal(0))

    async def test_execute_works_from_an_async_view(self, settings: Settings, async_client: AsyncClient) -> None:
        settings.ROOT_URLCONF = __name__

        response = await async_client.post("/buy/")

        assert json.loads(response.content) == {"status": "completed", "amount": 99.99}

    def test_the_same_order_again_is_the_first_one(self) -> None:
        first = asyncio.run(order_saga().execute())

        again = asyncio.run(order_saga().execute())

        assert again == first
        assert SagaRun.objects.count() == 1
        assert SandboxCharge.objects.count() == 1
        assert stock() == HELD
        assert len(mail.outbox) == 1

    def test_another_order_under_the_same_number_is_refused_by_name_of_what_differs(self) -> None:
        run(order_saga())

        with pytest.raises(OrderConflict) as caught:
            order_saga(items=[{"sku": "ITEM-001", "quantity": 1}], total_amount=30, email="b@example.com").start()

        assert caught.value.differing == ("email", "total_amount", "items")
        assert Order.objects.count() == 1

    def test_an_order_that_cannot_be_taken_stores_nothing(self) -> None:
        with pytest.raises(InvalidOrder) as caught:
            order_saga(total_amount=98).start()

        assert [(error.field, error.code) for error in caught.value.errors] == [("total_amount", "total_mismatch")]
        assert "99.99 EUR" in str(caught.value)
        assert "98.00 EUR" in str(caught.value)
        assert not Order.objects.exists()
        assert not SagaRun.objects.exists()
