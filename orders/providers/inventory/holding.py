"""What stock systems without an idempotency key have in common: a hold bears a text of ours, and is looked for by it.

An adapter says how to hold, to look and to release. This says when: never a second hold while the first one's answer is
out without a look, and none for an order that was called off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta

from django.utils import timezone

from orders.models import OutsideEffect
from orders.providers import effects
from orders.providers.base import Line, Reserved, ReservedItem
from orders.providers.effects import Kind
from orders.providers.errors import NOT_SEEN, Declined, OutcomeUnknown, Unavailable

Held = Mapping[str, tuple[str, int]]
"""SKU -> (the other side's number, pieces)."""


class InventoryByReference(ABC):
    """An InventoryService whose holds are known by our text."""

    provider: str
    settled = timedelta(minutes=2)
    """After this a hold whose answer was lost, and which cannot be found, did not happen."""

    @abstractmethod
    def text_of(self, key: str) -> str:
        """Our key as it fits there."""

    @abstractmethod
    def hold(self, wanted: Mapping[str, int], text: str, held: Held) -> Held:
        """Hold what is wanted beside what is held already. Raises ProviderError: Declined if it holds nothing more, and
        Unavailable only if nothing at all is held; a part of it is an OutcomeUnknown."""

    @abstractmethod
    def look_for(self, text: str) -> Held:
        """What is held under our text."""

    @abstractmethod
    def let_go(self, text: str, held: Held) -> None:
        """Release all of it; what is gone already is fine."""

    def reserve(self, lines: Sequence[Line], *, key: str) -> Reserved:
        """Hold all lines or none; equal SKUs are summed first."""
        wanted: dict[str, int] = {}
        for line in lines:
            wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        effect = effects.begin(
            self.provider, key, Kind.RESERVATION, "reserve", wanted=[[sku, wanted[sku]] for sku in sorted(wanted)]
        )
        if effect.remote_id:
            return _reserved(effect)
        text = self.text_of(key)
        held: Held = {}
        if "wanted" not in effect.facts:
            effect = effects.note(effect, wanted=sorted(wanted))
        if not effects.claim(effect):
            held = self.look_for(text)
            if set(held) >= set(wanted):
                return _reserved(_note(effect, text, held))
            # Also when a part is there: whoever asked for it may be asking for the rest just now.
            if not effects.claim(effect, settled=self.settled):
                raise self._unknown("reserve", effect)
        try:
            held = self.hold(wanted, text, held)
        except Declined:
            self._clean_up(text)
            effects.give_up(effect)
            raise
        except Unavailable:
            effects.give_up(effect)
            raise
        return _reserved(_note(effect, text, held))

    def find_reservation(self, *, key: str) -> Reserved | None:
        """What is held under this key. Raises OutcomeUnknown while only part of it is, or an answer is out."""
        effect = effects.find(self.provider, key)
        if effect is None or effect.facts.get("released") or effect.is_barred:
            return None
        if effect.remote_id:
            return _reserved(effect)
        if effect.asked_at is None:
            return None
        held = self.look_for(self.text_of(key))
        if not held and timezone.now() - effect.asked_at < self.settled:
            raise self._unknown("find_reservation", effect)
        return None  # nothing, or a part: asked for again with the same key, the rest is added

    def release(self, *, action_key: str, key: str) -> Reserved:
        """Give back what `action_key` holds, and turn it away from now on; no items if it holds nothing."""
        effect = effects.bar(self.provider, action_key, Kind.RESERVATION)
        if effect.facts.get("released") is not None:
            return _reserved(effect)
        if not effect.asks and not effect.remote_id:
            return Reserved(items=())
        text = self.text_of(action_key)
        held = self.look_for(text)
        known = {**(effect.facts.get("held") or {}), **_plain(held)}
        self.let_go(text, held)
        effect = effects.note(effect, held=known)
        asked = effects.asked_since(effect)
        is_whole = bool(held) and set(held) >= set(effect.facts.get("wanted", []))
        if not is_whole and asked is not None and timezone.now() - asked < self.settled:
            # What is still on its way there would be held for ever.
            raise self._unknown("release", effect)
        effects.note(effect, remote_id=text if known else "", released=True)
        effect.refresh_from_db()
        return _reserved(effect)

    def _clean_up(self, text: str) -> None:
        """A no for one product leaves nothing of the others."""
        self.let_go(text, self.look_for(text))

    def _unknown(self, operation: str, effect: OutsideEffect) -> OutcomeUnknown:
        return OutcomeUnknown(
            "A reservation was sent, its answer was lost, and it is not to be seen yet.",
            provider=self.provider,
            operation=operation,
            code=NOT_SEEN,
            retry_after=effects.look_again(effect, self.settled),
        )


def _plain(held: Held) -> dict[str, list[object]]:
    return {sku: [number, quantity] for sku, (number, quantity) in sorted(held.items())}


def _note(effect: OutsideEffect, text: str, held: Held) -> OutsideEffect:
    return effects.note(effect, remote_id=text, held=_plain(held))


def _reserved(effect: OutsideEffect) -> Reserved:
    return Reserved(
        items=tuple(
            ReservedItem(sku=sku, quantity=int(quantity), reservation_id=str(number))
            for sku, (number, quantity) in sorted((effect.facts.get("held") or {}).items())
        )
    )
