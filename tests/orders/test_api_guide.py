"""The API's front page: everything on it is done as it stands there."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from orders.api_guide import LESSONS, STATES, VERIFY
from orders.api_problems import PROBLEMS
from orders.models import StockItem
from orders.webhooks.signing import headers_for, new_secret
from sagas.models import SagaRun
from sagas.states import RunStatus
from sagas.testing import run_to_end
from tests.e2e.test_browser import findings
from tests.factories import make_shop, make_user
from tests.orders.api_client import make_caller
from tests.orders.test_api_examples import sent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orders.api.LONGEST_WAIT", 0)


def test_its_lessons_answer_as_it_says() -> None:
    make_shop()
    ada = make_caller(make_user(username="ada"))
    names = {"API": "/api/v1", "HOOKS": "https://1.1.1.1/hooks", "KEY": ada.headers["Authorization"].split()[1]}

    answers = []
    for lesson in LESSONS:
        answers.append(sent(lesson.line, names, ""))
        for run in SagaRun.objects.filter(status="pending"):
            run_to_end(run)

    assert [str(answer.status_code) for answer in answers] == [lesson.answer for lesson in LESSONS]
    undone = answers[1].json()
    assert (undone["state"], undone["failure"]["code"]) == ("compensated", "card_declined")
    assert undone["run"]["steps"][0]["compensation"]["state"] == "undone"
    assert not StockItem.objects.filter(allocated__gt=0).exists()
    assert answers[3].json()["secret"].startswith("whsec_")


def is_ours(*args: Any) -> bool:
    names: dict[str, Any] = {}
    exec(VERIFY, names)  # noqa: S102  (the very lines that the page shows)
    return bool(names["is_ours"](*args))


def test_its_check_of_a_message_takes_ours_and_no_other() -> None:
    secret, other, now = new_secret(), new_secret(), timezone.now()
    body = b'{"type": "order.completed"}'
    headers = headers_for("msg_1", now, body, [other, secret])

    assert is_ours(secret, headers, body)
    assert is_ours(other, headers, body)
    assert not is_ours(new_secret(), headers, body)
    assert not is_ours(secret, headers, body + b" ")
    assert not is_ours(secret, {**headers, "webhook-id": "msg_2"}, body)
    assert not is_ours(secret, headers_for("msg_1", now - timedelta(minutes=6), body, [secret]), body)


def test_it_names_every_state_and_problem_and_is_the_same_for_everybody() -> None:
    page = Client().get("/api/v1/docs")

    assert page.status_code == 200
    assert set(page.headers["Cache-Control"].split(", ")) == {"max-age=300", "public"}
    assert set(STATES) == set(RunStatus)
    for word in (*RunStatus, *PROBLEMS):
        assert f">{word}<" in page.text, word
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    assert " style=" not in page.text


def test_every_problem_has_a_page_that_says_why_and_whether_to_try_again() -> None:
    for code, problem in PROBLEMS.items():
        page = Client().get(f"/api/v1/problems/{code}", headers={"Accept": "text/html"})
        assert (page.status_code, "max-age=3600" in page.headers["Cache-Control"]) == (200, True)
        assert ("Yes: the same request" in page.text) == problem.retryable
        as_data = Client().get(f"/api/v1/problems/{code}").json()
        assert (as_data["code"], as_data["type"]) == (code, problem.type)
    assert "idempotency-mismatch" in Client().get("/api/v1/problems").text


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_shut_nobody_out(live_server: Any, page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    found = {}
    for path in ("docs", "problems", "problems/rate-limited"):
        page.goto(f"{live_server.url}/api/v1/{path}")
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            if complaints := findings(page):
                found[path, width] = complaints

    assert found == {}


@pytest.mark.parametrize("code", list(PROBLEMS))
def test_a_problems_page_shows_code_as_code(code: str) -> None:
    problem = PROBLEMS[code]

    page = Client().get(f"/api/v1/problems/{code}", headers={"Accept": "text/html"}).content.decode()

    assert "`" not in page
    for word in re.findall(r"`([^`<>&\"']+)`", problem.cause + problem.remedy):
        assert f"<code>{word}</code>" in page
