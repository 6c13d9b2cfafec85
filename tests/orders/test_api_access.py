"""Who may call the API, and with which keys."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from orders.api_keys import create_key, revoke_key
from orders.models import ApiKey, IdempotentRequest, Order, Scope
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, make_caller, nothing_is_stored, order_body, problem

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Caller:
    """A customer's program, in a shop with enough of everything."""
    make_shop()
    return make_caller(make_user(username="ada"))


class TestWhoMay:
    def test_without_a_key_nobody_gets_in(self, ada: Caller) -> None:
        for response in (Caller().get(ORDERS), Caller().post(ORDERS, order_body())):
            problem(response, 401, "unauthenticated")
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="orders"'
        assert nothing_is_stored()

    @pytest.mark.parametrize("token", ["", "x", "osk_", "osk_000000000000_" + "0" * 64, "osk_\xe9", "a b c"])
    def test_a_made_up_key_opens_nothing(self, ada: Caller, token: str) -> None:
        response = Client().get(ORDERS, headers={"Authorization": f"Bearer {token}"})

        problem(response, 401, "unauthenticated")

    def test_a_key_with_one_letter_changed_opens_nothing(self, ada: Caller) -> None:
        token = ada.headers["Authorization"]
        changed = token[:-1] + ("0" if token[-1] != "0" else "1")

        problem(Client().get(ORDERS, headers={"Authorization": changed}), 401, "unauthenticated")

    def test_the_secret_is_not_stored(self, ada: Caller) -> None:
        secret = ada.headers["Authorization"].rpartition("_")[2]

        assert len(secret) == 64
        assert all(secret not in str(value) for value in ApiKey.objects.values_list()[0])

    def test_a_revoked_an_expired_and_an_inactive_one_open_nothing(self, ada: Caller) -> None:
        eva, kim = (make_caller(make_user(username=name)) for name in ("eva", "kim"))
        revoke_key(name="ada's key")
        past = timezone.now() - timedelta(seconds=1)
        ApiKey.objects.filter(name="eva's key").update(created_at=past - timedelta(days=1), expires_at=past)
        assert kim.key is not None
        kim.key.user.is_active = False
        kim.key.user.save()

        for caller in (ada, eva, kim):
            problem(caller.get(ORDERS), 401, "unauthenticated")

    def test_the_last_use_is_noted_once_a_minute(self, ada: Caller) -> None:
        assert ApiKey.objects.get().last_used_at is None

        ada.get(ORDERS)
        first = ApiKey.objects.get().last_used_at
        ada.get(ORDERS)

        assert first is not None
        assert ApiKey.objects.get().last_used_at == first

    def test_a_scope_that_is_missing_is_named(self, ada: Caller) -> None:
        reader = make_caller(make_user(username="eva"), Scope.ORDERS_READ)
        writer = make_caller(make_user(username="kim"), Scope.ORDERS_WRITE)

        assert "orders:write" in problem(reader.post(ORDERS, order_body()), 403, "scope-missing")["detail"]
        assert "orders:read" in problem(writer.get(ORDERS), 403, "scope-missing")["detail"]
        assert reader.get(ORDERS).status_code == 200
        assert writer.post(ORDERS, order_body()).status_code == 202

    def test_a_scope_is_needed_to_ask_for_the_head_too(self, ada: Caller) -> None:
        writer = make_caller(make_user(username="kim"), Scope.ORDERS_WRITE)

        assert writer.client.head(ORDERS, headers=writer.headers).status_code == 403
        assert ada.client.head(ORDERS, headers=ada.headers).status_code == 200

    def test_a_session_needs_its_csrf_token_to_write(self, ada: Caller) -> None:
        browser = Client(enforce_csrf_checks=True)
        browser.login(username="ada", password="ada-password")
        sent = {"content_type": "application/json", "data": json.dumps(order_body())}

        refused = browser.post(ORDERS, headers={"Idempotency-Key": "1"}, **sent)  # type: ignore[arg-type]
        browser.cookies["csrftoken"] = "a" * 32
        token = {"X-CSRFToken": "a" * 32, "Idempotency-Key": "1"}
        taken = browser.post(ORDERS, headers=token, **sent)  # type: ignore[arg-type]

        problem(refused, 403, "forbidden")
        assert taken.status_code == 202
        assert Order.objects.get().placed_by == "customer:ada"
        assert browser.get(ORDERS).json()["results"][0]["order_id"] == "ORD-123"

    def test_anothers_order_is_not_there_by_any_address(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        cancelled = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "changed my mind"})
        eva = make_caller(make_user(username="eva"))

        assert eva.get(ORDERS).json()["results"] == []
        assert eva.get(ORDERS, {"q": "ORD-123"}).json()["results"] == []
        for path in (f"{ORDERS}/ORD-123", f"{ORDERS}/ORD-123/events", cancelled.headers["Location"]):
            assert problem(eva.get(path), 404, "not-found")["detail"] == "There is no order ORD-123."
        problem(eva.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "not mine"}), 404, "not-found")
        stolen = problem(eva.post(ORDERS, order_body()), 409, "order-conflict")
        assert stolen["detail"] == "The number ORD-123 is taken. Use a new one, or none: then we make one."
        assert [item["pointer"] for item in stolen["errors"]] == ["/order_id"]
        assert "ada" not in json.dumps(stolen)

    def test_staff_see_every_order(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        agent = make_caller(make_user(username="agent", role="agent"))

        assert agent.get(f"{ORDERS}/ORD-123").json()["order_id"] == "ORD-123"
        assert [row["order_id"] for row in agent.get(ORDERS).json()["results"]] == ["ORD-123"]


class TestKeyCommand:
    def test_a_key_is_made_listed_and_revoked(self, capsys: pytest.CaptureFixture[str]) -> None:
        make_user(username="ada")

        call_command("apikey", "create", "--user", "ada", "--name", "shop", "--expires", "90d")
        token = capsys.readouterr().out.strip()
        assert Caller(token).get(ORDERS).status_code == 200
        call_command("apikey", "list")
        listed = capsys.readouterr().out
        call_command("apikey", "list", "--output", "json")
        (told,) = json.loads(capsys.readouterr().out)
        call_command("apikey", "revoke", "shop")

        assert "shop  ada   osk_" in listed
        assert "orders:read orders:write  live until" in listed
        assert token.rpartition("_")[2] not in listed
        assert (told["name"], told["user"], told["scopes"]) == ("shop", "ada", ["orders:read", "orders:write"])
        assert set(told) == {
            "name", "user", "prefix", "scopes", "state", "created_at", "expires_at", "revoked_at", "last_used_at",
        }  # fmt: skip
        assert Caller(token).get(ORDERS).status_code == 401

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["create", "--user", "nobody", "--name", "x"], "There is no user nobody."),
            (["create", "--user", "ada", "--name", "taken"], "There is a key named taken already."),
            (["create", "--user", "ada", "--name", "x", "--expires", "soon"], "expected a date like"),
            (["create", "--user", "ada", "--name", "x", "--expires", "2020-01-01"], "that is over already"),
            (["revoke", "nothing"], "There is no key nothing."),
            (["revoke", "takn"], "Did you mean taken?"),
            (["create", "--user", "adda", "--name", "x"], "Did you mean ada?"),
        ],
    )
    def test_what_cannot_be_is_said(self, arguments: list[str], message: str) -> None:
        make_caller(make_user(username="ada"), name="taken")

        with pytest.raises(CommandError, match=message):
            call_command("apikey", *arguments)
        assert ApiKey.objects.count() == 1


class TestWhatTheDatabaseRefuses:
    """Named one by one; tests/orders/test_models.py leaves these to this file."""

    @pytest.fixture
    def key(self) -> ApiKey:
        return create_key(user=make_user(username="ada"), name="shop")[0]

    def another(self, key: ApiKey, **changes: Any) -> None:
        fields = {
            "user": key.user,
            "name": "other",
            "prefix": "0" * 12,
            "secret_hash": "0" * 64,
            "created_at": timezone.now(),
        }
        with transaction.atomic():
            ApiKey.objects.create(**{**fields, **changes})

    @pytest.mark.parametrize("column", ["prefix", "secret_hash", "name"])
    def test_two_keys_that_could_be_taken_for_each_other(self, key: ApiKey, column: str) -> None:
        with pytest.raises(IntegrityError, match=r"(?i)unique"):
            self.another(key, **{column: getattr(key, column)})
        assert ApiKey.objects.count() == 1

    def test_a_key_without_a_name(self, key: ApiKey) -> None:
        with pytest.raises(IntegrityError, match="orders_api_key_has_name"):
            self.another(key, name="")

    def test_a_key_that_was_over_before_it_began(self, key: ApiKey) -> None:
        now = timezone.now()
        with pytest.raises(IntegrityError, match="orders_api_key_expires_after_creation"):
            self.another(key, created_at=now, expires_at=now)

    def test_the_same_idempotency_key_twice_of_one_user(self, key: ApiKey) -> None:
        now = timezone.now()
        fields = {"user": key.user, "key": "one", "fingerprint": "f", "lease_until": now, "created_at": now}
        IdempotentRequest.objects.create(**fields)

        with pytest.raises(IntegrityError, match=r"(?i)unique"), transaction.atomic():
            IdempotentRequest.objects.create(**fields)

    @pytest.mark.parametrize("changes", [{"status": 202}, {"body": "{}"}, {"status": 202, "body": "{}"}])
    def test_half_an_answer(self, key: ApiKey, changes: dict[str, Any]) -> None:
        now = timezone.now()
        with pytest.raises(IntegrityError, match="orders_idempotency_answered_whole"), transaction.atomic():
            IdempotentRequest.objects.create(
                user=key.user, key="one", fingerprint="f", lease_until=now, created_at=now, **changes
            )
