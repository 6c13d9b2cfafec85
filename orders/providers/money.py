"""Amounts as gateways count them: whole numbers of the smallest unit. Some count other units than ISO 4217 does."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from orders.money import exponent, quantize

# ISK and UGX have two digits, always 00, and MGA none. Source: Stripe, "Supported currencies", special cases.
STRIPE: Mapping[str, int] = {"ISK": 2, "MGA": 0, "UGX": 2}
# Source: Adyen, "Currency codes", the note on exceptions from ISO 4217.
ADYEN: Mapping[str, int] = {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2}


def to_minor(amount: Decimal, currency: str, differing: Mapping[str, int]) -> int:
    """The amount in smallest units. Raises ValueError if it has digits that the gateway cannot take."""
    minor = amount.scaleb(differing.get(currency, exponent(currency)))
    if minor != minor.to_integral_value():
        raise ValueError(f"{amount} {currency} has more digits than the gateway takes.")
    return int(minor)


def from_minor(minor: int, currency: str, differing: Mapping[str, int]) -> Decimal:
    """The amount in units of the currency."""
    code = currency.upper()
    return quantize(Decimal(minor).scaleb(-differing.get(code, exponent(code))), code)


# Decimal strings, but without digits for these. Source: PayPal, "Currency codes", the note on HUF, JPY and TWD.
PAYPAL_WHOLE = frozenset({"HUF", "JPY", "TWD"})


def to_paypal(amount: Decimal, currency: str) -> str:
    """The amount as PayPal writes it. Raises ValueError if it has digits that PayPal cannot take."""
    if currency in PAYPAL_WHOLE:
        if amount != amount.to_integral_value():
            raise ValueError(f"PayPal takes whole {currency} only, not {amount}.")
        return str(int(amount))
    return str(quantize(amount, currency))
