"""What the shop asks of outside systems: four small interfaces and the receipts they return.

Promises that every provider keeps, and of which the contract suite in tests/orders/test_contract.py asks each of them:
the same key twice is one effect and the same receipt; a find_… tells afterwards what a key did, or None for certainly
nothing; undoing what never happened is no error, undoing twice is once, and an action that comes after its undo is
turned away, whether it was done before or never; failures are Declined, Unavailable or OutcomeUnknown and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Literal, Protocol, TypeGuard, TypeVar


@dataclass(frozen=True, kw_only=True)
class Line:
    """Pieces of one product, at least one."""

    sku: str
    quantity: int
    weight_grams: int = 500
    """Of one piece."""

    def __post_init__(self) -> None:
        # A negative quantity, held, would give away what others hold.
        if self.quantity < 1:
            raise ValueError(f"A line is at least 1 piece; {self.sku} has {self.quantity}.")


@dataclass(frozen=True, kw_only=True)
class ReservedItem:
    """Pieces held, and under which id."""

    sku: str
    quantity: int
    reservation_id: str


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """All lines, held; also what a release gave back."""

    items: tuple[ReservedItem, ...]


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Money taken, or about to be. The amount is in units of the currency.

    `pending` waits for the customer or their bank: `next_url`, if there is one, is where the customer has to go.
    `authorized` is promised, and taken by `capture`.
    """

    transaction_id: str
    amount: Decimal
    currency: str
    status: Literal["completed", "authorized", "pending"] = "completed"
    next_url: str = ""


@dataclass(frozen=True, kw_only=True)
class Refund:
    """Money given back, or on its way while `pending`. The amount is in units of the charge's currency."""

    refund_id: str
    amount: Decimal
    status: Literal["completed", "pending"] = "completed"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a parcel goes; the country as two letters of ISO 3166."""

    name: str
    line1: str
    city: str
    postcode: str
    country: str


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is stuck on a parcel: the document itself, or where the carrier keeps it. Nobody here fetches an address."""

    content: bytes = field(default=b"", repr=False)
    url: str = field(default="", repr=False)
    """Whoever has it has the label, with the customer's name and address."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A booked shipment."""

    shipment_id: str
    tracking_number: str
    estimated_delivery: date
    carrier: str
    label: Label | None = field(default=None, compare=False)
    """Where the carrier's answer to the booking had one. Asked again it need not tell it; one that is none, or too
    large, is passed over (orders/labels.py)."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A mail to send."""

    recipient: str
    subject: str
    body: str
    html: str = ""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A mail that was handed over to be delivered."""

    email_id: str


class InventoryService(Protocol):
    """Holds stock for orders."""

    def reserve(self, lines: Sequence[Line], *, key: str) -> Reserved:
        """Hold all lines or none. Raises Declined (insufficient_inventory, unknown_sku, already_undone)."""
        ...

    def find_reservation(self, *, key: str) -> Reserved | None:
        """What is held under this key."""
        ...

    def release(self, *, action_key: str, key: str) -> Reserved:
        """Give back what `action_key` holds; no items if it holds nothing."""
        ...


class PaymentGateway(Protocol):
    """Takes money and gives it back."""

    def charge(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Take `amount` from the card behind the token `method`. Raises Declined with the gateway's code.

        `customer` is who pays, by the shop's own name for them: some gateways keep cards by it.
        """
        ...

    def find_charge(self, *, key: str) -> Charge | None:
        """The charge made under this key."""
        ...

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        """Give back all that `charge_key` took; None if it took nothing, and then it never will."""
        ...

    def find_refund(self, *, key: str) -> Refund | None:
        """The refund made under this key."""
        ...


class Captures(Protocol):
    """A gateway that can promise money first and take it later."""

    def authorize(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Have `amount` set aside: like `charge`, and ends as `authorized`. `refund` of that key lets it go."""
        ...

    def capture(self, *, charge_key: str, key: str) -> Charge:
        """Take what was set aside under `charge_key`, once. Raises Declined when it is gone."""
        ...


class BadSignature(Exception):
    """A webhook that its sender did not sign, or that was changed on its way."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One event of a webhook, as far as it matters here."""

    event_id: str
    """The sender's, the same when it is sent again."""
    kind: str
    """In the sender's words."""
    about: str = ""
    """Our key, our reference or the sender's number of what it is about; empty: nothing of ours."""
    facts: Mapping[str, str] = field(default_factory=dict)


class SendsWebhooks(Protocol):
    """A provider that says by itself when something has changed."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """The events in it. Headers by lower-case names. Raises BadSignature for anything not from the sender."""
        ...

    def hear(self, event: Heard) -> str:
        """Take note of an event; our key of what changed, or empty. Events come twice, late and in any order."""
        ...


class TakesBack(Protocol):
    """A gateway that sends customers elsewhere, and from there back to us."""

    def come_back(self, params: Mapping[str, str]) -> str:
        """Somebody came to our address with this behind its question mark, which anybody may have written: our key of
        what it is about, or empty. Raises ProviderError."""
        ...


class Checks(Protocol):
    """A provider that can try its credentials without doing anything."""

    def check(self) -> str:
        """What was tried, in words. Raises ProviderError."""
        ...


class Carrier(Protocol):
    """Moves parcels."""

    def create_shipment(self, *, reference: str, address: Address, lines: Sequence[Line], key: str) -> Parcel:
        """Book a parcel under our reference. Raises Declined (address_not_served, already_undone)."""
        ...

    def find_shipment(self, *, reference: str) -> Parcel | None:
        """The live parcel of this reference."""
        ...

    def cancel_shipment(self, *, reference: str, key: str) -> None:
        """Cancel before hand-over. Raises Declined (handed_over) once it is on its way."""
        ...


class GivesLabels(Protocol):
    """A carrier that gives a parcel's label out a second time."""

    def find_label(self, *, reference: str) -> Label | None:
        """The label of the live parcel of this reference. Raises ProviderError."""
        ...


class Mailer(Protocol):
    """Sends mail."""

    def send(self, message: Message, *, key: str) -> Sent:
        """Hand the message over to be delivered. Raises Declined for an address that can never be reached."""
        ...

    def find(self, *, key: str) -> Sent | None:
        """The mail sent under this key."""
        ...


T = TypeVar("T")


def offers(provider: object, interface: type[T]) -> TypeGuard[T]:
    """Whether a provider, or the class of one, has all of an interface that not everybody has.

    Not asked by isinstance: since Python 3.12 that does not see what guards, routers and faults hand through.
    """
    return all(hasattr(provider, name) for name in vars(interface) if not name.startswith("_"))
