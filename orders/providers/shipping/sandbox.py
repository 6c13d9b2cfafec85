"""A carrier with a durable ledger of its own.

Test postcodes; any other is booked:
00000   not served
00001   the carrier is away twice for each parcel, and then back
00002   booked, and the first answer is lost
00003   booked, and taken along before it can be cancelled
00004   booked, after four seconds

It has no labels: nobody packs what it moves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import timedelta

from django.utils import timezone

from orders.models import SandboxParcel
from orders.providers.base import Address, Line, Parcel
from orders.providers.errors import Declined, OutcomeUnknown, Unavailable
from orders.providers.ledger import added, first_times, own_commit
from sagas.barrier import insert_missing

PROVIDER = "sandbox carrier"
DAYS = 3
SLOW_SECONDS = 4
Status = SandboxParcel.Status


class SandboxCarrier:
    """The default carrier."""

    def create_shipment(self, *, reference: str, address: Address, lines: Sequence[Line], key: str) -> Parcel:
        """Book, once per reference. Raises Declined (address_not_served, already_undone)."""
        if address.postcode == "00000":
            raise Declined(
                f"No delivery to postcode {address.postcode}.",
                provider=PROVIDER,
                operation="create_shipment",
                code="address_not_served",
            )
        if address.postcode == "00001" and first_times(f"{PROVIDER}:{reference}:away", 2):
            raise Unavailable("The carrier is away (503).", provider=PROVIDER, operation="create_shipment")
        if address.postcode == "00004":
            time.sleep(SLOW_SECONDS)
        parcel = SandboxParcel(
            reference=reference,
            shipment_id=f"SHIP-{secrets.token_hex(5).upper()}",
            tracking_number=f"TRK-{secrets.token_hex(6).upper()}",
            estimated_delivery=timezone.localdate() + timedelta(days=DAYS),
            status=Status.HANDED_OVER if address.postcode == "00003" else Status.BOOKED,
        )
        is_new = added(parcel)
        if not is_new:
            parcel = SandboxParcel.objects.get(reference=reference)
        if parcel.status == Status.CANCELLED:
            raise Declined(
                "This parcel was called off.", provider=PROVIDER, operation="create_shipment", code="already_undone"
            )
        if is_new and address.postcode == "00002":
            raise OutcomeUnknown(
                "The connection was cut before the carrier answered.", provider=PROVIDER, operation="create_shipment"
            )
        return _parcel(parcel)

    def find_shipment(self, *, reference: str) -> Parcel | None:
        """The live parcel of this reference."""
        parcel = SandboxParcel.objects.filter(reference=reference).exclude(status=Status.CANCELLED).first()
        return _parcel(parcel) if parcel is not None else None

    def cancel_shipment(self, *, reference: str, key: str) -> None:
        """Cancel, or turn a parcel away that has not come yet. Raises Declined (handed_over)."""
        with own_commit():
            insert_missing(SandboxParcel(reference=reference, status=Status.CANCELLED))
            SandboxParcel.objects.filter(reference=reference, status=Status.BOOKED).update(status=Status.CANCELLED)
            parcel = SandboxParcel.objects.get(reference=reference)
        if parcel.status == Status.HANDED_OVER:
            raise Declined(
                f"{parcel.shipment_id} is on its way already.",
                provider=PROVIDER,
                operation="cancel_shipment",
                code="handed_over",
                provider_id=parcel.shipment_id,
            )


def _parcel(parcel: SandboxParcel) -> Parcel:
    assert parcel.estimated_delivery is not None  # noqa: S101  (only a called-off parcel has none)
    return Parcel(
        shipment_id=parcel.shipment_id,
        tracking_number=parcel.tracking_number,
        estimated_delivery=parcel.estimated_delivery,
        carrier="sandbox",
    )
