"""Our own books of an order's money: what was asked of the gateway, and what came of it."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.db.models import F, Q

from orders.exceptions import HistoryIsKept
from orders.models.order import Order


class Payment(models.Model):
    """The sums of an order's operations."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT, related_name="payment")
    currency = models.CharField(max_length=3)
    charged = models.DecimalField(max_digits=14, decimal_places=3, default=0)
    refunded = models.DecimalField(max_digits=14, decimal_places=3, default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(charged__gte=0), name="orders_payment_charged_not_negative"),
            # More can never go back than came in.
            models.CheckConstraint(
                condition=Q(refunded__gte=0, refunded__lte=F("charged")), name="orders_payment_refunded_within_charged"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.charged - self.refunded} {self.currency} held"


class PaymentOperation(models.Model):
    """One thing asked of the gateway. Written before the call, so that nothing it does is unknown to us."""

    class Kind(models.TextChoices):
        CHARGE = "charge", "charge"
        REFUND = "refund", "refund"
        VOID = "void", "nothing to refund"

    class Status(models.TextChoices):
        REQUESTED = "requested", "asked for"
        SUCCEEDED = "succeeded", "done"
        REFUSED = "refused", "refused"
        UNKNOWN = "unknown", "no answer"
        UNAVAILABLE = "unavailable", "gateway away"
        PENDING = "pending", "under way"  # accepted; the customer, their bank or the gateway is not done with it

    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="operations")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    amount = models.DecimalField(max_digits=14, decimal_places=3)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.REQUESTED)
    key = models.CharField(max_length=200, unique=True)
    provider_id = models.CharField(max_length=200, blank=True, default="")
    code = models.CharField(max_length=100, blank=True, default="")
    message = models.TextField(blank=True, default="")
    next_url = models.CharField(max_length=500, blank=True, default="")
    """Where the customer has to go while a charge is pending, if anywhere."""
    look_at = models.DateTimeField(null=True, blank=True)
    """When the gateway is to be asked what has become of a pending one; null: nobody waits for it."""
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="orders_operation_amount_positive"),
            # Money that moved can be shown to the gateway by its own number.
            models.CheckConstraint(
                condition=~Q(status="succeeded") | Q(kind="void") | ~Q(provider_id=""),
                name="orders_operation_done_has_provider_id",
            ),
        ]
        indexes = [
            # The search for a transaction's id.
            models.Index(fields=["provider_id"], name="orders_operation_provider_id"),
            # The few that are under way, for whoever asks after them.
            models.Index(fields=["look_at"], condition=Q(status="pending"), name="orders_operation_pending"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount} {self.status}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding and PaymentOperation.objects.filter(pk=self.pk, status="succeeded").exists():
            raise HistoryIsKept(f"{self._meta.verbose_name} {self.key}")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise HistoryIsKept(f"{self._meta.verbose_name} {self.key}")
