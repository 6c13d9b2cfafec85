"""docs/api.md, run as it stands: each curl line is sent, and answers what the page says it does."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

import pytest
from django.test import Client

from orders.api_problems import PROBLEMS
from orders.models import Scope
from sagas.models import SagaRun
from sagas.states import RunStatus
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import make_caller, order_body

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sh\n(curl .*?)\n```\n\n```http\n(.*?)\n```", PAGE, re.S)

pytestmark = pytest.mark.django_db(transaction=True)


def sent(line: str, names: dict[str, str], body: str) -> Any:
    """What curl would send, sent."""
    words = shlex.split(Template(line).substitute(names))
    headers = dict(word.split(": ", 1) for flag, word in pairwise(words) if flag == "-H")
    data = next((word for flag, word in pairwise(words) if flag == "-d"), None)
    url = next(word for word in words if word.startswith("/"))
    if data is None:
        return Client().get(url, headers=headers)
    kind = headers.pop("Content-Type")
    return Client().post(url, body if data == "@order.json" else data, content_type=kind, headers=headers)


def test_every_example_answers_as_the_page_says() -> None:
    make_shop()
    stuck = make_order(order_id="ORD-124", card_token="tok_refund_fails", ship_postcode="00000")
    run_to_end(SagaRun.objects.get(business_key="ORD-124"))
    ada = make_caller(make_user(username="ada"), Scope.ORDERS_READ, Scope.ORDERS_WRITE)
    agent = make_caller(make_user(username="agent", role="agent"))
    names = {
        "API": "/api/v1",
        "KEY": ada.headers["Authorization"].split()[1],
        "STAFF_KEY": agent.headers["Authorization"].split()[1],
        "RUN": str(stuck.run_id),
    }
    order = re.findall(r"```json\n(.*?)\n```", PAGE, re.S)[0]
    assert json.loads(order) == order_body()

    statuses = []
    for line, said in EXAMPLES:
        response = sent(line, names, order)
        head, _, body = said.partition("\n\n")
        status, *headers = head.splitlines()
        assert f"HTTP/1.1 {response.status_code} {response.reason_phrase}" == status, line
        for header in headers:
            name, value = header.split(": ", 1)
            assert (name, response.headers.get(name, "missing")) == (name, filled(value, response.headers.get(name)))
        for code in re.findall(r'"code": ?"([a-z-]+)"', body)[:1]:
            assert response.json()["code"] == code
        for state in re.findall(r'"state": ?"([a-z_]+)"', body)[:1]:
            shown = response.json()
            assert shown.get("results", [shown])[0]["state"] == state, line
        statuses.append(response.status_code)
        # The worker has been at it before the reader types the next line, but not while they repeat one.
        if response.headers.get("Idempotent-Replayed") or "cancellations" in line:
            run_to_end(SagaRun.objects.get(business_key="ORD-123"))

    assert statuses == [202, 202, 200, 202, 200, 200, 400, 400, 200, 202, 200]


def filled(value: str, real: str | None) -> str:
    """The page's value, with what stands for any value filled in."""
    if real is None:
        return value
    pattern = re.escape(value).replace("…", ".+").replace("cancellations/3", r"cancellations/\d+")
    return real if re.fullmatch(pattern, real) else value


def test_the_page_names_every_code_scope_and_state() -> None:
    for word in (*PROBLEMS, *Scope, *RunStatus):
        assert f"`{word}`" in PAGE, word
