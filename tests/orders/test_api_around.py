"""The API around orders: versions, notes, stock, keys, definitions, steps, and acts on many runs."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from config.env import Rate
from orders.api_keys import revoke_key
from orders.api_problems import PROBLEMS
from orders.api_retiring import RETIRING, Retirement
from orders.models import ApiKey, Order, OrderNote, OrderTag, RetiredUse, Scope, User
from sagas.models import BulkOperation, SagaRun
from sagas.operations import work_off
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, faults, make_caller, order_body, problem
from tests.orders.pages import ended, run_of
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)
RUNS = "/api/v1/saga-runs"
BULK = "/api/v1/bulk-operations"
CHEAP: dict[str, Any] = {"items": [{"sku": "ITEM-001", "quantity": 1}], "total_amount": None}


@pytest.fixture
def ada() -> Caller:
    make_shop()
    return make_caller(make_user(username="ada"))


@pytest.fixture
def gina(ada: Caller) -> Caller:
    return make_caller(make_user(username="gina", role="agent"))


@pytest.fixture
def sam(ada: Caller) -> Caller:
    return make_caller(make_user(username="sam", role="supervisor"))


def sent(caller: Caller, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return caller.client.generic(
        method,
        path,
        b"" if body is None else json.dumps(body).encode(),
        content_type="application/json",
        headers=caller.named(headers),
    )


class TestVersions:
    def test_an_act_on_what_has_changed_meanwhile_is_refused(self, sam: Caller) -> None:
        order = ended("needs_attention")
        path = f"{RUNS}/{order.run_id}"
        tag = sam.get(path).headers["ETag"]
        place = {"step": "process_payment", "direction": "compensation", "reason": "x"}
        sam.post(f"{path}/retries", place)
        before = run_of(order).events.count()

        refused = sam.post(f"{path}/skips", place, If_Match=tag)

        problem(refused, 412, "version-mismatch")
        assert run_of(order).events.count() == before

    @pytest.mark.parametrize("header", ["{tag}", "W/{tag}", '"other", {tag}', "*"])
    def test_an_act_on_what_is_as_it_was_is_done_and_tells_the_new_tag(self, sam: Caller, header: str) -> None:
        order = ended("needs_attention")
        path = f"{RUNS}/{order.run_id}"
        tag = sam.get(path).headers["ETag"]

        done = sam.post(f"{path}/compensations", {"reason": "recalled"}, If_Match=header.format(tag=tag))

        assert done.status_code == 202
        assert done.headers["ETag"] == sam.get(path).headers["ETag"]

    def test_an_order_is_cancelled_as_it_was_seen(self, ada: Caller) -> None:
        placed = ada.post(ORDERS, order_body())
        path = f"{ORDERS}/ORD-123"
        assert placed.headers["ETag"] == ada.get(path).headers["ETag"]
        run_to_end(SagaRun.objects.get())

        late = ada.post(f"{path}/cancellations", {"reason": "x"}, If_Match=placed.headers["ETag"])
        problem(late, 412, "version-mismatch")
        assert SagaRun.objects.get().status == "completed"
        key = {"If_Match": ada.get(path).headers["ETag"], "Idempotency_Key": "k-1"}
        first = ada.post(f"{path}/cancellations", {"reason": "x"}, **key)
        again = ada.post(f"{path}/cancellations", {"reason": "x"}, **key)

        assert (first.status_code, again.status_code) == (202, 202)
        assert again.headers["Idempotent-Replayed"] == "true"

    @pytest.mark.parametrize("act", ["retries", "skips", "resolutions", "compensations"])
    def test_nobody_acts_on_a_run_without_saying_what_they_saw(self, sam: Caller, act: str) -> None:
        order = ended("needs_attention")
        body: dict[str, str] = {"reason": "x"}
        if act != "compensations":
            body |= {"step": "process_payment", "direction": "compensation"}
        if act == "resolutions":
            body |= {"evidence": "RF-1"}
        before = run_of(order).events.count()

        problem(sam.post(f"{RUNS}/{order.run_id}/{act}", body, If_Match=""), 428, "version-required")

        assert run_of(order).events.count() == before

    def test_nor_cancels_an_order(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        answer = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "x"}, If_Match="")

        problem(answer, 428, "version-required")
        assert SagaRun.objects.get().cancel_requested_at is None

    def test_an_act_sent_twice_with_its_key_is_done_once(self, sam: Caller) -> None:
        order = ended("needs_attention")
        path = f"{RUNS}/{order.run_id}"
        place = {"step": "process_payment", "direction": "compensation", "reason": "the bank is back"}
        key = {"If_Match": sam.get(path).headers["ETag"], "Idempotency_Key": "k-1"}

        first = sam.post(f"{path}/retries", place, **key)
        run_to_end(run_of(order))  # without the key, the second would be refused: there is nothing left to retry
        again = sam.post(f"{path}/retries", place, **key)
        other = sam.post(f"{path}/skips", place, **key)

        assert (first.status_code, again.status_code, again.content) == (202, 202, first.content)
        assert (again.headers["Idempotent-Replayed"], again.headers["ETag"]) == ("true", first.headers["ETag"])
        problem(other, 422, "idempotency-mismatch")
        assert list(run_of(order).events.filter(kind="retry_requested").values_list("reason", flat=True)) == [
            "the bank is back"
        ]
        assert run_of(order).status == "compensated"

    def test_who_looks_after_a_run_is_not_overwritten_unseen(self, gina: Caller) -> None:
        order = ended("needs_attention")
        path = f"{RUNS}/{order.run_id}"

        problem(sent(gina, "PATCH", path, {"owner": "user:gina"}), 428, "version-required")
        problem(sent(gina, "PATCH", path, {"owner": "user:gina"}, If_Match='"old"'), 412, "version-mismatch")
        taken = sent(gina, "PATCH", path, {"owner": "user:gina"}, If_Match=gina.get(path).headers["ETag"])

        assert (taken.status_code, taken.json()["owner"]) == (200, "user:gina")
        assert gina.get(path).headers["ETag"] == taken.headers["ETag"]
        back = sent(gina, "PATCH", path, {"owner": None}, If_Match=taken.headers["ETag"])
        assert back.json()["owner"] == ""
        assert [event["kind"] for event in back.json()["events"]][-2:] == ["assigned", "released"]

    @pytest.mark.parametrize("owner", ["user:ada", "user:nobody", "gina", "key:other"])
    def test_nobody_is_given_what_they_may_not_help(self, gina: Caller, ada: Caller, owner: str) -> None:
        order = ended("needs_attention")

        for path in (f"{RUNS}/{order.run_id}", f"{ORDERS}/{order.order_id}"):
            response = sent(gina, "PATCH", path, {"owner": owner}, If_Match="*")
            assert faults(response) == [("/owner", "unknown_owner")]
        assert gina.get(f"{RUNS}/{order.run_id}").json()["owner"] == ""

    def test_customers_take_nothing_on(self, ada: Caller) -> None:
        order = ended("needs_attention")

        problem(sent(ada, "PATCH", f"{RUNS}/{order.run_id}", {"owner": "x"}, If_Match="*"), 403, "forbidden")


class TestChangingAnOrder:
    def test_a_shop_sorts_its_orders_by_tags(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        ada.post(ORDERS, order_body(order_id="ORD-124"))
        path = f"{ORDERS}/ORD-123"
        tag = ada.get(path).headers["ETag"]

        put = sent(ada, "PATCH", path, {"tags": ["vip", "gift", "vip"]}, If_Match=tag)
        late = sent(ada, "PATCH", path, {"tags": ["vip"]}, If_Match=tag)
        found = [row["order_id"] for row in ada.get(ORDERS, {"tag": "gift"}).json()["results"]]
        less = sent(ada, "PATCH", path, {"tags": ["gift"]}, If_Match=put.headers["ETag"])

        assert (put.status_code, put.json()["tags"]) == (200, ["gift", "vip"])
        problem(late, 412, "version-mismatch")
        problem(sent(ada, "PATCH", path, {"tags": []}), 428, "version-required")
        assert found == ["ORD-123"]
        assert less.json()["tags"] == ["gift"]
        assert ada.get(path).headers["ETag"] == less.headers["ETag"]
        assert list(OrderTag.objects.values_list("order__order_id", "tag", "author")) == [
            ("ORD-123", "gift", "key:ada's key")
        ]

    def test_of_some_who_saw_the_same_version_only_one_changes_it(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        path = f"{ORDERS}/ORD-123"
        seen = ada.get(path).headers["ETag"]

        def change(tag: str) -> Any:
            one = Caller()
            one.headers = ada.headers
            return sent(one, "PATCH", path, {"tags": [tag]}, If_Match=seen)

        answers = together(*(partial(change, tag) for tag in ("gift", "vip", "late")))

        assert sorted(answer.status_code for answer in answers) == [200, 412, 412]
        (kept,) = [answer.json()["tags"] for answer in answers if answer.status_code == 200]
        assert ada.get(path).json()["tags"] == kept

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({}, [("", "empty")]),
            ({"state": "completed"}, [("/state", "unknown_field")]),
            ({"tags": ["x" * 41]}, [("/tags/0", "max_length")]),
            ({"tags": ["a", "b\u0007"]}, [("/tags/1", "control_character")]),
            ({"tags": [str(n) for n in range(21)]}, [("/tags", "max_length")]),
            ({"tags": "vip"}, [("/tags", "not_a_list")]),
        ],
    )
    def test_what_makes_no_sense_changes_nothing(self, ada: Caller, body: Any, expected: Any) -> None:
        ada.post(ORDERS, order_body())

        assert faults(sent(ada, "PATCH", f"{ORDERS}/ORD-123", body, If_Match="*")) == expected
        assert not OrderTag.objects.exists()

    def test_staff_say_who_looks_after_an_order_that_waits(self, gina: Caller, ada: Caller) -> None:
        order = ended("needs_attention")
        path = f"{ORDERS}/{order.order_id}"
        tag = gina.get(path).headers["ETag"]

        taken = sent(gina, "PATCH", path, {"owner": "user:gina", "tags": ["bank"]}, If_Match=tag)

        assert (taken.status_code, taken.json()["owner"], taken.json()["tags"]) == (200, "user:gina", ["bank"])
        assert gina.get(f"{RUNS}/{order.run_id}").json()["owner"] == "user:gina"

    def test_a_key_that_may_not_act_on_runs_says_of_no_run_who_looks_after_it(self, gina: Caller) -> None:
        order = ended("needs_attention")
        path = f"{ORDERS}/{order.order_id}"
        lesser = make_caller(User.objects.get(username="gina"), Scope.ORDERS_READ, Scope.ORDERS_WRITE, name="shop")

        problem(
            sent(lesser, "PATCH", path, {"owner": "user:gina", "tags": ["bank"]}, If_Match="*"), 403, "scope-missing"
        )
        tagged = sent(lesser, "PATCH", path, {"tags": ["bank"]}, If_Match="*")

        assert (tagged.status_code, tagged.json()["owner"], tagged.json()["tags"]) == (200, None, ["bank"])

    def test_customers_are_not_told_nor_asked(self, gina: Caller, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        path = f"{ORDERS}/ORD-123"

        problem(sent(ada, "PATCH", path, {"owner": "user:gina", "tags": ["vip"]}, If_Match="*"), 403, "forbidden")
        early = problem(
            sent(gina, "PATCH", path, {"owner": "user:gina", "tags": ["vip"]}, If_Match="*"), 409, "state-conflict"
        )

        assert early["state"] == "pending"
        assert (ada.get(path).json()["owner"], ada.get(path).json()["tags"]) == (None, [])

    def test_somebody_elses_order_is_not_there(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        eva = make_caller(make_user(username="eva"))

        answer = sent(eva, "PATCH", f"{ORDERS}/ORD-123", {"tags": ["mine"]}, If_Match="*")

        problem(answer, 404, "not-found")
        assert not OrderTag.objects.exists()


class TestLimits:
    @pytest.fixture(autouse=True)
    def uncounted(self) -> None:
        """The counts are in a cache, which lives longer than a test."""
        cache.clear()

    def test_what_is_left_is_told(self, ada: Caller, settings: Any) -> None:
        settings.API_ORDER_RATE = type("Rate", (), {"most": 2, "seconds": 60})()
        first = ada.post(ORDERS, order_body())
        second = ada.post(ORDERS, order_body())

        third = ada.post(ORDERS, order_body())

        policy = '"order";q=2;w=60, "request";q=3000;w=10'
        assert first.headers["RateLimit-Policy"] == second.headers["RateLimit-Policy"] == policy
        assert first.headers["RateLimit"].startswith('"order";r=1;t=')
        assert second.headers["RateLimit"].startswith('"order";r=0;t=')
        problem(third, 429, "rate-limited")
        assert third.headers["RateLimit-Policy"] == policy
        left, _, _ = third.headers["RateLimit"].partition(", ")
        assert left == f'"order";r=0;t={third.headers["Retry-After"]}'

    def test_every_answer_tells_how_often_one_may_ask(self, ada: Caller, settings: Any) -> None:
        settings.API_RATE = Rate(most=3, seconds=86_400)
        stranger = Caller("osk_nobody")
        assert ada.get("/api/v1/me").headers["RateLimit"].startswith('"request";r=2;')  # of her address

        answers = [
            ada.get("/api/v1/me"),
            ada.get(f"{ORDERS}/ORD-404"),
            ada.get("/api/v1/nowhere"),
            ada.get("/api/v1/me"),
            ada.get(f"{ORDERS}/ORD-404/stream"),
            stranger.get("/api/v1/me"),
        ]

        assert [answer.status_code for answer in answers] == [200, 404, 404, 429, 429, 401]
        assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"request";q=3;w=86400'}
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [
            "r=2", "r=1", "r=0", "r=0", "r=0", "r=1",
        ]  # fmt: skip
        body = problem(answers[3], 429, "rate-limited")
        assert body["retryable"]
        assert answers[3].headers["RateLimit"] == f'"request";r=0;t={answers[3].headers["Retry-After"]}'
        assert "RateLimit" not in Client().get("/livez").headers

    def test_another_key_for_each_request_is_no_way_round(self, ada: Caller, settings: Any) -> None:
        settings.API_RATE = Rate(most=3, seconds=86_400)
        shown = [*(f"Bearer osk_{n}" for n in range(4)), "bearer  x", "Basic eDp5", ""]

        answers = [Client().get("/api/v1/me", headers={"Authorization": text}) for text in shown]

        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429, 429, 429]
        assert Client(REMOTE_ADDR="10.0.0.7").get("/api/v1/me").status_code == 401

    def test_a_key_written_otherwise_is_the_same_key(self, ada: Caller, settings: Any) -> None:
        settings.API_RATE = Rate(most=3, seconds=86_400)
        token = ada.headers["Authorization"].removeprefix("Bearer ")
        ada.get("/api/v1/me")

        written = [f"Bearer {token}", f"bearer {token}", f"BEARER   {token}", f"Bearer  {token}"]
        answers = [Client().get("/api/v1/me", headers={"Authorization": text}) for text in written]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]

    def test_a_header_of_another_kind_does_not_count_a_session_anew(self, ada: Caller, settings: Any) -> None:
        settings.API_RATE = Rate(most=2, seconds=86_400)
        browser = Client()
        browser.login(username="ada", password="ada-password")

        answers = [browser.get("/api/v1/me", headers={"Authorization": f"Basic {n}"}) for n in range(4)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]  # the first one by address

    def test_keys_that_are_none_are_soon_not_even_looked_up(
        self, ada: Caller, settings: Any, django_assert_num_queries: Any
    ) -> None:
        settings.API_FAILED_RATE = Rate(most=2, seconds=86_400)
        made_up = [Caller(f"osk_{n:012x}_{n:064x}") for n in range(3)]
        kim = make_caller(make_user(username="kim"))
        assert ada.get("/api/v1/me").status_code == 200
        assert [one.get("/api/v1/me").status_code for one in made_up[:2]] == [401, 401]

        with django_assert_num_queries(0):
            refused = made_up[2].get("/api/v1/me")

        words = problem(refused, 429, "rate-limited")["detail"]
        assert words.startswith("Your address has sent too many keys or sessions that open nothing. Check yours.")
        assert refused.headers["RateLimit"].startswith(f'"failed";r=0;t={refused.headers["Retry-After"]}, "request";r=')
        # Nor is a new key tried from there; one that was good already goes on, and so does whoever shows none.
        assert kim.get("/api/v1/me").status_code == 429
        assert ada.get("/api/v1/me").status_code == 200
        assert Caller().get("/api/v1/me").status_code == 401
        assert Client().get("/api/v1/problems/rate-limited").status_code == 200
        assert kim.client.get("/api/v1/me", headers=kim.headers, REMOTE_ADDR="10.0.0.7").status_code == 200

    def test_a_revoked_key_is_counted_as_one_that_is_none(self, ada: Caller, settings: Any) -> None:
        settings.API_FAILED_RATE = Rate(most=1, seconds=86_400)
        assert ada.get("/api/v1/me").status_code == 200
        revoke_key(name="ada's key")

        assert [ada.get("/api/v1/me").status_code for _ in range(2)] == [401, 429]

    def test_no_limit_is_not_told_of(self, ada: Caller, settings: Any) -> None:
        settings.API_RATE = Rate(most=0, seconds=1)

        assert "RateLimit" not in ada.get("/api/v1/me").headers

    def test_without_the_shared_cache_orders_are_taken_all_the_same(self, ada: Caller, settings: Any) -> None:
        # Nobody listens on the first port.
        away = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {"default": away}

        answer = ada.post(ORDERS, order_body())

        assert (answer.status_code, Order.objects.count()) == (202, 1)
        assert '"request"' not in answer.headers["RateLimit"]


class TestRetiring:
    @pytest.fixture(autouse=True)
    def announced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        since = datetime(2026, 1, 1, tzinfo=UTC)
        gone = Retirement(since=since, ends=since + timedelta(days=365), instead="Use /me-too.")
        monkeypatch.setitem(RETIRING, ("api-me", "GET"), gone)

    def test_what_is_about_to_go_says_so_and_who_still_uses_it_is_known(self, ada: Caller) -> None:
        answers = [ada.get("/api/v1/me") for _ in range(2)]
        other = ada.get(ORDERS)

        for answer in answers:
            assert (answer.headers["Deprecation"], answer.headers["Sunset"]) == (
                "@1767225600",
                "Fri, 01 Jan 2027 00:00:00 GMT",
            )
            link = '<http://testserver/api/v1/docs#retiring>; rel="deprecation"; type="text/html"'
            assert answer.headers["Link"] == link
        assert not {"Deprecation", "Sunset", "Link"} & set(other.headers)
        assert list(RetiredUse.objects.values_list("operation", "caller", "count")) == [
            ("GET api-me", "key:ada's key", 2)
        ]

    def test_the_document_says_so_too(self) -> None:
        paths = Client().get("/api/v1/schema").json()["paths"]

        assert paths["/api/v1/me"]["get"]["deprecated"] is True
        assert "Use /me-too." in paths["/api/v1/me"]["get"]["description"]
        assert "deprecated" not in paths["/api/v1/orders"]["get"]

    def test_nobody_is_hurried(self) -> None:
        since = datetime(2026, 1, 1, tzinfo=UTC)

        with pytest.raises(ValueError, match="180 days"):
            Retirement(since=since, ends=since + timedelta(days=179), instead="")


class TestNotes:
    def test_written_and_read_by_staff(self, gina: Caller, ada: Caller) -> None:
        ada.post(ORDERS, order_body())
        path = f"{ORDERS}/ORD-123/notes"

        written = gina.post(path, {"text": "Called.\nTwice."})

        assert (written.status_code, written.headers["Location"]) == (201, path)
        assert gina.get(path).json()["results"] == [written.json()]
        assert (written.json()["author"], written.json()["text"]) == ("key:gina's key", "Called.\nTwice.")
        problem(ada.get(path), 403, "forbidden")
        problem(gina.get(f"{ORDERS}/ORD-124/notes"), 404, "not-found")

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            ({}, [("/text", "required")]),
            ({"text": "  "}, [("/text", "blank")]),
            ({"text": "x" * 2001}, [("/text", "max_length")]),
            ({"text": "\u202e"}, [("/text", "control_character")]),
            ({"text": "x", "more": 1}, [("/more", "unknown_field")]),
        ],
    )
    def test_what_is_no_note(self, gina: Caller, body: dict[str, Any], found: list[tuple[str, str]]) -> None:
        make_order()

        assert faults(gina.post(f"{ORDERS}/ORD-123/notes", body)) == found
        assert not OrderNote.objects.exists()


class TestParts:
    def test_steps_and_every_attempt(self, gina: Caller, ada: Caller) -> None:
        order = ended("needs_attention")
        path = f"{RUNS}/{order.run_id}/steps"

        steps = gina.get(path).json()["results"]
        attempts = gina.get(f"{path}/process_payment/attempts").json()

        assert steps == gina.get(f"{RUNS}/{order.run_id}").json()["steps"]
        assert [one["outcome"] for one in attempts["attempts"]] == ["succeeded"]
        numbers = [one["number"] for one in attempts["compensation_attempts"]]
        assert numbers == list(range(1, run_of(order).records.filter(direction="compensation").count()))
        assert gina.get(f"{path}/2/attempts").json() == attempts
        for number in ("0", "5", "02"):
            problem(gina.get(f"{path}/{number}/attempts"), 404, "not-found")
        assert "no step bribe" in problem(gina.get(f"{path}/bribe/attempts"), 404, "not-found")["detail"]
        problem(ada.get(path), 403, "forbidden")

    def test_definitions(self, gina: Caller) -> None:
        listed, capturing = gina.get("/api/v1/saga-definitions").json()["results"]
        first = gina.get("/api/v1/saga-definitions/order_processing")

        assert listed == first.json()
        assert [step["name"] for step in listed["steps"]] == [
            "reserve_inventory", "process_payment", "create_shipment", "send_confirmation_email",
        ]  # fmt: skip
        assert listed["steps"][1]["compensation_title"] == "Refund payment"
        assert (capturing["version"], capturing["steps"][3]["name"]) == (2, "capture_payment")
        again = gina.get("/api/v1/saga-definitions/order_processing", If_None_Match=first.headers["ETag"])
        assert (again.status_code, again.content) == (304, b"")
        problem(gina.get("/api/v1/saga-definitions/nothing"), 404, "not-found")

    def test_stock(self, gina: Caller) -> None:
        make_order()
        run_to_end(SagaRun.objects.get())

        items = gina.get("/api/v1/inventory-items", {"limit": 1}).json()
        one = gina.get("/api/v1/inventory-items/ITEM-001").json()

        assert items["results"] == [one]
        assert items["next"] is not None
        assert (one["on_hand"], one["reserved"], one["free"]) == (10, 2, 8)
        assert one["price"] == {"amount": "30.00", "currency": "EUR"}
        problem(gina.get("/api/v1/inventory-items/NONE"), 404, "not-found")


class TestKeys:
    def test_made_listed_and_revoked(self, ada: Caller) -> None:
        body = {"name": "reader", "scopes": ["orders:read"]}

        made = ada.post("/api/v1/api-keys", body)

        assert made.status_code == 201
        reader = Caller(made.json()["key"])
        assert reader.get(ORDERS).status_code == 200
        problem(reader.post(ORDERS, order_body()), 403, "scope-missing")
        listed = ada.get("/api/v1/api-keys").json()["results"]
        assert [key["name"] for key in listed] == ["reader", "ada's key"]
        assert "key" not in listed[0]
        path = f"/api/v1/api-keys/{listed[0]['id']}"
        assert [sent(ada, "DELETE", path).status_code for _ in range(2)] == [204, 204]
        problem(reader.get(ORDERS), 401, "unauthenticated")

    def test_keys_come_page_by_page(self, ada: Caller) -> None:
        ada.post("/api/v1/api-keys", {"name": "reader", "scopes": ["orders:read"]})

        first = ada.get("/api/v1/api-keys", {"limit": 1}).json()
        second = ada.get(first["next"]).json()

        assert [key["name"] for page in (first, second) for key in page["results"]] == ["reader", "ada's key"]
        assert (first["previous"], second["next"]) == (None, None)
        assert faults(ada.get("/api/v1/api-keys", {"scope": "x"})) == [("?scope", "unknown_field")]

    def test_a_key_gives_no_more_than_it_has(self, ada: Caller) -> None:
        small = make_caller(ada.key.user, Scope.KEYS_MANAGE, name="small")  # type: ignore[union-attr]

        refused = small.post("/api/v1/api-keys", {"name": "x", "scopes": ["orders:read"]})

        assert "orders:read" in problem(refused, 403, "scope-missing")["detail"]
        assert not ApiKey.objects.filter(name="x").exists()

    def test_others_keys_are_not_there(self, ada: Caller, gina: Caller) -> None:
        assert ada.key is not None
        problem(sent(gina, "DELETE", f"/api/v1/api-keys/{ada.key.pk}"), 404, "not-found")
        assert "ada's key" not in str(gina.get("/api/v1/api-keys").json())
        assert ada.get(ORDERS).status_code == 200

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            ({"name": "ada's key"}, [("/name", "taken")]),
            ({"scopes": []}, [("/scopes", "empty")]),
            ({"scopes": ["all"]}, [("/scopes/0", "invalid_choice")]),
            ({"expires_at": "2020-01-01T00:00:00Z"}, [("/expires_at", "invalid")]),
        ],
    )
    def test_what_is_no_key(self, ada: Caller, change: dict[str, Any], found: list[tuple[str, str]]) -> None:
        response = ada.post("/api/v1/api-keys", {"name": "x", "scopes": ["orders:read"], **change})

        got = faults(response)
        assert [place.partition("/0")[0] for place, _ in got] == [place.partition("/0")[0] for place, _ in found]
        assert ApiKey.objects.count() == 1

    def test_who_am_i(self, ada: Caller, gina: Caller) -> None:
        told = gina.get("/api/v1/me").json()

        assert (told["username"], told["actor"], told["roles"]) == ("gina", "key:gina's key", ["agent"])
        assert told["may"] == ["see_runs", "cancel", "retry", "assign"]
        assert told["key"]["name"] == "gina's key"
        assert ada.get("/api/v1/me").json()["may"] == []


class TestManyAtOnce:
    def test_dry_run_then_done_then_followed(self, sam: Caller) -> None:
        orders = [ended("needs_attention", order_id=f"ORD-{number}", **CHEAP) for number in range(2)]
        asked = {"act": "retry", "filter": {"state": "needs_attention"}, "reason": "bank is back"}

        dry = sam.post(BULK, {**asked, "dry_run": True})
        assert (dry.status_code, dry.json()["count"], sorted(dry.json()["sample"])) == (200, 2, ["ORD-0", "ORD-1"])
        assert not BulkOperation.objects.exists()
        begun = sam.post(BULK, {**asked, "token": dry.json()["token"], "max_per_second": 100})

        assert begun.status_code == 202
        path = begun.headers["Location"]
        assert begun.json()["counts"] == {"pending": 2, "done": 0, "refused": 0, "failed": 0}
        work_off()
        run_to_end(run_of(orders[0]))
        ended_one = sam.get(path).json()
        assert (ended_one["state"], ended_one["counts"]["done"]) == ("ended", 2)
        items = sam.get(f"{path}/items", {"state": "done"}).json()["results"]
        assert [(item["business_key"], item["note"]) for item in items] == [
            ("ORD-0", "is tried again"),
            ("ORD-1", "is tried again"),
        ]

    def test_other_runs_than_in_the_dry_run(self, sam: Caller) -> None:
        ended("needs_attention", order_id="ORD-1", **CHEAP)
        asked = {"act": "retry", "filter": {"saga": "order_processing"}, "reason": "x"}
        token = sam.post(BULK, {**asked, "dry_run": True}).json()["token"]
        make_order(order_id="ORD-2", **CHEAP)

        problem(sam.post(BULK, {**asked, "token": token}), 409, "selection-changed")
        assert not BulkOperation.objects.exists()

    def test_stopped(self, sam: Caller) -> None:
        order = ended("needs_attention", **CHEAP)
        path = sam.post(BULK, {"act": "retry", "run_ids": [str(order.run_id)], "reason": "x"}).headers["Location"]

        stopped = sent(sam, "DELETE", path)

        assert (stopped.status_code, stopped.json()["state"]) == (202, "stopped")
        assert work_off() == 0

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            ({"act": "retry", "filter": {}, "reason": "x"}, [("/filter", "empty")]),
            ({"act": "retry", "reason": "x"}, [("", "one_of")]),
            ({"act": "pay", "filter": {"saga": "x"}, "reason": "x"}, [("/act", "invalid_choice")]),
            ({"act": "\ud800", "filter": {"saga": "x"}, "reason": "x"}, [("/act", "invalid_choice")]),
            ({"act": "retry", "filter": {"saga": "x"}, "reason": "x"}, [("/filter", "invalid")]),
            ({"act": "retry", "run_ids": [], "reason": "x"}, [("/run_ids", "invalid")]),
            ({"act": "retry", "run_ids": [str(uuid.UUID(int=1))], "reason": "x"}, [("/run_ids", "invalid")]),
            ({"act": "retry", "filter": {"saga": "x"}}, [("/reason", "required")]),
            ({"act": "retry", "run_ids": ["7"], "reason": "x"}, [("/run_ids/0", "invalid")]),
        ],
    )
    def test_what_is_asked_wrongly(self, sam: Caller, body: dict[str, Any], found: list[tuple[str, str]]) -> None:
        make_order()

        assert faults(sam.post(BULK, body)) == found
        assert not BulkOperation.objects.exists()

    def test_a_dry_run_that_finds_nothing_says_so(self, sam: Caller) -> None:
        body = {"act": "retry", "filter": {"saga": "x"}, "reason": "x", "dry_run": True}

        answer = sam.post(BULK, body)

        assert (answer.status_code, answer.json()["count"], answer.json()["sample"]) == (200, 0, [])

    def test_sent_twice_with_its_key_it_is_begun_once(self, sam: Caller) -> None:
        order = ended("needs_attention", **CHEAP)
        body = {"act": "retry", "run_ids": [str(order.run_id)], "reason": "x"}

        first, second = (sam.post(BULK, body, Idempotency_Key="bulk-1") for _ in range(2))

        assert (first.status_code, second.status_code) == (202, 202)
        assert (second.json(), second.headers["Location"]) == (first.json(), first.headers["Location"])
        assert second.headers["Idempotent-Replayed"] == "true"
        assert BulkOperation.objects.get().about == "1 run by id"
        problem(sam.post(BULK, {**body, "reason": "y"}, Idempotency_Key="bulk-1"), 422, "idempotency-mismatch")

    def test_supervisors_alone(self, gina: Caller, ada: Caller, sam: Caller) -> None:
        order = ended("needs_attention", **CHEAP)
        body = {"act": "retry", "run_ids": [str(order.run_id)], "reason": "x"}
        path = sam.post(BULK, body).headers["Location"]

        for caller in (gina, ada):
            problem(caller.post(BULK, body), 403, "forbidden")
            problem(sent(caller, "DELETE", path), 403, "forbidden")
        assert gina.get(path).json()["state"] == "open"
        problem(ada.get(path), 403, "forbidden")
        problem(gina.get(f"{BULK}/{uuid.uuid4()}"), 404, "not-found")


def test_every_new_problem_has_its_page(ada: Caller) -> None:
    for code in ("version-mismatch", "version-required", "selection-changed"):
        page = ada.get(f"/api/v1/problems/{code}", Accept="text/html")
        assert PROBLEMS[code].title in page.content.decode()
    assert Order.objects.count() == 0
