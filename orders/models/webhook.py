"""Who is told what happens to orders, what there is to tell, and every try to tell it."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q


class WebhookEndpoint(models.Model):
    """An address that somebody wants to be told at."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="webhook_endpoints")
    """Told of their own orders; staff of all."""
    url = models.CharField(max_length=500)
    events = models.JSONField(default=list)
    """Types of events; none: every type."""
    secret = models.CharField(max_length=100)
    """Not a hash: each delivery is signed with it. `whsec_` and 32 random bytes in base64."""
    old_secret = models.CharField(max_length=100, blank=True, default="")
    old_secret_until = models.DateTimeField(null=True, blank=True)
    is_active = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=200, blank=True, default="")
    deleted_at = models.DateTimeField(null=True, blank=True)
    """Deliveries are kept, and with them what they were sent to."""
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=True) | Q(is_active=False), name="orders_endpoint_deleted_is_inactive"
            ),
        ]

    def __str__(self) -> str:
        return self.url


class WebhookEvent(models.Model):
    """Something that happened, written in the transaction in which it happened: neither is there without the other."""

    message_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    """The same for every try and every endpoint: who was told twice finds out by it."""
    type = models.CharField(max_length=50)
    order_id = models.CharField(max_length=40, blank=True, default="")
    """Empty: a test."""
    step = models.CharField(max_length=100, blank=True, default="")
    state = models.CharField(max_length=20, blank=True, default="")
    """Of the order's run, at that moment."""
    endpoint = models.ForeignKey(WebhookEndpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """Of a test: whom it is for."""
    is_spread = models.BooleanField(default=False)
    """Deliveries have been made of it."""
    created_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["id"], condition=Q(is_spread=False), name="orders_webhook_to_spread"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.order_id}"


class WebhookDelivery(models.Model):
    """One event for one endpoint, and how telling it went."""

    class Status(models.TextChoices):
        PENDING = "pending", "to be sent"
        DELIVERED = "delivered", "delivered"
        FAILED = "failed", "given up"

    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.PROTECT, related_name="deliveries")
    event = models.ForeignKey(WebhookEvent, on_delete=models.PROTECT, related_name="deliveries")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(null=True, blank=True)
    """When it is to be tried next."""
    taken_until = models.DateTimeField(null=True, blank=True)
    """A worker is at it until then."""
    last_code = models.PositiveIntegerField(null=True, blank=True)
    """The HTTP status of the last answer; none came if it is null."""
    last_error = models.CharField(max_length=300, blank=True, default="")
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "webhook deliveries"
        constraints = [
            models.UniqueConstraint(fields=["endpoint", "event"], name="orders_delivery_once"),
            models.CheckConstraint(
                condition=Q(status="pending", next_at__isnull=False) | (~Q(status="pending") & Q(next_at__isnull=True)),
                name="orders_delivery_pending_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(status="delivered") | Q(delivered_at__isnull=False), name="orders_delivery_done_has_time"
            ),
        ]
        indexes = [
            models.Index(fields=["next_at"], condition=Q(next_at__isnull=False), name="orders_delivery_due"),
            models.Index(fields=["taken_until"], condition=Q(taken_until__isnull=False), name="orders_delivery_taken"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.endpoint}: {self.status}"
