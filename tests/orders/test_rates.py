"""So many and no more: logins that fail, and orders placed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.env import Rate, env_rate
from orders import rates
from orders.exceptions import TooOften
from orders.models import Order, RateWindow
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, make_caller, order_body, problem
from tests.orders.pages import text_of, visitor
from tests.races import together

pytestmark = pytest.mark.django_db

TWO = Rate(2, 60)


def pass_time(seconds: float) -> None:
    for window in RateWindow.objects.all():
        RateWindow.objects.filter(pk=window.pk).update(begins_at=window.begins_at - timedelta(seconds=seconds))


class TestCounting:
    def test_so_many_and_no_more(self) -> None:
        rates.count("order", "ada", TWO)
        rates.count("order", "ada", TWO)

        with pytest.raises(TooOften) as error:
            rates.count("order", "ada", TWO)

        assert 55 <= error.value.retry_after <= 60
        assert RateWindow.objects.get().count == 2

    def test_the_next_window_begins_anew(self) -> None:
        for _ in range(2):
            rates.count("order", "ada", TWO)
        pass_time(61)

        rates.count("order", "ada", TWO)

        window = RateWindow.objects.get()
        assert (window.count, timezone.now() - window.begins_at < timedelta(seconds=10)) == (1, True)

    def test_everybody_is_counted_alone(self) -> None:
        for who in ("ada", "bob", "eve"):
            rates.count("order", who, Rate(1, 60))
        rates.count("login-name", "ada", Rate(1, 60))

        assert sorted(RateWindow.objects.values_list("count", flat=True)) == [1, 1, 1, 1]

    def test_no_limit(self) -> None:
        for _ in range(5):
            rates.count("order", "ada", Rate(0, 1))
        rates.check("order", "ada", Rate(0, 1))

        assert not RateWindow.objects.exists()

    def test_what_was_typed_is_not_kept(self) -> None:
        rates.count("login-name", "my password by mistake \ud800" + "x" * 10_000, TWO)

        key = RateWindow.objects.get().key
        assert key.startswith("login-name:")
        assert "password" not in key
        assert len(key) < 100


@pytest.mark.django_db(transaction=True)
def test_at_the_same_moment_the_limit_holds() -> None:
    ends = together(*[lambda: rates.count("order", "ada", Rate(5, 60)) for _ in range(12)])

    assert [type(end).__name__ for end in ends].count("TooOften") == 7
    assert [end for end in ends if end is not None and not isinstance(end, TooOften)] == []
    assert RateWindow.objects.get().count == 5


class TestLogin:
    @pytest.fixture
    def ada(self) -> User:
        return make_user(username="ada")

    def log_in(self, client: Client, typed: str = "wrong", **fields: str) -> Any:
        return client.post("/accounts/login/", {"username": "ada", "password": typed, **fields})

    def test_a_name_is_shut_out_for_a_while(self, ada: User, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = TWO
        client = Client()
        assert [self.log_in(client).status_code for _ in range(2)] == [200, 200]

        shut = self.log_in(client, "ada-password")

        assert shut.status_code == 429
        assert "That was tried too often. Nothing was done this time. Try again in" in text_of(shut)
        assert 50 <= int(shut.headers["Retry-After"]) <= 60
        assert "_auth_user_id" not in client.session
        assert self.log_in(Client(), username="bob").status_code == 200

        pass_time(61)
        assert self.log_in(client, "ada-password").status_code == 302

    def test_however_the_name_is_written(self, ada: User, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = TWO
        for name in ("ada", " ADA "):
            self.log_in(Client(), username=name)

        assert self.log_in(Client(), "ada-password").status_code == 429

    def test_an_address_is_shut_out_whatever_names_it_tries(self, ada: User, settings: Settings) -> None:
        settings.LOGIN_ADDRESS_RATE = TWO
        for name in ("bob", "eve"):
            self.log_in(Client(), username=name)

        assert self.log_in(Client(), "ada-password").status_code == 429
        assert self.log_in(Client(REMOTE_ADDR="10.0.0.7"), "ada-password").status_code == 302

    def test_behind_a_proxy_it_says_whose_address_it_is(self, ada: User, settings: Settings) -> None:
        settings.LOGIN_ADDRESS_RATE = Rate(1, 60)
        settings.CLIENT_ADDRESS = "HTTP_X_REAL_IP"
        self.log_in(Client(headers={"X-Real-IP": "10.0.0.7"}), username="bob")

        assert self.log_in(Client(headers={"X-Real-IP": "10.0.0.8"}), "ada-password").status_code == 302
        assert self.log_in(Client(headers={"X-Real-IP": "10.0.0.7"}), "ada-password").status_code == 429

    def test_who_gets_in_is_forgiven(self, ada: User, settings: Settings) -> None:
        settings.LOGIN_NAME_RATE = TWO
        for _ in range(3):
            assert self.log_in(Client()).status_code == 200
            assert self.log_in(Client(), "ada-password").status_code == 302

    def test_the_admin_has_no_door_of_its_own(self) -> None:
        response = Client().get("/admin/login/?next=/admin/sagas/")

        assert (response.status_code, response.headers["Location"]) == (302, "/accounts/login/?next=/admin/sagas/")


class TestOrders:
    @pytest.fixture(autouse=True)
    def shop(self) -> None:
        make_shop()

    def test_by_key(self, settings: Settings) -> None:
        settings.API_ORDER_RATE = TWO
        caller = make_caller(make_user())
        other = make_caller(User.objects.get(), name="another key")
        for n in range(2):
            assert caller.post(ORDERS, order_body(order_id=f"ORD-{n}")).status_code == 202

        response = caller.post(ORDERS, order_body(order_id="ORD-7"))

        assert problem(response, 429, "rate-limited")["retryable"] is True
        assert 50 <= int(response.headers["Retry-After"]) <= 60
        assert sorted(Order.objects.values_list("order_id", flat=True)) == ["ORD-0", "ORD-1"]
        assert caller.get(ORDERS).status_code == 200
        assert other.post(ORDERS, order_body(order_id="ORD-8")).status_code == 202

    def test_by_form(self, settings: Settings) -> None:
        settings.ORDER_RATE = Rate(1, 60)
        ada = visitor("ada")
        assert ada.post("/orders/new/", {"confirmed": "1"}).status_code == 400

        response = ada.post("/orders/new/", {"confirmed": "1"})

        assert response.status_code == 429
        assert "Too often" in text_of(response)
        assert not Order.objects.exists()


class TestSetting:
    @pytest.mark.parametrize(("value", "expected"), [("20/900", (20, 900)), ("0/1", (0, 1)), ("", (5, 60))])
    def test_it_is_read(self, monkeypatch: pytest.MonkeyPatch, value: str, expected: tuple[int, int]) -> None:
        monkeypatch.setenv("SOME_RATE", value)

        assert env_rate("SOME_RATE", "5/60") == expected

    @pytest.mark.parametrize("value", ["20", "20/", "/900", "20/0", "-1/900", "20/15m", "²/9"])
    def test_nonsense_stops_the_start(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("SOME_RATE", value)

        with pytest.raises(ImproperlyConfigured, match="SOME_RATE="):
            env_rate("SOME_RATE", "5/60")


def test_one_statement_where_there_is_room(django_assert_num_queries: Any) -> None:
    rates.count("order", "ada", TWO)

    with django_assert_num_queries(1):
        rates.count("order", "ada", TWO)

    assert connection.in_atomic_block
