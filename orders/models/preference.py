"""How somebody wants the pages."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Preference(models.Model):
    """Kept for the next login; while somebody is logged in, their session has it too."""

    class Theme(models.TextChoices):
        AUTO = "", "as the browser says"
        LIGHT = "light", "light"
        DARK = "dark", "dark"

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="preference"
    )
    theme = models.CharField(max_length=5, choices=Theme.choices, blank=True, default=Theme.AUTO)
    zone = models.CharField(max_length=60, blank=True, default="")
    """Of the IANA database, like Europe/Berlin; auto: the browser's own; empty: UTC."""
    has_keys = models.BooleanField(default=True)
    """Single keys move through lists. Who speaks to the computer turns them off. Source: WCAG 2.2, 2.1.4."""

    columns = models.JSONField(null=True, blank=True, default=None)
    """Of the order list, by name; null: those that everybody begins with."""
    first_view = models.ForeignKey(
        "orders.SavedView", null=True, blank=True, on_delete=models.SET_NULL, related_name="+", db_index=False
    )
    """What the order list begins with; null: with all orders."""

    def __str__(self) -> str:
        return f"{self.theme or 'auto'}, {self.zone or 'UTC'}"
