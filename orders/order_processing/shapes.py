"""The shapes of what goes into the order saga and of what each of its steps leaves behind. All of it is plain JSON."""

from __future__ import annotations

from typing import TypedDict


class ItemInput(TypedDict):
    """One line of an order as the saga is given it: what the shop charged for it is fixed with the order."""

    sku: str
    quantity: int


class AddressInput(TypedDict):
    """Where the parcel goes. `country` is an ISO 3166 code of two letters."""

    name: str
    line1: str
    city: str
    postcode: str
    country: str


class OrderInput(TypedDict):
    """A snapshot of the order, stored with the run. The card is not in it: it stays with the order's own row."""

    order_id: str
    user_id: str
    email: str
    currency: str
    total_amount: str
    """Decimal digits, "99.99": a float would not survive the way through JSON unharmed."""
    items: list[ItemInput]
    address: AddressInput


class ReservedItemResult(TypedDict):
    sku: str
    quantity: int
    reservation_id: str


class ReserveResult(TypedDict):
    """Of reserve_inventory."""

    reserved_items: list[ReservedItemResult]


class PaymentResult(TypedDict):
    """Of process_payment and capture_payment."""

    transaction_id: str
    amount: float
    """In units of the order's currency. A float here and nowhere else: the shape is given."""
    status: str
    """completed; authorized where the money is taken later, by capture_payment."""


class ShipmentResult(TypedDict):
    """Of create_shipment."""

    shipment_id: str
    tracking_number: str
    estimated_delivery: str
    """An ISO date."""


class EmailResult(TypedDict):
    """Of send_confirmation_email and send_cancellation_email."""

    email_sent: bool
    email_id: str


class ReleaseResult(TypedDict):
    """Of release_inventory. Empty: nothing was held."""

    released_items: list[ReservedItemResult]


class RefundResult(TypedDict):
    """Of refund_payment. `refunded` is False where nothing had been charged."""

    refunded: bool
    refund_id: str
    amount: float


class CancelShipmentResult(TypedDict):
    """Of cancel_shipment. `cancelled` is False where no parcel had been booked."""

    cancelled: bool
    shipment_id: str


class CancellationEmailResult(TypedDict):
    """Of send_cancellation_email. `email_sent` is False where no confirmation can have reached the customer."""

    email_sent: bool
    email_id: str
    reason: str
