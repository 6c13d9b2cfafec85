"""What was asked of outside systems that keep no key of ours, or none for long."""

from __future__ import annotations

from django.db import models


class OutsideEffect(models.Model):
    """One effect of ours at an outside system, by our key: written before the first call, so that the number it has
    there, once known, is never looked for twice."""

    class Kind(models.TextChoices):
        CHARGE = "charge", "charge"
        REFUND = "refund", "refund"
        PARCEL = "parcel", "parcel"
        RESERVATION = "reservation", "reservation"
        MAIL = "mail", "mail"

    provider = models.CharField(max_length=40)
    key = models.CharField(max_length=200)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    digest = models.CharField(max_length=64, blank=True, default="")
    """Of what was asked for: the same key is not good for something else."""
    remote_id = models.CharField(max_length=200, blank=True, default="")
    """Its number there."""
    reference = models.CharField(max_length=60, blank=True, default="")
    """What we call it there, where that is not the key."""
    is_barred = models.BooleanField(default=False)
    """It was undone: should its action still come, it is turned away."""
    asks = models.PositiveIntegerField(default=0)
    """How many calls that may have had the effect are without an answer, or had a good one."""
    asked_at = models.DateTimeField(null=True, blank=True)
    """When the last of those calls went out."""
    facts = models.JSONField(default=dict, blank=True)
    """What its receipt is made of, and what the adapter needs to find and undo it."""
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "key"], name="orders_effect_once_per_key"),
            # One payment at a gateway pays for one order.
            models.UniqueConstraint(
                fields=["provider", "remote_id"],
                condition=models.Q(kind="charge") & ~models.Q(remote_id=""),
                name="orders_effect_charge_once",
            ),
        ]
        indexes = [
            models.Index(fields=["provider", "remote_id"], name="orders_effect_remote"),
            models.Index(fields=["provider", "reference"], name="orders_effect_reference"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.kind} {self.remote_id or 'asked for'}"
