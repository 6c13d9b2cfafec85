"""Requests that are safe to send twice: who sent which key with what, and what was answered."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q


class IdempotentRequest(models.Model):
    """One `Idempotency-Key` of one user.

    Written twice: before the work as a marker with a lease, and with the work, in its transaction, as the answer.
    A marker whose worker died is taken over when its lease has passed; `fence` then makes the first one's write miss.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotent_requests")
    key = models.CharField(max_length=255)
    request_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    """Of the request that was answered, as its `X-Request-Id` said."""
    fingerprint = models.CharField(max_length=64)
    """SHA-256 of method, path and body: the same key with another one is a mistake of the caller's."""
    fence = models.PositiveIntegerField(default=1)
    lease_until = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    headers = models.JSONField(default=dict)
    body = models.TextField(default="")
    """The answer as text, not as JSON: a replay is the same to the letter, and a database may sort JSON's keys."""
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "idempotent request"
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="orders_idempotency_key_once"),
            models.CheckConstraint(
                condition=Q(answered_at__isnull=True, status__isnull=True, body="")
                | (Q(answered_at__isnull=False, status__isnull=False) & ~Q(body="")),
                name="orders_idempotency_answered_whole",
            ),
        ]
        indexes = [
            # Whoever asks about a request names it by its id.
            models.Index(fields=["request_id"], condition=~Q(request_id=""), name="orders_idempotency_request_id"),
            # Clearing out what is older than keys are kept.
            models.Index(fields=["created_at"], name="orders_idempotency_created"),
        ]

    def __str__(self) -> str:
        return f"{self.key}: {self.status or 'in progress'}"

    def is_held(self, now: datetime) -> bool:
        """Somebody is at work on it."""
        return self.answered_at is None and now < self.lease_until
