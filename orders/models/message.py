"""What was mailed to whom: written down before it goes out, once per order, kind and cause."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from orders.models.order import Order


class SentMessage(models.Model):
    """One mail, text and all."""

    class Kind(models.TextChoices):
        CONFIRMATION = "confirmation", "confirmation"
        CANCELLATION = "cancellation", "cancellation"

    class Status(models.TextChoices):
        QUEUED = "queued", "not sent yet"
        SENT = "sent", "sent"

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="messages")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    cause = models.CharField(max_length=150)
    key = models.CharField(max_length=200, unique=True)
    recipient = models.EmailField()
    subject = models.CharField(max_length=200)
    body = models.TextField()
    html = models.TextField(blank=True, default="")
    email_id = models.CharField(max_length=200, blank=True, default="")
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.QUEUED)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # A customer is told once.
            models.UniqueConstraint(fields=["order", "kind", "cause"], name="orders_message_once"),
            models.CheckConstraint(
                condition=Q(status="sent", sent_at__isnull=False) & ~Q(email_id="")
                | Q(status="queued", sent_at__isnull=True),
                name="orders_message_sent_has_time",
            ),
        ]
        indexes = [models.Index(fields=["email_id"], name="orders_message_email_id")]

    def __str__(self) -> str:
        return f"{self.kind} to {self.recipient}"


class MailDelivery(models.Model):
    """What the mail service heard of one mail after it had gone out. Only added to, as the mails are."""

    class Kind(models.TextChoices):
        """A later one of these counts more."""

        DELAYED = "delayed", "on its way"
        DELIVERED = "delivered", "delivered"
        DROPPED = "dropped", "not delivered"
        BOUNCED = "bounced", "came back"
        COMPLAINED = "complained", "taken for spam"

    message = models.ForeignKey(SentMessage, on_delete=models.PROTECT, related_name="deliveries")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    note = models.CharField(max_length=300, blank=True, default="")
    """The other mail server's words; for staff."""
    heard_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "mail deliveries"
        constraints = [
            # Told twice, it is heard once.
            models.UniqueConstraint(fields=["message", "kind"], name="orders_mail_delivery_once"),
        ]

    def __str__(self) -> str:
        return f"{self.message}: {self.kind}"

    @property
    def rank(self) -> int:
        return self.Kind.values.index(self.kind)

    @property
    def is_lost(self) -> bool:
        """Whether the customer has not got it, as far as anybody knows."""
        return self.kind in {self.Kind.DROPPED, self.Kind.BOUNCED}
