"""What nobody must be able to do: every address there is, by every method, from everybody who has no business there.

A new address without a stated rule fails here.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core import signing
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from pytest_django import Settings

from orders.api_keys import create_key
from orders.models import Order, Scope
from sagas.models import BulkOperation, SagaRun, StepRecord
from sagas.operations import Target, begin
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import ended, visitor
from tests.processes import Site, wait_for

pytestmark = pytest.mark.django_db

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SAMPLES = {
    "provider": "stripe",
    "order_id": "ORD-123",
    "cancellation_id": "1",
    "object_id": "1",
    "content_type_id": "1",
    "stock_id": "1",
    "view_id": "1",
    "key_id": "1",
    "endpoint_id": "1",
    "delivery_id": "1",
    "sku": "ITEM-001",
    "step": "process_payment",
    "name": "order_processing",
    "id": "1",
    "slug": "not-found",
    "rest": "anything",
    "url": "anything/",
    "app_label": "orders",
}
ACTS = ("retry", "skip", "resolve", "abandon", "cancel")

PUBLIC = re.compile(
    r"^/(livez|readyz|accessibility/|accounts/login/|admin/login/|api/v1/(schema|docs|docs/console|problems|problems/not-found))$"
)
"""For everybody: nothing of any order is there."""
OWN_SESSION = re.compile(
    r"^/(preferences/|orders/columns/|accounts/stay/|accounts/logout/|admin/logout/|admin/password_change/(done/)?)$"
)
"""These concern nobody but who asks."""
API = re.compile(r"^/api(/.*)?$")
ADMIN = re.compile(r"^/admin/")
STAFF = re.compile(r"^/(metrics|health/|health.json|health/runbooks/|overview/|runs/.*|providers/.*)$")
ORDERS = re.compile(r"^/(orders/.*)?$")
INBOUND = re.compile(r"^/webhooks/\w+$")
"""Anybody may send there; what the provider has not signed comes to nothing. tests/orders/test_inbound.py"""
BACK = re.compile(r"^/paid/\w+$")
"""Customers come back there from their bank; nothing of an order is shown to who may not see it."""
OWN_TO_LOOKERS = re.compile(
    r"^/(orders/(views/.*|export.csv)|webhooks/\w+|api/v1/(api-keys(/1)?|provider-callbacks/\w+))$"
)
"""Viewers may send these: they concern nobody else, change nothing, or are a provider's."""
ACTING = re.compile(
    r"^/(orders/new/|orders/ORD-123/(cancel|hand-over)/|runs/[^/]+/(retry|skip|resolve|abandon|cancel|assign)/|runs/(bulk/new|import)/"
    r"|api/v1/(saga-runs/[^/]+/(retries|skips|resolutions|compensations)|bulk-operations))$"
)
"""These are asked for to act, and for nothing else."""
RULES = (PUBLIC, OWN_SESSION, API, ADMIN, STAFF, ORDERS, INBOUND, BACK)

ADAS = {
    "email": "ada.only@example.net",
    "ship_name": "Ada Verborgen",
    "ship_line1": "Geheimer Weg 7",
    "customer_ref": "PRIVATE-7",
}
"""What only she and staff may read."""
COUNTED = {"orders.ratewindow", "sessions.session", "orders.idempotentrequest", "orders.refusedrequest"}
"""What asking alone may write."""


def routes(resolver: Any = None, prefix: str = "") -> Iterator[str]:
    """Every pattern that the site answers to."""
    for found in (resolver or get_resolver()).url_patterns:
        route = prefix + str(found.pattern)
        if isinstance(found, URLResolver):
            yield from routes(found, route)
        else:
            assert isinstance(found, URLPattern)
            yield route


def addresses(run: SagaRun) -> list[str]:
    """Each route as an address of Ada's order."""
    samples = {**SAMPLES, "run_id": str(run.pk), "operation_id": str(BulkOperation.objects.get().pk), "act": "stop"}
    found = []
    for route in routes():
        if route.startswith("^api"):
            found += ["/api", "/api/"]
            continue
        acts = ACTS if "<slug:act>" in route else ("",)
        for act in acts:
            text = route.replace("<slug:act>", act)
            text = re.sub(r"\^?\(\?P<(\w+)>[^)]*\)/?\$?", lambda found: samples[found[1]], text)
            text = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: samples[found[1]], text)
            found.append("/" + text.removesuffix("$"))
    return list(dict.fromkeys(found))


def stored() -> dict[str, list[Any]]:
    """Every row of every table."""
    return {
        model._meta.label_lower: list(model._default_manager.order_by("pk").values_list())
        for model in apps.get_models(include_auto_created=True)
        if model._meta.label_lower not in COUNTED
    }


@pytest.fixture
def adas() -> Order:
    """An order of Ada's that needs a person, so that every act on it is possible."""
    make_shop()
    ada = make_user(username="ada")
    return ended("needs_attention", user=ada, **ADAS)


@pytest.fixture
def run(adas: Order) -> SagaRun:
    """Hers, with an act on many under way of which it is one."""
    run = SagaRun.objects.get(business_key=adas.order_id)
    target = Target(run_id=run.pk, step="process_payment", direction="compensation")
    begin(act="retry", targets=[target], about="one", actor="user:sam", reason="because")
    return run


# What would be right, were the sender.
BODY = {
    "reason": "because",
    "evidence": "ticket 7",
    "step": "process_payment",
    "direction": "compensation",
    "quantity": "1",
    "kind": "receive",
}


def ask(client: Client, method: str, address: str) -> Any:
    body = BODY if method in {"POST", "PUT", "PATCH"} else None
    if API.match(address):
        return client.generic(
            method,
            address,
            b"" if body is None else json.dumps(body).encode(),
            content_type="application/json",
            headers={"Idempotency-Key": "k"},
        )
    return client.post(address, body) if method == "POST" else client.generic(method, address)


def refused(response: Any) -> bool:
    """Sent to the login, told no, told that there is nothing, or not with this method."""
    if response.status_code == 302:
        return str(response.headers["Location"]).startswith(("/accounts/login/", "/admin/login/"))
    return response.status_code in {401, 403, 404, 405}


def methods_for(address: str) -> tuple[str, ...]:
    return ("GET", "POST", "DELETE") if ADMIN.match(address) else METHODS


def test_every_address_has_a_rule(run: SagaRun) -> None:
    assert [address for address in addresses(run) if not any(rule.match(address) for rule in RULES)] == []


def leaks(response: Any) -> bool:
    """It broke, or shows what only Ada and staff may read."""
    text = "" if response.streaming else response.content.decode(errors="replace")
    return response.status_code >= 500 or any(word in text for word in ADAS.values())


def test_a_stranger_gets_nowhere(adas: Order, run: SagaRun) -> None:
    before, failures = stored(), []

    for address in addresses(run):
        is_open = address == "/" or PUBLIC.match(address) or OWN_SESSION.match(address)  # "/" only leads to the orders
        for method in methods_for(address):
            response = ask(Client(), method, address)
            if leaks(response) or not (is_open or refused(response)):
                failures.append((method, address, response.status_code))

    assert failures == []
    assert stored() == before


def test_another_customer_gets_nowhere_near_it(adas: Order, run: SagaRun) -> None:
    eve = visitor("eve")
    before, failures = stored(), []

    for address in addresses(run):
        if OWN_SESSION.match(address) or PUBLIC.match(address):
            continue
        is_shut = "ORD-123" in address or str(run.pk) in address or STAFF.match(address) or ADMIN.match(address)
        for method in methods_for(address):
            response = ask(eve, method, address)
            if leaks(response) or (is_shut and method != "OPTIONS" and not refused(response)):
                failures.append((method, address, response.status_code))

    assert failures == []
    assert stored() == before


def test_anothers_order_and_none_are_told_apart_by_nothing(adas: Order) -> None:
    eve = visitor("eve")

    for suffix in ("", "live/", "cancel/", "hand-over/", "label/"):
        there, nowhere = (eve.get(f"/orders/{number}/{suffix}") for number in ("ORD-123", "ORD-124"))
        assert there.status_code == nowhere.status_code
        assert stripped(there) == stripped(nowhere)
    for suffix in ("", "/cancellations", "/cancellations/1", "/events"):
        there, nowhere = (eve.get(f"/api/v1/orders/{number}{suffix}") for number in ("ORD-123", "ORD-124"))
        assert there.status_code == nowhere.status_code in {404, 405}
        assert stripped(there) == stripped(nowhere)


def stripped(response: Any) -> str:
    """Without the number that was asked for, and the request's own."""
    text = response.content.decode().replace(response.headers.get("X-Request-Id", "-"), "")
    return re.sub(r"ORD-12[34]|nonce-\S+|csrfmiddlewaretoken\S+ value=\S+", "", text)


def test_a_viewer_opens_all_and_changes_nothing(adas: Order, run: SagaRun) -> None:
    vera = visitor("vera", "viewer")
    before, failures = stored(), []

    for address in addresses(run):
        if OWN_SESSION.match(address) or PUBLIC.match(address) or OWN_TO_LOOKERS.match(address):
            continue
        for method in methods_for(address):
            response = ask(vera, method, address)
            is_fine = response.status_code < 500
            if method in {"POST", "PUT", "PATCH", "DELETE"}:
                is_fine = response.status_code == 403 or (API.match(address) and response.status_code in {404, 405})
            elif method == "GET":
                # The admin's forms are shut, too. Elsewhere all opens that is there, and not for sending alone.
                is_shut = ACTING.match(address) or (ADMIN.match(address) and response.status_code == 403)
                is_fine = response.status_code in ({403} if is_shut else {200, 301, 302, 404, 405, 406})
            if not is_fine:
                failures.append((method, address, response.status_code))

    assert failures == []
    after = stored()
    after["sagas.tally"] = before["sagas.tally"]  # how far /metrics has counted
    assert after == before


@pytest.mark.parametrize("act", ["skip", "resolve", "abandon"])
def test_an_agent_does_not_set_right_by_hand(adas: Order, run: SagaRun, act: str) -> None:
    gina = visitor("gina", "agent")
    before = stored()

    page = gina.post(f"/runs/{run.pk}/{act}/", BODY)
    program = ask(
        gina, "POST", f"/api/v1/saga-runs/{run.pk}/{ {'skip': 'skips', 'resolve': 'resolutions'}.get(act, act) }"
    )

    assert {page.status_code, program.status_code} <= {403, 404}
    assert stored() == before


def test_an_agent_changes_nothing_in_the_admin(adas: Order, run: SagaRun) -> None:
    gina = visitor("gina", "agent")
    before, failures = stored(), []

    for address in addresses(run):
        if ADMIN.match(address) and not OWN_SESSION.match(address) and not PUBLIC.match(address):
            for method in ("GET", "POST", "DELETE"):
                response = ask(gina, method, address)
                if response.status_code >= 500:
                    failures.append((method, address, response.status_code))

    assert failures == []
    assert stored() == before


def test_a_key_in_the_address_opens_nothing(adas: Order) -> None:
    _, token = create_key(user=make_user(username="eve"), name="eve's", scopes=tuple(Scope))

    for name in ("key", "api_key", "token", "access_token", "authorization"):
        assert Client().get("/api/v1/orders", {name: token}).status_code == 401


LISTS = (
    "/orders/",
    "/runs/",
    "/runs/attention/",
    "/runs/bulk/",
    "/health/",
    "/admin/orders/order/",
    "/admin/sagas/sagarun/",
    "/api/v1/orders",
    "/api/v1/saga-runs",
)
ODD = ("\0", "x" * 10_000, "' OR 1=1 --", "<script>alert(1)</script>", "\u202e", "-1", "[]", "%00", "ORD-123\r\nX: y")


@pytest.mark.parametrize("address", LISTS)
def test_odd_words_in_every_parameter_break_nothing(adas: Order, address: str) -> None:
    sam = visitor("sam", "supervisor")
    names = (
        "q",
        "state",
        "before",
        "after",
        "cursor",
        "limit",
        "page",
        "p",
        "o",
        "sort",
        "user_id",
        "placed_from",
        "e",
    )

    for name in names:
        for value in ODD:
            response = sam.get(address, {name: value})
            assert response.status_code in {200, 302, 400}, (name, value)
            if response.headers["Content-Type"].startswith("text/html"):
                assert "<script>alert" not in response.content.decode(errors="replace")


class Evil:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class TestQueue:
    """Payloads are pickles: who can have one unpickled can have anything done."""

    def payloads(self, mark: Path) -> dict[str, str]:
        own = SignedPackage.dumps({"func": "math.floor"}, compressed=False)
        signature = own.partition(":")[2]
        foreign = signing.dumps(Evil(mark), key="somebody else's", salt="orders", serializer=PickleOnly)
        return {
            "signed by somebody else": foreign,
            "signed with another purpose": signing.dumps(Evil(mark), salt="sessions", serializer=PickleOnly),
            "changed after it was signed": foreign.partition(":")[0] + ":" + signature,
            "not signed": foreign.partition(":")[0],
        }

    def test_what_is_not_signed_by_us_is_not_unpickled(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"

        for what, payload in self.payloads(mark).items():
            with pytest.raises(signing.BadSignature):
                SignedPackage.loads(payload)
            assert not mark.exists(), what

    def test_such_a_pickle_would_have_done_it(self, tmp_path: Path) -> None:
        pickle.loads(pickle.dumps(Evil(tmp_path / "mark")))  # noqa: S301  (ours, and harmless)

        assert (tmp_path / "mark").is_dir()

    def test_our_own_carries_no_arguments(self) -> None:
        make_shop()
        make_order()

        task = OrmQ.objects.get().task

        assert (task["func"], task["args"], task["kwargs"]) == ("sagas.queue.drive", (), {})
        assert not set(task) & {"hook", "chain", "iter"} - {k for k, v in task.items() if not v}


class PickleOnly:
    """As django-q2 writes them."""

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        raise AssertionError("It was unpickled.")


CANARIES = {"SECRET_KEY": "canary-secret-key-1f9e", "mail": "canary-mail-password-77", "card": "tok_canary_5c1d"}


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "site",
    [
        {
            "SECRET_KEY": CANARIES["SECRET_KEY"],
            "EMAIL_URL": f"smtp://shop:{CANARIES['mail']}@127.0.0.1:1",
            "ORDER_PATIENT_ATTEMPTS": "2",
            "ORDER_RETRY_FIRST_SECONDS": "0.1",
        }
    ],
    indirect=True,
)
def test_secrets_are_told_nowhere_and_a_foreign_pickle_does_nothing(site: Site, tmp_path: Path) -> None:
    make_shop()
    ada = make_user(username="ada")
    key, token = create_key(user=ada, name="the shop's", scopes=tuple(Scope))
    order = make_order(user=ada, card_token=CANARIES["card"])
    mark = tmp_path / "mark"
    for payload in TestQueue().payloads(mark).values():
        OrmQ.objects.create(key="orders", payload=payload, lock=timezone.now())
    site.start_web()

    site.start_worker()
    run = SagaRun.objects.get(business_key=order.order_id)
    wait_for("a person to be needed", lambda: SagaRun.objects.get().status == "needs_attention", seconds=60)

    secret = token.rpartition("_")[2]
    sam = visitor("sam", "supervisor")
    seen = ["/health/", "/orders/", f"/orders/{order.order_id}/", f"/runs/{run.pk}/", "/admin/orders/sandboxcharge/"]
    seen += [f"/admin/sagas/sagarun/{run.pk}/change/", f"/admin/orders/order/{order.pk}/change/"]
    seen += [f"/api/v1/orders/{order.order_id}", f"/api/v1/saga-runs/{run.pk}", "/api/v1/orders/none"]
    shown = [sam.get(address, follow=True).content.decode(errors="replace") for address in seen]
    tables = {name: repr(rows) for name, rows in stored().items()}
    for name, word in {**CANARIES, "API key": secret}.items():
        assert word not in site.logs(), f"{name} is in a log"
        assert not any(word in page for page in shown), f"{name} is on a page"
        # The card's token is the gateway's, and with the order and the sandbox gateway alone.
        allowed = {"orders.order", "orders.sandboxcharge"} if name == "card" else set()
        assert {table for table, rows in tables.items() if word in rows} <= allowed, f"{name} is in the database"
    assert not mark.exists()
    assert StepRecord.objects.filter(step="send_confirmation_email").exclude(error_message="").exists()
    assert key.name in tables["orders.apikey"]


def test_what_a_failure_shows(settings: Settings, adas: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SECRET_KEY = CANARIES["SECRET_KEY"]
    settings.DATABASES["default"]["PASSWORD"] = CANARIES["mail"]
    settings.PROVIDERS = {**settings.PROVIDERS, "payments": f"no.such.{CANARIES['card']}"}
    client = visitor("sam", "supervisor", raise_request_exception=False)
    monkeypatch.setattr("orders.selectors.orders_visible_to", None)

    page, program = client.get("/orders/"), client.get("/api/v1/orders")

    assert (page.status_code, program.status_code) == (500, 500)
    for response in (page, program):
        text = response.content.decode()
        assert not any(word in text for word in (*CANARIES.values(), "Traceback", "NoneType", "/orders/selectors"))
