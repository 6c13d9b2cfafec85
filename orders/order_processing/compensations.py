"""The four undo steps. Each works from the action's key, not from its stored result: an action that died midway left no
result, and may have left a charge. Doing one twice is the same as doing it once, and where there is nothing to undo
the result says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction

from orders.models import Order
from orders.money import to_float
from orders.order_processing import mail_books, parcel_books, payment_books
from orders.order_processing.outcomes import as_outcomes
from orders.order_processing.shapes import (
    CancellationEmailResult,
    CancelShipmentResult,
    RefundResult,
    ReleaseResult,
)
from orders.providers import get_inventory, get_mail, get_payments, get_shipping
from orders.providers.base import Charge, Refund
from sagas import StepContext, StepError, StepRefused, WaitFor
from sagas.barrier import undo_once

BEGUN = {"begun": True}
NOTHING = {"begun": False}


def release_inventory(ctx: StepContext) -> ReleaseResult:
    """Give back the pieces that reserve_inventory holds.

    Returns {"released_items": [...]}, empty if nothing was held.
    """
    with as_outcomes():
        released = get_inventory().release(action_key=ctx.action_key, key=ctx.key)
    return {
        "released_items": [
            {"sku": item.sku, "quantity": item.quantity, "reservation_id": item.reservation_id}
            for item in released.items
        ]
    }


def refund_payment(ctx: StepContext) -> RefundResult | WaitFor:
    """Give back what process_payment took, if it took anything; void what it only had set aside.

    Returns {"refunded": True, "refund_id": "RFN-...", "amount": 99.99}, the amount in units of the order's currency; or
    waits while the gateway is at it.
    Raises StepUnavailable while the gateway is away; the next try sends the same key.
    """
    if not _begun_refund(ctx)["begun"] and not _was_charged(ctx):
        return {"refunded": False, "refund_id": "", "amount": 0.0}
    payment_books.asking(ctx.key)
    try:
        with as_outcomes():
            # Asked for also when no charge is known: the gateway then turns away one that comes late.
            refund = get_payments().refund(charge_key=ctx.action_key, key=ctx.key)
            charge = None if refund is None else get_payments().find_charge(key=ctx.action_key)
    except StepError as error:
        payment_books.note_failure(ctx.key, error)
        raise
    if refund is None:
        payment_books.note_nothing_charged(ctx.key)
        return {"refunded": False, "refund_id": "", "amount": 0.0}
    if refund.status == "pending":
        payment_books.note_pending(
            ctx.key,
            provider_id=refund.refund_id,
            message="The gateway is giving it back.",
            look_at=payment_books.soon(),
        )
        return WaitFor(signal=f"{payment_books.SIGNAL}{ctx.attempt}", timeout=timedelta(seconds=settings.REFUND_WAIT))
    return _refunded(ctx, refund, charge)


def _begun_refund(ctx: StepContext) -> dict[str, Any]:
    order = _order(ctx)
    return undo_once(
        ctx.key,
        ctx.action_key,
        lambda: BEGUN | payment_books.opened(order, payment_books.REFUND, order.total_amount, ctx.key),
        NOTHING,
    )


def _was_charged(ctx: StepContext) -> bool:
    """Whether the gateway charged although no action wrote here that it would ask. A database that was restored, or
    lost its last commits, has forgotten it. Then both are written down."""
    with as_outcomes():
        charge = get_payments().find_charge(key=ctx.action_key)
    if charge is None:
        return False
    order = _order(ctx)
    with transaction.atomic():
        for kind, key in ((payment_books.CHARGE, ctx.action_key), (payment_books.REFUND, ctx.key)):
            payment_books.opened(order, kind, order.total_amount, key)
    return True


def look_up_refund(ctx: StepContext) -> RefundResult | None:
    """The refund made under this key, or None."""
    with as_outcomes():
        refund = get_payments().find_refund(key=ctx.key)
        charge = None if refund is None else get_payments().find_charge(key=ctx.action_key)
    if refund is None or refund.status == "pending":
        return None  # one that is under way is asked for again with the same key, and then waited for
    _begun_refund(ctx)  # it was, unless this database was restored: see actions._open_late
    return _refunded(ctx, refund, charge)


def _refunded(ctx: StepContext, refund: Refund, charge: Charge | None) -> RefundResult:
    """Write both down. The action may have died before it could note that the money came, and the books take no refund
    of what never came in."""
    if charge is not None and charge.status == "completed":
        payment_books.note_charge(ctx.action_key, amount=charge.amount, transaction_id=charge.transaction_id)
    payment_books.note_refund(ctx.key, amount=refund.amount, refund_id=refund.refund_id)
    return {"refunded": True, "refund_id": refund.refund_id, "amount": to_float(refund.amount)}


def cancel_shipment(ctx: StepContext) -> CancelShipmentResult:
    """Take the parcel back from the carrier, while it has not been handed over.

    Returns {"cancelled": True, "shipment_id": "SHIP-..."}. Raises StepRefused (handed_over) once it is on its way.
    """
    order = _order(ctx)
    reference = parcel_books.reference_of(ctx.action_key)
    undo = undo_once(ctx.key, ctx.action_key, lambda: BEGUN, NOTHING)
    if not undo["begun"]:
        with as_outcomes():
            if get_shipping().find_shipment(reference=reference) is None:
                return {"cancelled": False, "shipment_id": ""}
        parcel_books.opened(order, reference)  # it is there, and was forgotten here: see _was_charged
    if not parcel_books.start_cancelling(reference):
        raise StepRefused(
            f"The parcel of {order.order_id} was handed over to the carrier. Take it back as a return.",
            code="handed_over",
        )
    try:
        with as_outcomes():
            parcel = get_shipping().find_shipment(reference=reference)
            # Asked also when the carrier knows none: it then turns away a booking that comes late.
            get_shipping().cancel_shipment(reference=reference, key=ctx.key)
    except StepRefused as error:
        if error.code == "handed_over":
            parcel_books.note_handed_over(reference)
        raise
    parcel_books.note_cancelled(reference)
    return {"cancelled": parcel is not None, "shipment_id": parcel.shipment_id if parcel is not None else ""}


def send_cancellation_email(ctx: StepContext) -> CancellationEmailResult:
    """Tell the customer that the order is cancelled, if they were, or may have been, told that it is on its way.

    Returns {"email_sent": True, "email_id": "EMAIL-...", "reason": ""}.
    """
    if not _begun_cancellation(ctx)["begun"]:
        return {"email_sent": False, "email_id": "", "reason": "No confirmation went out."}
    with as_outcomes():
        sent = get_mail().send(mail_books.message_of(mail_books.written_before(ctx.key)), key=ctx.key)
    mail_books.note_sent(ctx.key, sent)
    return {"email_sent": True, "email_id": sent.email_id, "reason": ""}


def _begun_cancellation(ctx: StepContext) -> dict[str, Any]:
    order = _order(ctx)
    return undo_once(
        ctx.key,
        ctx.action_key,
        lambda: BEGUN | mail_books.queue(mail_books.written(order, mail_books.CANCELLATION, ctx)),
        NOTHING,
    )


def look_up_cancellation(ctx: StepContext) -> CancellationEmailResult | None:
    """The cancellation that went out under this key, or None."""
    with as_outcomes():
        sent = get_mail().find(key=ctx.key)
    if sent is None:
        return None
    _begun_cancellation(ctx)
    mail_books.note_sent(ctx.key, sent)
    return {"email_sent": True, "email_id": sent.email_id, "reason": ""}


def _order(ctx: StepContext) -> Order:
    return Order.objects.get(order_id=ctx.business_key)
