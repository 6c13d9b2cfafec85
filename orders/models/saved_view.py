"""Filters of the order list that somebody keeps, for themselves or for the team."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class SavedView(models.Model):
    """A name for a query of the order list."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=1000)
    """As it stands in the address, without the question mark."""
    is_shared = models.BooleanField(default=False)
    """The whole team sees it."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "name"], name="orders_view_name_once"),
            models.CheckConstraint(condition=~models.Q(name=""), name="orders_view_has_name"),
        ]

    def __str__(self) -> str:
        return self.name
