"""Words that a shop sorts its orders by."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from orders.models.order import Order


class OrderTag(models.Model):
    """A word on an order: "gift", "vip". Unlike what happened, it may be taken off again."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="tags", db_index=False)
    tag = models.CharField(max_length=40)
    author = models.CharField(max_length=150)
    """As the history names people: user:ada, key:shop."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "tag"], name="orders_tag_once"),
            models.CheckConstraint(condition=~Q(tag=""), name="orders_tag_has_text"),
        ]
        # The orders with a tag, newest first.
        indexes = [models.Index(fields=["tag", "-order"], name="orders_tag_orders")]

    def __str__(self) -> str:
        return self.tag
