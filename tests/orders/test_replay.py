"""A run of the shop played again in a test, as its page offers it."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from orders.models import Order, PaymentOperation
from sagas import services
from sagas.exceptions import UnknownSaga
from sagas.models import SagaRun
from sagas.replay import replay
from tests.factories import make_shop
from tests.orders.pages import ended, run_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


def offered(client: Client, order: Order) -> str:
    """The test that the run's page has for copying; empty if it has none."""
    page = client.get(f"/runs/{order.run_id}/").content.decode()
    found = re.findall(r'data-copy="([^"]+)" hidden>Copy as test case<', page)
    return unescape(found[0]) if found else ""


@pytest.mark.parametrize("end", ["completed", "compensated", "needs_attention"])
def test_it_ends_as_it_did_and_asks_nobody(sam: Client, end: str) -> None:
    order = ended(end)
    text = offered(sam, order)
    charges = PaymentOperation.objects.count()
    module: dict[str, Any] = {}

    exec(compile(text, "copied", "exec"), module)  # noqa: S102  (our own page's words, which are what is tested)
    module["test_ord_123_ends_as_it_did"]()

    assert SagaRun.objects.filter(saga="replay of order_processing", status=end).count() == 1
    assert PaymentOperation.objects.count() == charges


@pytest.mark.parametrize("tries", [2, 9])
@pytest.mark.parametrize("is_stuck", [True, False])
def test_it_ends_so_too_where_steps_have_another_number_of_tries(tries: int, is_stuck: bool) -> None:
    """A run from production is played again where a setting gives a step fewer tries, or more."""
    refund = ("process_payment", "compensation")
    told = [
        ("reserve_inventory", "action", "succeeded", ""),
        ("process_payment", "action", "succeeded", ""),
        ("create_shipment", "action", "refused", "address_not_served"),
        *[(*refund, "unavailable", "unavailable")] * tries,
        *([] if is_stuck else [(*refund, "succeeded", "")]),
        ("reserve_inventory", "compensation", "succeeded", ""),
    ]

    report = replay("order_processing", 1, told)

    assert [(step, way, outcome) for step, way, _, outcome in report.attempts] == [one[:3] for one in told]
    assert report.status == ("needs_attention" if is_stuck else "compensated")


def test_another_story_does_not_pass(sam: Client) -> None:
    order = ended("compensated")
    text = offered(sam, order).replace('== (\n        "compensated"', '== (\n        "completed"')
    assert '"completed"' in text
    module: dict[str, Any] = {}

    exec(compile(text, "copied", "exec"), module)  # noqa: S102

    with pytest.raises(AssertionError):
        module["test_ord_123_ends_as_it_did"]()


def test_what_people_did_is_not_in_a_tests_hands(sam: Client) -> None:
    order = ended("needs_attention")
    services.skip(
        run_id=run_of(order).pk, step="process_payment", direction="compensation", actor="user:sam", reason="as agreed"
    )

    assert offered(sam, order) == ""


def test_an_unknown_definition_is_named() -> None:
    with pytest.raises(UnknownSaga):
        replay("order_processing", 99, [])
