"""What the pages in docs/ and the README say is so: blocks run, commands and flags are there, links lead somewhere.

More of it stands where the fixtures are: docs/api.md in tests/orders/test_api_examples.py, the signature of webhooks in
test_webhooks.py, the provider of docs/providers.md in test_providers_page.py, the runbooks in test_metrics.py, and
docs/tutorial.md in test_tutorial.py.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from asgiref.sync import sync_to_async
from django.core.management import get_commands, load_command_class
from django.db import connections

from orders import api_idempotency, refusals
from orders.api import LONGEST_WAIT
from orders.models import FaultPlan, WebhookEvent
from orders.webhooks.delivery import body_of
from sagas import StepContext, heartbeats, pruning, queue, registry, services
from sagas.management.commands import sagaworker
from sagas.models import SagaRun
from sagas.presentation import OUTCOME_BADGES, STEP_BADGES, UNDO_BADGES
from sagas.selectors import STATUS_WORDS
from sagas.states import RUN_MOVES, RunStatus
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import make_caller
from tests.orders.test_api_examples import sent
from tests.orders.test_commands import run

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ASYNC = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def blocks(language: str, *, of: Path | None = None) -> list[str]:
    pages = [of] if of else PAGES
    return [block for page in pages for block in re.findall(rf"```{language}\n(.*?)\n```", page.read_text(), re.DOTALL)]


def docs(name: str) -> Path:
    return ROOT / "docs" / name


@pytest.mark.pure
class TestReading:
    def test_every_block_can_be_read(self) -> None:
        for text in blocks("json"):
            json.loads(text)
        for text in blocks("yaml"):
            assert yaml.safe_load(text)
        for text in blocks("python"):
            compile(text, "a page", "exec", flags=ASYNC)

    def test_every_link_leads_somewhere(self) -> None:
        lost = []
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
                if re.match(r"[a-z]+:", target):
                    continue
                name, _, anchor = target.partition("#")
                file = (page.parent / name).resolve() if name else page
                if not file.exists() or (anchor and anchor not in anchors(file)):
                    lost.append(f"{page.relative_to(ROOT)}: {target}")

        assert lost == []

    def test_every_page_is_reached_from_the_first_one(self) -> None:
        told = re.findall(r"\]\(([^)#\s]+)", docs("README.md").read_text())
        reached = {(ROOT / "docs" / name).resolve() for name in told}

        assert [
            str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")) if page not in reached
        ] == ["docs/README.md"]

    def test_what_make_is_told_to_do_it_can(self) -> None:
        known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        text = "\n".join(page.read_text() for page in PAGES)

        assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE)) - known == set()

    def test_the_commands_and_their_flags_are_there(self) -> None:
        wrong = []
        for page in PAGES:
            for words in commands_in(page.read_text()):
                try:
                    check_command(words)
                except (LookupError, ValueError) as error:
                    wrong.append(f"{page.relative_to(ROOT)}: {' '.join(words)}: {error}")

        assert wrong == []


@pytest.mark.pure
class TestStates:
    """docs/states.md has every state with the word that people read, and every move."""

    def table(self, heading: str) -> dict[str, str]:
        part = docs("states.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
        return dict(re.findall(r"^\| `(\w+)` \| ([^|`]+) \|", part, re.MULTILINE))

    def test_each_with_its_word(self) -> None:
        assert self.table("Of a run") == {state.value: word for state, word in STATUS_WORDS.items()}
        assert self.table("Of a step") == {state.value: badge.word for state, badge in STEP_BADGES.items()}
        assert self.table("Of an undo") == {state.value: badge.word for state, badge in UNDO_BADGES.items()}
        assert self.table("Of an attempt") == {name: badge.word for name, badge in OUTCOME_BADGES.items() if name}

    def test_each_move(self) -> None:
        told: dict[str, set[str]] = {}
        for start, ends in re.findall(
            r"^\| ((?:`\w+`(?:, )?)+) \| ((?:`\w+`(?:, )?)+|none) \|$", docs("states.md").read_text(), re.M
        ):
            for state in re.findall(r"`(\w+)`", start):
                told[state] = set(re.findall(r"`(\w+)`", ends))

        assert told == {state.value: {end.value for end in ends} for state, ends in RUN_MOVES.items()}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_in(text: str) -> Iterator[list[str]]:
    """What stands in the text as a command of manage.py: as code in a sentence, or as a line of a block."""
    ours = "|".join(name for name, app in get_commands().items() if app in ("orders", "sagas"))
    for found in re.findall(rf"`(?:(?:python )?manage\.py |(?=(?:{ours})[ `]))([^`]+)`", text):
        yield found.split()
    for line in re.findall(r"^(?:\$ )?(?:python )?manage\.py ([^\n&]+)", text, re.MULTILINE):
        yield shlex.split(line)


def check_command(words: list[str]) -> None:
    """Raises LookupError for a command, a verb or a flag that is not there."""
    name, *rest = words
    if name == "…":
        return
    if name not in get_commands():
        raise LookupError("no such command")
    app = get_commands()[name]
    parser: argparse.ArgumentParser = load_command_class(app, name).create_parser("manage.py", name)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and rest:
            parser = action.choices[rest.pop(0).strip(",")]
    known = set(parser._option_string_actions)
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known
    if unknown:
        raise LookupError(f"no {', '.join(sorted(unknown))}")


@pytest.mark.django_db(transaction=True)
class TestRunning:
    def test_the_readmes_order(self) -> None:
        make_shop()
        (snippet,) = blocks("python", of=ROOT / "README.md")
        now, or_later, _ = snippet.partition("saga.start()")
        names: dict[str, Any] = {}

        async def go() -> None:
            await eval(compile(now, "README.md", "exec", flags=ASYNC), names)  # noqa: S307  (our own page)
            # The thread that async code keeps for the database has a connection of its own.
            await sync_to_async(connections.close_all)()

        asyncio.run(go())
        exec(or_later, names)  # noqa: S102  (likewise)

        assert names["result"].status == "completed"
        assert names["result"].results["process_payment"]["amount"] == 99.99
        assert SagaRun.objects.count() == 1  # and started again it is the same run

    def test_the_trip_and_its_tests(self) -> None:
        definition, _, story, *_ = blocks("python", of=docs("sagas.md"))
        gateway = Gateway()
        seats = SimpleNamespace(left=0, booked={})
        names: dict[str, Any] = {
            "airline": Airline(seats),
            "mail": SimpleNamespace(send=mailed),
            "pay": gateway.pay,
            "refund": lambda ctx: {},
            "services": services,
            "RunStatus": RunStatus,
            "pytest": pytest,
            "gateway": gateway,
        }
        exec(definition, names)  # noqa: S102  (our own page)
        try:
            given = 'input={"flight": "LH 400", "email": "ada@example.com"}'
            exec(story.replace("input={...}", given), names)  # noqa: S102  (likewise)
            names["test_no_seat_means_no_charge"]()
            assert gateway.charges == 0
            seats.left = 1
            names["test_a_worker_that_dies_after_the_charge"]()
        finally:
            registry.forget(names["TRIP"])

    def test_faults_that_are_planned(self) -> None:
        (plans,) = [block for block in blocks("python", of=docs("providers.md")) if "faults.plan" in block]

        exec(plans, {})  # noqa: S102  (our own page)

        assert FaultPlan.objects.count() == plans.count("\nfaults.plan(")

    def test_a_webhooks_endpoint_and_its_message(self) -> None:
        (line,) = blocks("sh", of=docs("webhooks.md"))
        (message,) = blocks("json", of=docs("webhooks.md"))
        make_shop()
        ada = make_caller(make_user(username="ada"))
        names = {"API": "/api/v1", "KEY": ada.headers["Authorization"].split()[1]}

        public = line.replace("\\\n", " ").replace("shop.example", "1.1.1.1")  # a name would be looked up
        answer = sent(public, names, "")

        assert (answer.status_code, answer.json()["secret"][:6]) == (201, "whsec_")
        order = make_order()
        event = WebhookEvent(type="order.completed", order_id=order.order_id, created_at=order.placed_at, pk=1)
        shown, real = json.loads(message), json.loads(body_of(event))
        assert (shown.keys(), shown["data"].keys()) == (real.keys(), real["data"].keys())

    def test_commands_with_what_they_answer(self) -> None:
        make_user(username="ada")
        graph, keys = blocks("console", of=docs("commands.md"))[0], blocks("console", of=docs("api.md"))[0]

        line, _, said = graph.partition("\n")
        assert run(*line.removeprefix("$ manage.py ").split()) == (0, said + "\n", "")
        first, noted, _, *others = keys.splitlines()
        code, out, err = run(*first.removeprefix("$ python manage.py ").split())
        assert (code, out[:4], err) == (0, "osk_", noted + "\n")
        assert [run(*other.removeprefix("$ python manage.py ").split())[0] for other in others] == [0, 0]


class Gateway:
    """What the page leaves out; likewise below."""

    charges = 0

    def pay(self, ctx: StepContext) -> dict[str, Any]:
        self.charges = 1  # however often it comes under its one key
        return {}


class Airline:
    def __init__(self, seats: SimpleNamespace) -> None:
        self.seats = seats

    def book(self, flight: str, *, idempotency_key: str) -> SimpleNamespace:
        if not self.seats.left:
            return SimpleNamespace(sold_out=True)
        self.seats.booked[idempotency_key] = SimpleNamespace(reference="B-1", sold_out=False)
        return cast(SimpleNamespace, self.seats.booked[idempotency_key])

    def find(self, key: str) -> Any:
        return self.seats.booked.get(key)

    def cancel(self, key: str, *, idempotency_key: str) -> bool:
        return self.seats.booked.pop(key, None) is not None


async def mailed(*args: Any, **kwargs: Any) -> bool:
    return True


def test_how_long_a_stop_takes_and_things_are_kept_is_as_told(settings: Any) -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    drive = settings.Q_CLUSTER["timeout"] - settings.SAGA_DRIVE_SECONDS - queue.LAST_SECONDS

    for words in (
        f"| {sagaworker.GRACE_SECONDS:g} s for attempts, or `--grace SECONDS`",
        f"`Q_TIMEOUT_SECONDS` less `SAGA_DRIVE_SECONDS` less {queue.LAST_SECONDS} ({drive:g} s)",
        f"`Prefer: wait` is {LONGEST_WAIT} s at most",
        f"end after `SAGA_LEASE_SECONDS` ({settings.SAGA_LEASE:g})",
        f"archives them, {pruning.LEAST.days} days after a run's end at the earliest",
        f"| {api_idempotency.KEPT_FOR.days} days, then a few are swept out with each new one |",
        f"| signs of life of workers | {heartbeats.KEPT.days} day |",
    ):
        assert words in told
    assert refusals.KEPT_FOR == api_idempotency.KEPT_FOR
