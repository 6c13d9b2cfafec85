"""A request's trace: taken from its caller and kept with the order's run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from orders.models import Scope
from orders.order_processing import OrderProcessingSaga
from sagas.models import SagaRun
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, Caller, make_caller, order_body
from tests.orders.test_order_form import typed

pytestmark = pytest.mark.django_db(transaction=True)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.fixture
def webshop() -> Caller:
    return make_caller(make_user(username="webshop"), *Scope)


class TestKept:
    def test_an_order_by_the_api(self, webshop: Caller) -> None:
        assert webshop.post(ORDERS, order_body(), traceparent=TRACEPARENT).status_code == 202

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_a_traceparent_that_is_none_is_passed_over(self, webshop: Caller) -> None:
        assert webshop.post(ORDERS, order_body(), traceparent="00-abc-def-01").status_code == 202

        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", SagaRun.objects.get().traceparent)

    def test_the_same_order_again_is_of_its_first_request(self, webshop: Caller) -> None:
        for traceparent in (TRACEPARENT, f"00-{'1' * 32}-{'2' * 16}-01"):
            webshop.post(ORDERS, order_body(), traceparent=traceparent)

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_an_order_by_the_page(self, client: Client) -> None:
        client.force_login(make_user(username="ada"))

        client.post("/orders/new/", typed(), headers={"traceparent": TRACEPARENT})

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_an_order_by_a_command(self, tmp_path: Path) -> None:
        (tmp_path / "order.json").write_text(json.dumps(order_body()))

        call_command("saga", "start", "order", str(tmp_path / "order.json"), "--traceparent", TRACEPARENT)

        assert SagaRun.objects.get().traceparent == TRACEPARENT

    def test_an_order_from_python_begins_a_trace(self) -> None:
        items = [{"sku": "ITEM-001", "quantity": 1}]

        run = OrderProcessingSaga(order_id="ORD-1", user_id="U-1", items=items, total_amount=30).start()

        assert re.fullmatch(r"[0-9a-f]{32}", run.trace_id)
