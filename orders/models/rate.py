"""How often somebody did something lately, counted where all processes see it."""

from __future__ import annotations

from django.db import models


class RateWindow(models.Model):
    """One window of time of one caller. The row is used again for the next window."""

    key = models.CharField(max_length=200, unique=True)
    """What is counted and of whom: `login-name:<hash>`."""
    begins_at = models.DateTimeField()
    count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key}: {self.count}"
