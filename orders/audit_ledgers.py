"""Whether the embedded providers did only what was asked of them: an effect that no row of ours knows of is a loss."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, TypeVar

from django.conf import settings
from django.db.models import Model, QuerySet, Sum

from orders.models import (
    PaymentOperation,
    SandboxCharge,
    SandboxMail,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
)
from sagas.audit import PAGE, Finding

Row = TypeVar("Row", bound=Model)
NONE = Decimal(0)
SANDBOXES = {
    "payments": "orders.providers.payments.sandbox.SandboxGateway",
    "shipping": "orders.providers.shipping.sandbox.SandboxCarrier",
    "mail": "orders.providers.mail.django.DjangoMail",
}


def is_sandbox(kind: str) -> bool:
    """Whether that provider keeps its ledger here, where it can be read."""
    return bool(settings.PROVIDERS[kind] == SANDBOXES[kind])


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
    """Every row of every ledger that is kept here."""
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


def _audit_gateway() -> Iterator[Finding]:
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
