"""Reading: who sees which orders, and an order with everything that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Upper

from orders.models import (
    Order,
    OrderLine,
    OrderNote,
    OrderTag,
    Payment,
    PaymentOperation,
    Product,
    Reservation,
    SentMessage,
    Shipment,
)
from orders.money import quantize
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
    def next_url(self) -> str:
        """Where the customer has to go for the payment to go on; empty: nowhere."""
        pending = (one for one in self.operations if one.status == PaymentOperation.Status.PENDING)
        return next((one.next_url for one in pending if one.next_url), "")

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
    notes: list[OrderNote]
    """Oldest first."""
    tags: list[str]
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


def products_for_sale() -> list[Product]:
    """What can be ordered, with its stock."""
    return list(Product.objects.filter(is_active=True, stock__isnull=False).select_related("stock").order_by("sku"))


def find_by_any_id(orders: QuerySet[Order], text: str) -> list[Order]:
    """Of `orders`, those that `text` names: by number, run, customer, address or any provider's id; the newest 100."""
    keys = Reservation.objects.filter(reservation_id=text).values_list("key", flat=True)
    runs = [key.partition(":")[0] for key in keys]
    with suppress(ValueError):
        runs.append(str(UUID(text)))
    # One look per index: a single OR over the joins would use none of them.
    found: set[int] = set()
    found_in = orders.annotate(email_upper=Upper("email"))
    for condition in (
        Q(order_id=text),
        Q(customer_ref=text),
        Q(email_upper=text.upper()),
        Q(payment__operations__provider_id=text),
        Q(shipment__shipment_id=text),
        Q(shipment__tracking_number=text),
        Q(messages__email_id=text),
        Q(run_id__in=runs),
    ):
        found.update(found_in.filter(condition).values_list("pk", flat=True)[:100])
    return list(orders.filter(pk__in=found)[:100])


def in_status(orders: QuerySet[Order], *statuses: str) -> QuerySet[Order]:
    """Those whose run has one of `statuses`."""
    return orders.filter(run_id__in=SagaRun.objects.filter(status__in=statuses).values("pk"))


def at_step(orders: QuerySet[Order], *, step: str = "", error: str = "") -> QuerySet[Order]:
    """Those whose run is at that step now, or turned back with that error."""
    runs = SagaRun.objects.all()
    if step:
        runs = runs.filter(current_step=step, ended_at__isnull=True)
    if error:
        runs = runs.filter(failure_code=error)
    return orders.filter(run_id__in=runs.values("pk"))


def tagged(orders: QuerySet[Order], tag: str) -> QuerySet[Order]:
    """Those with that tag."""
    return orders.filter(pk__in=OrderTag.objects.filter(tag=tag).values("order"))


def order_page(order_id: str, user: Any) -> OrderView:
    """One order with all that belongs to it. Raises Order.DoesNotExist, also for an order that is not theirs."""
    return view_of(orders_visible_to(user).select_related("user", "api_key").get(order_id=order_id))


def view_of(order: Order, *, is_new: bool = False) -> OrderView:
    """The order with all that belongs to it, in a constant number of queries.

    `is_new`: it was placed in the transaction under way, so that no step can have left anything to be looked for.
    """
    lines = list(order.lines.order_by("id"))
    run = run_view(order.run_id) if order.run_id is not None else None
    if is_new:
        return OrderView(
            order=order,
            lines=lines,
            money=_no_money(order),
            shipment=None,
            messages=[],
            notes=[],
            tags=[],
            reservations=[],
            run=run,
        )
    reservation_key = step_key(str(order.run_id), "reserve_inventory", Direction.ACTION)
    return OrderView(
        order=order,
        lines=lines,
        money=_money(order),
        shipment=Shipment.objects.filter(order=order).first(),
        messages=list(SentMessage.objects.filter(order=order).order_by("id")),
        notes=list(OrderNote.objects.filter(order=order).order_by("id")),
        tags=list(OrderTag.objects.filter(order=order).order_by("tag").values_list("tag", flat=True)),
        reservations=list(
            Reservation.objects.filter(key=reservation_key).select_related("stock__product").order_by("id")
        ),
        run=run,
    )


def amounts_held(order_ids: Sequence[str]) -> dict[str, dict[str, Decimal]]:
    """By order number and currency, what was paid and did not go back; orders of which we hold nothing are left out."""
    rows = Payment.objects.filter(order__order_id__in=order_ids, charged__gt=F("refunded"))
    found = rows.values_list("order__order_id", "currency", "charged", "refunded")
    return {number: {currency: quantize(charged - back, currency)} for number, currency, charged, back in found}


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


def _no_money(order: Order) -> MoneyView:
    nothing = Decimal(0)
    return MoneyView(
        currency=order.currency,
        total=order.total_amount,
        charged=nothing,
        refunded=nothing,
        refund_pending=nothing,
        operations=[],
    )


def _money(order: Order) -> MoneyView:
    found = PaymentOperation.objects.filter(payment__order=order).select_related("payment")
    operations = list(found.order_by("id"))
    payment = operations[0].payment if operations else Payment.objects.filter(order=order).first()
    if payment is None:
        return _no_money(order)
    open_refunds = [
        operation.amount
        for operation in operations
        if operation.kind == PaymentOperation.Kind.REFUND and operation.status != PaymentOperation.Status.SUCCEEDED
    ]
    return MoneyView(
        currency=order.currency,
        total=order.total_amount,
        charged=payment.charged,
        refunded=payment.refunded,
        refund_pending=min(sum(open_refunds, Decimal(0)), payment.charged - payment.refunded),
        operations=operations,
    )
