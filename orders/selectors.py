"""Reading: who sees which orders, and an order with everything that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Upper

from orders.models import (
    MailDelivery,
    Order,
    OrderLine,
    OrderNote,
    OrderTag,
    Payment,
    PaymentOperation,
    Product,
    ProviderChoice,
    Reservation,
    SentMessage,
    Shipment,
    ShipmentLabel,
)
from orders.money import format_money, quantize
from orders.refusals import named_by
from orders.roles import is_staff
from sagas import Direction, step_key
from sagas.selectors import RunLine, RunView, SagaRun, lines_for, owner_of, run_view


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
    heard: dict[int, MailDelivery]
    """By message, the last word on whether it came, whichever was told first."""
    notes: list[OrderNote]
    """Oldest first."""
    tags: list[str]
    reservations: list[Reservation]
    run: RunView | None
    choices: list[ProviderChoice] = field(default_factory=list)
    """Who was asked for what, and why, where several share the work; by kind, the first one asked first."""


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
    owner: str = ""
    """Who looks after it, as the history names people; empty: nobody."""
    items: str = ""
    """What was ordered, in words; only where `with_facts` brought it."""
    refund: str = ""
    """What went back or has to, in words; likewise."""


def with_facts(orders: QuerySet[Order]) -> QuerySet[Order]:
    """The orders, each with what a row of a list says of its lines and its money."""
    lines = OrderLine.objects.filter(order=OuterRef("pk"))
    count = lines.order_by().values("order").annotate(count=Count("pk")).values("count")
    return orders.annotate(
        first_quantity=Subquery(lines.order_by("id").values("quantity")[:1]),
        first_name=Subquery(lines.order_by("id").values("name")[:1]),
        line_count=Subquery(count),
        charged=F("payment__charged"),
        refunded=F("payment__refunded"),
    )


def orders_visible_to(user: Any) -> QuerySet[Order]:
    """Every order for staff, their own for customers, none for strangers. Newest first."""
    orders = Order.objects.order_by("-placed_at", "-id")
    if is_staff(user):
        return orders
    if not getattr(user, "is_authenticated", False):
        return orders.none()
    return orders.filter(user=user)


def products_for_sale() -> list[Product]:
    """What can be ordered, with its stock."""
    return list(Product.objects.filter(is_active=True, stock__isnull=False).select_related("stock").order_by("sku"))


def find_by_any_id(orders: QuerySet[Order], text: str) -> dict[int, str]:
    """Of `orders`, those that `text` names: by number, run, customer, address, any provider's id, or a request's.

    The keys and numbers of the newest 100 by each.
    """
    found: dict[int, str] = {}
    # One look per index: a single OR over the joins would use none of them.
    for condition in _namings(text):
        newest = orders.annotate(email_upper=Upper("email")).filter(condition).values_list("pk", "order_id")
        found.update(newest[:100])
    if not found and "@" not in text:
        numbers, runs = named_by(text)
        if numbers or runs:
            meant = orders.filter(Q(order_id__in=numbers) | Q(run_id__in=runs))
            found.update(meant.values_list("pk", "order_id")[:100])
    return found


def _namings(text: str) -> list[Q]:
    """What `text` may name an order by; with an @ it is an address, or a mail's id that looks like one."""
    if "@" in text:
        return [Q(email_upper=text.upper()), Q(customer_ref=text), Q(messages__email_id=text)]
    keys = Reservation.objects.filter(reservation_id=text).values_list("key", flat=True)
    runs = [key.partition(":")[0] for key in keys]
    with suppress(ValueError):
        runs.append(str(UUID(text)))
    return [
        Q(order_id=text),
        Q(customer_ref=text),
        Q(payment__operations__provider_id=text),
        Q(shipment__shipment_id=text),
        Q(shipment__tracking_number=text),
        Q(messages__email_id=text),
        *([Q(run_id__in=runs)] if runs else []),
    ]


def in_status(orders: QuerySet[Order], *statuses: str) -> QuerySet[Order]:
    """Those whose run has one of `statuses`."""
    return orders.filter(run_id__in=SagaRun.objects.in_states(*statuses).values("pk"))


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


def looked_after(orders: QuerySet[Order], owner: str) -> QuerySet[Order]:
    """Those that this person looks after, named as the history names people."""
    return orders.filter(run_id__in=SagaRun.objects.filter(assignment__owner=owner).values("pk"))


def asked_of(orders: QuerySet[Order], provider: str, *, among: int) -> QuerySet[Order]:
    """Those of which a try was made with that provider, of the newest `among`.

    Attempts have no index by provider: for one that is rarely used the database would read them all.
    """
    newest = orders.order_by("-placed_at", "-id")[:among]
    tried = SagaRun.objects.filter(records__provider=provider, pk=OuterRef("run_id"))
    return Order.objects.filter(Exists(tried), pk__in=newest.values("pk"))


def with_last_change(orders: QuerySet[Order], *, among: int) -> QuerySet[Order]:
    """The newest `among` of them, each with when its run last changed: that has no index, since it changes often."""
    newest = orders.order_by("-placed_at", "-id")[:among]
    changed = SagaRun.objects.filter(pk=OuterRef("run_id")).values("updated_at")
    return Order.objects.filter(pk__in=newest.values("pk")).annotate(last_change=Subquery(changed))


def order_page(order_id: str, user: Any) -> OrderView:
    """One order with all that belongs to it. Raises Order.DoesNotExist, also for an order that is not theirs."""
    orders = orders_visible_to(user).select_related("user", "api_key", "shipment__label")
    return view_of(orders.defer("shipment__label__content").get(order_id=order_id))


def label_to_print(order_id: str) -> ShipmentLabel | None:
    """The label of an order's parcel. None: it has none, or the parcel was called off and must not be sent."""
    found = ShipmentLabel.objects.filter(shipment__order__order_id=order_id).select_related("shipment").first()
    return found if found is not None and found.shipment.is_booked else None


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
            heard={},
            notes=[],
            tags=[],
            reservations=[],
            run=run,
        )
    reservation_key = step_key(str(order.run_id), "reserve_inventory", Direction.ACTION)
    notes, tags, heard = _remarks(order)
    shipment = _shipment(order)
    return OrderView(
        order=order,
        lines=lines,
        money=_money(order),
        shipment=shipment,
        messages=list(SentMessage.objects.filter(order=order).order_by("id")),
        heard=heard,
        notes=notes,
        tags=tags,
        reservations=list(
            Reservation.objects.filter(key=reservation_key).select_related("stock__product").order_by("id")
        ),
        run=run,
        choices=_choices(order, shipment),
    )


def _choices(order: Order, shipment: Shipment | None) -> list[ProviderChoice]:
    """Of a shop that has one provider for each kind of work, there is nothing to tell, and nothing is asked."""
    if not any("," in names for names in settings.PROVIDERS.values()):
        return []
    steps = ("reserve_inventory", "process_payment", "send_confirmation_email")
    keys = [step_key(str(order.run_id), step, Direction.ACTION) for step in steps]
    if shipment is not None:
        keys.append(shipment.reference)
    kinds = ("inventory", "payments", "shipping", "mail")
    return list(ProviderChoice.objects.filter(kind__in=kinds, key__in=keys).order_by("kind", "position"))


def version_of(orders: QuerySet[Order], order_id: str) -> tuple[Any, ...] | None:
    """What changes when anything does that an order's page shows; None if it is not among `orders`. One query."""
    run = SagaRun.objects.filter(pk=OuterRef("run_id"))
    asked = {"status": "status", "changed_at": "updated_at", "fence": "fence", "owner": "assignment__owner"}
    versions: dict[str, Any] = {name: Subquery(run.values(column)[:1]) for name, column in asked.items()}
    versions["tries"] = Subquery(run.annotate(count=Count("records")).values("count")[:1])
    versions["events"] = Subquery(run.annotate(count=Count("events")).values("count")[:1])
    for name, model, column in (
        ("paid", PaymentOperation, "updated_at"),
        ("mailed", SentMessage, "sent_at"),
        ("queued", SentMessage, "id"),
        ("noted", OrderNote, "id"),
        ("tagged", OrderTag, "id"),
    ):
        path = "payment__order" if model is PaymentOperation else "order"
        rows = model.objects.filter(**{path: OuterRef("pk")}).order_by(F(column).desc(nulls_last=True))
        versions[name] = Subquery(rows.values(column)[:1])
    tags = OrderTag.objects.filter(order=OuterRef("pk")).order_by().values("order").annotate(count=Count("pk"))
    found = orders.filter(order_id=order_id).annotate(**versions, tag_count=Subquery(tags.values("count")))
    return found.values_list("pk", "updated_at", "shipment__status", *versions, "tag_count").first()


def amounts_held(order_ids: Sequence[str]) -> dict[str, dict[str, Decimal]]:
    """By order number and currency, what was paid and did not go back; orders of which we hold nothing are left out."""
    rows = Payment.objects.filter(order__order_id__in=order_ids, charged__gt=F("refunded"))
    found = rows.values_list("order__order_id", "currency", "charged", "refunded")
    return {number: {currency: quantize(charged - back, currency)} for number, currency, charged, back in found}


def order_rows(orders: Iterable[Order]) -> list[OrderRow]:
    """A page of orders with where each stands, in a constant number of queries."""
    page = list(orders)
    ids = [order.run_id for order in page if order.run_id is not None]
    lines = lines_for(SagaRun.objects.select_related("assignment").filter(pk__in=ids))
    return [_row(order, lines.get(order.run_id) if order.run_id is not None else None) for order in page]


def _row(order: Order, line: RunLine | None) -> OrderRow:
    if line is None:
        return OrderRow(
            order=order,
            status="pending",
            status_word="Pending",
            step_line="",
            failure_code="",
            last_change=order.updated_at,
            items=_items(order),
        )
    return OrderRow(
        order=order,
        status=line.run.status,
        status_word=line.status_word,
        step_line=line.step_line,
        failure_code=line.run.failure_code,
        last_change=line.run.updated_at,
        owner=owner_of(line.run),
        items=_items(order),
        refund=_refund(order, line.run),
    )


def _items(order: Order) -> str:
    count = getattr(order, "line_count", None)
    if not count:
        return ""
    first = f"{order.first_quantity} × {order.first_name}"  # type: ignore[attr-defined]  # from with_facts
    return first if count == 1 else f"{first}, {count - 1} more"


def _refund(order: Order, run: SagaRun) -> str:
    charged, refunded = getattr(order, "charged", None), getattr(order, "refunded", None)
    if charged is None or refunded is None:
        return ""
    back = format_money(refunded, order.currency) if refunded else ""
    if run.turned_back_at is None or charged == refunded:
        return back and f"{back} back"
    owed = f"{format_money(charged - refunded, order.currency)} owed"
    return f"{back} back, {owed}" if back else owed


def _shipment(order: Order) -> Shipment | None:
    """Without a query where it came with the order."""
    try:
        return order.shipment
    except Shipment.DoesNotExist:
        return None


def _remarks(order: Order) -> tuple[list[OrderNote], list[str], dict[int, MailDelivery]]:
    """(notes, oldest first; tags, in the order of words; what was heard last of each mail), in one query."""
    notes = OrderNote.objects.filter(order=order).order_by()
    tags = OrderTag.objects.filter(order=order).order_by()
    heard = MailDelivery.objects.filter(message__order=order).order_by()
    columns = ("kind", "id", "author", "words", "created_at")
    rows = (
        notes.annotate(kind=Value("note"), words=F("text"))
        .values_list(*columns)
        .union(
            tags.annotate(kind=Value("tag"), words=F("tag")).values_list(*columns),
            heard.values_list(Value("mail"), "message_id", "kind", "note", "heard_at"),
            all=True,
        )
    )
    found = sorted(rows)
    told = [
        MailDelivery(message_id=pk, kind=author, note=words, heard_at=at)
        for kind, pk, author, words, at in found
        if kind == "mail"
    ]
    return (
        [
            OrderNote(pk=pk, order=order, author=author, text=words, created_at=at)
            for kind, pk, author, words, at in found
            if kind == "note"
        ],
        sorted(words for kind, _, _, words, _ in found if kind == "tag"),
        {one.message_id: one for one in sorted(told, key=lambda one: one.rank)},
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
