"""Our own books of an order's parcel: the reference the carrier knows it by, and where it stands.

Every move is guarded by the state it starts from, so that hand-over and cancelling exclude one another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils import timezone

from orders import labels
from orders.models import Order, Product, Shipment, ShipmentLabel
from orders.providers import paths_of
from orders.providers.base import Address, Label, Line, Parcel
from orders.providers.names import SANDBOXES
from sagas import StepError, StepRefused
from sagas.barrier import insert_missing

Status = Shipment.Status
BOOKED = (Status.CREATED, Status.HANDED_OVER)


def reference_of(key: str) -> str:
    """Our reference for the parcel of that key: short enough for every carrier's field, the same at every attempt."""
    return "REF-" + hashlib.sha256(key.encode()).hexdigest()[:16].upper()


def opened(order: Order, reference: str) -> dict[str, str]:
    """Write the parcel's row before the carrier hears of it. Call it inside a transaction."""
    insert_missing(Shipment(order=order, reference=reference, status=Status.REQUESTED))
    return {"reference": reference}


def asking(reference: str) -> None:
    """Another try after a refusal that a person has set right."""
    Shipment.objects.filter(reference=reference, status=Status.REFUSED).update(status=Status.REQUESTED)


def address_of(order: Order) -> Address:
    return Address(
        name=order.ship_name,
        line1=order.ship_line1,
        city=order.ship_city,
        postcode=order.ship_postcode,
        country=order.ship_country,
    )


def lines_of(items: Sequence[Mapping[str, Any]]) -> list[Line]:
    """What goes into the parcel, with weights where somebody will carry it."""
    weights: dict[str, int] = {}
    if not set(paths_of("shipping").values()) <= SANDBOXES:
        skus = [item["sku"] for item in items]
        weights = dict(Product.objects.filter(sku__in=skus).values_list("sku", "weight_grams"))
    return [
        Line(sku=item["sku"], quantity=item["quantity"], weight_grams=weights.get(item["sku"], 500)) for item in items
    ]


def note_failure(reference: str, error: StepError) -> None:
    """A refusal ends the parcel; anything else leaves it asked for."""
    if isinstance(error, StepRefused):
        Shipment.objects.filter(reference=reference, status=Status.REQUESTED).update(status=Status.REFUSED)


def note_booked(reference: str, parcel: Parcel) -> bool:
    """The carrier has it. False: it was cancelled meanwhile, and has to be taken back."""
    known = Shipment.objects.filter(reference=reference)
    names = {
        "shipment_id": parcel.shipment_id,
        "tracking_number": parcel.tracking_number,
        "estimated_delivery": parcel.estimated_delivery,
        "carrier": parcel.carrier,
    }
    if known.filter(status__in=[Status.REQUESTED, Status.REFUSED]).update(status=Status.CREATED, **names):
        is_booked = True
    else:
        is_booked = known.filter(status__in=BOOKED).exists()
    if is_booked and parcel.label is not None:
        _keep_label(reference, parcel.label)
    return is_booked


def _keep_label(reference: str, label: Label) -> None:
    """Beside the parcel, the first one there is. One that is none is passed over: the booking is what counts."""
    shipment = Shipment.objects.get(reference=reference)
    kind = labels.kind_of(label.content)
    if kind:
        insert_missing(ShipmentLabel(shipment=shipment, kind=kind, content=label.content))
    elif labels.is_address(label.url):
        insert_missing(ShipmentLabel(shipment=shipment, kind=labels.LINK, url=label.url))


def start_cancelling(reference: str) -> bool:
    """Close the parcel to hand-over. False: it was handed over first."""
    known = Shipment.objects.filter(reference=reference)
    known.exclude(status__in=[Status.HANDED_OVER, Status.CANCELLED]).update(status=Status.CANCELLING)
    return not known.filter(status=Status.HANDED_OVER).exists()


def note_cancelled(reference: str) -> None:
    Shipment.objects.filter(reference=reference).exclude(status__in=[Status.HANDED_OVER, Status.CANCELLED]).update(
        status=Status.CANCELLED, cancelled_at=timezone.now()
    )


def note_handed_over(reference: str) -> None:
    """The carrier says it has the parcel on its way: its word counts more than our wish to cancel."""
    Shipment.objects.filter(reference=reference, status=Status.CANCELLING).update(
        status=Status.HANDED_OVER, handed_over_at=timezone.now()
    )
