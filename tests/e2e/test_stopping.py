"""Processes that are stopped or changed over while customers order: nobody is cut off, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orders.api_keys import create_key
from orders.models import Order
from sagas.models import SagaRun
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import order_body
from tests.processes import Site, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

WAIT = 5
"""Seconds that the customer asks to wait for the order's end, which does not come: no worker is there."""


def place(site: Site, token: str) -> tuple[int, dict[str, Any]]:
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Idempotency-Key": "1",
        "Prefer": f"wait={WAIT}",
    }
    request = urllib.request.Request(f"{site.url}/api/v1/orders", json.dumps(order_body()).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  (our own address)
        return answer.status, json.load(answer)


def test_a_web_server_that_is_stopped_answers_what_it_was_asked(site: Site) -> None:
    make_shop()
    _, token = create_key(user=make_user(username="ada"), name="shop")
    web = site.start_web("--workers-kill-timeout", "30")

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(place, site, token)
        wait_for("the order to be there", Order.objects.exists)
        told = time.monotonic()
        os.kill(web.pid, signal.SIGTERM)
        status, order = asked.result(30)
    code = web.popen.wait(30)
    took = time.monotonic() - told

    assert (status, order["order_id"], order["state"]) == (202, "ORD-123", "pending")
    assert code == 0
    assert took < WAIT + 5
    with pytest.raises(urllib.error.URLError):
        place(site, token)


def test_orders_outlive_a_change_of_the_secret_key(site: Site) -> None:
    make_shop()
    make_order()  # its wake-up is signed with the key of this process
    site.env["SECRET_KEY"] = "another one, for everybody from now on"

    worker = site.start_worker()
    wait_for("the order's end", lambda: SagaRun.objects.filter(status="completed").exists(), seconds=60)

    # The wake-up was not heard, and said so; the worker found the order by itself.
    assert "BadSignature" in worker.output()
