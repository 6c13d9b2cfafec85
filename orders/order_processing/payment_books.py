"""Our own books of an order's money: what was asked of the gateway, and what it answered.

An operation's row is written before the call, in a transaction of its own: a charge of which nothing is known here
would be money that nobody looks for.
"""

from __future__ import annotations

from decimal import Decimal

from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from orders.models import Order, Payment, PaymentOperation
from sagas import StepError, StepRefused, StepUnknown

OperationStatus = PaymentOperation.Status
CHARGE = PaymentOperation.Kind.CHARGE
REFUND = PaymentOperation.Kind.REFUND
VOID = PaymentOperation.Kind.VOID


def opened(order: Order, kind: PaymentOperation.Kind, amount: Decimal, key: str) -> dict[str, str]:
    """Write the operation of that key, unless it is there. Call it inside a transaction."""
    payment, _ = Payment.objects.get_or_create(order=order, defaults={"currency": order.currency})
    operation, _ = PaymentOperation.objects.get_or_create(
        key=key, defaults={"payment": payment, "kind": kind, "amount": amount}
    )
    return {"operation": operation.key}


def open_refund(order: Order, amount: Decimal, key: str) -> PaymentOperation:
    """The refund of that key, written before it is asked for."""
    with transaction.atomic():
        opened(order, REFUND, amount, key)
    return asking(key)


def asking(key: str) -> PaymentOperation:
    """The operation of that key, marked as asked for unless it is done already."""
    operation = PaymentOperation.objects.get(key=key)
    _not_done(operation).update(status=OperationStatus.REQUESTED, updated_at=timezone.now())
    return operation


def note_failure(operation: PaymentOperation, error: StepError) -> None:
    """Write down how the gateway's answer fell short."""
    status = OperationStatus.UNAVAILABLE
    if isinstance(error, StepRefused):
        status = OperationStatus.REFUSED
    elif isinstance(error, StepUnknown):
        status = OperationStatus.UNKNOWN
    _not_done(operation).update(
        status=status,
        code=error.code[:100],
        message=str(error),
        provider_id=error.provider_id,
        updated_at=timezone.now(),
    )


def note_charge(operation: PaymentOperation, *, amount: Decimal, transaction_id: str) -> None:
    """The money came. Said twice, it is counted once."""
    with transaction.atomic():
        if _succeed(operation, amount, transaction_id):
            Payment.objects.filter(pk=operation.payment_id).update(charged=F("charged") + amount)


def note_refund(operation: PaymentOperation, *, amount: Decimal, refund_id: str) -> None:
    """The money went back. Said twice, it is counted once."""
    with transaction.atomic():
        if _succeed(operation, amount, refund_id) or _succeed_late(operation, amount, refund_id):
            Payment.objects.filter(pk=operation.payment_id).update(refunded=F("refunded") + amount)


def note_nothing_charged(undo: PaymentOperation) -> None:
    """There was nothing to give back: the undo is kept as a void, and the charge that never came is closed."""
    with transaction.atomic():
        _not_done(undo).update(
            kind=VOID,
            status=OperationStatus.SUCCEEDED,
            message="Nothing had been charged.",
            updated_at=timezone.now(),
        )
        PaymentOperation.objects.filter(
            payment=undo.payment_id,
            kind=CHARGE,
            status__in=[OperationStatus.REQUESTED, OperationStatus.UNKNOWN],
        ).update(
            status=OperationStatus.UNAVAILABLE, message="The gateway knows no such charge.", updated_at=timezone.now()
        )


def undo_has_begun(undo_key: str) -> bool:
    """Whether a compensation has already looked for what this action was about to do."""
    return PaymentOperation.objects.filter(key=undo_key).exists()


def _succeed(operation: PaymentOperation, amount: Decimal, provider_id: str) -> bool:
    return bool(
        _not_done(operation).update(
            status=OperationStatus.SUCCEEDED,
            amount=amount,
            provider_id=provider_id,
            code="",
            message="",
            updated_at=timezone.now(),
        )
    )


def _succeed_late(undo: PaymentOperation, amount: Decimal, refund_id: str) -> bool:
    """The undo was closed as "nothing to refund", and money came and went after all: that gets a row of its own."""
    if not PaymentOperation.objects.filter(pk=undo.pk, kind=VOID).exists():
        return False
    late, _ = PaymentOperation.objects.get_or_create(
        key=f"{undo.key}:late", defaults={"payment_id": undo.payment_id, "kind": REFUND, "amount": amount}
    )
    return _succeed(late, amount, refund_id)


def _not_done(operation: PaymentOperation) -> models.QuerySet[PaymentOperation]:
    """Guards every move: what has succeeded stays so, whoever comes late."""
    return PaymentOperation.objects.filter(pk=operation.pk).exclude(status=OperationStatus.SUCCEEDED)
