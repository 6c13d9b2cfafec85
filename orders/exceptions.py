"""What can go wrong with an order, as a tree. Each says what the caller can do.

OrderError
├── InvalidMoney          not an amount, or not one of that currency
├── InvalidOrder          the input is wrong; `errors` names every field
├── InvalidStock          a change of stock that cannot be; `field` names what is wrong
├── OrderConflict         the number belongs to another order; `differing` names what differs
├── OrderNotCancellable   it is too late; `reason` says why, and the way out
├── EndpointOff           nothing is sent to an address that is switched off; `endpoint` says which
├── HandOverRefused       the parcel cannot be handed over; `reason` says why
└── HistoryIsKept         a row that is only added to was to be changed or deleted
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OrderError(Exception):
    """The root: everything the shop raises on purpose."""


class InvalidMoney(OrderError, ValueError):
    """Not an amount, or not one of that currency."""


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One thing that is wrong with what came in."""

    field: str
    """Where: total_amount, items.0.sku."""
    code: str
    """What, for programs: unknown_sku."""
    message: str
    """What, for people, with the way out."""


class InvalidOrder(OrderError, ValueError):
    """The input is wrong, and nothing was stored."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in self.errors))


class InvalidStock(OrderError, ValueError):
    """A change of stock that cannot be."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class OrderConflict(OrderError):
    """The order number belongs to another order."""

    def __init__(self, order_id: str, differing: Sequence[str]) -> None:
        self.order_id = order_id
        self.differing = tuple(differing)
        if self.differing == ("order_id",):
            super().__init__(f"The number {order_id} is taken. Use a new one, or none: then we make one.")
        else:
            super().__init__(
                f"Order {order_id} exists already with another {', '.join(self.differing)}. "
                "Use a new number, or send what was sent the first time."
            )


class OrderNotCancellable(OrderError):
    """It is too late for a cancellation."""

    def __init__(self, order_id: str, reason: str) -> None:
        self.order_id = order_id
        self.reason = reason
        super().__init__(f"Order {order_id} cannot be cancelled: {reason}.")


class HandOverRefused(OrderError):
    """The parcel cannot be handed over."""

    def __init__(self, order_id: str, reason: str) -> None:
        self.order_id = order_id
        self.reason = reason
        super().__init__(f"The parcel of order {order_id} cannot be handed over: {reason}.")


class EndpointOff(OrderError):
    """Nothing is sent to an address that is switched off."""

    def __init__(self, endpoint: int, reason: str) -> None:
        self.endpoint = endpoint
        super().__init__(f"Endpoint {endpoint} is switched off. {reason}".strip() + " Switch it on first.")


class TooOften(OrderError):
    """The caller did it more often than is allowed, and has to wait."""

    def __init__(self, what: str, retry_after: int, *, most: int, seconds: int) -> None:
        self.what = what
        self.retry_after = retry_after
        self.most = most
        self.seconds = seconds
        super().__init__(f"That was too often. Try again in {retry_after} s.")


class HistoryIsKept(OrderError):
    """A row that is only added to was to be changed or deleted."""

    def __init__(self, row: str) -> None:
        self.row = row
        super().__init__(f"{row} is history: it is only added to.")
