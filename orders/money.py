"""Money: Decimal with its currency. A float only at the very edge, where a fixed shape shows one."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from orders.exceptions import InvalidMoney

# Minor units. Source: ISO 4217, table A.1.
DECIMALS: dict[str, int] = {}
for _digits, _codes in (
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY "
        "COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS "
        "INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR "
        "MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD "
        "SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
):
    DECIMALS.update(dict.fromkeys(_codes.split(), _digits))

WHOLE_DIGITS = 11  # before the point: the database keeps 14 in all, three of them after it


def exponent(currency: str) -> int:
    """How many digits stand after the point. Raises InvalidMoney for a currency that ISO 4217 does not have."""
    if currency in DECIMALS:
        return DECIMALS[currency]
    raise InvalidMoney(f"{currency[:10]!r} is not a currency of ISO 4217, like EUR.")


def quantize(amount: Decimal, currency: str) -> Decimal:
    """`amount` with the currency's digits, halves to the even neighbour."""
    return amount.quantize(Decimal(1).scaleb(-exponent(currency)), rounding=ROUND_HALF_EVEN)


def to_decimal(value: str | int | float | Decimal, currency: str) -> Decimal:
    """`value` as an amount of `currency`, never rounded. Raises InvalidMoney for what is not one.

    A float is read as Python prints it: 99.99 is 99.99, and not the binary fraction beside it.
    """
    digits = exponent(currency)
    try:
        # Python also reads 3_0 and the digits of other scripts: as a price, each is more likely a mistake.
        amount = Decimal(str(value) if str(value).isascii() and "_" not in str(value) else "")
    except InvalidOperation:
        raise InvalidMoney(f"{str(value)[:40]!r} is not an amount, like 99.99.") from None
    if not amount.is_finite():
        raise InvalidMoney("An amount is a finite number.")
    if amount < 0:
        raise InvalidMoney("An amount cannot be negative.")
    if amount.adjusted() >= WHOLE_DIGITS:
        raise InvalidMoney("This amount is larger than any that is taken.")
    exact = quantize(amount.copy_abs(), currency)  # there is a negative zero, too
    if exact != amount:
        raise InvalidMoney(f"{currency} has {digits} digits after the point; {str(value)[:40]} has more.")
    return exact


def format_money(amount: Decimal, currency: str) -> str:
    """As people read it: "1,240.00 EUR"."""
    return f"{quantize(amount, currency):,} {currency}"


def to_float(amount: Decimal) -> float:
    """For the fixed result shapes only, which show 99.99."""
    return float(amount)
