"""Requests that are sent twice, at once, by others, or by somebody who died."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from orders import api_idempotency
from orders.api_idempotency import claim
from orders.models import IdempotentRequest, Order
from orders.services import place_order
from sagas.models import RunEvent, SagaRun
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, faults, make_caller, nothing_is_stored, order_body, problem

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Caller:
    make_shop()
    return make_caller(make_user(username="ada"))


class TestTheSameKey:
    def test_and_the_same_body_get_the_same_answer(self, ada: Caller) -> None:
        first = ada.post(ORDERS, order_body(order_id=None), Idempotency_Key="one")

        second = ada.post(ORDERS, order_body(order_id=None), Idempotency_Key="one")

        assert "Idempotent-Replayed" not in first.headers
        assert second.headers["Idempotent-Replayed"] == "true"
        assert (second.status_code, second.content) == (first.status_code, first.content)
        for name in ("Location", "Retry-After", "Content-Type", "Cache-Control"):
            assert second.headers[name] == first.headers[name]
        assert (Order.objects.count(), SagaRun.objects.count(), IdempotentRequest.objects.count()) == (1, 1, 1)

    def test_and_the_same_body_in_another_writing_are_the_same(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(), Idempotency_Key="one")
        body = order_body()

        again = ada.post(ORDERS, {name: body[name] for name in sorted(body)}, Idempotency_Key="one")

        assert again.headers["Idempotent-Replayed"] == "true"

    def test_and_another_body_are_a_mismatch(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(), Idempotency_Key="one")

        response = ada.post(ORDERS, order_body(order_id="ORD-124"), Idempotency_Key="one")

        assert problem(response, 422, "idempotency-mismatch")["retryable"] is False
        assert [order.order_id for order in Order.objects.all()] == ["ORD-123"]

    def test_and_another_address_are_a_mismatch(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(), Idempotency_Key="one")

        response = ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "no"}, Idempotency_Key="one")

        problem(response, 422, "idempotency-mismatch")
        assert SagaRun.objects.get().cancel_requested_at is None

    def test_of_another_caller_is_another_key(self, ada: Caller) -> None:
        eva = make_caller(make_user(username="eva"))
        ada.post(ORDERS, order_body(order_id=None), Idempotency_Key="one")

        response = eva.post(ORDERS, order_body(order_id=None), Idempotency_Key="one")

        assert (response.status_code, response.headers.get("Idempotent-Replayed")) == (202, None)
        assert Order.objects.count() == 2

    def test_survives_a_change_of_the_api_key(self, ada: Caller) -> None:
        assert ada.key is not None
        renewed = make_caller(ada.key.user, name="ada's next key")
        first = ada.post(ORDERS, order_body(), Idempotency_Key="one")

        second = renewed.post(ORDERS, order_body(), Idempotency_Key="one")

        assert (second.headers["Idempotent-Replayed"], second.content) == ("true", first.content)

    def test_cancels_once(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        answers = [
            ada.post(f"{ORDERS}/ORD-123/cancellations", {"reason": "no"}, Idempotency_Key="two") for _ in range(2)
        ]

        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].content == answers[1].content
        assert answers[1].headers["Idempotent-Replayed"] == "true"
        assert RunEvent.objects.filter(kind="cancel_requested").count() == 1


class TestKeys:
    def test_one_is_needed(self, ada: Caller) -> None:
        problem(ada.post(ORDERS, order_body(), Idempotency_Key=""), 400, "idempotency-key-missing")
        assert nothing_is_stored()

    @pytest.mark.parametrize("key", ["x" * 256, "a b", "\xe9", "a\tb", " "])
    def test_it_is_visible_ascii(self, ada: Caller, key: str) -> None:
        response = ada.post(ORDERS, order_body(), Idempotency_Key=key)

        assert faults(response) == [("Idempotency-Key:", "invalid")]
        assert nothing_is_stored()

    @pytest.mark.parametrize("key", ["x", "x" * 255, "!~", '"8e03978e-40d5-43e8-bc93-6894a57f9324"'])
    def test_from_1_to_255(self, ada: Caller, key: str) -> None:
        assert ada.post(ORDERS, order_body(), Idempotency_Key=key).status_code == 202

    def test_a_faulty_request_does_not_use_it_up(self, ada: Caller) -> None:
        for changes in ({"email": None}, {"items": [{"sku": "NOPE", "quantity": 1}]}):
            assert ada.post(ORDERS, order_body(**changes), Idempotency_Key="one").status_code == 400
            assert nothing_is_stored()

        assert ada.post(ORDERS, order_body(), Idempotency_Key="one").status_code == 202

    def test_a_conflict_does_not_use_it_up(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body())

        assert ada.post(ORDERS, order_body(email="eva@example.com"), Idempotency_Key="one").status_code == 409
        assert ada.post(ORDERS, order_body(), Idempotency_Key="one").status_code == 202


class TestAtTheSameTime:
    def test_a_key_under_way_is_said_so(self, ada: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        at_work, go_on = threading.Event(), threading.Event()

        def claim_and_dawdle(**asked: Any) -> Any:
            claimed = claim(**asked)
            if not at_work.is_set():  # the first request only
                at_work.set()
                assert go_on.wait(20)
            return claimed

        monkeypatch.setattr(api_idempotency, "claim", claim_and_dawdle)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(closing, lambda: ada.post(ORDERS, order_body(), Idempotency_Key="one"))
            assert at_work.wait(20)
            second = ada.post(ORDERS, order_body(), Idempotency_Key="one")
            other = ada.post(ORDERS, order_body(email="eva@example.com"), Idempotency_Key="one")
            go_on.set()
            answer = first.result()

        assert problem(second, 409, "idempotency-in-progress")["retryable"] is True
        assert second.headers["Retry-After"] == "1"
        problem(other, 422, "idempotency-mismatch")
        assert answer.status_code == 202
        assert ada.post(ORDERS, order_body(), Idempotency_Key="one").content == answer.content
        assert Order.objects.count() == 1

    def test_of_many_one_places_the_order(self, ada: Caller) -> None:
        together = threading.Barrier(6)

        def send() -> Any:
            together.wait(20)
            return ada.post(ORDERS, order_body(order_id=None), Idempotency_Key="one")

        with ThreadPoolExecutor(6) as pool:
            answers = [one.result() for one in [pool.submit(closing, send) for _ in range(6)]]

        placed = [answer for answer in answers if answer.status_code == 202]
        assert {answer.status_code for answer in answers} <= {202, 409}
        assert len({answer.content for answer in placed}) == 1
        assert len([answer for answer in placed if "Idempotent-Replayed" not in answer.headers]) == 1
        assert (Order.objects.count(), SagaRun.objects.count(), IdempotentRequest.objects.count()) == (1, 1, 1)


class TestAWorkerThatDied:
    def claimed(self, ada: Caller, key: str = "one") -> IdempotentRequest:
        """The marker of a request that was under way for the order when its worker was killed."""
        assert ada.key is not None
        ada.post(ORDERS, order_body(), Idempotency_Key="probe")
        fingerprint = IdempotentRequest.objects.get(key="probe").fingerprint
        now = timezone.now()
        return IdempotentRequest.objects.create(
            user=ada.key.user,
            key=key,
            fingerprint=fingerprint,
            lease_until=now + timedelta(seconds=60),
            created_at=now,
        )

    def test_holds_its_key_until_the_lease_has_passed(self, ada: Caller) -> None:
        marker = self.claimed(ada)
        problem(ada.post(ORDERS, order_body(), Idempotency_Key="one"), 409, "idempotency-in-progress")

        IdempotentRequest.objects.filter(pk=marker.pk).update(lease_until=timezone.now())
        response = ada.post(ORDERS, order_body(), Idempotency_Key="one")

        assert response.status_code == 202
        marker.refresh_from_db()
        assert (marker.fence, marker.status) == (2, 202)

    def test_undoes_its_work_when_it_wakes_up_too_late(self, ada: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        def overtaken(**fields: Any) -> Any:
            placed = place_order(**fields)
            # Somebody else saw the lease pass and took over, while this one slept.
            IdempotentRequest.objects.filter(key="one").update(fence=2)
            return placed

        monkeypatch.setattr("orders.services.place_order", overtaken)

        response = ada.post(ORDERS, order_body(), Idempotency_Key="one")

        problem(response, 409, "idempotency-in-progress")
        assert not Order.objects.exists()
        assert not SagaRun.objects.exists()

    @pytest.mark.parametrize("point", ["before", "after"])
    def test_loses_and_doubles_nothing(self, ada: Caller, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
        """Killed before or after the order was written, before the commit: as if it had never been sent."""

        class Killed(BaseException):
            pass

        def dying(**fields: Any) -> Any:
            if point == "after":
                place_order(**fields)
            raise Killed

        monkeypatch.setattr("orders.services.place_order", dying)
        monkeypatch.setattr(api_idempotency, "let_go", lambda claimed: None)  # the dead clear nothing up
        with pytest.raises(Killed):
            ada.post(ORDERS, order_body(), Idempotency_Key="one")
        monkeypatch.undo()

        assert not Order.objects.exists()
        problem(ada.post(ORDERS, order_body(), Idempotency_Key="one"), 409, "idempotency-in-progress")
        IdempotentRequest.objects.update(lease_until=timezone.now())
        assert ada.post(ORDERS, order_body(), Idempotency_Key="one").status_code == 202
        assert Order.objects.count() == 1

    def test_a_database_that_is_away_is_said_so(self, ada: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(**fields: Any) -> Any:
            raise OperationalError("the server closed the connection")

        monkeypatch.setattr("orders.services.place_order", away)

        response = ada.post(ORDERS, order_body(), Idempotency_Key="one")

        assert problem(response, 503, "overloaded")["retryable"] is True
        assert response.headers["Retry-After"] == "1"
        monkeypatch.undo()
        assert ada.post(ORDERS, order_body(), Idempotency_Key="one").status_code == 202


class TestTidying:
    def test_what_was_kept_long_enough_goes(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(), Idempotency_Key="old")
        ada.post(ORDERS, order_body(), Idempotency_Key="new")
        long_ago = timezone.now() - api_idempotency.KEPT_FOR - timedelta(seconds=1)
        IdempotentRequest.objects.filter(key="old").update(created_at=long_ago, lease_until=long_ago)

        assert api_idempotency.forget_old() == 1
        assert [row.key for row in IdempotentRequest.objects.all()] == ["new"]
        assert api_idempotency.forget_old() == 0

    def test_half_an_answer_cannot_be_stored(self, ada: Caller) -> None:
        ada.post(ORDERS, order_body(), Idempotency_Key="one")

        with pytest.raises(DatabaseError):
            IdempotentRequest.objects.update(body="")


def closing(work: Any) -> Any:
    """`work` on a thread's own connection, which is closed afterwards."""
    try:
        return work()
    finally:
        connection.close()
