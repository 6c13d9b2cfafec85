"""What carriers without an idempotency key have in common: a parcel bears our reference, and is looked for by it.

An adapter says how to book, to look for a reference and to cancel. This says when: never a second booking while the
first one's answer is out, and none for a parcel that was called off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any

from django.utils import timezone

from orders.models import OutsideEffect
from orders.providers import effects
from orders.providers.base import Address, Label, Line, Parcel
from orders.providers.effects import Kind
from orders.providers.errors import NOT_SEEN, Declined, OutcomeUnknown, Unavailable
from orders.providers.options import option


@dataclass(frozen=True, kw_only=True)
class ShipperOptions:
    """Who sends: the same for every carrier."""

    name: str = option("SHIPPER_NAME", example="the shop's name")
    line1: str = option("SHIPPER_LINE1", example="street and number")
    city: str = option("SHIPPER_CITY", example="a town")
    postcode: str = option("SHIPPER_POSTCODE", example="a postcode")
    country: str = option("SHIPPER_COUNTRY", form=r"[A-Z]{2}", example="two letters of ISO 3166, like DE")
    phone: str = option("SHIPPER_PHONE", form=r"\+?[0-9 ]{6,20}", example="a telephone number, like +49 30 1234567")
    email: str = option("SHIPPER_EMAIL", form=r"\S+@\S+", example="an e-mail address")

    @property
    def address(self) -> Address:
        return Address(name=self.name, line1=self.line1, city=self.city, postcode=self.postcode, country=self.country)


CUSTOMS_UNION = frozenset({
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV",
    "MC", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
})  # fmt: skip
"""The EU's; every other country is one by itself. Places with rules of their own (the Canary Islands, Helgoland, Åland)
are not told apart."""


def crosses_customs(sender: str, receiver: str) -> bool:
    """Whether customs want to know what is in a parcel from the one country to the other."""
    return sender != receiver and not {sender, receiver} <= CUSTOMS_UNION


@dataclass(frozen=True, kw_only=True)
class Booked:
    """What a carrier says of a parcel it has."""

    shipment_id: str
    tracking_number: str
    estimated_delivery: str = ""
    """An ISO date; empty where the carrier does not say."""
    facts: dict[str, Any]
    """What cancelling needs."""
    label: Label | None = None
    """If the answer has one. It goes on with the parcel and is not noted here: the shop's books keep it."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a parcel goes, as far as looking for it needs that."""

    country: str
    postcode: str


class CarrierByReference(ABC):
    """A Carrier whose parcels are known by our reference."""

    provider: str
    days = 3
    """Until delivery, where the carrier does not say."""
    finds = True
    """Whether a parcel can be looked for by our reference."""
    settled = timedelta(minutes=15)
    """After this a booking whose answer was lost, and which cannot be found, did not happen."""
    sender: Address

    @abstractmethod
    def book(self, reference: str, address: Address, lines: Sequence[Line], key: str) -> Booked:
        """Ask for the parcel. Raises ProviderError."""

    @abstractmethod
    def look_for(self, reference: str, to: Destination) -> Sequence[Booked]:
        """All that the carrier has under our reference, where it can be asked."""

    @abstractmethod
    def call_off(self, number: str, key: str, *, asked_before: bool) -> None:
        """Cancel it; one that is cancelled already is fine. Raises Declined (handed_over).

        `asked_before`: an earlier try of ours may have done it.
        """

    def create_shipment(self, *, reference: str, address: Address, lines: Sequence[Line], key: str) -> Parcel:
        """Book, once per reference. Raises Declined (address_not_served, already_undone, …), also where customs would
        want to know what no order tells: that there is nothing to declare is said only where it is so."""
        effect = effects.begin(
            self.provider,
            reference,
            Kind.PARCEL,
            "create_shipment",
            address={one.name: getattr(address, one.name) for one in fields(address)},
            lines=[(line.sku, line.quantity) for line in lines],
        )
        if effect.remote_id:
            return self._parcel(effect)
        if crosses_customs(self.sender.country, address.country):
            raise Declined(
                f"A parcel from {self.sender.country} to {address.country} needs a customs declaration (each item's "
                f"description, tariff number, origin and value), which orders do not hold.",
                provider=self.provider,
                operation="create_shipment",
                code="address_not_served",
            )
        if "to" not in effect.facts:
            effect = effects.note(effect, to={"country": address.country, "postcode": address.postcode})
        if not effects.claim(effect):
            found = self.find_shipment(reference=reference)
            if found is not None:
                return found
            if not effects.claim(effect, settled=self.settled):
                raise self._unknown("create_shipment", effect)
        try:
            booked = self.book(reference, address, lines, key)
        except (Declined, Unavailable):
            effects.give_up(effect)
            raise
        return replace(self._parcel(self._note(effect, booked)), label=booked.label)

    def find_shipment(self, *, reference: str) -> Parcel | None:
        """The live parcel of this reference. Raises OutcomeUnknown while an answer is out and nothing is to be seen."""
        effect = effects.find(self.provider, reference)
        if effect is None or effect.facts.get("cancelled"):
            return None
        if effect.remote_id:
            return self._parcel(effect)
        found = self._search(effect, "find_shipment")
        return self._parcel(found) if found is not None else None

    def cancel_shipment(self, *, reference: str, key: str) -> None:
        """Cancel, and turn away a booking that has not come yet. Raises Declined (handed_over)."""
        effect = effects.bar(self.provider, reference, Kind.PARCEL)
        if effect.facts.get("cancelled"):
            return
        known = effect if effect.remote_id else self._search(effect, "cancel_shipment")
        if known is None:
            return
        before = bool(known.facts.get("cancel_asked"))
        if not before:
            known = effects.note(known, cancel_asked=True)
        known = self._call_off(known, known.remote_id, key, before)
        if known.asks > 1 and self.finds:
            # The first booking was not to be seen for long, and a second one was made: by now both may be there.
            for one in self.look_for(known.key, Destination(**known.facts["to"])):
                known = self._call_off(known, one.shipment_id, key, before)
        effects.note(known, cancelled=True)

    def _call_off(self, effect: OutsideEffect, number: str, key: str, asked_before: bool) -> OutsideEffect:
        gone: list[str] = effect.facts.get("called_off", [])
        if number in gone:
            return effect
        self.call_off(number, key, asked_before=asked_before)
        return effects.note(effect, called_off=[*gone, number])

    def _search(self, effect: OutsideEffect, operation: str) -> OutsideEffect | None:
        """The effect with its number, if the carrier has it; None: it certainly has not."""
        if effect.asked_at is None:
            return None
        if self.finds:
            found = self.look_for(effect.key, Destination(**effect.facts["to"]))
            if found:
                return self._note(effect, found[0])
            if timezone.now() - effect.asked_at >= self.settled:
                return None
        raise self._unknown(operation, effect)

    def _note(self, effect: OutsideEffect, booked: Booked) -> OutsideEffect:
        return effects.note(
            effect,
            remote_id=booked.shipment_id,
            tracking_number=booked.tracking_number,
            estimated_delivery=booked.estimated_delivery
            or (timezone.localdate() + timedelta(days=self.days)).isoformat(),
            **booked.facts,
        )

    def _parcel(self, effect: OutsideEffect) -> Parcel:
        return Parcel(
            shipment_id=effect.remote_id,
            tracking_number=effect.facts["tracking_number"],
            estimated_delivery=date.fromisoformat(effect.facts["estimated_delivery"]),
            carrier=self.provider,
        )

    def _unknown(self, operation: str, effect: OutsideEffect) -> OutcomeUnknown:
        return OutcomeUnknown(
            "A booking was sent, its answer was lost, and the carrier does not show it"
            + (" yet." if self.finds else ": look for it in the carrier's portal."),
            provider=self.provider,
            operation=operation,
            code=NOT_SEEN,
            retry_after=effects.look_again(effect, self.settled) if self.finds else None,
        )


def kilograms(lines: Sequence[Line]) -> float:
    """What the parcel weighs, at least 100 g, in kilograms to the gram."""
    return round(max(sum(line.quantity * line.weight_grams for line in lines), 100) / 1000, 3)
