"""What became of a request that somebody names by its id: the search leads to what it did, or to why it did nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from orders.models import Order, RefusedRequest
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import Caller, make_caller
from tests.orders.pages import ended, run_of, text_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.fixture
def webshop() -> Caller:
    return make_caller(make_user(username="webshop"))


def found(client: Client, request_id: str) -> str:
    """Where the search leads to."""
    return client.get("/orders/", {"q": request_id}).headers.get("Location", "")


def test_it_leads_to_the_order_that_was_placed_and_to_the_one_acted_on(gina: Client) -> None:
    ada = make_user(username="ada")
    order = ended("completed", user=ada)
    caller = make_caller(ada)
    path = f"/api/v1/orders/{order.order_id}/cancellations"

    asked = caller.post(path, {"reason": "Bought it elsewhere."})

    assert asked.status_code == 202
    assert found(gina, asked.headers["X-Request-Id"]) == f"/orders/{order.order_id}/"


def test_what_was_refused_is_told_with_who_asked_and_why(gina: Client, webshop: Caller) -> None:
    answer = webshop.post("/api/v1/orders", {"items": []})

    words = text_of(gina.get("/orders/", {"q": answer.json()["request_id"]}))

    assert answer.status_code == 400
    assert f"Request {answer.json()['request_id']} of key:webshop's key" in words
    assert "was refused: 400 validation-error . Nothing of it was done. POST /api/v1/orders" in words
    assert "things are wrong. /email: This field is required." in words
    assert not Order.objects.exists()


def test_a_refusal_that_names_an_order_shows_both(gina: Client) -> None:
    ada = make_user(username="ada")
    make_order(user=ada)
    caller = make_caller(ada)

    answer = caller.post("/api/v1/orders/ORD-123/cancellations", {"reason": ""})

    page = gina.get("/orders/", {"q": answer.json()["request_id"]})
    assert (page.status_code, 'href="/orders/ORD-123/"' in page.content.decode()) == (200, True)
    assert f"was refused: {answer.status_code}" in text_of(page)
    assert run_of(Order.objects.get()).status == "pending"


def test_customers_are_told_of_no_refusals(webshop: Caller) -> None:
    answer = webshop.post("/api/v1/orders", {})
    customer = Client()
    customer.force_login(make_user(username="ada"))

    assert "was refused" not in text_of(customer.get("/orders/", {"q": answer.json()["request_id"]}))


def test_strangers_and_looking_leave_nothing_behind(webshop: Caller) -> None:
    Client().post("/api/v1/orders", {}, content_type="application/json")
    webshop.get("/api/v1/orders/ORD-NONE")
    webshop.get("/api/v1/orders?cursor=nonsense")

    assert not RefusedRequest.objects.exists()


def test_after_a_week_they_are_forgotten(webshop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.refusals.FORGOTTEN_AT_A_TIME", 1)
    webshop.post("/api/v1/orders", {})
    RefusedRequest.objects.update(created_at=timezone.now() - timedelta(days=8))

    second = webshop.post("/api/v1/orders", {})

    assert [one.request_id for one in RefusedRequest.objects.all()] == [second.json()["request_id"]]
