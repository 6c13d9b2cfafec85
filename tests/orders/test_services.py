"""What people do to orders and stock, and who sees what."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections, transaction
from django_q.models import OrmQ
from pytest_django import DjangoAssertNumQueries

from orders.exceptions import HandOverRefused, InvalidOrder, InvalidStock, OrderConflict, OrderNotCancellable
from orders.models import (
    FaultPlan,
    Order,
    OrderLine,
    Product,
    Reservation,
    Shipment,
    StockItem,
    StockMovement,
)
from orders.selectors import in_status, order_page, order_rows, orders_visible_to
from orders.services import cancel_order, correct_stock, hand_over, place_order, receive_stock
from sagas.selectors import SagaRun, run_view
from sagas.testing import run_to_end
from tests.factories import make_order, make_product, make_shop, make_user, order_fields

pytestmark = pytest.mark.django_db(transaction=True)


TOTAL, NOTHING = Decimal("99.99"), Decimal(0)


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


def run_of(order: Order) -> SagaRun:
    return SagaRun.objects.get(business_key=order.order_id)


def completed_order(**changes: Any) -> Order:
    order = make_order(**changes)
    assert run_to_end(run_of(order)).status == "completed"
    return order


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Each act in a thread of its own, let go together; what each returned or raised."""
    gate = threading.Barrier(len(acts))
    ends: list[Any] = [None] * len(acts)

    def run(position: int, act: Callable[[], Any]) -> None:
        try:
            gate.wait()
            ends[position] = act()
        except Exception as error:
            ends[position] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


class TestPlacing:
    def test_order_run_and_wake_up_are_stored_together(self) -> None:
        order, created = place_order(**order_fields())

        run = run_of(order)
        assert created
        assert (order.run_id, run.status, order.placed_by) == (run.pk, "pending", "customer:ada")
        assert run.input == {
            "order_id": "ORD-123",
            "user_id": "USER-456",
            "email": "ada@example.com",
            "currency": "EUR",
            "total_amount": "99.99",
            "items": [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 1}],
            "address": {
                "name": "Ada Pereira",
                "line1": "Torstraße 1",
                "city": "Berlin",
                "postcode": "10115",
                "country": "DE",
            },
        }
        assert OrmQ.objects.count() == 1
        assert list(order.lines.values_list("sku", "quantity", "unit_price", "line_total")) == [
            ("ITEM-001", 2, Decimal("30.00"), Decimal("60.00")),
            ("ITEM-002", 1, Decimal("39.99"), Decimal("39.99")),
        ]

    def test_a_caller_that_rolls_back_leaves_nothing(self) -> None:
        with transaction.atomic():
            place_order(**order_fields())
            transaction.set_rollback(True)

        assert not Order.objects.exists()
        assert not SagaRun.objects.exists()
        assert not OrmQ.objects.exists()

    def test_lines_of_one_product_are_summed(self) -> None:
        items = [
            {"sku": "ITEM-001", "quantity": 1},
            {"sku": "ITEM-002", "quantity": 1},
            {"sku": "ITEM-001", "quantity": 1},
        ]

        order, _ = place_order(**order_fields(items=items))

        assert list(order.lines.values_list("sku", "quantity")) == [("ITEM-001", 2), ("ITEM-002", 1)]

    def test_the_same_order_again_is_the_first_one(self) -> None:
        first, _ = place_order(**order_fields())

        again, created = place_order(**order_fields())

        assert (again.pk, created) == (first.pk, False)
        assert (Order.objects.count(), OrderLine.objects.count(), SagaRun.objects.count()) == (1, 2, 1)
        assert OrmQ.objects.count() == 1

    def test_the_same_order_is_the_same_after_prices_changed_and_goods_went(self) -> None:
        place_order(**order_fields())
        Product.objects.filter(sku="ITEM-001").update(price=31)
        Product.objects.filter(sku="ITEM-002").update(is_active=False)

        again, created = place_order(**order_fields())

        assert (again.total_amount, created) == (Decimal("99.99"), False)

    @pytest.mark.parametrize(
        ("changes", "differing"),
        [
            ({"customer_ref": "USER-457"}, ("user_id",)),
            ({"email": "eve@example.com", "ship_city": "Köln"}, ("email", "ship_city")),
            ({"card_token": "tok_other"}, ("card_token",)),
            ({"items": [{"sku": "ITEM-001", "quantity": 1}], "total_amount": 30}, ("total_amount", "items")),
        ],
    )
    def test_another_order_of_that_number_is_told_what_differs(
        self, changes: dict[str, Any], differing: tuple[str, ...]
    ) -> None:
        place_order(**order_fields())

        with pytest.raises(OrderConflict) as caught:
            place_order(**order_fields(**changes))

        assert caught.value.differing == differing
        assert Order.objects.count() == 1

    def test_somebody_elses_number_tells_nothing_of_their_order(self) -> None:
        place_order(**order_fields(user=make_user(username="ada")))

        with pytest.raises(OrderConflict) as caught:
            place_order(**order_fields(user=make_user(username="eve"), email="eve@example.com"))

        assert caught.value.differing == ("order_id",)

    def test_the_same_order_twice_at_once_is_one_order(self) -> None:
        ends = at_once(*[lambda: place_order(**order_fields())] * 4)

        assert sorted(created for _, created in ends) == [False, False, False, True]
        assert {order.pk for order, _ in ends} == {Order.objects.get().pk}
        assert SagaRun.objects.count() == 1

    def test_the_last_piece_goes_to_one_of_many(self) -> None:
        make_product(sku="LAST", stock=1)
        orders = [
            make_order(order_id=f"ORD-{n}", items=[{"sku": "LAST", "quantity": 1}], total_amount=30) for n in range(5)
        ]

        statuses = sorted(run_to_end(run_of(order)).status for order in orders)

        last = StockItem.objects.get(product__sku="LAST")
        assert statuses == ["compensated"] * 4 + ["completed"]
        assert (last.on_hand, last.allocated) == (1, 1)
        assert Reservation.objects.filter(stock=last).count() == 1


class TestCancelling:
    def test_before_it_was_taken_up_nothing_has_to_be_undone(self) -> None:
        order = make_order()

        cancel_order(order_id="ORD-123", actor="user:agent", reason="a mistake")
        report = run_to_end(run_of(order))

        assert (report.status, report.attempts) == ("compensated", [])

    def test_while_the_mail_is_away_all_else_is_undone_and_nobody_is_told(self) -> None:
        FaultPlan.objects.create(provider="mail", operation="send", kind="unavailable", remaining=100)
        order = make_order()
        run_to_end(run_of(order))

        cancel_order(order_id="ORD-123", actor="user:agent", reason="too long")
        report = run_to_end(run_of(order))

        assert report.status == "compensated"
        assert report.undone == ["create_shipment", "process_payment", "reserve_inventory"]
        assert Shipment.objects.get().status == "cancelled"

    def test_twice_is_once(self) -> None:
        order = completed_order()

        for _ in range(2):
            cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind")
        report = run_to_end(run_of(order))
        events = [event.kind for event in run_view(report.run.pk).events]

        assert report.status == "compensated"
        assert events.count("cancel_requested") == 1

    def test_after_hand_over_it_is_refused_with_the_way_out(self) -> None:
        completed_order()
        hand_over(order_id="ORD-123", actor="user:supervisor")

        with pytest.raises(OrderNotCancellable) as caught:
            cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind")

        assert caught.value.reason == "the parcel was handed over to the carrier; take the goods back as a return"
        assert SagaRun.objects.get().status == "completed"
        assert Shipment.objects.get().status == "handed_over"

    def test_an_order_that_is_undone_already_is_refused(self) -> None:
        run_to_end(run_of(make_order(card_token="tok_declined")))

        with pytest.raises(OrderNotCancellable):
            cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind")

    @pytest.mark.parametrize("reason", ["", "  ", "a\x00b", "x" * 501])
    def test_a_reason_is_needed(self, reason: str) -> None:
        completed_order()

        with pytest.raises(InvalidOrder) as caught:
            cancel_order(order_id="ORD-123", actor="user:agent", reason=reason)

        assert [error.field for error in caught.value.errors] == ["reason"]
        assert SagaRun.objects.get().status == "completed"

    def test_a_parcel_the_carrier_took_along_unasked_leaves_a_person_to_decide(self) -> None:
        order = completed_order(ship_postcode="00003")

        cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind")
        report = run_to_end(run_of(order))

        assert (report.status, report.undone) == (
            "needs_attention",
            ["send_confirmation_email", "process_payment", "reserve_inventory"],
        )
        assert Shipment.objects.get().status == "handed_over"
        assert "Cancel shipment" in report.attention


class TestHandingOver:
    def test_the_goods_leave_the_stock(self) -> None:
        order = completed_order()

        shipment = hand_over(order_id="ORD-123", actor="user:supervisor")

        assert shipment.status == "handed_over"
        assert shipment.handed_over_at is not None
        assert sorted(StockItem.objects.values_list("product__sku", "on_hand", "allocated")) == [
            ("ITEM-001", 8, 0),
            ("ITEM-002", 9, 0),
        ]
        assert set(Reservation.objects.values_list("status", flat=True)) == {"shipped"}
        shipped = StockMovement.objects.filter(kind="ship").order_by("stock__product__sku")
        assert list(shipped.values_list("delta_on_hand", "delta_allocated", "actor")) == [
            (-2, -2, "user:supervisor"),
            (-1, -1, "user:supervisor"),
        ]
        event = run_view(run_of(order).pk).events[-1]
        assert (event.kind, event.actor, event.reason) == ("signal", "user:supervisor", "handed_over")

    def test_twice_is_once(self) -> None:
        completed_order()

        first = hand_over(order_id="ORD-123", actor="user:supervisor")
        again = hand_over(order_id="ORD-123", actor="user:agent")

        assert again.handed_over_at == first.handed_over_at
        assert StockMovement.objects.filter(kind="ship").count() == 2

    def test_without_a_parcel_it_is_refused_and_leaves_no_trace(self) -> None:
        order = make_order()

        with pytest.raises(HandOverRefused, match="no parcel has been booked yet"):
            hand_over(order_id="ORD-123", actor="user:supervisor")

        assert run_to_end(run_of(order)).status == "completed"
        cancel_order(order_id="ORD-123", actor="user:agent", reason="still possible")

    def test_a_cancelled_order_is_not_handed_over(self) -> None:
        completed_order()
        cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind")

        with pytest.raises(HandOverRefused, match="being undone"):
            hand_over(order_id="ORD-123", actor="user:supervisor")

        assert Shipment.objects.get().status == "cancelling"
        assert not StockMovement.objects.filter(kind="ship").exists()

    @pytest.mark.parametrize("round", range(5))
    def test_of_hand_over_and_cancel_at_once_exactly_one_wins(self, round: int) -> None:
        order = completed_order()

        handed, cancelled = at_once(
            lambda: hand_over(order_id="ORD-123", actor="user:supervisor"),
            lambda: cancel_order(order_id="ORD-123", actor="user:agent", reason="changed their mind"),
        )
        report = run_to_end(run_of(order))

        shipment = Shipment.objects.get()
        if isinstance(handed, Shipment):
            assert isinstance(cancelled, OrderNotCancellable)
            assert (report.status, shipment.status) == ("completed", "handed_over")
        else:
            assert isinstance(handed, HandOverRefused)
            assert isinstance(cancelled, Order)
            assert (report.status, shipment.status) == ("compensated", "cancelled")


class TestStock:
    def test_goods_that_came_in_are_on_hand(self) -> None:
        stock = receive_stock(sku="ITEM-001", quantity=5, actor="user:supervisor", reason="delivery 7")

        assert (stock.on_hand, stock.allocated) == (15, 0)
        movement = StockMovement.objects.latest("id")
        assert (movement.kind, movement.delta_on_hand, movement.on_hand_after, movement.actor, movement.reason) == (
            "receive",
            5,
            15,
            "user:supervisor",
            "delivery 7",
        )

    def test_a_count_may_take_away_what_is_not_promised(self) -> None:
        completed_order()

        assert correct_stock(sku="ITEM-001", difference=-8, actor="user:supervisor", reason="count").on_hand == 2
        with pytest.raises(InvalidStock, match="below what is reserved"):
            correct_stock(sku="ITEM-001", difference=-1, actor="user:supervisor", reason="count")

        assert StockMovement.objects.filter(kind="correct").count() == 1

    @pytest.mark.parametrize("quantity", [0, -1, 1_000_001, 10**12])
    def test_what_comes_in_is_a_number_one_can_carry(self, quantity: int) -> None:
        with pytest.raises(InvalidStock):
            receive_stock(sku="ITEM-001", quantity=quantity, actor="user:supervisor", reason="delivery")

        assert StockItem.objects.get(product__sku="ITEM-001").on_hand == 10

    def test_a_reason_is_needed(self) -> None:
        with pytest.raises(InvalidOrder):
            receive_stock(sku="ITEM-001", quantity=1, actor="user:supervisor", reason=" ")

        assert StockMovement.objects.filter(stock__product__sku="ITEM-001").count() == 1


class TestReading:
    def test_everybody_sees_what_is_theirs_and_staff_sees_all(self) -> None:
        ada, eve = make_user(username="ada"), make_user(username="eve")
        agent, supervisor = make_user(username="agent", role="agent"), make_user(username="sam", role="supervisor")
        make_order(order_id="ORD-ADA", user=ada)
        make_order(order_id="ORD-EVE", user=eve)
        make_order(order_id="ORD-NOBODY")

        seen = {
            user.username: set(orders_visible_to(user).values_list("order_id", flat=True))
            for user in (ada, eve, agent, supervisor)
        }

        everything = {"ORD-ADA", "ORD-EVE", "ORD-NOBODY"}
        assert seen == {"ada": {"ORD-ADA"}, "eve": {"ORD-EVE"}, "agent": everything, "sam": everything}

    def test_staff_without_a_role_and_strangers_see_nothing_of_others(self) -> None:
        from django.contrib.auth.models import AnonymousUser

        make_order(user=make_user(username="ada"))
        clerk = make_user(username="clerk", is_staff=True)

        assert not orders_visible_to(clerk).exists()
        assert not orders_visible_to(AnonymousUser()).exists()

    def test_anothers_order_is_not_there(self) -> None:
        make_order(user=make_user(username="ada"))

        with pytest.raises(Order.DoesNotExist):
            order_page("ORD-123", make_user(username="eve"))

    def test_a_page_shows_all_that_belongs_to_the_order(self) -> None:
        completed_order(user=make_user(username="ada"))

        view = order_page("ORD-123", make_user(username="agent", role="agent"))

        assert [(line.sku, line.quantity) for line in view.lines] == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert (view.money.charged, view.money.refunded, view.money.held) == (TOTAL, NOTHING, TOTAL)
        assert view.shipment is not None
        assert [message.kind for message in view.messages] == ["confirmation"]
        assert [row.quantity for row in view.reservations] == [2, 1]
        assert view.run is not None
        assert view.run.status_word == "Completed"

    def test_a_refund_under_way_is_shown_as_owed(self) -> None:
        order = make_order(card_token="tok_refund_fails", ship_postcode="00000")
        run_to_end(run_of(order))

        money = order_page("ORD-123", make_user(username="agent", role="agent")).money

        assert (money.charged, money.refunded, money.refund_pending) == (TOTAL, NOTHING, TOTAL)

    def test_a_list_takes_as_many_queries_for_ten_as_for_one(
        self, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        for number in range(10):
            order = make_order(order_id=f"ORD-{number}", items=[{"sku": "ITEM-001", "quantity": 1}], total_amount=30)
            run_to_end(run_of(order))

        for count in (1, 10):
            with django_assert_num_queries(2):  # orders and runs: of what is over no attempts are read
                rows = order_rows(Order.objects.order_by("id")[:count])
            assert [row.status_word for row in rows] == ["Completed"] * count

    def test_orders_are_found_by_where_they_stand(self) -> None:
        completed_order(order_id="ORD-1")
        run_to_end(run_of(make_order(order_id="ORD-2", card_token="tok_declined")))

        found = in_status(Order.objects.all(), "compensated")

        assert [order.order_id for order in found] == ["ORD-2"]
