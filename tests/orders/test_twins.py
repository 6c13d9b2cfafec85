"""The lines that pages offer to copy: pasted into a shell, they tell or do what the page tells or does."""

from __future__ import annotations

import io
import re
import shlex
import sys
from html import unescape
from itertools import pairwise
from string import Template
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from orders.models import Order, User
from sagas.models import BulkOperation, SagaRun
from tests.factories import make_shop, make_user
from tests.orders.api_client import make_caller
from tests.orders.pages import ended, run_of, text_of, visitor

pytestmark = pytest.mark.django_db(transaction=True)

SAID = {"REASON": "The bank is back.", "EVIDENCE": "BANK-77", "CARD_TOKEN": "tok_visa"}
UNDO = "step=process_payment&direction=compensation"


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


@pytest.fixture
def key() -> str:
    """A supervisor's key for everything."""
    caller = make_caller(make_user(username="sue", role="supervisor"))
    return caller.headers["Authorization"].removeprefix("Bearer ")


def stuck() -> SagaRun:
    return run_of(ended("needs_attention"))


def lines(client: Client, address: str) -> dict[str, str]:
    """By the button's words, what the page offers to copy."""
    page = client.get(address).content.decode()
    found = re.findall(r'data-copy="([^"]*)" hidden>(Copy as \w+)<', page)
    return {words: unescape(text) for text, words in found}


def curled(line: str, key: str) -> Any:
    """The answer to a curl line in a shell in which the variables are set."""
    words = shlex.split(Template(line).substitute(SAID, API_KEY=key))
    headers = dict(word.split(": ", 1) for flag, word in pairwise(words) if flag == "-H")
    data = next((word for flag, word in pairwise(words) if flag == "-d"), None)
    address = words[-1].removeprefix("http://testserver")
    if data is None:
        return Client().get(address, headers=headers)
    return Client().post(address, data, content_type=headers.pop("Content-Type"), headers=headers)


def told(line: str) -> str:
    """What the command says, in such a shell."""
    python, manage, *words = shlex.split(Template(line).substitute(SAID))
    assert (python, manage) == ("python", "manage.py")
    out = io.StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_the_lists_of_runs(sam: Client, key: str) -> None:
    run = stuck()
    ended("completed", order_id="ORD-2")

    for address in (
        "/runs/?status=needs_attention&saga=order_processing&since=week",
        "/runs/?key=ORD-123",
        "/runs/attention/",
    ):
        found = lines(sam, address)
        assert [row["id"] for row in curled(found["Copy as curl"], key).json()["results"]] == [str(run.pk)], address
        assert "ORD-123" in told(found["Copy as command"])
        assert "ORD-2" not in told(found["Copy as command"])


def test_an_attempts_error_is_asked_for_by_command_alone(sam: Client) -> None:
    stuck()

    assert lines(sam, "/runs/?error=unavailable") == {
        "Copy as command": "python manage.py saga list --error unavailable --since 1d"
    }


def test_what_is_shown_of_runs_and_the_site(sam: Client, key: str) -> None:
    run = stuck()

    for address, what in (
        (f"/runs/{run.pk}/", ("needs_attention", "Needs attention")),
        ("/overview/?period=hour", ("needs_attention", "Last hour: 1 run began")),
        ("/health/", ("database", "database")),
    ):
        found = lines(sam, address)
        answer = curled(found["Copy as curl"], key)
        assert (answer.status_code, what[0] in answer.content.decode()) == (200, True), address
        assert what[1].lower() in told(found["Copy as command"]).lower(), address
    assert "sandbox" in told(lines(sam, "/providers/")["Copy as command"])


@pytest.mark.parametrize("act", ["retry", "skip", "resolve"])
@pytest.mark.parametrize("way", ["command", "curl"])
def test_an_act_on_a_run(sam: Client, key: str, act: str, way: str) -> None:
    run = stuck()
    line = lines(sam, f"/runs/{run.pk}/{act}/?{UNDO}")[f"Copy as {way}"]

    if way == "curl":
        assert curled(line, key).status_code == 202
    else:
        assert f"ORD-123: {act}" in told(line)

    last = run.events.latest("id")
    assert (last.step, last.direction, last.reason) == ("process_payment", "compensation", "The bank is back.")
    assert last.data.get("evidence", "BANK-77") == "BANK-77"


def test_giving_up_is_not_for_programs(sam: Client) -> None:
    run = stuck()

    found = lines(sam, f"/runs/{run.pk}/abandon/")

    assert found == {"Copy as command": f'python manage.py saga abandon {run.pk} --reason "$REASON"'}
    told(found["Copy as command"])
    run.refresh_from_db()
    assert run.status == "abandoned"


def test_whose_reason_is_not_given_nothing_is_done(sam: Client, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stuck()
    monkeypatch.setitem(SAID, "REASON", "")

    answer = curled(lines(sam, f"/runs/{run.pk}/skip/?{UNDO}")["Copy as curl"], key)

    assert answer.status_code == 400
    assert run.events.latest("id").kind == "needs_attention"


def test_what_an_address_says_is_never_run_by_a_shell(sam: Client) -> None:
    run = stuck()
    evil = "$(touch /tmp/x)`id`';id;'"

    page = sam.get("/runs/", {"key": evil, "saga": evil})
    acts = sam.get(f"/runs/{run.pk}/retry/", {"step": evil})

    found = [unescape(text) for text in re.findall(r'data-copy="([^"]*)"', page.content.decode())]
    assert [shlex.split(line)[4:8] for line in found if "manage.py" in line] == [["--saga", evil, "--key", evil]]
    assert all("$(" not in line for line in found if "curl" in line)
    assert 'data-copy="' not in acts.content.decode()  # there is no such step, and nothing to do


def test_an_act_on_a_whole_group(sam: Client, key: str) -> None:
    run = stuck()
    inbox = sam.get("/runs/attention/").content.decode()
    retry, assign = (
        unescape(re.findall(rf'href="(/runs/bulk/new/\?act={act}[^"]+)"', inbox)[0]) for act in ("retry", "assign")
    )

    found = lines(sam, retry)

    assert list(lines(sam, assign)) == ["Copy as curl"]
    assert curled(found["Copy as curl"], key).status_code == 202
    operation = BulkOperation.objects.get()
    assert (operation.act, operation.reason, operation.items.get().run_id) == ("retry", "The bank is back.", run.pk)
    items = curled(lines(sam, f"/runs/bulk/{operation.pk}/")["Copy as curl"], key)
    assert [row["run_id"] for row in items.json()["results"]] == [str(run.pk)]
    assert "ORD-123: retry, now compensating" in told(found["Copy as command"])


def test_customers_ask_for_their_own_orders_by_curl_alone() -> None:
    ada = visitor("ada")
    user = User.objects.get(username="ada")
    ended("completed", user=user)
    key = make_caller(user).headers["Authorization"].removeprefix("Bearer ")

    for address, number in (("/orders/", "results"), ("/orders/ORD-123/", "order_id")):
        found = lines(ada, address)
        assert list(found) == ["Copy as curl"], address
        told_of = curled(found["Copy as curl"], key).json()
        assert number in told_of
        assert "ORD-123" in str(told_of)


class TestPlacing:
    FORM = {
        "order_id": "ORD-NEW", "email": "o'hara@example.com", "ship_name": "Ada \"A\" O'Hara", "ship_line1": "$HOME 1",
        "ship_city": "Köln", "ship_postcode": "50667", "ship_country": "DE", "card_token": "tok_visa",
        "line-0-sku": "ITEM-001", "line-0-quantity": "2",
    }  # fmt: skip

    def reviewed(self, client: Client) -> dict[str, str]:
        page = client.post("/orders/new/", self.FORM)
        assert "Review the order" in text_of(page)
        assert "tok_visa" not in "".join(re.findall(r'data-copy="[^"]*"', page.content.decode()))
        return {
            w: unescape(t) for t, w in re.findall(r'data-copy="([^"]*)" hidden>(Copy as \w+)<', page.content.decode())
        }

    def placed(self) -> tuple[Any, ...]:
        order = Order.objects.get()
        return order.order_id, order.email, order.ship_name, order.ship_line1, order.ship_city, order.total_amount

    def test_a_customer_places_the_very_order_by_curl(self) -> None:
        ada = visitor("ada")
        caller = make_caller(User.objects.get(username="ada"))

        found = self.reviewed(ada)
        answer = curled(found["Copy as curl"].replace("$HOME", "$$HOME"), caller.headers["Authorization"].split()[1])

        assert list(found) == ["Copy as curl"]
        assert answer.status_code == 202
        assert self.placed() == ("ORD-NEW", "o'hara@example.com", 'Ada "A" O\'Hara', "$HOME 1", "Köln", 60)

    def test_staff_does_by_command(self, sam: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        echo, _, command = self.reviewed(sam)["Copy as command"].partition(" | ")
        printf, form, body = shlex.split(Template(echo.replace("$HOME", "$$HOME")).substitute(SAID))
        monkeypatch.setattr(sys, "stdin", io.StringIO(body))

        told(command)

        assert (printf, form) == ("printf", "%s")
        assert self.placed() == ("ORD-NEW", "o'hara@example.com", 'Ada "A" O\'Hara', "$HOME 1", "Köln", 60)
