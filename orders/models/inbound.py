"""What providers told us by webhook."""

from __future__ import annotations

from django.db import models


class InboundDelivery(models.Model):
    """One delivery as it came. Senders put many events into one, and it is kept once for all of them."""

    provider = models.CharField(max_length=100)
    body = models.TextField()
    received_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "inbound deliveries"

    def __str__(self) -> str:
        return f"{self.provider}, {self.received_at:%Y-%m-%d %H:%M:%S}"


class InboundEvent(models.Model):
    """One event, stored before it is answered and looked at afterwards. Its signature was good."""

    class Status(models.TextChoices):
        WAITING = "waiting", "waiting"
        HEARD = "heard", "heard"
        NOT_OURS = "not_ours", "of nothing of ours"

    provider = models.CharField(max_length=100)
    event_id = models.CharField(max_length=200)
    """The sender's, the same when it is sent again."""
    kind = models.CharField(max_length=100)
    about = models.CharField(max_length=200, blank=True, default="")
    facts = models.JSONField(default=dict, blank=True)
    delivery = models.ForeignKey(InboundDelivery, null=True, on_delete=models.PROTECT, related_name="events")
    """Null where it is older than deliveries are: then the body is here."""
    body = models.TextField(blank=True, default="")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.WAITING)
    key = models.CharField(max_length=200, blank=True, default="")
    """Ours, of what it turned out to be about."""
    tries = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(null=True, blank=True)
    """When to look at it (again); null: it is done."""
    message = models.CharField(max_length=300, blank=True, default="")
    """Why it could not be looked at yet."""
    received_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "event_id"], name="orders_inbound_once"),
        ]
        indexes = [
            models.Index(fields=["next_at"], condition=models.Q(next_at__isnull=False), name="orders_inbound_due"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.kind} {self.about}"
