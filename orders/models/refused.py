"""What programs were refused, for whoever is told a request's id."""

from __future__ import annotations

from django.db import models


class RefusedRequest(models.Model):
    """A request of a known caller that was answered with a problem. Kept for a week: orders/refusals.py."""

    request_id = models.CharField(max_length=64)
    """As the answer's `X-Request-Id` said. A caller may choose it, and choose it twice."""
    actor = models.CharField(max_length=150)
    method = models.CharField(max_length=7)
    path = models.CharField(max_length=200)
    order_id = models.CharField(max_length=40, blank=True, default="")
    """The order that the address named; there may be none of that number."""
    status = models.PositiveSmallIntegerField()
    code = models.CharField(max_length=50)
    detail = models.CharField(max_length=1000)
    """What the caller was told, a line for each thing that was wrong."""
    created_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["request_id"], name="orders_refused_request_id"),
            # A rare one among a million is found without reading them all.
            models.Index(fields=["code", "-id"], name="orders_refused_code"),
            models.Index(fields=["status", "-id"], name="orders_refused_status"),
            # Clearing out what is old.
            models.Index(fields=["created_at"], name="orders_refused_created"),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.status} {self.code}"
