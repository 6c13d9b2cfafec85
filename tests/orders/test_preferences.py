"""Pages as somebody wants them: their colours and their time zone, on every page and at the next login."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.test import Client

from orders.models import Order, Preference
from sagas.selectors import SagaRun
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import INLINE, order_ids, text_of, told, visitor

pytestmark = pytest.mark.django_db
ADDRESS = "/preferences/"
LATE = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
"""In Berlin the next day has begun: 0:30."""


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


class TestTimes:
    def test_in_the_zone_of_whoever_looks(self, gina: Client, sam: Client) -> None:
        order = make_order()
        SagaRun.objects.filter(business_key=order.order_id).update(created_at=LATE, updated_at=LATE)

        response = gina.post(ADDRESS, {"theme": "", "zone": "Europe/Berlin"})

        assert told(response) == ["From now on the pages are as you want them."]
        run = f"/runs/{order.run_id}/"
        assert 'title="2026-02-01 00:30:00 CET"' in gina.get(run).content.decode()
        assert 'title="2026-01-31 23:30:00 UTC"' in sam.get(run).content.decode()
        assert 'title="2026-02-01 00:30:00 CET"' in gina.get(run).content.decode()
        assert " CET" in text_of(gina.get("/orders/"))

    def test_in_the_browsers_own_if_that_is_wanted(self, gina: Client) -> None:
        order = make_order()
        SagaRun.objects.filter(business_key=order.order_id).update(created_at=LATE, updated_at=LATE)
        run = f"/runs/{order.run_id}/"
        assert "<body data-tell-zone" not in gina.get(run).content.decode()

        gina.post(ADDRESS, {"theme": "", "zone": "auto"})

        assert "<body data-tell-zone" in gina.get(run).content.decode()
        assert 'value="auto"' in gina.get(ADDRESS).content.decode()
        for named, shown in (
            ("Europe/Berlin", "2026-02-01 00:30:00 CET"),
            ("../../etc/passwd", "23:30:00 UTC"),
            ("", "UTC"),
        ):
            gina.cookies["zone"] = named
            assert shown in gina.get(run).content.decode()

    def test_a_page_does_not_look_through_all_zones_that_there_are(
        self, gina: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It opens a file for each: that was most of the time that an unchanged part took."""
        gina.post(ADDRESS, {"theme": "", "zone": "Europe/Berlin"})
        monkeypatch.setattr("orders.preferences.available_timezones", pytest.fail)

        assert gina.get("/orders/").status_code == 200

    def test_days_begin_at_their_midnight(self, gina: Client, sam: Client) -> None:
        order = make_order()
        Order.objects.filter(pk=order.pk).update(placed_at=LATE)
        gina.post(ADDRESS, {"theme": "", "zone": "Europe/Berlin"})

        query = "/orders/?placed_from=2026-02-01&placed_to=2026-02-01"

        assert (order_ids(gina.get(query)), order_ids(sam.get(query))) == (["ORD-123"], [])

    def test_programs_are_told_utc(self, gina: Client) -> None:
        gina.post(ADDRESS, {"theme": "", "zone": "Asia/Tokyo"})
        make_order()

        assert gina.get("/api/v1/orders/ORD-123").json()["placed_at"].endswith("Z")

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "\x00", "x" * 500, "Europe", "zone.tab"])
    def test_a_zone_that_there_is_not(self, gina: Client, zone: str) -> None:
        response = gina.post(ADDRESS, {"theme": "dark", "zone": zone})

        assert response.status_code == 400
        assert "Zones are named like Europe/Berlin, and auto is your browser's." in text_of(response)
        assert not Preference.objects.exists()


class TestColours:
    def test_on_every_page(self, gina: Client) -> None:
        assert "data-theme" not in gina.get("/orders/").content.decode()

        gina.post(ADDRESS, {"theme": "dark", "zone": "UTC"})

        for address in ("/orders/", "/runs/", ADDRESS):
            page = gina.get(address).content.decode()
            assert '<html lang="en" data-theme="dark">' in page
            assert INLINE.findall(page) == []

    def test_a_theme_that_there_is_not(self, gina: Client) -> None:
        assert gina.post(ADDRESS, {"theme": "pink", "zone": ""}).status_code == 400
        assert not Preference.objects.exists()


def test_single_keys_are_there_unless_they_are_not_wanted(gina: Client) -> None:
    assert 'data-keys="/preferences/"' in gina.get("/orders/").content.decode()

    gina.post(ADDRESS, {"theme": "", "zone": ""})

    assert "data-keys" not in gina.get("/orders/").content.decode()
    assert Preference.objects.get().has_keys is False
    gina.post(ADDRESS, {"theme": "", "zone": "", "keys": "1"})
    assert 'data-keys="/preferences/"' in gina.get("/orders/").content.decode()
    assert "data-keys" not in Client().get("/accounts/login/").content.decode()


def test_it_is_so_at_the_next_login_too() -> None:
    user = make_user(username="ada")
    Preference.objects.create(user=user, theme="light", zone="Europe/Berlin")
    ada = Client()

    ada.post("/accounts/login/", {"username": "ada", "password": "ada-password"})

    assert 'data-theme="light"' in ada.get("/orders/").content.decode()
    assert 'value="Europe/Berlin"' in ada.get(ADDRESS).content.decode()


def test_a_zone_that_is_gone_is_utc() -> None:
    ada = visitor("ada")
    session = ada.session
    session["zone"] = "Old/Zone"
    session.save()

    assert ada.get("/orders/").status_code == 200


def test_it_is_nobody_elses_and_wants_a_login(gina: Client) -> None:
    assert Client().get(ADDRESS).headers["Location"].startswith("/accounts/login/")
    gina.post(ADDRESS, {"theme": "dark", "zone": ""})

    assert "data-theme" not in visitor("bob").get("/orders/").content.decode()
