"""Limits and the circuit breaker: a provider that is down makes runs wait, and costs them nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from config.env import Limit
from orders.models import OutsideEffect, ProviderHealth, ProviderSlot
from orders.providers import get_shipping, guard
from orders.providers.base import Address, Captures, GivesLabels, Line, Parcel, offers
from orders.providers.errors import OutcomeUnknown, Postponed, ProviderError, Unavailable
from orders.providers.faults import Faulty
from orders.providers.payments.sandbox import SandboxGateway
from sagas.models import SagaRun, StepRecord
from sagas.testing import FrozenClock, drive_once
from tests.factories import make_order, make_shop
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)

Outside = Callable[..., dict[str, Any]]
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")


@pytest.fixture
def ups(outside: Outside) -> Any:
    return outside(shipping="ups")["ups"]


def book(number: int = 1) -> Parcel:
    reference = f"REF-{number:016}"
    lines = [Line(sku="ITEM-001", quantity=1)]
    return get_shipping().create_shipment(reference=reference, address=HOME, lines=lines, key=f"run-{number}")


def failure(call: Callable[[], Any]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


def break_down(ups: Any) -> None:
    """Five failures in a row."""
    ups.fall_ill("status", "token", status=503, times=99)
    for number in range(guard.FAILURES_TO_OPEN):
        assert type(failure(lambda: book(100 + number))) is Unavailable  # noqa: B023


def trial_is_due() -> None:
    ProviderHealth.objects.update(trial_at=timezone.now())


def test_after_failures_in_a_row_it_is_not_asked_any_more(ups: Any) -> None:
    break_down(ups)
    asked = len(ups.calls)

    error = failure(book)

    assert (type(error), error.code) == (Postponed, "circuit_open")
    assert error.retry_after is not None
    assert timedelta(0) < error.retry_after <= guard.FIRST_WAIT
    assert len(ups.calls) == asked
    assert not OutsideEffect.objects.filter(key="REF-0000000000000001").exists()


def test_one_call_finds_out_that_it_is_back(ups: Any) -> None:
    break_down(ups)
    ups.ills.clear()
    trial_is_due()

    assert book().carrier == "ups"

    assert ProviderHealth.objects.get().opened_at is None
    assert book(2).carrier == "ups"


def test_of_many_that_come_when_the_trial_is_due_one_is_let_through(ups: Any) -> None:
    break_down(ups)
    ups.ills.clear()
    ups.fall_ill("hang", "token")  # the trial takes its time
    trial_is_due()

    ends = together(*[lambda n=n: book(n) for n in range(4)])

    assert sorted(type(end).__name__ for end in ends) == ["Postponed"] * 3 + ["Unavailable"]


def test_a_trial_that_fails_has_it_left_alone_for_longer(ups: Any) -> None:
    break_down(ups)
    waits = []
    for _ in range(6):
        trial_is_due()
        assert type(failure(book)) is Unavailable
        health = ProviderHealth.objects.get()
        assert health.trial_at is not None
        waits.append(round((health.trial_at - timezone.now()).total_seconds()))

    assert waits == [30, 60, 120, 240, 300, 300]


def test_a_success_between_forgets_the_failures(ups: Any) -> None:
    for number in range(guard.FAILURES_TO_OPEN - 1):
        ups.fall_ill("status", "token", status=503)
        failure(lambda: book(100 + number))  # noqa: B023
    book()
    ups.fall_ill("status", "/ship", status=503)

    assert type(failure(lambda: book(2))) is OutcomeUnknown

    health = ProviderHealth.objects.get()
    assert (health.failures, health.opened_at) == (1, None)


def test_a_refusal_is_an_answer(ups: Any) -> None:
    for number in range(guard.FAILURES_TO_OPEN + 1):
        nowhere = Address(name="A", line1="B", city="C", postcode="1", country="AQ")
        reference = f"REF-{number:016}"
        lines = [Line(sku="ITEM-001", quantity=1)]
        with pytest.raises(ProviderError) as caught:
            get_shipping().create_shipment(reference=reference, address=nowhere, lines=lines, key="k")
        assert caught.value.code == "address_not_served"

    assert not ProviderHealth.objects.exists()


def test_a_run_waits_for_a_provider_that_is_down_and_loses_no_tries(ups: Any) -> None:
    make_shop()
    make_order()
    run = SagaRun.objects.get()
    break_down(ups)
    clock = FrozenClock()

    for _ in range(20):  # far more often than a step is tried
        drive_once(run, clock=clock)
        clock.advance(timedelta(minutes=5))
    run.refresh_from_db()
    tries = StepRecord.objects.filter(run=run, step="create_shipment")
    assert run.status == "running"
    assert {(one.outcome, one.error_code) for one in tries} == {("waiting", "circuit_open")}

    ups.ills.clear()
    trial_is_due()
    for _ in range(5):
        drive_once(run, clock=clock)
        clock.advance(timedelta(minutes=5))
    run.refresh_from_db()

    assert run.status == "completed"
    assert ups.live == [OutsideEffect.objects.get(kind="parcel", remote_id__startswith="1Z").key]


def test_calls_beyond_the_rate_wait(ups: Any, settings: Settings) -> None:
    settings.PROVIDER_LIMITS = {"ups": Limit(most=2, seconds=60)}

    book(1), book(2)
    error = failure(lambda: book(3))

    assert (type(error), error.code) == (Postponed, "rate_limit")
    assert error.retry_after is not None
    assert timedelta(0) < error.retry_after <= timedelta(seconds=60)
    assert len(ups.live) == 2


def test_calls_beyond_so_many_at_once_wait(ups: Any, settings: Settings) -> None:
    settings.PROVIDER_LIMITS = {"ups": Limit(at_once=1)}
    book(1)
    ups.fall_ill("hang", "/ship")

    ends = together(*[lambda n=n: book(n) for n in (2, 3, 4)])

    kinds = sorted(type(end).__name__ for end in ends)
    assert kinds == ["OutcomeUnknown", "Postponed", "Postponed"]
    assert ProviderSlot.objects.get().taken_until is None


def test_a_caller_that_died_holds_its_place_for_a_while_only(ups: Any, settings: Settings) -> None:
    settings.PROVIDER_LIMITS = {"ups": Limit(at_once=1)}
    ProviderSlot.objects.create(name="ups", number=1, taken_until=timezone.now() + timedelta(seconds=9))
    assert failure(book).code == "too_many_at_once"

    ProviderSlot.objects.update(taken_until=timezone.now() - timedelta(seconds=1))

    assert book().carrier == "ups"


def test_what_a_provider_can_do_besides_is_seen_through_all_that_stands_before_it() -> None:
    class Mine:
        def authorize(self) -> None: ...

        def capture(self) -> None: ...

    mine = Faulty("payments", guard.Guarded("mine", Mine()))
    sandbox = Faulty("payments", SandboxGateway())

    assert [offers(one, Captures) for one in (Mine(), Mine, mine, sandbox)] == [True, True, True, False]
    assert not offers(mine, GivesLabels)


class TestPage:
    def test_it_shows_who_is_down_and_a_supervisor_says_that_it_is_well(self, ups: Any, sam: Client) -> None:
        break_down(ups)

        page = sam.get("/providers/").content.decode()
        assert "Down" in page
        assert "token: It failed while it was at it (503)." in page
        answer = sam.post("/providers/ups/close/", follow=True).content.decode()

        assert "ups is asked again from now on." in answer
        ups.ills.clear()
        assert book().carrier == "ups"

    def test_an_agent_looks_and_closes_nothing(self, ups: Any, gina: Client) -> None:
        break_down(ups)

        assert "It is well again" not in gina.get("/providers/").content.decode()
        assert gina.post("/providers/ups/close/").status_code == 403
        assert ProviderHealth.objects.get().opened_at is not None

    def test_it_asks_the_database_little(self, ups: Any, sam: Client, django_assert_max_num_queries: Any) -> None:
        sam.get("/providers/")

        with django_assert_max_num_queries(12):
            sam.get("/providers/")
