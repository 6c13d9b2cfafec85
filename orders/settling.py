"""Payments and refunds that take their time: somebody has to find out when they are done, and wake their run.

A webhook does, as soon as it comes; and since webhooks get lost, whoever waits is also asked after from time to time.
Neither is believed: a run is woken, and its step asks the gateway itself.
"""

from __future__ import annotations

import time
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from orders.models import PaymentOperation
from orders.order_processing.payment_books import SIGNAL
from orders.providers import get_payments
from orders.providers.errors import Declined, ProviderError
from sagas import counting
from sagas import services as engine
from sagas.selectors import waiting_signal

LOOK = "orders.settling.look_at_due"
LONGEST = timedelta(hours=1)
AT_A_TIME = 50
WORK_SECONDS = 15.0
Status = PaymentOperation.Status


def is_waiting() -> bool:
    """Whether some pending operation is due to be asked after."""
    return PaymentOperation.objects.filter(status=Status.PENDING, look_at__lte=timezone.now()).exists()


def look_at_due() -> int:
    """Ask after those that are due, for a while; how many. What the queue calls."""
    until, count = time.monotonic() + WORK_SECONDS, 0
    while time.monotonic() < until:
        taken = _take()
        if not taken:
            break
        for operation in taken:
            if time.monotonic() < until:
                settle(operation)
                count += 1
    counting.write_down_when_due()
    return count


def settle_key(key: str) -> bool:
    """Look at the operation of that key now, if it is pending. Whether a run was woken."""
    operation = PaymentOperation.objects.filter(key=key, status=Status.PENDING).select_related("payment__order").first()
    return operation is not None and settle(operation)


def settle(operation: PaymentOperation) -> bool:
    """Wake the run that waits for this operation, if the gateway is done with it. Whether it was woken."""
    run_id = operation.payment.order.run_id
    signal = waiting_signal(run_id, SIGNAL) if run_id is not None else ""
    if not signal:  # nobody waits: it was cancelled meanwhile, or stands aside until its parcel is booked
        PaymentOperation.objects.filter(pk=operation.pk).update(look_at=None)
        return False
    try:
        if not _is_done(operation):
            return False
    except ProviderError:
        return False  # it is asked again at its time
    return engine.signal(run_id=str(run_id), name=signal, payload={"operation": operation.key}, actor="engine")


def _is_done(operation: PaymentOperation) -> bool:
    gateway = get_payments()
    try:
        if operation.kind == PaymentOperation.Kind.CHARGE:
            charge = gateway.find_charge(key=operation.key)
            return charge is None or charge.status != "pending"
        refund = gateway.find_refund(key=operation.key)
        return refund is None or refund.status != "pending"
    except Declined:
        return True


def _take() -> list[PaymentOperation]:
    """Due ones, with the time of their next look set: whoever asks at the same moment gets others."""
    now = timezone.now()
    with transaction.atomic():
        rows = PaymentOperation.objects.filter(status=Status.PENDING, look_at__lte=now).order_by("look_at")
        taken = list(rows.select_for_update(skip_locked=True)[:AT_A_TIME])
        for one in taken:
            # The longer it has taken, the less it matters to the minute.
            wait = max(timedelta(seconds=settings.PAYMENT_LOOK), min((now - one.created_at) / 10, LONGEST))
            PaymentOperation.objects.filter(pk=one.pk).update(look_at=now + wait)
    return list(
        PaymentOperation.objects.filter(pk__in=[one.pk for one in taken])
        .select_related("payment__order")
        .order_by("pk")
    )
