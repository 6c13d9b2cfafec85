"""What may not come in as an order, and what it is told."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from orders.exceptions import InvalidOrder
from orders.models import Order
from orders.services import place_order
from sagas.selectors import SagaRun
from tests.factories import make_product, make_shop, order_fields

pytestmark = pytest.mark.django_db

ONE = [{"sku": "ITEM-001", "quantity": 1}]


def refused(**changes: Any) -> list[tuple[str, str]]:
    """(field, code) of all that is wrong with the README's order after `changes`; nothing of it may be stored."""
    with pytest.raises(InvalidOrder) as caught:
        place_order(**order_fields(**changes))
    assert not Order.objects.exists()
    assert not SagaRun.objects.exists()
    return [(error.field, error.code) for error in caught.value.errors]


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], [("items", "required")]),
        (ONE * 101, [("items", "too_many")]),
        (ONE * 10_000, [("items", "too_many")]),
        ("ITEM-001", [("items", "invalid")]),
        ({"sku": "ITEM-001", "quantity": 1}, [("items", "invalid")]),
        (7, [("items", "invalid")]),
        (["ITEM-001"], [("items.0", "invalid")]),
        ([{"sku": "NOPE", "quantity": 1}], [("items.0.sku", "unknown_sku")]),
        ([*ONE, {"sku": "NOPE", "quantity": 1}], [("items.1.sku", "unknown_sku")]),
        ([{"sku": "ITEM-001\x00", "quantity": 1}], [("items.0.sku", "control_character")]),
        ([{"sku": "", "quantity": 1}], [("items.0.sku", "required")]),
        ([{"quantity": 1}], [("items.0.sku", "required")]),
        ([{"sku": "X" * 65, "quantity": 1}], [("items.0.sku", "too_long")]),
        ([{"sku": 7, "quantity": 1}], [("items.0.sku", "invalid")]),
        ([{"sku": "ITEM-001"}], [("items.0.quantity", "required")]),
        ([{"sku": "ITEM-001", "quantity": 0}], [("items.0.quantity", "out_of_range")]),
        ([{"sku": "ITEM-001", "quantity": -1}], [("items.0.quantity", "out_of_range")]),
        ([{"sku": "ITEM-001", "quantity": 1000}], [("items.0.quantity", "out_of_range")]),
        ([{"sku": "ITEM-001", "quantity": 10**12}], [("items.0.quantity", "out_of_range")]),
        ([{"sku": "ITEM-001", "quantity": 1.0}], [("items.0.quantity", "invalid")]),
        ([{"sku": "ITEM-001", "quantity": "1"}], [("items.0.quantity", "invalid")]),
        ([{"sku": "ITEM-001", "quantity": True}], [("items.0.quantity", "invalid")]),
        ([{"sku": "ITEM-001", "quantity": 1, "price": 1}], [("items.0", "unknown_field")]),
        (
            [{"sku": "ITEM-001", "quantity": 600}, {"sku": "ITEM-001", "quantity": 400}],
            [("items.1.quantity", "out_of_range")],
        ),
    ],
)
def test_lines_that_cannot_be_are_named(items: object, expected: list[tuple[str, str]]) -> None:
    assert refused(items=items, total_amount=None) == expected


@pytest.mark.parametrize(
    ("total", "code"),
    [
        (Decimal("98.00"), "total_mismatch"),
        (99.98, "total_mismatch"),
        (0, "total_mismatch"),
        ("99.990001", "invalid_amount"),
        (99.999, "invalid_amount"),
        (-99.99, "invalid_amount"),
        (float("nan"), "invalid_amount"),
        (float("inf"), "invalid_amount"),
        ("a lot", "invalid_amount"),
        ("1e400", "invalid_amount"),
        (True, "invalid_amount"),
        ([99.99], "invalid_amount"),
    ],
)
def test_a_total_that_is_not_the_sum_is_refused(total: object, code: str) -> None:
    assert refused(total_amount=total) == [("total_amount", code)]


def test_a_wrong_total_is_told_the_right_one_and_the_given_one() -> None:
    with pytest.raises(InvalidOrder) as caught:
        place_order(**order_fields(total_amount=98))

    assert caught.value.errors[0].message == "The items add up to 99.99 EUR, and 98.00 EUR was given."


@pytest.mark.parametrize("total", [99.99, "99.99", Decimal("99.990"), None])
def test_a_total_may_be_given_in_any_way_that_says_the_same(total: object) -> None:
    order, created = place_order(**order_fields(total_amount=total))

    assert (order.total_amount, created) == (Decimal("99.99"), True)


@pytest.mark.parametrize(
    ("currency", "code"),
    [("", "required"), ("eur", "unknown_currency"), ("XXX", "unknown_currency"), ("USD", "wrong_currency")],
)
def test_a_currency_the_goods_are_not_sold_in_is_refused(currency: str, code: str) -> None:
    assert ("currency", code) in refused(currency=currency, total_amount=None)


def test_a_currency_without_decimals_takes_none() -> None:
    make_product(sku="TEA", price="1200", currency="JPY")

    wrong = refused(items=[{"sku": "TEA", "quantity": 2}], currency="JPY", total_amount="2400.00001")
    order, _ = place_order(**order_fields(items=[{"sku": "TEA", "quantity": 2}], currency="JPY", total_amount=2400))

    assert wrong == [("total_amount", "invalid_amount")]
    assert order.total_amount == 2400


def test_a_currency_with_three_decimals_takes_three() -> None:
    make_product(sku="DATES", price="1.005", currency="KWD")

    order, _ = place_order(
        **order_fields(items=[{"sku": "DATES", "quantity": 3}], currency="KWD", total_amount="3.015")
    )

    assert order.total_amount == Decimal("3.015")


TEXTS = {
    "customer_ref": ("user_id", 100),
    "ship_name": ("ship_name", 100),
    "ship_line1": ("ship_line1", 200),
    "ship_city": ("ship_city", 100),
    "ship_postcode": ("ship_postcode", 20),
}


@pytest.mark.parametrize("argument", TEXTS)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "required"),
        ("   ", "required"),
        (None, "required"),
        ("a\x00b", "control_character"),
        ("a\nb", "control_character"),
        ("a\x1bb", "control_character"),
        ("a\x85b", "control_character"),
        ("a\ud800b", "control_character"),
        ("a\u202eb", "control_character"),
        (7, "invalid"),
        (["a"], "invalid"),
    ],
)
def test_every_text_is_looked_through(argument: str, text: object, code: str) -> None:
    assert refused(**{argument: text}) == [(TEXTS[argument][0], code)]


@pytest.mark.parametrize("argument", TEXTS)
def test_every_text_has_a_longest(argument: str) -> None:
    field, longest = TEXTS[argument]

    assert refused(**{argument: "x" * (longest + 1)}) == [(field, "too_long")]


def test_markup_and_sql_are_just_text() -> None:
    order, _ = place_order(**order_fields(ship_name="<b>Ada</b>'; DROP TABLE orders_order; --"))

    order.refresh_from_db()
    assert order.ship_name == "<b>Ada</b>'; DROP TABLE orders_order; --"


@pytest.mark.parametrize(
    "email", ["ada", "ada@", "@example.com", "ada@example.com, eve@example.com", "a b@example.com"]
)
def test_an_address_that_is_none_is_refused(email: str) -> None:
    assert refused(email=email) == [("email", "invalid")]


def test_an_address_cannot_smuggle_in_a_header() -> None:
    assert refused(email="ada@example.com\nBcc: eve@example.com") == [("email", "control_character")]


@pytest.mark.parametrize("country", ["Germany", "D3", "Ä1"])
def test_a_country_is_two_letters(country: str) -> None:
    assert [field for field, _ in refused(ship_country=country)] == ["ship_country"]


@pytest.mark.parametrize(
    "order_id", ["", "a" * 41, "a b", "a/b", "ORD-1\n", "..", ".", "new", "Ä", "a\x00", 7, "ORD%2F1"]
)
def test_an_order_number_keeps_to_its_pattern(order_id: object) -> None:
    assert refused(order_id=order_id) == [("order_id", "invalid")]


@pytest.mark.parametrize("order_id", ["1", "a" * 40, "ORD-1._x", "_", "-"])
def test_an_order_number_may_be_anything_within_its_pattern(order_id: str) -> None:
    order, _ = place_order(**order_fields(order_id=order_id))

    assert order.order_id == order_id


def test_an_order_without_a_number_gets_one() -> None:
    order, created = place_order(**order_fields(order_id=None))

    assert created
    assert order.order_id.startswith("ORD-")
    assert len(order.order_id) == 14


@pytest.mark.parametrize("token", ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111"])
def test_a_card_number_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InvalidOrder) as caught:
        place_order(**order_fields(card_token=token))

    assert [(error.field, error.code) for error in caught.value.errors] == [("card_token", "card_number")]
    assert token not in str(caught.value)


@pytest.mark.parametrize(("token", "code"), [("", "required"), ("tok visa", "invalid"), ("t" * 101, "invalid")])
def test_a_card_token_is_a_plain_word(token: str, code: str) -> None:
    assert refused(card_token=token) == [("card_token", code)]


def test_goods_that_cost_nothing_are_no_order() -> None:
    make_product(sku="GIFT", price="0")

    assert refused(items=[{"sku": "GIFT", "quantity": 1}], total_amount=0) == [("total_amount", "nothing_to_pay")]


def test_goods_that_are_no_longer_sold_are_unknown() -> None:
    make_product(sku="OLD", is_active=False)

    assert refused(items=[{"sku": "OLD", "quantity": 1}], total_amount=None) == [("items.0.sku", "unknown_sku")]


def test_all_faults_are_told_at_once() -> None:
    found = refused(order_id="a b", email="ada", ship_name="", items=[{"sku": "NOPE", "quantity": 0}])

    assert found == [
        ("ship_name", "required"),
        ("order_id", "invalid"),
        ("email", "invalid"),
        ("items.0.quantity", "out_of_range"),
    ]
