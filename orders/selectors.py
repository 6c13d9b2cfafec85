"""Reading: who sees which orders, and an order with everything that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet

from orders.models import (
    Order,
    OrderLine,
    Payment,
    PaymentOperation,
    Reservation,
    SentMessage,
    Shipment,
)
from orders.roles import is_agent
from sagas import Direction, step_key
from sagas.selectors import RunView, SagaRun, run_view, step_line, views_for


@dataclass(frozen=True, kw_only=True)
class MoneyView:
    """What was taken for an order, what went back, and what we still hold."""

    currency: str
    total: Decimal
    charged: Decimal
    refunded: Decimal
    refund_pending: Decimal
    """Asked for and not confirmed."""
    operations: list[PaymentOperation]
    """Oldest first."""

    @property
    def held(self) -> Decimal:
        return self.charged - self.refunded


@dataclass(frozen=True, kw_only=True)
class OrderView:
    """An order as its page shows it."""

    order: Order
    lines: list[OrderLine]
    money: MoneyView
    shipment: Shipment | None
    messages: list[SentMessage]
    reservations: list[Reservation]
    run: RunView | None


@dataclass(frozen=True, kw_only=True)
class OrderRow:
    """An order as a list shows it."""

    order: Order
    status: str
    status_word: str
    step_line: str
    failure_code: str
    """Why it turned back; empty if it did not."""
    last_change: datetime


def orders_visible_to(user: Any) -> QuerySet[Order]:
    """Every order for staff, their own for customers, none for strangers. Newest first."""
    orders = Order.objects.order_by("-placed_at", "-id")
    if is_agent(user):
        return orders
    if not getattr(user, "is_authenticated", False):
        return orders.none()
    return orders.filter(user=user)


def in_status(orders: QuerySet[Order], *statuses: str) -> QuerySet[Order]:
    """Those whose run has one of `statuses`."""
    return orders.filter(run_id__in=SagaRun.objects.filter(status__in=statuses).values("pk"))


def order_page(order_id: str, user: Any) -> OrderView:
    """One order with all that belongs to it. Raises Order.DoesNotExist, also for an order that is not theirs."""
    return view_of(orders_visible_to(user).select_related("user", "api_key").get(order_id=order_id))


def view_of(order: Order) -> OrderView:
    """The order with all that belongs to it, in a constant number of queries."""
    reservation_key = step_key(str(order.run_id), "reserve_inventory", Direction.ACTION)
    return OrderView(
        order=order,
        lines=list(order.lines.order_by("id")),
        money=_money(order),
        shipment=Shipment.objects.filter(order=order).first(),
        messages=list(SentMessage.objects.filter(order=order).order_by("id")),
        reservations=list(
            Reservation.objects.filter(key=reservation_key).select_related("stock__product").order_by("id")
        ),
        run=run_view(order.run_id) if order.run_id is not None else None,
    )


def order_rows(orders: Iterable[Order]) -> list[OrderRow]:
    """A page of orders with where each stands, in a constant number of queries."""
    page = list(orders)
    views = views_for(SagaRun.objects.filter(pk__in=[order.run_id for order in page if order.run_id is not None]))
    return [_row(order, views.get(order.run_id) if order.run_id is not None else None) for order in page]


def _row(order: Order, view: RunView | None) -> OrderRow:
    if view is None:
        return OrderRow(
            order=order,
            status="pending",
            status_word="Pending",
            step_line="",
            failure_code="",
            last_change=order.updated_at,
        )
    return OrderRow(
        order=order,
        status=view.run.status,
        status_word=view.status_word,
        step_line=step_line(view),
        failure_code=view.run.failure_code,
        last_change=view.run.updated_at,
    )


def _money(order: Order) -> MoneyView:
    payment = Payment.objects.filter(order=order).first()
    operations = list(PaymentOperation.objects.filter(payment=payment).order_by("id")) if payment is not None else []
    open_refunds = [
        operation.amount
        for operation in operations
        if operation.kind == PaymentOperation.Kind.REFUND and operation.status != PaymentOperation.Status.SUCCEEDED
    ]
    charged = payment.charged if payment is not None else Decimal(0)
    refunded = payment.refunded if payment is not None else Decimal(0)
    return MoneyView(
        currency=order.currency,
        total=order.total_amount,
        charged=charged,
        refunded=refunded,
        refund_pending=min(sum(open_refunds, Decimal(0)), charged - refunded),
        operations=operations,
    )
