"""Several providers for one kind of work: which one is asked, and who when that one cannot.

settings.PROVIDER_ROUTES holds rules; the first one that fits decides. Without one the first provider named is asked:

    {"shipping": [{"to": "dhl-parcel-de", "country": ["DE"], "most_grams": 31500, "else": ["ups"]}],
     "payments": [{"to": "adyen", "currency": ["SEK", "NOK"]}],
     "inventory": [{"to": "sap", "sku_prefix": "SAP-"}]}

Who was asked is written down first, and whatever comes later for the same key goes to the same provider, also when the
rules have changed since. Another one is asked only after a certain no: never while an answer is out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.conf import settings

from orders.models import ProviderChoice
from orders.providers.base import (
    Address,
    Charge,
    GivesLabels,
    Label,
    Line,
    Message,
    Parcel,
    Refund,
    Reserved,
    Sent,
    offers,
)
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.ledger import own_commit
from sagas.barrier import insert_missing

FACTS = frozenset({"country", "currency", "sku_prefix", "most_grams"})
KNOWN = FACTS | {"to", "else"}
FALLS_BACK_ON = frozenset({"address_not_served"})
"""Refusals that are this carrier's own: another one may well say yes."""
STAYS_ON = frozenset({"rate_limit", "too_many_at_once"})
"""Its limit is reached for a moment: it is waited for, since it is neither down nor away."""
Outcome = ProviderChoice.Outcome


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What rules look at; empty where a kind of work does not know it."""

    country: str = ""
    currency: str = ""
    skus: tuple[str, ...] = ()
    grams: int = 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, checked."""

    to: str
    country: frozenset[str] = frozenset()
    currency: frozenset[str] = frozenset()
    sku_prefix: str = ""
    most_grams: int = 0
    otherwise: tuple[str, ...] = ()

    def fits(self, facts: Facts) -> bool:
        """Whether all it asks for is so. A prefix must be that of every SKU."""
        return (
            (not self.country or facts.country in self.country)
            and (not self.currency or facts.currency in self.currency)
            and all(sku.startswith(self.sku_prefix) for sku in facts.skus)
            and (not self.most_grams or facts.grams <= self.most_grams)
        )

    @property
    def words(self) -> str:
        asked = [
            f"country {', '.join(sorted(self.country))}" if self.country else "",
            f"currency {', '.join(sorted(self.currency))}" if self.currency else "",
            f"SKU {self.sku_prefix}…" if self.sku_prefix else "",
            f"up to {self.most_grams} g" if self.most_grams else "",
        ]
        return "rule: " + (", ".join(filter(None, asked)) or "everything")


def rules_of(kind: str, names: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of a kind. Raises ValueError for one that names nobody, or asks for what there is not."""
    made = []
    written: Any = settings.PROVIDER_ROUTES.get(kind, [])
    for number, given in enumerate(written, 1):
        where = f"PROVIDER_ROUTES[{kind!r}], rule {number}"
        if not isinstance(given, Mapping) or unknown_in(given):
            raise ValueError(f"{where}: it takes {', '.join(sorted(KNOWN))}, and not {unknown_in(given)}")
        wanted = (given.get("to", ""), *given.get("else", ()))
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ValueError(f"{where}: {missing[0]!r} is not among the chosen, which are {', '.join(names)}")
        made.append(
            Rule(
                to=given["to"],
                country=frozenset(given.get("country", ())),
                currency=frozenset(given.get("currency", ())),
                sku_prefix=given.get("sku_prefix", ""),
                most_grams=int(given.get("most_grams", 0)),
                otherwise=tuple(given.get("else", ())),
            )
        )
    return tuple(made)


def unknown_in(given: Any) -> str:
    """What of a rule is not one's."""
    if not isinstance(given, Mapping):
        return repr(given)
    return ", ".join(sorted(set(given) - KNOWN))


@dataclass(frozen=True, kw_only=True)
class Router:
    """What the four routed interfaces share."""

    kind: str
    providers: Mapping[str, Any]
    rules: tuple[Rule, ...] = field(default=())

    def begin(self, key: str, facts: Facts, call: Callable[[Any], Any]) -> Any:
        """Ask for something new, or again for what was asked for under that key."""
        choices = self._choices(key)
        asked = [choice.name for choice in choices]
        is_open = bool(choices) and choices[-1].outcome == Outcome.ASKED
        candidates = self._candidates(facts)
        if asked:  # the last one asked is the one that may have done it
            rest = [(name, why) for name, why in candidates if name not in asked]
            candidates = [(asked[-1], ""), *rest]
        for number, (name, why) in enumerate(candidates):
            if name not in asked:
                self._write(key, name, len(asked) + 1, why)
                asked.append(name)
            try:
                result = call(self._provider(name))
            except OutcomeUnknown as error:
                self._note(key, name, Outcome.ASKED, error)
                raise
            except (Declined, Unavailable) as error:
                if isinstance(error, Unavailable) and is_open and not number:
                    # That this call did nothing says nothing of the one before it, whose answer is still out.
                    raise
                may = error.code not in STAYS_ON if isinstance(error, Unavailable) else error.code in FALLS_BACK_ON
                self._note(key, name, Outcome.AWAY if isinstance(error, Unavailable) else Outcome.REFUSED, error)
                if not may or number + 1 == len(candidates):
                    raise
                continue
            self._note(key, name, Outcome.DONE)
            return result
        raise AssertionError("not reached: there is always a candidate")

    def of(self, key: str) -> Any | None:
        """Who was asked last for that key; None: nobody was."""
        choices = self._choices(key)
        return self._provider(choices[-1].name) if choices else None

    def certainly_nothing(self, key: str) -> None:
        """Whoever was asked last has been asked again and has nothing: now another one may be asked."""
        choices = self._choices(key)
        if choices and choices[-1].outcome == Outcome.ASKED:
            self._note(key, choices[-1].name, Outcome.AWAY)

    def all_of(self, key: str) -> list[Any]:
        """Everybody who was asked for that key, the last one first; to be undone by each. If nobody was, the first
        provider is told, so that a late action is turned away."""
        choices = self._choices(key)
        if not choices:
            return [self._provider(next(iter(self.providers)))]
        return [self._provider(choice.name) for choice in reversed(choices)]

    def _candidates(self, facts: Facts) -> list[tuple[str, str]]:
        for rule in self.rules:
            if rule.fits(facts):
                others = [(name, f"instead of {rule.to}") for name in rule.otherwise]
                return [(rule.to, rule.words), *others]
        return [(next(iter(self.providers)), "the first one named; no rule fits")]

    def _provider(self, name: str) -> Any:
        if name not in self.providers:
            raise Unavailable(
                f"It was asked of {name}, which is not among the providers any more; "
                f"name it in the setting again, behind the others.",
                provider=name,
                operation="route",
                code="provider_gone",
            )
        return self.providers[name]

    def _choices(self, key: str) -> list[ProviderChoice]:
        return list(ProviderChoice.objects.filter(kind=self.kind, key=key).order_by("position"))

    def _write(self, key: str, name: str, position: int, why: str) -> None:
        with own_commit():
            insert_missing(ProviderChoice(kind=self.kind, key=key, name=name, position=position, why=why))

    def _note(self, key: str, name: str, outcome: ProviderChoice.Outcome, error: ProviderError | None = None) -> None:
        ProviderChoice.objects.filter(kind=self.kind, key=key, name=name).update(
            outcome=outcome, message=error.message[:300] if error is not None else ""
        )


class RoutedInventory(Router):
    """An InventoryService by way of several."""

    def reserve(self, lines: Sequence[Line], *, key: str) -> Reserved:
        facts = Facts(skus=tuple(line.sku for line in lines))
        reserved: Reserved = self.begin(key, facts, lambda one: one.reserve(lines, key=key))
        return reserved

    def find_reservation(self, *, key: str) -> Reserved | None:
        one = self.of(key)
        found: Reserved | None = one.find_reservation(key=key) if one is not None else None
        if found is None:
            self.certainly_nothing(key)
        return found

    def release(self, *, action_key: str, key: str) -> Reserved:
        items: list[Any] = []
        for one in self.all_of(action_key):
            items += one.release(action_key=action_key, key=key).items
        return Reserved(items=tuple(items))


class RoutedPayments(Router):
    """A PaymentGateway by way of several."""

    def charge(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        asked = {"amount": amount, "currency": currency, "method": method, "order_id": order_id, "customer": customer}
        return self._take("charge", key, asked)

    def authorize(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        asked = {"amount": amount, "currency": currency, "method": method, "order_id": order_id, "customer": customer}
        return self._take("authorize", key, asked)

    def capture(self, *, charge_key: str, key: str) -> Charge:
        one = self.all_of(charge_key)[0]
        charge: Charge = one.capture(charge_key=charge_key, key=key)
        return charge

    def find_charge(self, *, key: str) -> Charge | None:
        one = self.of(key)
        found: Charge | None = one.find_charge(key=key) if one is not None else None
        return found

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        made: Refund | None = None
        for one in self.all_of(charge_key):
            made = one.refund(charge_key=charge_key, key=key) or made
        return made

    def find_refund(self, *, key: str) -> Refund | None:
        # A refund is asked of whoever took the money, and each gateway knows its own.
        for one in self.providers.values():
            found: Refund | None = one.find_refund(key=key)
            if found is not None:
                return found
        return None

    def _take(self, verb: str, key: str, asked: Mapping[str, Any]) -> Charge:
        facts = Facts(currency=asked["currency"])
        charge: Charge = self.begin(key, facts, lambda one: getattr(one, verb)(key=key, **asked))
        return charge


class RoutedShipping(Router):
    """A Carrier by way of several."""

    def create_shipment(self, *, reference: str, address: Address, lines: Sequence[Line], key: str) -> Parcel:
        facts = Facts(
            country=address.country,
            skus=tuple(line.sku for line in lines),
            grams=sum(line.quantity * line.weight_grams for line in lines),
        )
        parcel: Parcel = self.begin(
            reference,
            facts,
            lambda one: one.create_shipment(reference=reference, address=address, lines=lines, key=key),
        )
        return parcel

    def find_shipment(self, *, reference: str) -> Parcel | None:
        one = self.of(reference)
        found: Parcel | None = one.find_shipment(reference=reference) if one is not None else None
        if found is None:
            self.certainly_nothing(reference)
        return found

    def find_label(self, *, reference: str) -> Label | None:
        one = self.of(reference)
        return one.find_label(reference=reference) if offers(one, GivesLabels) else None

    def cancel_shipment(self, *, reference: str, key: str) -> None:
        for one in self.all_of(reference):
            one.cancel_shipment(reference=reference, key=key)


class RoutedMail(Router):
    """A Mailer by way of several."""

    def send(self, message: Message, *, key: str) -> Sent:
        sent: Sent = self.begin(key, Facts(), lambda one: one.send(message, key=key))
        return sent

    def find(self, *, key: str) -> Sent | None:
        one = self.of(key)
        found: Sent | None = one.find(key=key) if one is not None else None
        return found


ROUTED: Mapping[str, type[Router]] = {
    "inventory": RoutedInventory,
    "payments": RoutedPayments,
    "shipping": RoutedShipping,
    "mail": RoutedMail,
}
