"""What people do to orders and stock. Keyword-only, each in one transaction, each said by whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from orders.exceptions import (
    FieldError,
    HandOverRefused,
    InvalidOrder,
    InvalidStock,
    OrderNotCancellable,
)
from orders.intake import Faults, check_order, clean_text, store_order
from orders.models import Order, OrderNote, OrderTag, Shipment, StockItem, StockMovement
from orders.order_processing import HANDED_OVER, ORDER_SAGA, OrderProcessingSaga
from orders.providers.inventory.local import ship_reserved
from sagas import ActRefused, Direction, StepState, step_key
from sagas import services as engine
from sagas.selectors import RunView, SagaRun, find_run, run_view

if TYPE_CHECKING:
    from orders.models import ApiKey, User

LONGEST_REASON = 500
LONGEST_NOTE = 2000
MOST_TAGS = 20
LONGEST_TAG = 40
MAX_STOCK_CHANGE = 1_000_000


@transaction.atomic
def place_order(
    *,
    order_id: str | None = None,
    user: User | None,
    customer_ref: str,
    items: Iterable[Mapping[str, Any]],
    total_amount: Decimal | float | str | int | None = None,
    currency: str,
    email: str,
    ship_name: str,
    ship_line1: str,
    ship_city: str,
    ship_postcode: str,
    ship_country: str,
    card_token: str,
    actor: str,
    scenario: str = "",
    api_key: ApiKey | None = None,
) -> tuple[Order, bool]:
    """Store the order and start its saga: both or neither. Returns the order, and whether it is new.

    The same order under the same number is the one already placed. Raises InvalidOrder naming the fields, and
    OrderConflict naming what differs if the number belongs to another order.
    """
    checked = check_order(
        order_id=order_id,
        customer_ref=customer_ref,
        items=items,
        total_amount=total_amount,
        currency=currency,
        email=email,
        ship_name=ship_name,
        ship_line1=ship_line1,
        ship_city=ship_city,
        ship_postcode=ship_postcode,
        ship_country=ship_country,
        card_token=card_token,
    )
    order, created = store_order(checked, user=user, api_key=api_key, actor=actor, scenario=scenario)
    OrderProcessingSaga.for_order(order, actor=actor).start()  # on the ORM broker the queue's row commits with ours
    return order, created


@transaction.atomic
def cancel_order(*, order_id: str, actor: str, reason: str) -> Order:
    """Have everything that was done for the order undone. Twice is once.

    Raises OrderNotCancellable, with the reason and the way out, and Order.DoesNotExist.
    """
    reason = checked_reason(reason)
    order = hold(order_id=order_id)
    try:
        engine.cancel(run_id=_run_of(order).pk, actor=actor, reason=reason)
    except ActRefused as error:
        raise OrderNotCancellable(order.order_id, error.reason) from error
    # Closes the parcel to hand-over in the same moment in which the run turns back: exactly one of the two wins.
    Shipment.objects.filter(order=order, status=Shipment.Status.CREATED).update(status=Shipment.Status.CANCELLING)
    return order


@transaction.atomic
def hand_over(*, order_id: str, actor: str, reason: str = "") -> Shipment:
    """Note that the carrier has taken the parcel: the goods leave the stock, and cancelling is over. Twice is once.

    Raises HandOverRefused with why not, InvalidOrder for a `reason` that cannot be kept, and Order.DoesNotExist.
    """
    reason = checked_reason(reason) if reason else ""
    order = hold(order_id=order_id)
    # First of all, because it takes hold of the run: from here on no cancellation comes in between.
    is_first = engine.signal(run_id=_run_of(order).pk, name=HANDED_OVER, payload={}, actor=actor, reason=reason)
    run = run_view(_run_of(order).pk)
    shipment = Shipment.objects.filter(order=order).first()
    if not is_first and shipment is not None and shipment.status == Shipment.Status.HANDED_OVER:
        return shipment
    refusal = hand_over_refusal(run, shipment)
    if shipment is None or refusal:
        raise HandOverRefused(order.order_id, refusal)
    moved = Shipment.objects.filter(pk=shipment.pk, status=Shipment.Status.CREATED).update(
        status=Shipment.Status.HANDED_OVER, handed_over_at=timezone.now()
    )
    if not moved:
        raise HandOverRefused(order.order_id, f"the parcel is {shipment.get_status_display()}")
    ship_reserved(key=step_key(str(run.run.pk), "reserve_inventory", Direction.ACTION), actor=actor)
    shipment.refresh_from_db()
    return shipment


def hand_over_refusal(run: RunView, shipment: Shipment | None) -> str:
    """Why the parcel cannot be noted as handed over; empty: it can."""
    if run.run.pruned_at is not None:
        return f"its history was archived on {run.run.pruned_at:%Y-%m-%d}"
    if run.run.turned_back_at is not None or run.run.cancel_requested_at is not None:
        return "the order is being undone, or has been"
    if shipment is None:
        return "no parcel has been booked yet"
    if shipment.status != Shipment.Status.CREATED:
        return f"the parcel is {shipment.get_status_display()}"
    # Until the run knows of its parcel it may still turn back, and would refund goods that are gone.
    is_recorded = any(step.state is StepState.DONE for step in run.steps if step.name == "create_shipment")
    return "" if is_recorded else "its booking is not recorded yet; try again in a moment"


@transaction.atomic
def add_note(*, order_id: str, author: str, text: str) -> OrderNote:
    """Write something down about an order for whoever works on it next. Raises InvalidOrder, and Order.DoesNotExist."""
    faults = Faults()
    text = clean_text("text", text.replace("\r\n", "\n"), faults, limit=LONGEST_NOTE, lines=True)
    faults.stop()
    return OrderNote.objects.create(order=Order.objects.get(order_id=order_id), author=author, text=text)


@transaction.atomic
def set_tags(*, order_id: str, tags: Iterable[str], author: str) -> None:
    """Let the order have these tags and no others. Raises InvalidOrder, and Order.DoesNotExist."""
    faults = Faults()
    wanted = [clean_text(f"tags.{n}", tag, faults, limit=LONGEST_TAG) for n, tag in enumerate(tags)]
    if len(set(wanted)) > MOST_TAGS:
        faults.add("tags", "too_many", f"An order has {MOST_TAGS} tags at the most.")
    faults.stop()
    order = hold(order_id=order_id)
    OrderTag.objects.filter(order=order).exclude(tag__in=wanted).delete()
    OrderTag.objects.bulk_create(
        [OrderTag(order=order, tag=tag, author=author) for tag in dict.fromkeys(wanted)], ignore_conflicts=True
    )


@transaction.atomic
def look_after(*, order_id: str, owner: str, actor: str) -> None:
    """Say who looks after an order that waits for a person; nobody, if empty. Raises ActRefused, InvalidOrder."""
    engine.assign(run_id=_run_of(Order.objects.get(order_id=order_id)).pk, owner=owner, actor=actor)


@transaction.atomic
def receive_stock(*, sku: str, quantity: int, actor: str, reason: str) -> StockItem:
    """Goods came in. Raises InvalidStock for a quantity below 1, and StockItem.DoesNotExist."""
    if quantity < 1:
        raise InvalidStock("quantity", "Goods that come in are at least 1 piece.")
    return _change_stock(sku, StockMovement.Kind.RECEIVE, quantity, actor, reason)


@transaction.atomic
def correct_stock(*, sku: str, difference: int, actor: str, reason: str) -> StockItem:
    """The count differs from the books by `difference` pieces. Raises InvalidStock, and StockItem.DoesNotExist."""
    if difference == 0:
        raise InvalidStock("quantity", "A correction changes the stock by at least 1 piece.")
    return _change_stock(sku, StockMovement.Kind.CORRECT, difference, actor, reason)


def checked_reason(reason: object) -> str:
    """The reason, fit to be stored. Raises InvalidOrder."""
    faults = Faults()
    text = clean_text("reason", reason, faults, limit=LONGEST_REASON)
    faults.stop()
    return text


def _change_stock(sku: str, kind: StockMovement.Kind, difference: int, actor: str, reason: str) -> StockItem:
    reason = checked_reason(reason)
    if abs(difference) > MAX_STOCK_CHANGE:
        raise InvalidStock("quantity", f"At most {MAX_STOCK_CHANGE} pieces move at a time.")
    stock = StockItem.objects.get(product__sku=sku)
    # What is allocated is promised to somebody: no correction takes it away.
    enough = StockItem.objects.filter(pk=stock.pk, allocated__lte=F("on_hand") + difference)
    if not enough.update(on_hand=F("on_hand") + difference):
        raise InvalidStock("quantity", f"{sku} would fall below what is reserved of it.")
    stock.refresh_from_db()
    StockMovement.objects.create(
        stock=stock,
        kind=kind,
        delta_on_hand=difference,
        delta_allocated=0,
        on_hand_after=stock.on_hand,
        allocated_after=stock.allocated,
        actor=actor,
        reason=reason,
    )
    return stock


def hold(*, order_id: str) -> Order:
    """The order, locked until the transaction ends. On SQLite a transaction that writes is alone anyway."""
    return Order.objects.select_for_update().get(order_id=order_id)


def _run_of(order: Order) -> SagaRun:
    run = find_run(saga=ORDER_SAGA.name, business_key=order.order_id)
    if run is None:
        raise InvalidOrder([FieldError(field="order_id", code="not_started", message="This order has no run.")])
    return run
