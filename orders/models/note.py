"""What staff write down about an order for each other."""

from __future__ import annotations

from django.db import models

from orders.models.kept import KeptRow
from orders.models.order import Order


class OrderNote(KeptRow):
    """A note. Only added: what somebody relied on is not taken back."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="notes")
    author = models.CharField(max_length=150)
    """As the history names people: user:ada, key:shop."""
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=~models.Q(text=""), name="orders_note_has_text")]

    def __str__(self) -> str:
        return self.text[:60]
