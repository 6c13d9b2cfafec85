"""The ledgers of the embedded outside systems: what a gateway, a carrier and a mail server would know by themselves.

They are nobody's business but the sandboxes': the shop asks through the provider interfaces.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from orders.models.kept import KeptRow


class SandboxCharge(models.Model):
    """A charge at the sandbox gateway; with `barred`, a charge that was called off before it came."""

    key = models.CharField(max_length=200, unique=True)
    transaction_id = models.CharField(max_length=40, unique=True)
    order_id = models.CharField(max_length=40, blank=True, default="")
    amount = models.DecimalField(max_digits=14, decimal_places=3)
    currency = models.CharField(max_length=3)
    method = models.CharField(max_length=100, blank=True, default="")
    refunded = models.DecimalField(max_digits=14, decimal_places=3, default=0)
    barred = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(refunded__gte=0, refunded__lte=F("amount")), name="orders_sandbox_refunded_within_charge"
            ),
        ]

    def __str__(self) -> str:
        return self.transaction_id


class SandboxRefund(KeptRow):
    """A refund at the sandbox gateway."""

    key = models.CharField(max_length=200, unique=True)
    refund_id = models.CharField(max_length=40, unique=True)
    charge = models.ForeignKey(SandboxCharge, on_delete=models.PROTECT, related_name="refunds")
    amount = models.DecimalField(max_digits=14, decimal_places=3)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="orders_sandbox_refund_positive"),
        ]

    def __str__(self) -> str:
        return self.refund_id


class SandboxParcel(models.Model):
    """A parcel at the sandbox carrier; cancelled without a shipment id: called off before it was booked."""

    class Status(models.TextChoices):
        BOOKED = "booked", "booked"
        HANDED_OVER = "handed_over", "handed over"
        CANCELLED = "cancelled", "cancelled"

    reference = models.CharField(max_length=40, unique=True)
    shipment_id = models.CharField(max_length=40, blank=True, default="")
    tracking_number = models.CharField(max_length=40, blank=True, default="")
    estimated_delivery = models.DateField(null=True, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.reference


class SandboxMail(KeptRow):
    """A mail that was handed to the mail server, by our key: what a mail server's log would say."""

    key = models.CharField(max_length=200, unique=True)
    email_id = models.CharField(max_length=100)
    recipient = models.EmailField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.email_id


class SandboxMishap(models.Model):
    """How often a sandbox has failed on purpose under a key: it must fail twice across processes."""

    key = models.CharField(max_length=255, unique=True)
    count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"


class FaultPlan(models.Model):
    """A failure to come: the next `remaining` calls of that operation whose text holds `match` fail that way."""

    class Kind(models.TextChoices):
        REFUSE = "refuse", "says no"
        UNAVAILABLE = "unavailable", "is away"
        SLOW = "slow", "does it, after a while"
        LOSE_ANSWER = "lose_answer", "does it and loses the answer"
        SILENT = "silent", "does nothing and gives no answer"

    provider = models.CharField(max_length=20)
    operation = models.CharField(max_length=40)
    match = models.CharField(max_length=200, blank=True, default="")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    code = models.CharField(max_length=100, blank=True, default="")
    seconds = models.FloatField(default=0)
    """How long a slow call takes longer."""
    remaining = models.PositiveIntegerField()
    fired = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.provider}.{self.operation} {self.kind}, {self.remaining} to come"
