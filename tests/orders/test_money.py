"""Money: which amounts there are in which currency, and how they are read and shown."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from orders.exceptions import InvalidMoney, OrderError
from orders.money import DECIMALS, exponent, format_money, quantize, to_decimal, to_float


@pytest.mark.parametrize(
    ("currency", "digits"),
    [("EUR", 2), ("USD", 2), ("GBP", 2), ("JPY", 0), ("KRW", 0), ("CLP", 0), ("KWD", 3), ("BHD", 3), ("TND", 3)],
)
def test_a_currency_has_its_digits(currency: str, digits: int) -> None:
    assert exponent(currency) == digits


@pytest.mark.parametrize("code", ["", "eur", "EURO", "XXX", "€", "E\x00R", "EUR "])
def test_what_is_no_currency_is_refused(code: str) -> None:
    with pytest.raises(InvalidMoney, match="is not a currency of ISO 4217"):
        exponent(code)


def test_every_currency_is_three_capital_letters_and_fits_the_database() -> None:
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in DECIMALS)
    assert set(DECIMALS.values()) == {0, 2, 3}  # amounts are stored with three digits after the point


@pytest.mark.parametrize(
    ("value", "currency", "amount"),
    [
        ("99.99", "EUR", "99.99"),
        (99.99, "EUR", "99.99"),
        (30, "EUR", "30.00"),
        ("0", "EUR", "0.00"),
        (Decimal("1.500"), "EUR", "1.50"),
        ("1E+3", "EUR", "1000.00"),
        ("100", "JPY", "100"),
        ("100.00", "JPY", "100"),
        ("1.234", "KWD", "1.234"),
        ("99999999999.999", "KWD", "99999999999.999"),
        ("-0", "EUR", "0.00"),
    ],
)
def test_an_amount_is_read_exactly(value: str | float | Decimal, currency: str, amount: str) -> None:
    assert str(to_decimal(value, currency)) == amount


@pytest.mark.parametrize(
    ("value", "currency", "says"),
    [
        ("99.999", "EUR", "EUR has 2 digits after the point; 99.999 has more"),
        (0.1 + 0.2, "EUR", "EUR has 2 digits after the point"),
        ("100.5", "JPY", "JPY has 0 digits after the point"),
        ("3_0", "EUR", "'3_0' is not an amount, like 99.99"),
        ("\u0663\u0660", "EUR", "is not an amount, like 99.99"),
        ("1.2345", "KWD", "KWD has 3 digits after the point"),
        ("NaN", "EUR", "finite"),
        (float("inf"), "EUR", "finite"),
        ("-1", "EUR", "negative"),
        ("-0.01", "EUR", "negative"),
        ("100000000000", "EUR", "larger than any"),
        ("1." + "0" * 40 + "1", "EUR", "2 digits after the point"),
        ("1E+999999", "EUR", "larger than any"),
        ("1E-999999", "EUR", "2 digits after the point"),
        ("", "EUR", "is not an amount"),
        ("12,50", "EUR", "is not an amount"),
        ("0x10", "EUR", "is not an amount"),
        ("1" * 5000, "EUR", "larger than any"),
        ("ten\x00", "EUR", "is not an amount"),
        ("1", "XYZ", "is not a currency"),
    ],
)
def test_what_is_no_amount_is_refused_and_never_rounded(value: str | float, currency: str, says: str) -> None:
    with pytest.raises(InvalidMoney, match=says) as caught:
        to_decimal(value, currency)

    assert isinstance(caught.value, OrderError)
    assert len(str(caught.value)) < 150


@given(
    minor=some.integers(min_value=0, max_value=10**11 - 1),
    currency=some.sampled_from(["EUR", "JPY", "KWD"]),
)
def test_every_amount_comes_back_from_text_and_from_a_float(minor: int, currency: str) -> None:
    amount = Decimal(minor).scaleb(-exponent(currency))

    assert to_decimal(str(amount), currency) == amount
    assert to_decimal(to_float(amount), currency) == amount


@given(text=some.text(max_size=50))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    try:
        amount = to_decimal(text, "EUR")
    except InvalidMoney:
        return
    assert amount >= 0
    assert amount.as_tuple().exponent == -2


def test_halves_go_to_the_even_neighbour() -> None:
    assert [quantize(Decimal(half), "EUR") for half in ("0.125", "0.135")] == [Decimal("0.12"), Decimal("0.14")]
    assert [quantize(Decimal(half), "JPY") for half in ("0.5", "1.5")] == [Decimal(0), Decimal(2)]


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("99.990", "EUR", "99.99 EUR"),
        ("1240", "EUR", "1,240.00 EUR"),
        ("5000.000", "JPY", "5,000 JPY"),
        ("1.5", "KWD", "1.500 KWD"),
    ],
)
def test_money_is_shown_with_its_currency_and_digits(amount: str, currency: str, shown: str) -> None:
    assert format_money(Decimal(amount), currency) == shown


def test_the_fixed_shapes_get_a_plain_number() -> None:
    assert to_float(Decimal("99.990")) == 99.99
