"""Whether the embedded providers did only what was asked of them: an effect that no row of ours knows of is a loss."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, TypeVar

from django.db.models import Model, QuerySet, Sum

from orders.models import (
    OutsideEffect,
    PaymentOperation,
    SandboxCharge,
    SandboxMail,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
)
from orders.providers import paths_of
from orders.providers.names import EMBEDDED
from sagas.audit import PAGE, Finding

Row = TypeVar("Row", bound=Model)
NONE = Decimal(0)
LATE = ":late"
"""Ends the key of a refund that came after its undo was closed as "nothing to refund"."""


def is_sandbox(kind: str) -> bool:
    """Whether all of that kind's work is done by the provider that keeps its ledger here, where it can be read."""
    return set(paths_of(kind).values()) <= EMBEDDED


def pages(rows: QuerySet[Row]) -> Iterator[list[Row]]:
    """All of them by key, PAGE at a time: nothing is kept, and what is added meanwhile does not disturb."""
    last: Any = None
    while True:
        page = list((rows.filter(pk__gt=last) if last is not None else rows).order_by("pk")[:PAGE])
        if not page:
            return
        yield page
        last = page[-1].pk


def audit_ledgers() -> Iterator[Finding]:
    """Every row of every ledger that is kept here, and what may be in those of others."""
    yield from _audit_bookings()
    if is_sandbox("payments"):
        yield from _audit_gateway()
    if is_sandbox("shipping"):
        for parcels in pages(SandboxParcel.objects.exclude(status=SandboxParcel.Status.CANCELLED)):
            ours = _known(Shipment, "reference", [row.reference for row in parcels])
            for parcel in parcels:
                if parcel.reference not in ours:
                    yield Finding(
                        code="parcel_of_nobody",
                        subject=f"parcel {parcel.reference}",
                        message="The carrier has it, and no shipment of ours goes by this reference.",
                    )
    if is_sandbox("mail"):
        for mails in pages(SandboxMail.objects.all()):
            ours = _known(SentMessage, "key", [row.key for row in mails])
            for mail in mails:
                if mail.key not in ours:
                    yield Finding(
                        code="mail_of_nobody",
                        subject=f"mail {mail.email_id}",
                        message=f"It went out under {mail.key}, and no message of ours has this key.",
                    )
        yield from _audit_sent()


def _audit_bookings() -> Iterator[Finding]:
    """Where a booking was made again because the first one, whose answer was lost, was not to be seen: it may be by
    now, and nobody looks for it as long as the order stands. An undo does, and calls off both."""
    again = OutsideEffect.objects.filter(kind=OutsideEffect.Kind.PARCEL, asks__gt=1, is_barred=False)
    for effects in pages(again.exclude(remote_id="")):
        standing = Shipment.objects.filter(status=Shipment.Status.CREATED)
        waiting = set(standing.filter(reference__in=[row.key for row in effects]).values_list("reference", flat=True))
        for effect in effects:
            if effect.key in waiting:
                yield Finding(
                    code="maybe_booked_twice",
                    subject=f"parcel {effect.key}",
                    message=f"{effect.provider} was asked for it {effect.asks} times, and an answer was lost: look "
                    f"there for this reference, and void every parcel but {effect.remote_id}. It is told until that "
                    f"one is handed over or called off.",
                )


def _audit_sent() -> Iterator[Finding]:
    """What we say went out, the mail server must know of."""
    for page in pages(SentMessage.objects.filter(status=SentMessage.Status.SENT).only("pk", "key", "recipient")):
        known = dict(SandboxMail.objects.filter(key__in=[row.key for row in page]).values_list("key", "recipient"))
        for row in page:
            if known.get(row.key) != row.recipient:
                to = f"sent it to {known[row.key]}" if row.key in known else "never sent it"
                yield Finding(
                    code="mail_not_sent",
                    subject=f"mail {row.key}",
                    message=f"We say that it went to {row.recipient}; the server {to}.",
                )


def _audit_done() -> Iterator[Finding]:
    """What we say the gateway did, it must know of: the amount, and under the number that we were told."""
    done = PaymentOperation.objects.filter(status=PaymentOperation.Status.SUCCEEDED)
    for page in pages(done.exclude(kind=PaymentOperation.Kind.VOID)):
        keys = [row.key.removesuffix(LATE) for row in page]
        charges = SandboxCharge.objects.filter(key__in=keys, barred=False)
        refunds = SandboxRefund.objects.filter(key__in=keys)
        known = {
            PaymentOperation.Kind.CHARGE.value: {row.key: (row.amount, row.transaction_id) for row in charges},
            PaymentOperation.Kind.REFUND.value: {row.key: (row.amount, row.refund_id) for row in refunds},
        }
        for row in page:
            if known[row.kind].get(row.key.removesuffix(LATE)) != (row.amount, row.provider_id):
                yield Finding(
                    code="not_done_by_the_gateway",
                    subject=f"{row.get_kind_display()} {row.provider_id}",
                    message=f"We say that it did {row.amount} under {row.key}, and it says otherwise.",
                )


def _audit_gateway() -> Iterator[Finding]:
    yield from _audit_done()
    for charges in pages(SandboxCharge.objects.filter(barred=False)):
        operations = PaymentOperation.objects.filter(key__in=[row.key for row in charges])
        asked = {row.key: row.amount for row in operations}
        returned = dict(
            SandboxRefund.objects.filter(charge__in=charges)
            .order_by()
            .values_list("charge")
            .annotate(amount=Sum("amount"))
        )
        for charge in charges:
            subject = f"charge {charge.transaction_id}"
            if charge.key not in asked:
                yield Finding(
                    code="charge_of_nobody",
                    subject=subject,
                    message=f"The gateway took {charge.amount} under {charge.key}, and no operation of ours asked.",
                )
            elif asked[charge.key] != charge.amount:
                yield Finding(
                    code="another_amount",
                    subject=subject,
                    message=f"The gateway took {charge.amount}, and {asked[charge.key]} was asked for.",
                )
            if returned.get(charge.pk, NONE) != charge.refunded:
                yield Finding(
                    code="refund_not_in_ledger",
                    subject=subject,
                    message=f"{charge.refunded} is said to be refunded, and {returned.get(charge.pk, NONE)} was.",
                )
    for refunds in pages(SandboxRefund.objects.all()):
        ours = _known(PaymentOperation, "key", [row.key for row in refunds])
        for refund in refunds:
            if refund.key not in ours:
                yield Finding(
                    code="refund_of_nobody",
                    subject=f"refund {refund.refund_id}",
                    message=f"The gateway gave {refund.amount} back under {refund.key}, and nobody here asked.",
                )


def _known(model: type[Model], name: str, values: list[str]) -> set[str]:
    return set(model._default_manager.filter(**{f"{name}__in": values}).values_list(name, flat=True))
