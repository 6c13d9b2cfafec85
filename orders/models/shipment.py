"""Our own books of an order's parcel."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from orders import labels
from orders.models.order import Order


class Shipment(models.Model):
    """One parcel, from the moment it is asked for."""

    class Status(models.TextChoices):
        REQUESTED = "requested", "asked for"
        CREATED = "created", "booked"
        HANDED_OVER = "handed_over", "handed over"  # the end of undoing
        CANCELLING = "cancelling", "being cancelled"  # closed to hand-over, not yet cancelled at the carrier
        CANCELLED = "cancelled", "cancelled"
        REFUSED = "refused", "refused"

    order = models.OneToOneField(Order, on_delete=models.PROTECT, related_name="shipment")
    reference = models.CharField(max_length=40, unique=True)
    """Ours, and what the carrier knows the parcel by."""
    shipment_id = models.CharField(max_length=100, blank=True, default="")
    tracking_number = models.CharField(max_length=100, blank=True, default="")
    carrier = models.CharField(max_length=50, blank=True, default="")
    estimated_delivery = models.DateField(null=True, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.REQUESTED)
    created_at = models.DateTimeField(auto_now_add=True)
    handed_over_at = models.DateTimeField(null=True, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["carrier", "tracking_number"],
                condition=~Q(tracking_number=""),
                name="orders_shipment_tracking_once",
            ),
            models.CheckConstraint(
                condition=~Q(status__in=["created", "handed_over"]) | ~Q(shipment_id=""),
                name="orders_shipment_booked_has_id",
            ),
            models.CheckConstraint(
                condition=~Q(status="handed_over") | Q(handed_over_at__isnull=False),
                name="orders_shipment_handed_over_has_time",
            ),
            models.CheckConstraint(
                condition=~Q(status="cancelled") | Q(cancelled_at__isnull=False),
                name="orders_shipment_cancelled_has_time",
            ),
        ]
        indexes = [models.Index(fields=["shipment_id"], name="orders_shipment_id")]

    def __str__(self) -> str:
        return f"{self.reference} {self.status}"

    @property
    def is_booked(self) -> bool:
        """The carrier has it, and nobody is calling it off."""
        return self.status in {self.Status.CREATED, self.Status.HANDED_OVER}


class ShipmentLabel(models.Model):
    """What is stuck on a parcel, as the carrier gave it when it was booked. Apart from the parcel: it is large."""

    class Kind(models.TextChoices):
        PDF = labels.PDF, "PDF"
        PNG = labels.PNG, "PNG"
        GIF = labels.GIF, "GIF"
        ZPL = labels.ZPL, "ZPL"
        LINK = labels.LINK, "at the carrier"

    shipment = models.OneToOneField(Shipment, on_delete=models.PROTECT, related_name="label")
    kind = models.CharField(max_length=4, choices=Kind.choices)
    content = models.BinaryField(default=b"")
    url = models.CharField(max_length=labels.LONGEST_ADDRESS, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            # It becomes a link on a page: an address of another kind could be a script.
            models.CheckConstraint(
                condition=Q(kind="link", url__startswith="https://") | (~Q(kind="link") & Q(url="")),
                name="orders_label_is_document_or_link",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.shipment_id}"

    @property
    def media_type(self) -> str:
        """Empty for a link."""
        return labels.MEDIA_TYPES.get(self.kind, "")
