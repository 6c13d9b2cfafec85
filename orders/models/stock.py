"""What can be bought, how much of it is there, and every change of that."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from orders.models.kept import KeptRow


class Product(models.Model):
    """Something to buy, at a price."""

    sku = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=14, decimal_places=3)
    currency = models.CharField(max_length=3)
    weight_grams = models.PositiveIntegerField(default=500)
    is_active = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(price__gte=0), name="orders_product_price_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.sku} {self.name}"


class StockItem(models.Model):
    """How many pieces there are, and how many of them are promised to somebody."""

    product = models.OneToOneField(Product, on_delete=models.PROTECT, related_name="stock")
    on_hand = models.PositiveIntegerField(default=0)
    allocated = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(on_hand__gte=0), name="orders_stock_on_hand_not_negative"),
            models.CheckConstraint(condition=Q(allocated__gte=0), name="orders_stock_allocated_not_negative"),
            # Two buyers may want the last piece: the database lets one of them have it.
            models.CheckConstraint(condition=Q(allocated__lte=F("on_hand")), name="orders_stock_allocated_on_hand"),
        ]

    def __str__(self) -> str:
        return f"{self.product.sku}: {self.available} free"

    @property
    def available(self) -> int:
        return self.on_hand - self.allocated


class StockMovement(KeptRow):
    """One change of a stock item, and what it came to."""

    class Kind(models.TextChoices):
        RECEIVE = "receive", "received"
        CORRECT = "correct", "corrected"
        RESERVE = "reserve", "reserved"
        RELEASE = "release", "released"
        SHIP = "ship", "shipped"

    stock = models.ForeignKey(StockItem, on_delete=models.PROTECT, related_name="movements")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    delta_on_hand = models.IntegerField(default=0)
    delta_allocated = models.IntegerField(default=0)
    on_hand_after = models.PositiveIntegerField()
    allocated_after = models.PositiveIntegerField()
    key = models.CharField(max_length=200, blank=True, default="")
    actor = models.CharField(max_length=150, default="engine")
    reason = models.CharField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(delta_on_hand=0, delta_allocated=0), name="orders_movement_moves_something"
            ),
            # A step's effect on a stock item, once.
            models.UniqueConstraint(
                fields=["stock", "key", "kind"], condition=~Q(key=""), name="orders_movement_once_per_key"
            ),
        ]
        indexes = [models.Index(fields=["stock", "id"], name="orders_movement_of_stock")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.delta_on_hand:+d}/{self.delta_allocated:+d}"


class Reservation(models.Model):
    """Pieces held for one step of one run."""

    class Status(models.TextChoices):
        HELD = "held", "held"
        RELEASED = "released", "released"
        SHIPPED = "shipped", "shipped"

    reservation_id = models.CharField(max_length=40, unique=True)
    key = models.CharField(max_length=200)
    stock = models.ForeignKey(StockItem, on_delete=models.PROTECT, related_name="reservations")
    quantity = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.HELD)
    created_at = models.DateTimeField(auto_now_add=True)
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["key", "stock"], name="orders_reservation_once_per_key"),
            models.CheckConstraint(condition=Q(quantity__gte=1), name="orders_reservation_quantity_from_one"),
            models.CheckConstraint(
                condition=Q(status="released", released_at__isnull=False)
                | (~Q(status="released") & Q(released_at__isnull=True)),
                name="orders_reservation_released_has_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reservation_id} {self.status}"
