"""Who still uses what the API is about to lose."""

from __future__ import annotations

from django.db import models


class RetiredUse(models.Model):
    """How often a key has asked for an operation since that was announced to go."""

    operation = models.CharField(max_length=100)
    caller = models.CharField(max_length=150)
    """As the history names it: key:webshop."""
    count = models.PositiveBigIntegerField(default=0)
    last_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["operation", "caller"], name="orders_retired_use_once")]

    def __str__(self) -> str:
        return f"{self.caller} used {self.operation} {self.count} times"
