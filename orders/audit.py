"""Whether the shop's books agree with its runs, with themselves, and with what the sandboxes keep.

An order's end says what must be true of its stock, money, parcel and mail; the ledgers of the embedded providers say
what really happened. What a person settled by hand, and what a run that needs attention still owes, is explained there
and is no finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Sum

from orders.audit_ledgers import audit_ledgers, is_sandbox, pages
from orders.models import (
    Order,
    Payment,
    PaymentOperation,
    Reservation,
    SandboxCharge,
    SandboxParcel,
    SentMessage,
    Shipment,
    StockItem,
    StockMovement,
)
from sagas import Direction, step_key
from sagas.audit import Finding, RunFacts, facts_of
from sagas.selectors import SagaRun

Fault = tuple[str, str]
SAGA = "order_processing"
NONE = Decimal(0)

COMPLETED, COMPENSATED = "completed", "compensated"


def audit_shop(*, seen: Callable[[int], None] = lambda count: None) -> Iterator[Finding]:
    """Every order, every stock item, and every row of the sandboxes. `seen` is told how many orders a page had."""
    for page in pages(Order.objects.all()):
        yield from _audit_page(page)
        seen(len(page))
    yield from _audit_runs_of_nobody()
    yield from _audit_stock()
    if is_sandbox("inventory"):
        yield from _audit_reservations()
    yield from audit_ledgers()


def _audit_runs_of_nobody() -> Iterator[Finding]:
    for page in pages(SagaRun.objects.filter(saga=SAGA, imported_at__isnull=True).only("pk", "business_key")):
        ours = set(Order.objects.filter(run_id__in=[run.pk for run in page]).values_list("run_id", flat=True))
        for run in page:
            if run.pk not in ours:
                subject = f"run {run.business_key} ({run.pk})"
                yield Finding(code="run_of_nobody", subject=subject, message="No order goes by this run.")


def _audit_reservations() -> Iterator[Finding]:
    """Pieces held for a step of no order's run would be held for ever: no undo looks for them."""
    for page in pages(Reservation.objects.filter(status=Reservation.Status.HELD)):
        runs = [run for row in page if (run := _run_in(row.key)) is not None]
        ours = set(Order.objects.filter(run_id__in=runs).values_list("run_id", flat=True))
        expected = {step_key(str(run), "reserve_inventory", Direction.ACTION) for run in ours}
        for row in page:
            if row.key not in expected:
                yield Finding(
                    code="stock_held_by_nobody",
                    subject=f"reservation {row.reservation_id}",
                    message=f"{row.quantity} are held under {row.key}, which is no step of an order's run.",
                )


def _run_in(key: str) -> UUID | None:
    try:
        return UUID(key.partition(":")[0])
    except ValueError:
        return None


class _Books:
    """All that is stored of the orders of a page, in a fixed number of queries. The runs come first: what a run says
    has happened is in the books by then."""

    def __init__(self, orders: Sequence[Order]) -> None:
        runs = [order.run_id for order in orders if order.run_id is not None]
        self.facts: dict[UUID, RunFacts] = facts_of(runs)
        self.payments = {row.order_id: row for row in Payment.objects.filter(order__in=orders)}
        self.operations = _grouped(PaymentOperation.objects.filter(payment__order__in=orders), "payment_id")
        self.shipments = {row.order_id: row for row in Shipment.objects.filter(order__in=orders)}
        # A mail's text may be long, and is not looked at.
        mails = SentMessage.objects.filter(order__in=orders).defer("body", "html")
        self.messages = _grouped(mails, "order_id")
        keys = [step_key(str(run), "reserve_inventory", Direction.ACTION) for run in runs]
        self.reservations = _grouped(Reservation.objects.filter(key__in=keys).select_related("stock__product"), "key")
        self.ordered: dict[int, dict[str, int]] = defaultdict(dict)
        for order_pk, sku, quantity in (
            Order.objects.filter(pk__in=[order.pk for order in orders])
            .order_by()
            .values_list("pk", "lines__sku", "lines__quantity")
        ):
            self.ordered[order_pk][sku] = quantity
        charges = [step_key(str(run), "process_payment", Direction.ACTION) for run in runs]
        charges += [operation.key for rows in self.operations.values() for operation in rows]
        self.charges = {row.key: row for row in SandboxCharge.objects.filter(key__in=charges)}
        references = [row.reference for row in self.shipments.values()]
        self.parcels = {row.reference: row for row in SandboxParcel.objects.filter(reference__in=references)}


def _grouped(rows: Iterable[Any], name: str) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        found[getattr(row, name)].append(row)
    return found


def _audit_page(orders: Sequence[Order]) -> Iterator[Finding]:
    books = _Books(orders)
    suspects = [order for order in orders if list(_faults(order, books))]
    if not suspects:
        return
    # A worker may have been at them between two of our queries: what looks wrong is read once more, and counts only
    # if its run has not moved since.
    books = _Books(suspects)
    for order in suspects:
        faults = list(_faults(order, books))
        if order.run_id is not None and facts_of([order.run_id]) != _only(books.facts, order.run_id):
            continue
        for code, message in faults:
            yield Finding(code=code, subject=f"order {order.order_id}", message=message)


def _only(facts: dict[UUID, RunFacts], run_id: UUID) -> dict[UUID, RunFacts]:
    return {run_id: facts[run_id]} if run_id in facts else {}


def _faults(order: Order, books: _Books) -> Iterator[Fault]:
    facts = books.facts.get(order.run_id) if order.run_id is not None else None
    if facts is None:
        yield "order_without_run", "It was stored without a run, or its run is gone."
        return
    if facts.business_key != order.order_id:
        yield "another_orders_run", f"Its run is that of {facts.business_key}."
    yield from _of_the_stock(order, facts, books)
    yield from _of_the_money(order, facts, books)
    yield from _of_the_parcel(order, facts, books)
    yield from _of_the_mail(order, facts, books)


def _of_the_stock(order: Order, facts: RunFacts, books: _Books) -> Iterator[Fault]:
    if "reserve_inventory" in facts.by_hand or not is_sandbox("inventory"):
        return
    rows: list[Reservation] = books.reservations[step_key(str(facts.run_id), "reserve_inventory", Direction.ACTION)]
    standing = {r.stock.product.sku: r.quantity for r in rows if r.status != Reservation.Status.RELEASED}
    if facts.status == COMPENSATED and standing:
        yield "stock_still_held", f"It is undone, and still holds {_pieces(standing)}."
    if facts.status == COMPLETED and standing != books.ordered[order.pk]:
        yield "stock_not_held", f"It is completed, and holds {_pieces(standing)} of {_pieces(books.ordered[order.pk])}."


def _pieces(of: dict[str, int]) -> str:
    return ", ".join(f"{quantity} × {sku}" for sku, quantity in sorted(of.items())) or "nothing"


def _of_the_money(order: Order, facts: RunFacts, books: _Books) -> Iterator[Fault]:
    payment = books.payments.get(order.pk)
    charged = payment.charged if payment else NONE
    refunded = payment.refunded if payment else NONE
    operations: list[PaymentOperation] = books.operations[payment.pk] if payment else []
    for kind, cached in ((PaymentOperation.Kind.CHARGE, charged), (PaymentOperation.Kind.REFUND, refunded)):
        booked = sum((o.amount for o in operations if o.kind == kind and o.status == "succeeded"), NONE)
        if booked != cached:
            yield "payment_not_its_operations", f"{kind.label}: the payment says {cached}, its operations {booked}."
    if "process_payment" in facts.by_hand:
        return
    wanted = {COMPLETED: order.total_amount, COMPENSATED: NONE}.get(facts.status)
    if wanted is not None and charged - refunded != wanted:
        yield "money_does_not_fit", f"It is {facts.status}, and we hold {charged - refunded} instead of {wanted}."
    if not is_sandbox("payments"):
        return
    keys = {step_key(str(facts.run_id), "process_payment", Direction.ACTION), *(o.key for o in operations)}
    charges = [books.charges[key] for key in keys if key in books.charges and not books.charges[key].barred]
    held = sum((charge.amount - charge.refunded for charge in charges), NONE)
    if wanted is not None and held != wanted:
        yield "unexplained_charge", f"It is {facts.status}, and the gateway holds {held} instead of {wanted}."
    standing = {charge.currency for charge in charges if charge.refunded != charge.amount}
    if wanted is not None and (standing | {row.currency for row in [payment] if row}) - {order.currency}:
        yield "another_currency", f"It is in {order.currency}, and what was charged is not."


def _of_the_parcel(order: Order, facts: RunFacts, books: _Books) -> Iterator[Fault]:
    if "create_shipment" in facts.by_hand:
        return
    shipment = books.shipments.get(order.pk)
    stands = shipment is not None and shipment.status in {Shipment.Status.CREATED, Shipment.Status.HANDED_OVER}
    if facts.status == COMPLETED and not stands:
        yield "no_parcel", "It is completed, and no parcel is booked."
    if facts.status == COMPENSATED and stands:
        yield "parcel_still_booked", "It is undone, and its parcel stands in the books."
    if shipment is None or not is_sandbox("shipping"):
        return
    parcel = books.parcels.get(shipment.reference)
    moves = parcel is not None and parcel.status != SandboxParcel.Status.CANCELLED
    if facts.status == COMPLETED and not moves:
        yield "carrier_has_no_parcel", f"It is completed, and the carrier has no parcel {shipment.reference}."
    if stands and moves and parcel is not None and _names(shipment) != _names(parcel):
        yield "another_parcel", f"We know {shipment.reference} as another parcel than the carrier does."
    if moves and (facts.status == COMPENSATED or shipment.status == Shipment.Status.CANCELLED):
        yield "carrier_still_has_parcel", f"It is cancelled, and the carrier still has {shipment.reference}."


def _names(parcel: Shipment | SandboxParcel) -> tuple[str, str]:
    return parcel.shipment_id, parcel.tracking_number


def _of_the_mail(order: Order, facts: RunFacts, books: _Books) -> Iterator[Fault]:
    mails: list[SentMessage] = books.messages[order.pk]
    confirmations = [m for m in mails if m.kind == SentMessage.Kind.CONFIRMATION]
    cancellations = [m for m in mails if m.kind == SentMessage.Kind.CANCELLATION]
    if len(confirmations) > 1 or len(cancellations) > 1:
        yield "mailed_twice", f"{len(confirmations)} confirmations and {len(cancellations)} cancellations were written."
    if cancellations and not confirmations:
        yield "cancelled_without_confirmation", "Its cancellation was mailed, and no confirmation ever was."
    if cancellations and not facts.has_turned_back:
        yield "cancellation_of_what_stands", "Its cancellation was mailed, and it was never undone."
    told = any(mail.status == SentMessage.Status.SENT for mail in confirmations)
    if facts.status == COMPLETED and not told and "send_confirmation_email" not in facts.by_hand:
        yield "not_confirmed", "It is completed, and no confirmation went out."
    untold = not any(mail.status == SentMessage.Status.SENT for mail in cancellations)
    if facts.status == COMPENSATED and told and untold and "send_confirmation_email" not in facts.by_hand:
        yield "not_told", "It is undone, its confirmation went out, and its cancellation did not."


def _audit_stock() -> Iterator[Finding]:
    """Counters against the sum of their movements, and against what is held."""
    for page in pages(StockItem.objects.select_related("product")):
        moved = {
            stock: (on_hand, allocated)
            for stock, on_hand, allocated in StockMovement.objects.filter(stock__in=page)
            .order_by()
            .values_list("stock")
            .annotate(on_hand=Sum("delta_on_hand"), allocated=Sum("delta_allocated"))
        }
        held = dict(
            Reservation.objects.filter(stock__in=page, status=Reservation.Status.HELD)
            .order_by()
            .values_list("stock")
            .annotate(quantity=Sum("quantity"))
        )
        # Read last, and once more below: a movement between the queries is no finding.
        fresh = {row.pk: row for row in StockItem.objects.filter(pk__in=[row.pk for row in page])}
        for item in page:
            if (fresh[item.pk].on_hand, fresh[item.pk].allocated) != (item.on_hand, item.allocated):
                continue
            subject = f"stock {item.product.sku}"
            if moved.get(item.pk, (0, 0)) != (item.on_hand, item.allocated):
                on_hand, allocated = moved.get(item.pk, (0, 0))
                yield Finding(
                    code="stock_not_its_movements",
                    subject=subject,
                    message=f"{item.on_hand} on hand and {item.allocated} allocated; its movements come to {on_hand} "
                    f"and {allocated}.",
                )
            if held.get(item.pk, 0) != item.allocated:
                yield Finding(
                    code="stock_not_its_reservations",
                    subject=subject,
                    message=f"{item.allocated} are allocated, and {held.get(item.pk, 0)} are held by reservations.",
                )
