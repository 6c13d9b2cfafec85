"""Our own books of an order's money: what was asked of the gateway, and what it answered.

An operation's row is written before the call, in a transaction of its own: a charge of which nothing is known here
would be money that nobody looks for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from orders.models import Order, Payment, PaymentOperation
from sagas import StepError, StepRefused, StepUnknown
from sagas.barrier import insert_missing

OperationStatus = PaymentOperation.Status
CHARGE = PaymentOperation.Kind.CHARGE
REFUND = PaymentOperation.Kind.REFUND
VOID = PaymentOperation.Kind.VOID
SIGNAL = "payment-"
"""How the signals begin that tell a run that the gateway is done with something."""
LONGEST_URL = 500


def opened(order: Order, kind: PaymentOperation.Kind, amount: Decimal, key: str) -> dict[str, str]:
    """Write the operation of that key, unless it is there. Call it inside a transaction."""
    payment = Payment(order=order, currency=order.currency)
    if not insert_missing(payment):
        payment = Payment.objects.get(order=order)
    insert_missing(PaymentOperation(key=key, payment=payment, kind=kind, amount=amount))
    return {"operation": key}


def open_refund(order: Order, amount: Decimal, key: str) -> None:
    """Write the refund of that key before it is asked for."""
    with transaction.atomic():
        opened(order, REFUND, amount, key)
    asking(key)


def asking(key: str) -> None:
    """Mark the operation of that key as asked for, again if need be, unless it is done already."""
    _not_done(key).exclude(status=OperationStatus.REQUESTED).update(
        status=OperationStatus.REQUESTED, updated_at=timezone.now()
    )


def note_failure(key: str, error: StepError) -> None:
    """Write down how the gateway's answer fell short."""
    status = OperationStatus.UNAVAILABLE
    if isinstance(error, StepRefused):
        status = OperationStatus.REFUSED
    elif isinstance(error, StepUnknown):
        status = OperationStatus.UNKNOWN
    _not_done(key).update(
        status=status,
        code=error.code[:100],
        message=str(error),
        provider_id=error.provider_id,
        updated_at=timezone.now(),
    )


def note_charge(key: str, *, amount: Decimal, transaction_id: str) -> None:
    """The money came. Said twice, it is counted once."""
    with transaction.atomic():
        if _succeed(key, amount, transaction_id):
            Payment.objects.filter(operations__key=key).update(charged=F("charged") + amount)


def note_refund(key: str, *, amount: Decimal, refund_id: str) -> None:
    """The money went back. Said twice, it is counted once."""
    with transaction.atomic():
        if _succeed(key, amount, refund_id) or _succeed_late(key, amount, refund_id):
            Payment.objects.filter(operations__key=key).update(refunded=F("refunded") + amount)


def note_pending(
    key: str, *, provider_id: str, message: str, next_url: str = "", look_at: datetime | None = None
) -> None:
    """The gateway has it, and it is not done yet. `look_at`: when to ask after it, if nobody tells before."""
    _not_done(key).update(
        status=OperationStatus.PENDING,
        provider_id=provider_id,
        code="",
        message=message,
        # It becomes a link on our page: nothing but an address, and none that was cut.
        next_url=next_url if next_url.startswith("https://") and len(next_url) <= LONGEST_URL else "",
        look_at=look_at,
        updated_at=timezone.now(),
    )


def soon() -> datetime:
    """When to ask after what has just become pending."""
    return timezone.now() + timedelta(seconds=settings.PAYMENT_LOOK)


def time_left(key: str) -> timedelta:
    """How long the customer and their bank may still take, by when it was first asked for; enough for one more look."""
    begun = PaymentOperation.objects.values_list("created_at", flat=True).get(key=key)
    whole = timedelta(seconds=settings.PAYMENT_WAIT)
    return min(whole, max(begun + whole - timezone.now(), timedelta(seconds=settings.PAYMENT_LOOK)))


def note_nothing_charged(key: str) -> None:
    """There was nothing to give back: the undo is kept as a void, and the charge that never came is closed."""
    with transaction.atomic():
        _not_done(key).update(
            kind=VOID,
            status=OperationStatus.SUCCEEDED,
            message="Nothing had been charged.",
            updated_at=timezone.now(),
        )
        PaymentOperation.objects.filter(
            payment__in=Payment.objects.filter(operations__key=key),
            kind=CHARGE,
            status__in=[OperationStatus.REQUESTED, OperationStatus.UNKNOWN, OperationStatus.PENDING],
        ).update(
            status=OperationStatus.UNAVAILABLE, message="The gateway knows no such charge.", updated_at=timezone.now()
        )


def undo_has_begun(undo_key: str) -> bool:
    """Whether a compensation has already looked for what this action was about to do."""
    return PaymentOperation.objects.filter(key=undo_key).exists()


def _succeed(key: str, amount: Decimal, provider_id: str) -> bool:
    return bool(
        _not_done(key).update(
            status=OperationStatus.SUCCEEDED,
            amount=amount,
            provider_id=provider_id,
            code="",
            message="",
            next_url="",
            updated_at=timezone.now(),
        )
    )


def _succeed_late(key: str, amount: Decimal, refund_id: str) -> bool:
    """The undo was closed as "nothing to refund", and money came and went after all: that gets a row of its own."""
    undo = PaymentOperation.objects.filter(key=key, kind=VOID).first()
    if undo is None:
        return False
    late = f"{key}:late"
    insert_missing(PaymentOperation(key=late, payment_id=undo.payment_id, kind=REFUND, amount=amount))
    return _succeed(late, amount, refund_id)


def _not_done(key: str) -> models.QuerySet[PaymentOperation]:
    """Guards every move: what has succeeded stays so, whoever comes late."""
    return PaymentOperation.objects.filter(key=key).exclude(status=OperationStatus.SUCCEEDED)
