"""The four forward steps of an order. Each sends its key along, so that sending twice is the same as sending once.

What a provider is asked for is written down before the asking, by an effect that its undo can bar: an action that
comes after its own compensation finds the way barred and leaves nothing behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from django.conf import settings

from orders.models import Order
from orders.money import format_money, to_float
from orders.order_processing import mail_books, parcel_books, payment_books
from orders.order_processing.outcomes import as_outcomes
from orders.order_processing.shapes import EmailResult, PaymentResult, ReserveResult, ShipmentResult
from orders.providers import get_inventory, get_mail, get_payments, get_shipping
from orders.providers.base import Captures, Charge, GivesLabels, Line, Parcel, Reserved, offers
from orders.providers.errors import ProviderError
from sagas import (
    Direction,
    StepContext,
    StepError,
    StepRefused,
    StepUnavailable,
    StepUnknown,
    WaitFor,
    step_key,
)
from sagas.barrier import first_time

log = logging.getLogger(__name__)


def reserve_inventory(ctx: StepContext) -> ReserveResult:
    """Hold the pieces of every line, or none of them.

    Returns {"reserved_items": [{"sku": "ITEM-001", "quantity": 2, "reservation_id": "RES-..."}]}.
    Raises StepRefused (insufficient_inventory) when there are too few of one: then nothing is held.
    """
    lines = [Line(sku=item["sku"], quantity=item["quantity"]) for item in ctx.input["items"]]
    with as_outcomes():
        reserved = get_inventory().reserve(lines, key=ctx.key)
    return _reserved(reserved)


def look_up_reservation(ctx: StepContext) -> ReserveResult | None:
    """What was reserved under this key, or None."""
    with as_outcomes():
        reserved = get_inventory().find_reservation(key=ctx.key)
    return None if reserved is None else _reserved(reserved)


def _reserved(reserved: Reserved) -> ReserveResult:
    return {
        "reserved_items": [
            {"sku": item.sku, "quantity": item.quantity, "reservation_id": item.reservation_id}
            for item in reserved.items
        ]
    }


def process_payment(ctx: StepContext) -> PaymentResult | WaitFor:
    """Charge the order's total to the card's token.

    Returns {"transaction_id": "TXN-...", "amount": 99.99, "status": "completed"}, the amount in units of the order's
    currency; or waits while the customer or their bank has something to do. Raises StepRefused when the card is
    declined, StepUnknown when the answer was lost.
    """
    return _pay(ctx, get_payments().charge)


def authorize_payment(ctx: StepContext) -> PaymentResult | WaitFor:
    """Have the order's total set aside, to be taken by capture_payment. As process_payment, with "authorized"."""
    gateway = get_payments()
    if not offers(gateway, Captures):
        raise StepRefused("This gateway cannot set money aside. Unset ORDER_CAPTURE.", code="cannot_authorize")
    return _pay(ctx, gateway.authorize)


def _pay(ctx: StepContext, take: Callable[..., Charge]) -> PaymentResult | WaitFor:
    order = _order(ctx)
    if not first_time(ctx.key, lambda: payment_books.opened(order, payment_books.CHARGE, order.total_amount, ctx.key)):
        if payment_books.undo_has_begun(_undo_key(ctx)):
            # A worker that stalled since an earlier try. Most gateways would charge and refund the card.
            raise StepRefused("The payment was undone already; nothing was charged now.", code="already_undone")
        payment_books.asking(ctx.key)
    try:
        with as_outcomes():
            charge = take(
                amount=order.total_amount,
                currency=order.currency,
                method=order.card_token,
                key=ctx.key,
                order_id=order.order_id,
                customer=order.customer_ref,
            )
    except StepError as error:
        payment_books.note_failure(ctx.key, error)
        raise
    _note_charge(ctx.key, charge)
    if payment_books.undo_has_begun(_undo_key(ctx)):
        # The refund looked before this charge was there, and nobody will come for it again.
        _give_back(ctx, order, charge)
        raise StepRefused("The payment was undone before it was made; it was given back.", code="already_undone")
    if (charge.amount, charge.currency) != (order.total_amount, order.currency):
        _give_back(ctx, order, charge)
        raise StepRefused(
            f"The gateway charged {format_money(charge.amount, charge.currency)} instead of "
            f"{format_money(order.total_amount, order.currency)}; it was given back.",
            code="amount_mismatch",
            provider_id=charge.transaction_id,
        )
    if charge.status == "pending":
        return _wait(ctx, ctx.key)
    return _paid(charge)


def capture_payment(ctx: StepContext) -> PaymentResult | WaitFor:
    """Take what authorize_payment had set aside, now that the parcel is booked."""
    order, gateway = _order(ctx), get_payments()
    pay_key = step_key(ctx.run_id, "process_payment", Direction.ACTION)
    if not offers(gateway, Captures):
        raise StepUnavailable("This gateway cannot take what another one set aside.", code="cannot_capture")
    with as_outcomes():
        charge = gateway.capture(charge_key=pay_key, key=ctx.key)
    _note_charge(pay_key, charge)
    if charge.status == "pending":
        return WaitFor(signal=f"{payment_books.SIGNAL}{ctx.attempt}", timeout=timedelta(seconds=settings.PAYMENT_WAIT))
    if (charge.amount, charge.currency) != (order.total_amount, order.currency):
        raise StepRefused(
            f"The gateway took {format_money(charge.amount, charge.currency)} instead of "
            f"{format_money(order.total_amount, order.currency)}.",
            code="amount_mismatch",
            provider_id=charge.transaction_id,
        )
    return _paid(charge)


def _note_charge(key: str, charge: Charge) -> None:
    if charge.status == "completed":
        payment_books.note_charge(key, amount=charge.amount, transaction_id=charge.transaction_id)
        return
    is_aside = charge.status == "authorized"
    message = "Set aside, to be taken later." if is_aside else "The customer or their bank is at it."
    payment_books.note_pending(
        key,
        provider_id=charge.transaction_id,
        message=message,
        next_url=charge.next_url,
        look_at=None if is_aside else payment_books.soon(),
    )


def _wait(ctx: StepContext, key: str) -> WaitFor:
    """Until somebody says that the gateway is done with it: its webhook, or whoever asks after it from time to time.

    All waits of a payment together are as long as one may be: being woken for nothing prolongs none of them.
    """
    # Named by the attempt: a signal is heard once, and this one may have to be waited for again.
    return WaitFor(signal=f"{payment_books.SIGNAL}{ctx.attempt}", timeout=payment_books.time_left(key))


def look_up_payment(ctx: StepContext) -> PaymentResult | None:
    """The charge made under this key, or None."""
    order = _order(ctx)
    with as_outcomes():
        charge = get_payments().find_charge(key=ctx.key)
    if charge is None or charge.status == "pending":
        return None  # nothing that is final: asked for again with the same key, it waits
    _open_late(ctx, lambda: payment_books.opened(order, payment_books.CHARGE, order.total_amount, ctx.key))
    _note_charge(ctx.key, charge)
    if (charge.amount, charge.currency) != (order.total_amount, order.currency):
        # None says that nothing is left of it, so that must be true first.
        _give_back(ctx, order, charge)
        return None
    return _paid(charge)


def _paid(charge: Charge) -> PaymentResult:
    return {"transaction_id": charge.transaction_id, "amount": to_float(charge.amount), "status": charge.status}


def _give_back(ctx: StepContext, order: Order, charge: Charge) -> None:
    """Refund under the key that the compensation would use: whoever else does it, it is the same refund."""
    undo_key = _undo_key(ctx)
    payment_books.open_refund(order, charge.amount, undo_key)
    try:
        with as_outcomes():
            refund = get_payments().refund(charge_key=ctx.key, key=undo_key)
    except StepError as error:
        payment_books.note_failure(undo_key, error)
        raise StepUnknown(
            f"Charged {charge.transaction_id}, and giving it back failed: {error}", code="give_back_failed"
        ) from error
    if refund is not None and refund.status == "completed":
        payment_books.note_refund(undo_key, amount=refund.amount, refund_id=refund.refund_id)


def create_shipment(ctx: StepContext) -> ShipmentResult:
    """Book the parcel with the carrier under a reference of ours.

    Returns {"shipment_id": "SHIP-...", "tracking_number": "TRK-...", "estimated_delivery": "2024-01-15"}.
    Raises StepRefused when the carrier does not serve the address.
    """
    order = _order(ctx)
    reference = parcel_books.reference_of(ctx.key)
    if not first_time(ctx.key, lambda: parcel_books.opened(order, reference)):
        parcel_books.asking(reference)
    try:
        with as_outcomes():
            parcel = get_shipping().create_shipment(
                reference=reference,
                address=parcel_books.address_of(order),
                lines=parcel_books.lines_of(ctx.input["items"]),
                key=ctx.key,
            )
    except StepError as error:
        parcel_books.note_failure(reference, error)
        raise
    if not parcel_books.note_booked(reference, _with_label(reference, parcel)):
        # The cancellation looked before the carrier had this parcel, and nobody will come for it again.
        _call_off(ctx, reference, parcel)
        raise StepRefused("The shipment was cancelled before it was booked.", code="already_undone")
    return _booked(parcel)


def _call_off(ctx: StepContext, reference: str, parcel: Parcel) -> None:
    """Cancel under the key that the compensation would use."""
    try:
        with as_outcomes():
            get_shipping().cancel_shipment(reference=reference, key=_undo_key(ctx))
    except StepError as error:
        raise StepUnknown(
            f"Booked {parcel.shipment_id}, and calling it off failed: {error}", code="call_off_failed"
        ) from error
    parcel_books.note_cancelled(reference)


def look_up_shipment(ctx: StepContext) -> ShipmentResult | None:
    """The parcel the carrier has under our reference, or None."""
    reference = parcel_books.reference_of(ctx.key)
    with as_outcomes():
        parcel = get_shipping().find_shipment(reference=reference)
    if parcel is None:
        return None
    _open_late(ctx, lambda: parcel_books.opened(_order(ctx), reference))
    if not parcel_books.note_booked(reference, _with_label(reference, parcel)):
        # None says that nothing is left of it, so that must be true first.
        _call_off(ctx, reference, parcel)
        return None
    return _booked(parcel)


def _with_label(reference: str, parcel: Parcel) -> Parcel:
    """One whose booking's answer was lost has its label asked for, where the carrier gives it out once more. A label is
    no reason to lose a booking."""
    carrier: object = get_shipping()
    if parcel.label is not None or not offers(carrier, GivesLabels):
        return parcel
    try:
        return replace(parcel, label=carrier.find_label(reference=reference))
    except ProviderError as error:
        log.warning("The label of %s was not had again: %s", reference, error)
        return parcel


def _booked(parcel: Parcel) -> ShipmentResult:
    return {
        "shipment_id": parcel.shipment_id,
        "tracking_number": parcel.tracking_number,
        "estimated_delivery": parcel.estimated_delivery.isoformat(),
    }


def send_confirmation_email(ctx: StepContext) -> EmailResult:
    """Tell the customer that the order is paid and on its way.

    Returns {"email_sent": True, "email_id": "EMAIL-..."}. Raises StepUnavailable while the mail server is away.
    """
    order = _order(ctx)
    written = mail_books.written(order, mail_books.CONFIRMATION, ctx)
    if not first_time(ctx.key, lambda: mail_books.queue(written)):
        if mail_books.undo_has_begun(_undo_key(ctx)):
            # A worker that stalled since an earlier try: after a cancellation nobody is told that the order is on its
            # way.
            raise StepRefused("The order was cancelled before its confirmation went out.", code="already_undone")
        written = mail_books.written_before(ctx.key)
    with as_outcomes():
        sent = get_mail().send(mail_books.message_of(written), key=ctx.key)
    mail_books.note_sent(ctx.key, sent)
    return {"email_sent": True, "email_id": sent.email_id}


def look_up_confirmation(ctx: StepContext) -> EmailResult | None:
    """The confirmation that went out under this key, or None."""
    with as_outcomes():
        sent = get_mail().find(key=ctx.key)
    if sent is None:
        return None
    _open_late(ctx, lambda: mail_books.queue(mail_books.written(_order(ctx), mail_books.CONFIRMATION, ctx)))
    mail_books.note_sent(ctx.key, sent)
    return {"email_sent": True, "email_id": sent.email_id}


def _open_late(ctx: StepContext, effect: Callable[[], object]) -> None:
    """Write what an attempt writes before it asks, for one that was found to have had its effect.

    It is there, unless the database is one that was restored, or that lost its last commits in a fail-over: then what
    is found would be in no book, and an undo would find nothing to undo.
    """
    with suppress(StepRefused):  # the undo was there first; whoever looks sees to it that nothing is left
        first_time(ctx.key, effect)


def _order(ctx: StepContext) -> Order:
    return Order.objects.get(order_id=ctx.business_key)


def _undo_key(ctx: StepContext) -> str:
    return step_key(ctx.run_id, ctx.step, Direction.COMPENSATION)
