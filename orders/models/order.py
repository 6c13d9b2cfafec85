"""Orders and their lines. Where an order stands is its run's status: there is no second column for it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Upper


class Order(models.Model):
    """An order as it was placed: a snapshot, not changed afterwards."""

    order_id = models.CharField(max_length=40, unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="orders"
    )
    """Whose order it is on the site; null when a program placed it for a customer of its own."""
    api_key = models.ForeignKey("orders.ApiKey", null=True, blank=True, on_delete=models.PROTECT, related_name="orders")
    customer_ref = models.CharField(max_length=100)
    email = models.EmailField()
    currency = models.CharField(max_length=3)
    total_amount = models.DecimalField(max_digits=14, decimal_places=3)
    ship_name = models.CharField(max_length=100)
    ship_line1 = models.CharField(max_length=200)
    ship_city = models.CharField(max_length=100)
    ship_postcode = models.CharField(max_length=20)
    ship_country = models.CharField(max_length=2)
    card_token = models.CharField(max_length=100)
    """The gateway's token of a card, never a card's number."""
    run_id = models.UUIDField(null=True, blank=True, unique=True)
    placed_at = models.DateTimeField()
    updated_at = models.DateTimeField(auto_now=True)
    placed_by = models.CharField(max_length=150, default="engine")
    scenario = models.CharField(max_length=40, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(total_amount__gte=0), name="orders_order_total_not_negative"),
            models.CheckConstraint(condition=~Q(order_id=""), name="orders_order_has_number"),
        ]
        indexes = [
            # The list, newest first; and a customer's own.
            models.Index(fields=["-placed_at", "-id"], name="orders_order_newest"),
            models.Index(fields=["user", "-placed_at"], name="orders_order_of_user"),
            models.Index(fields=["customer_ref", "-placed_at"], name="orders_order_of_customer"),
            # All orders of an address would be read and sorted for its newest hundred.
            models.Index(Upper("email"), F("placed_at").desc(), F("id").desc(), name="orders_order_email"),
        ]

    def __str__(self) -> str:
        return self.order_id


class OrderLine(models.Model):
    """What was ordered, at the name and price of that moment."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="lines")
    sku = models.CharField(max_length=64)
    name = models.CharField(max_length=200)
    quantity = models.PositiveIntegerField()
    unit_price = models.DecimalField(max_digits=14, decimal_places=3)
    line_total = models.DecimalField(max_digits=14, decimal_places=3)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "sku"], name="orders_line_sku_once"),
            models.CheckConstraint(condition=Q(quantity__gte=1), name="orders_line_quantity_from_one"),
            models.CheckConstraint(
                condition=Q(unit_price__gte=0, line_total__gte=0), name="orders_line_price_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} × {self.sku}"
