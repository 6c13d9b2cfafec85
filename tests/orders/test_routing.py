"""Several providers for one kind of work: who is asked, who instead, and who undoes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from orders import providers
from orders.models import ProviderChoice, Shipment
from orders.providers import get_shipping
from orders.services import cancel_order
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user

pytestmark = pytest.mark.django_db(transaction=True)

Outside = Callable[..., dict[str, Any]]


def asked(kind: str = "shipping") -> list[tuple[str, str, str]]:
    """(name, outcome, why) of each that was asked."""
    rows = ProviderChoice.objects.filter(kind=kind).order_by("position")
    return [(row.name, row.outcome, row.why) for row in rows]


def order(**changes: Any) -> Any:
    make_order(**changes)
    return run_to_end(SagaRun.objects.get())


@pytest.fixture
def two(outside: Outside, settings: Settings) -> dict[str, Any]:
    make_shop()
    settings.PROVIDER_ROUTES = {
        "shipping": [{"to": "dhl-parcel-de", "country": ["DE"], "most_grams": 31_500, "else": ["ups"]}]
    }
    return outside(shipping="ups, dhl-parcel-de")


def test_the_first_rule_that_fits_decides(two: dict[str, Any]) -> None:
    report = order()

    assert report.status == "completed"
    assert asked() == [("dhl-parcel-de", "done", "rule: country DE, up to 31500 g")]
    assert (len(two["dhl-parcel-de"].live), two["ups"].live) == (1, [])
    assert Shipment.objects.get().carrier == "dhl-parcel-de"


def test_without_one_the_first_named_is_asked(two: dict[str, Any]) -> None:
    report = order(ship_country="FR")

    assert report.status == "completed"
    assert asked() == [("ups", "done", "the first one named; no rule fits")]


def test_one_that_does_not_serve_the_address_is_followed_by_the_next(two: dict[str, Any]) -> None:
    report = order(ship_postcode="00000")

    assert report.status == "completed"
    assert asked() == [
        ("dhl-parcel-de", "refused", "rule: country DE, up to 31500 g"),
        ("ups", "done", "instead of dhl-parcel-de"),
    ]
    assert (two["dhl-parcel-de"].live, len(two["ups"].live)) == ([], 1)


def test_the_orders_page_tells_staff_who_was_asked_and_why(two: dict[str, Any], gina: Client) -> None:
    order(ship_postcode="00000", user=make_user(username="ada"))

    page = " ".join(re.sub(r"<[^>]+>", " ", gina.get("/orders/ORD-123/").content.decode()).split())
    hers = visitor_of("ada").get("/orders/ORD-123/")

    assert "Shipping : dhl-parcel-de Refused Rule: country DE, up to 31500 g. The postal code is not valid." in page
    assert "Shipping : ups Done Instead of dhl-parcel-de" in page
    assert (hers.status_code, b"Who was asked" in hers.content) == (200, False)


def visitor_of(name: str) -> Client:
    client = Client()
    assert client.login(username=name, password=f"{name}-password")
    return client


def test_one_that_is_down_is_followed_by_the_next(two: dict[str, Any]) -> None:
    two["dhl-parcel-de"].fall_ill("status", status=429, times=9)

    assert order().status == "completed"
    assert [row[:2] for row in asked()] == [("dhl-parcel-de", "away"), ("ups", "done")]


def test_while_an_answer_is_out_nobody_else_is_asked(two: dict[str, Any]) -> None:
    two["dhl-parcel-de"].fall_ill("cut", "POST")

    report = order()

    assert report.status == "needs_attention"  # DHL cannot be asked by our reference: a person looks
    assert asked() == [("dhl-parcel-de", "asked", "rule: country DE, up to 31500 g")]
    assert two["ups"].calls == []


def test_whoever_did_it_undoes_it_also_when_the_rules_have_changed(two: dict[str, Any], settings: Settings) -> None:
    order()
    settings.PROVIDER_ROUTES = {"shipping": [{"to": "ups"}]}
    providers.forget()

    cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")
    report = run_to_end(SagaRun.objects.get())

    assert report.status == "compensated"
    assert two["dhl-parcel-de"].live == []
    assert two["ups"].calls == []


def test_all_that_were_asked_turn_a_late_booking_away(two: dict[str, Any]) -> None:
    order(ship_postcode="00000")
    cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")

    assert run_to_end(SagaRun.objects.get()).status == "compensated"
    reference = Shipment.objects.get().reference
    assert get_shipping().find_shipment(reference=reference) is None
    assert [one.live for one in two.values()] == [[], []]


def test_payments_go_by_currency(outside: Outside, settings: Settings) -> None:
    make_shop()
    settings.PROVIDER_ROUTES = {"payments": [{"to": "adyen", "currency": ["SEK", "NOK"]}]}
    doubles = outside(payments="stripe, adyen")

    report = order(card_token="pm_card_visa")

    assert report.status == "completed"
    assert (doubles["stripe"].taken, doubles["adyen"].taken) == (9999, 0)
    cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")
    assert run_to_end(SagaRun.objects.get()).status == "compensated"
    assert doubles["stripe"].taken == 0


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"to": "fedex"}, "'fedex' is not among the chosen"),
        ({"to": "ups", "else": ["dhl"]}, "'dhl' is not among the chosen"),
        ({"to": "ups", "contry": ["DE"]}, "not contry"),
        ("ups", "not 'ups'"),
    ],
)
def test_a_rule_that_means_nothing_is_named(outside: Outside, settings: Settings, rule: Any, words: str) -> None:
    settings.PROVIDER_ROUTES = {"shipping": [rule]}
    outside(shipping="ups, dhl-express")

    with pytest.raises(ImproperlyConfigured, match=words):
        get_shipping()
