"""How long a login lasts, that its end is told beforehand, and which shop a page is of."""

from __future__ import annotations

import re
import time

import pytest
from django.conf import settings as site
from django.test import Client
from pytest_django import Settings

from tests.factories import make_user
from tests.orders.pages import told

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> Client:
    """Logged in as people are."""
    make_user(username="ada")
    client = Client()
    client.post("/accounts/login/", {"username": "ada", "password": "ada-password"})
    return client


def end_of(client: Client) -> int:
    """When the page says that the login is over."""
    (end,) = re.findall(r'data-session-ends="(\d+)"', client.get("/orders/").content.decode())
    return int(end)


def test_a_page_knows_when_the_login_is_over(ada: Client) -> None:
    assert end_of(ada) == pytest.approx(time.time() + site.SESSION_COOKIE_AGE, abs=60)


def test_whoever_stays_stays_as_long_again(ada: Client) -> None:
    session = ada.session
    session["ends"] = int(time.time()) + 100
    session.save()

    response = ada.post("/accounts/stay/", {"next": "/orders/?state=undone"})

    assert (response.headers["Location"], told(response)) == ("/orders/?state=undone", ["You stay logged in."])
    assert end_of(ada) == pytest.approx(time.time() + site.SESSION_COOKIE_AGE, abs=60)
    assert response.cookies["sessionid"]["max-age"] == site.SESSION_COOKIE_AGE


def test_a_script_is_told_until_when(ada: Client) -> None:
    answer = ada.post("/accounts/stay/", headers={"X-Live": "1"})

    assert answer.json() == {"ends": end_of(ada)}


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example", ""])
def test_nobody_is_led_away(ada: Client, address: str) -> None:
    assert ada.post("/accounts/stay/", {"next": address}).headers["Location"] == "/orders/"


def test_strangers_have_nothing_to_stay_in(client: Client) -> None:
    assert client.post("/accounts/stay/").headers["Location"] == "/accounts/login/?next=/accounts/stay/"
    assert "data-session-ends" not in client.get("/accounts/login/").content.decode()


def test_a_word_tells_which_shop_it_is(ada: Client, settings: Settings) -> None:
    assert "site-label" not in ada.get("/orders/").content.decode()
    settings.SITE_LABEL = "staging"
    assert '<span class="site-label">staging</span>' in ada.get("/orders/").content.decode()


def test_the_statement_is_for_everybody(client: Client) -> None:
    assert "Web Content Accessibility Guidelines 2.2" in client.get("/accessibility/").content.decode()
