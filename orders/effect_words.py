"""What each step and undo of an order means, in the shop's words: with amounts, pieces and parcels."""

from __future__ import annotations

from orders.intake import CheckedOrder
from orders.models import Order, Shipment
from orders.money import format_money
from orders.selectors import OrderView, view_of
from sagas.plans import Move, Places, Plan, Words
from sagas.states import Direction, RunStatus


def words_of_run(order_id: str) -> Places:
    """By order number; what settings.SAGA_EFFECT_WORDS names. Nothing of an order that is not there."""
    order = Order.objects.filter(order_id=order_id).first()
    return words_of(view_of(order)) if order is not None else {}


def words_of(view: OrderView) -> Places:
    """(step, direction) -> what it does, and what stays without it."""
    order, currency = view.order, view.money.currency
    held = view.money.held
    money = format_money(held or view.money.total, currency)
    pieces = _pieces(view)
    count = _in_words(pieces)
    tracking = view.shipment.tracking_number if view.shipment is not None else ""
    total = format_money(view.money.total, currency)
    forward = _forward(pieces=pieces, total=total, name=order.ship_name, city=order.ship_city, email=order.email)
    parcel = f"parcel {tracking}" if tracking else "the parcel"
    do, undo = Direction.ACTION.value, Direction.COMPENSATION.value
    return {
        ("reserve_inventory", do): Words(forward["reserve_inventory"], f"{count} not set aside"),
        ("process_payment", do): Words(forward["process_payment"], f"{total} not taken"),
        ("create_shipment", do): Words(forward["create_shipment"], "no parcel booked"),
        ("send_confirmation_email", do): Words(forward["send_confirmation_email"], f"{order.email} is not told"),
        ("send_confirmation_email", undo): Words("the customer is told by mail", "the customer is not told"),
        ("create_shipment", undo): Words(f"{parcel} is called back", f"{parcel} goes to the customer"),
        ("process_payment", undo): Words(f"{money} goes back to the card", f"we keep {money} of the customer's"),
        ("reserve_inventory", undo): Words(
            f"{count} {'goes' if pieces == 1 else 'go'} back on the shelf", f"{count} stay set aside"
        ),
    }


def placing(order: CheckedOrder) -> dict[str, str]:
    """What each step will do for an order that is about to be placed."""
    return _forward(
        pieces=sum(line.quantity for line in order.lines),
        total=format_money(order.total_amount, order.currency),
        name=order.ship_name,
        city=order.ship_city,
        email=order.email,
    )


def handing_over(view: OrderView) -> Plan:
    """What it means that the carrier has taken the parcel."""
    pieces = _pieces(view)
    tracking = view.shipment.tracking_number if view.shipment is not None else ""
    told = [
        ("Parcel", f"{tracking} is on its way to {view.order.ship_name}, {view.order.ship_city}".strip()),
        ("Stock", f"{_in_words(pieces)} {'leaves' if pieces == 1 else 'leave'} it"),
        ("Cancelling", "not possible any more, for the customer and for us"),
    ]
    moves = [Move(title=title, what=what, when="") for title, what in told]
    return Plan(moves=moves, end="What was sent can only come back as a return. This cannot be taken back.")


def standing(view: OrderView, *, to_customer: bool) -> str:
    """How the order stands, in a sentence. What a person of the shop is needed for is no words for its customer."""
    if view.run is None:
        return "Stored and waiting for a worker."
    if to_customer and view.run.run.status == RunStatus.NEEDS_ATTENTION.value:
        return "Something went wrong on our side, and one of us is looking after it. You need not do anything."
    return view.run.sentence


def consequence(view: OrderView, *, to_customer: bool) -> str:
    """What the state means for the customer's money and parcel, in a sentence; empty where there is nothing to add."""
    if view.run is None:
        return ""
    status, money = RunStatus(view.run.run.status), view.money
    back = view.run.run.turned_back_at is not None
    if status is RunStatus.COMPLETED:
        return f"{format_money(money.held, money.currency)} was charged. {_parcel_words(view.shipment)}".strip()
    if money.held:
        return _of_money_held(view, status, back=back, who="you" if to_customer else view.order.ship_name)
    if status is RunStatus.COMPENSATED and money.charged:
        return f"{format_money(money.refunded, money.currency)} went back to the card."
    is_sure = status is RunStatus.COMPENSATED or (status is RunStatus.NEEDS_ATTENTION and not _is_unsure(view))
    return "Nothing is charged." if is_sure else ""


def _of_money_held(view: OrderView, status: RunStatus, *, back: bool, who: str) -> str:
    held = format_money(view.money.held, view.money.currency)
    if status in (RunStatus.ABANDONED, RunStatus.COMPENSATED):
        return f"We still hold {held}."
    if status is RunStatus.NEEDS_ATTENTION:
        return f"{held} is owed to {who}." if back else f"{held} is charged, and the order waits."
    return f"{held} is still to go back." if back else ""


def _forward(*, pieces: int, total: str, name: str, city: str, email: str) -> dict[str, str]:
    """By step, what it does."""
    return {
        "reserve_inventory": f"{_in_words(pieces)} set aside for {name}",
        "process_payment": f"{total} taken from the card",
        "create_shipment": f"a parcel to {city} booked",
        "send_confirmation_email": f"confirmation to {email}",
    }


def _pieces(view: OrderView) -> int:
    return sum(item.quantity for item in view.reservations) or sum(line.quantity for line in view.lines)


def _in_words(pieces: int) -> str:
    return f"{pieces} piece{'' if pieces == 1 else 's'}"


def _is_unsure(view: OrderView) -> bool:
    return any(operation.status in ("requested", "unknown", "pending") for operation in view.money.operations)


def _parcel_words(shipment: Shipment | None) -> str:
    if shipment is None or not shipment.tracking_number:
        return ""
    if shipment.status == Shipment.Status.HANDED_OVER:
        return "The carrier has the parcel."
    expected = f", expected {shipment.estimated_delivery:%Y-%m-%d}" if shipment.estimated_delivery else ""
    return f"Parcel {shipment.tracking_number} is booked{expected}."
