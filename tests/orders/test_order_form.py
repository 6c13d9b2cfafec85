"""Placing an order on the page: once, with every mistake said beside its field, and nothing stored of a bad one."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client, override_settings
from django_q.models import OrmQ

from orders.demo import SCENARIOS
from orders.models import Order, Product
from sagas.selectors import SagaRun
from tests.factories import make_product, make_shop
from tests.orders.pages import run_of, text_of, told, visitor

pytestmark = pytest.mark.django_db(transaction=True)

TEXTS = ("email", "ship_name", "ship_line1", "ship_city", "ship_postcode", "ship_country", "card_token")
CONTROL = "This holds a control character. Take it out."
RANGE = "The quantity must be from 1 to 999."


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.fixture
def ada() -> Client:
    return visitor("ada")


def typed(**changes: str) -> dict[str, str]:
    """The README's order as a browser sends it."""
    fields = {
        "order_id": "ORD-FORM",
        "line-0-sku": "ITEM-001",
        "line-0-quantity": "2",
        "line-1-sku": "ITEM-002",
        "line-1-quantity": "1",
        "shown_total": "99.99",
        "scenario": "",
        "confirmed": "1",
        "email": "ada@example.com",
        "ship_name": "Ada Pereira",
        "ship_line1": "Torstraße 1",
        "ship_city": "Berlin",
        "ship_postcode": "10115",
        "ship_country": "DE",
        "card_token": "tok_visa",
    }
    return {**fields, **changes}


def place(client: Client, **changes: str) -> Any:
    return client.post("/orders/new/", typed(**changes))


def review(client: Client, **changes: str) -> Any:
    fields = typed(**changes)
    del fields["confirmed"]
    return client.post("/orders/new/", fields)


def hidden_in(page: Any) -> dict[str, str]:
    """What the review sends on."""
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.content.decode())
    return {name: unescape(value) for name, value in found if name != "csrfmiddlewaretoken"}


def faults_of(response: Any) -> dict[str, str]:
    """Field -> what is said beside it. Only what its input points to counts."""
    body = response.content.decode()
    faults = dict(re.findall(r'<p class="error" id="fault_([^"]+)">([^<]*)</p>', body))
    for name in faults:
        assert re.search(rf'aria-describedby="fault_{re.escape(name)}[ "]', body), name
    return {name: unescape(text) for name, text in faults.items()}


def assert_refused(response: Any) -> None:
    """Said as a bad request, and nothing is stored."""
    assert response.status_code == 400
    assert text_of(response).count("The order was not placed:") == 1
    assert "<title>Error: Place an order" in response.content.decode()
    for target in re.findall(r'<li><a href="#([^"]+)">', response.content.decode()):
        assert f'id="{target}"' in response.content.decode()
    assert not Order.objects.exists()
    assert not SagaRun.objects.exists()
    assert not OrmQ.objects.exists()


class TestPlacing:
    def test_it_is_stored_and_shown(self, ada: Client) -> None:
        response = place(ada)

        order = Order.objects.get()
        assert (response.status_code, response.headers["Location"]) == (302, "/orders/ORD-FORM/")
        assert (order.customer_ref, order.placed_by, str(order.total_amount)) == ("ada", "customer:ada", "99.990")
        assert order.user is not None
        assert order.user.username == "ada"
        assert sorted(order.lines.values_list("sku", "quantity")) == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert run_of(order).status == "pending"
        assert ada.get("/orders/ORD-FORM/").status_code == 200

    def test_sent_twice_it_is_one_order(self, ada: Client) -> None:
        first, second = place(ada), place(ada)

        assert first.headers["Location"] == second.headers["Location"] == "/orders/ORD-FORM/"
        assert told(second) == ["This order was placed already: here it is."]
        assert (Order.objects.count(), SagaRun.objects.count()) == (1, 1)

    def test_sent_again_with_other_contents_it_is_a_new_form(self, ada: Client) -> None:
        place(ada)

        response = place(ada, ship_city="Hamburg")

        assert response.headers["Location"] == "/orders/new/"
        assert told(response) == ["Order ORD-FORM was placed already, with other contents. Here is a new form."]
        assert Order.objects.get().ship_city == "Berlin"

    def test_somebody_elses_number_tells_nothing_of_their_order(self, ada: Client) -> None:
        place(visitor("bob"))

        response = place(ada)

        assert response.headers["Location"] == "/orders/new/"
        assert Order.objects.get().customer_ref == "bob"
        assert "bob" not in text_of(ada.get("/orders/new/"))

    def test_products_have_their_price_as_people_read_it(self, ada: Client) -> None:
        assert "ITEM-001 Product ITEM-001, 30.00 EUR, 10 in stock" in text_of(ada.get("/orders/new/"))

    def test_it_works_without_a_total(self, ada: Client) -> None:
        assert place(ada, shown_total="").status_code == 302

    def test_each_blank_form_is_another_order(self, ada: Client) -> None:
        numbers = {
            re.findall(r'name="order_id" value="([^"]+)"', ada.get("/orders/new/").content.decode())[0]
            for _ in range(3)
        }

        assert len(numbers) == 3

    def test_nobody_orders_in_somebody_elses_name(self, ada: Client) -> None:
        place(ada, customer_ref="bob", user="bob", placed_by="user:sam", total_amount="0.01", currency="JPY")

        order = Order.objects.get()
        assert (order.customer_ref, order.placed_by, order.currency) == ("ada", "customer:ada", "EUR")
        assert str(order.total_amount) == "99.990"


class TestReviewing:
    """Before money moves, everybody sees what will happen and what it costs."""

    def test_what_will_happen_is_said_and_nothing_has_happened_yet(self, ada: Client) -> None:
        page = review(ada)

        words = text_of(page).replace("\xa0", " ")
        assert page.status_code == 200
        assert "Review the order Total 99.99 EUR 2 × Product ITEM-001 ITEM-001 60.00 EUR" in words
        assert (
            "Reserve inventory: 3 pieces set aside for Ada Pereira Process payment: 99.99 EUR taken from the card "
            "Create shipment: a parcel to Berlin booked Confirmation e-mail: confirmation to ada@example.com"
        ) in words
        assert not Order.objects.exists()
        assert not OrmQ.objects.exists()

    def test_what_was_reviewed_is_what_is_placed(self, ada: Client) -> None:
        fields = hidden_in(review(ada, shown_total=""))

        response = ada.post("/orders/new/", {**fields, "confirmed": "1"})

        assert response.headers["Location"] == "/orders/ORD-FORM/"
        order = Order.objects.get()
        assert (str(order.total_amount), order.ship_city, order.lines.count()) == ("99.990", "Berlin", 2)

    def test_a_price_that_rose_since_is_told_before_it_is_taken(self, ada: Client) -> None:
        fields = hidden_in(review(ada, shown_total=""))
        Product.objects.filter(sku="ITEM-001").update(price="35.00")

        response = ada.post("/orders/new/", {**fields, "confirmed": "1"})

        assert_refused(response)
        assert "The items add up to 109.99 EUR" in text_of(response).replace("\xa0", " ")

    def test_it_can_be_changed_and_nothing_is_typed_twice(self, ada: Client) -> None:
        fields = hidden_in(review(ada, ship_city="Köln"))

        form = ada.post("/orders/new/", {**fields, "change": "1"})

        body = form.content.decode()
        assert (form.status_code, 'value="Köln"' in body, 'value="ORD-FORM"' in body) == (200, True, True)
        assert re.findall(r'<option value="([^"]+)"[^>]* selected>', body) == ["ITEM-001", "ITEM-002"]
        assert "The order was not placed" not in text_of(form)

    def test_mistakes_are_told_first(self, ada: Client) -> None:
        response = review(ada, email="nobody")

        assert_refused(response)
        assert faults_of(response).keys() == {"email"}

    def test_a_scenario_is_reviewed_as_it_will_be(self, ada: Client) -> None:
        page = review(ada, scenario="card_declined")

        assert "Card declined. The gateway says no" in text_of(page)
        assert ada.post("/orders/new/", {**hidden_in(page), "confirmed": "1"}).status_code == 302
        assert Order.objects.get().card_token == "tok_declined"


class TestMistakes:
    @pytest.mark.parametrize(
        ("quantity", "said"),
        [
            ("0", RANGE),
            ("-1", RANGE),
            ("1000000000000", RANGE),
            ("9" * 400, "The quantity must be a whole number."),
            ("two", "The quantity must be a whole number."),
            ("1.5", "The quantity must be a whole number."),
            ("1e3", "The quantity must be a whole number."),
            ("", "The quantity must be a whole number."),
            ("٣", "The quantity must be a whole number."),
            ("2\x00", "The quantity must be a whole number."),
            ("<b>2</b>", "The quantity must be a whole number."),
        ],
    )
    def test_a_quantity_that_is_none(self, ada: Client, quantity: str, said: str) -> None:
        response = place(ada, **{"line-1-quantity": quantity})

        assert_refused(response)
        assert faults_of(response) == {"line-1": said}
        assert "<b>2" not in response.content.decode()

    def test_a_product_that_is_not_sold(self, ada: Client) -> None:
        response = place(ada, **{"line-0-sku": "ITEM-999"})

        assert_refused(response)
        assert faults_of(response) == {"line-0": "There is no product ITEM-999."}

    def test_a_product_no_longer_sold(self, ada: Client) -> None:
        make_product(sku="ITEM-OLD", is_active=False)

        response = place(ada, **{"line-0-sku": "ITEM-OLD"})

        assert_refused(response)
        assert faults_of(response) == {"line-0": "There is no product ITEM-OLD."}
        assert "Product ITEM-OLD" not in ada.get("/orders/new/").content.decode()

    def test_no_items(self, ada: Client) -> None:
        response = place(ada, **{"line-0-sku": "", "line-1-sku": ""})

        assert_refused(response)
        assert faults_of(response) == {"items": "An order has at least one item."}

    def test_no_fields_at_all(self, ada: Client) -> None:
        response = ada.post("/orders/new/", {"confirmed": "1"})

        assert_refused(response)
        assert faults_of(response).keys() == {"items", *TEXTS}

    def test_another_total_than_was_shown(self, ada: Client) -> None:
        response = place(ada, shown_total="89.99")

        assert_refused(response)
        said = "The items add up to 99.99 EUR, and 89.99 EUR was given."
        assert {name: text.replace("\xa0", " ") for name, text in faults_of(response).items()} == {"items": said}

    @pytest.mark.parametrize("total", ["NaN", "Infinity", "1e400", "99.999", "x", "\x00", "-99.99", "9" * 500])
    def test_a_total_that_is_no_amount(self, ada: Client, total: str) -> None:
        response = place(ada, shown_total=total)

        assert_refused(response)
        assert faults_of(response).keys() == {"items"}

    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x85", "\u202e"])
    def test_control_characters(self, ada: Client, name: str, character: str) -> None:
        response = place(ada, **{name: f"a{character}b"})

        assert_refused(response)
        said = "This is not a card token, like tok_visa." if name == "card_token" else CONTROL
        assert faults_of(response) == {name: said}

    @pytest.mark.parametrize("name", TEXTS)
    def test_a_text_that_is_too_long(self, ada: Client, name: str) -> None:
        response = place(ada, **{name: "x" * 5000})

        assert_refused(response)
        assert faults_of(response).keys() == {name}

    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize(
        "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'; DROP TABLE x;--"]
    )
    def test_markup_and_sql_stay_text(self, ada: Client, name: str, text: str) -> None:
        response = place(ada, **{name: text, "line-0-quantity": "0"})

        assert_refused(response)
        body = response.content.decode()
        assert "<script>alert" not in body
        assert "<img src=x" not in body
        assert text in unescape(body)

    @pytest.mark.parametrize("number", ["", "new", "..", "a/b", "x" * 41, "\x00", "<b>", "' OR 1=1"])
    def test_a_number_that_is_none(self, ada: Client, number: str) -> None:
        response = place(ada, order_id=number)

        assert_refused(response)
        assert "Order number: An order number has 1 to 40 letters" in text_of(response)
        assert "<b>" not in response.content.decode()

    def test_a_cards_number_is_not_shown_again(self, ada: Client) -> None:
        response = place(ada, card_token="4111 1111 1111 1111")

        assert_refused(response)
        assert faults_of(response) == {"card_token": "Send the token of a card, never its number."}
        assert "4111" not in response.content.decode()

    def test_what_was_typed_is_kept(self, ada: Client) -> None:
        response = place(ada, email="nobody", ship_city="São Paulo", **{"line-1-quantity": "7"})

        body = response.content.decode()
        assert faults_of(response) == {"email": "This is not an e-mail address, like ada@example.com."}
        for value in ("ORD-FORM", "nobody", "São Paulo", "Ada Pereira", "7"):
            assert f'value="{value}"' in body
        assert re.findall(r'<option value="([^"]+)"[^>]* selected>', body) == ["ITEM-001", "ITEM-002"]

    def test_all_of_them_are_said_at_once(self, ada: Client) -> None:
        response = place(
            ada, email="x", ship_country="Germany", ship_city="", **{"line-0-sku": "NO", "line-1-quantity": "0"}
        )

        assert faults_of(response) == {
            "email": "This is not an e-mail address, like ada@example.com.",
            "ship_country": "This is 7 characters long; at most 2 are taken.",
            "ship_city": "This is needed.",
            "line-0": "There is no product NO.",
            "line-1": RANGE,
        }

    def test_more_lines_than_an_order_has(self, ada: Client) -> None:
        lines = {
            f"line-{n}-{part}": value for n in range(101) for part, value in (("sku", "ITEM-001"), ("quantity", "1"))
        }

        response = place(ada, **lines)

        assert_refused(response)
        assert faults_of(response) == {"items": "An order has at most 100 lines; these are 101."}


class TestScenarios:
    def test_the_demo_offers_one_for_each_way_an_order_can_go(self, ada: Client) -> None:
        words = text_of(ada.get("/orders/new/"))

        offered = [scenario.title for scenario in SCENARIOS if not scenario.cancel_when_completed]
        assert [title for title in offered if title not in words] == []

    def test_one_orders_what_it_needs(self, ada: Client) -> None:
        make_product(sku="ITEM-008", stock=1)

        assert place(ada, scenario="insufficient_inventory").status_code == 302

        order = Order.objects.get()
        assert (order.scenario, list(order.lines.values_list("sku", "quantity"))) == (
            "insufficient_inventory",
            [("ITEM-008", 2)],
        )
        assert order.customer_ref == "ada"

    def test_one_whose_product_is_gone_says_so(self, ada: Client) -> None:
        response = place(ada, scenario="insufficient_inventory")

        assert_refused(response)
        assert "Items : There is no product ITEM-008." in text_of(response)

    @override_settings(DEMO=False)
    def test_elsewhere_there_are_none(self, ada: Client) -> None:
        page = ada.get("/orders/new/")
        place(ada, scenario="card_declined")

        assert "scenario" not in page.content.decode()
        assert (Order.objects.get().scenario, Order.objects.get().card_token) == ("", "tok_visa")


class TestForgery:
    def test_a_form_from_elsewhere_is_refused(self) -> None:
        ada = visitor("ada", enforce_csrf_checks=True)

        response = place(ada)

        assert response.status_code == 403
        assert not Order.objects.exists()

    @pytest.mark.parametrize("method", ["put", "patch", "delete"])
    def test_other_methods_are_not_taken(self, ada: Client, method: str) -> None:
        assert getattr(ada, method)("/orders/new/").status_code == 405


class TestCustomer:
    def test_staff_says_whom_it_is_for(self, sam: Client) -> None:
        assert '<label for="id_user_id">Customer</label>' in sam.get("/orders/new/").content.decode()

        place(sam, user_id=" CUST-7 ")

        order = Order.objects.get()
        assert (order.customer_ref, order.placed_by, order.user and order.user.username) == (
            "CUST-7",
            "user:sam",
            "sam",
        )

    def test_it_is_shown_before_it_is_placed(self, sam: Client) -> None:
        fields = {name: value for name, value in typed(user_id="CUST-7").items() if name != "confirmed"}

        review = sam.post("/orders/new/", fields)

        assert "For CUST-7" in text_of(review)
        assert '<input type="hidden" name="user_id" value="CUST-7">' in review.content.decode()

    def test_left_empty_it_is_under_the_name_of_whoever_places_it(self, sam: Client) -> None:
        place(sam, user_id=" ")

        assert Order.objects.get().customer_ref == "sam"

    def test_a_mistake_is_said_beside_it(self, sam: Client) -> None:
        response = place(sam, user_id="a\u0001b")

        assert response.status_code == 400
        assert f'<a href="#id_user_id">Customer</a>: {CONTROL}' in response.content.decode()
        assert not Order.objects.exists()

    def test_customers_place_their_own(self, ada: Client) -> None:
        assert "id_user_id" not in ada.get("/orders/new/").content.decode()

        place(ada, user_id="somebody-else")

        assert Order.objects.get().customer_ref == "ada"
