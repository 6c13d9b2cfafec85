"""`manage.py schema`: the document in the repository is what the API is, and what breaks clients is found out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orders.management.commands.schema import KEPT, document, text_of
from tests.orders.test_commands import run

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return document()


def schemas(told: dict[str, Any]) -> dict[str, Any]:
    return dict(told["components"]["schemas"])


def list_orders(told: dict[str, Any]) -> Any:
    return told["paths"]["/api/v1/orders"]["get"]


def test_the_file_in_the_repository_is_what_the_api_is() -> None:
    assert run("schema", "check", "--exact") == (0, "The file says what the API is.\n", "")


def test_it_is_written_as_it_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"

    assert run("schema", "export", str(file)) == (0, f"{file} is written.\n", "")
    assert file.read_text() == KEPT.read_text() == run("schema", "export", "-")[1]
    assert json.loads(file.read_text())["openapi"] == "3.1.0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda old: old["paths"].update({"/api/v1/gone": {"get": {"responses": {}}}}),
            "GET /api/v1/gone is gone.",
        ),
        (
            lambda old: list_orders(old)["parameters"].append({"in": "query", "name": "colour", "schema": {}}),
            "GET /api/v1/orders: the parameter colour is gone.",
        ),
        (
            lambda old: [one.pop("required", None) for one in old["paths"]["/api/v1/orders"]["post"]["parameters"]],
            "POST /api/v1/orders: the parameter Idempotency-Key is needed now.",
        ),
        (
            lambda old: schemas(old)["NewOrder"]["required"].remove("email"),
            "POST /api/v1/orders: the body needs email now.",
        ),
        (
            lambda old: schemas(old)["NewOrder"]["properties"].update({"gift": {"type": "boolean"}}),
            "POST /api/v1/orders: the body has no gift any more.",
        ),
        (
            lambda old: schemas(old)["Order"]["properties"].update({"colour": {"type": "string"}}),
            "GET /api/v1/orders/{order_id}: the answer 200 has no colour any more.",
        ),
        (
            lambda old: schemas(old)["Order"]["properties"].update({"sentence": {"type": "integer"}}),
            "GET /api/v1/orders/{order_id}: the answer 200, sentence is string and was integer.",
        ),
        (
            lambda old: [
                one["schema"].update({"maximum": 500})
                for one in list_orders(old)["parameters"]
                if one["name"] == "limit"
            ],
            "GET /api/v1/orders: the parameter limit has maximum 200 now.",
        ),
        (
            lambda old: list_orders(old)["responses"].update({"206": {}}),
            "GET /api/v1/orders: it does not answer 206 any more.",
        ),
        (
            lambda old: old["webhooks"].update({"order.lost": old["webhooks"]["order.created"]}),
            "The webhook order.lost is gone.",
        ),
        (
            lambda old: schemas(old)["WebhookMessage"]["properties"]["data"]["properties"].update({"colour": {}}),
            "The webhook refund.failed, data has no colour any more.",
        ),
    ],
)
def test_what_breaks_clients_is_named(now: dict[str, Any], tmp_path: Path, change: Change, words: str) -> None:
    old = copy.deepcopy(now)
    change(old)
    file = tmp_path / "old.json"
    file.write_text(text_of(old))

    code, _, err = run("schema", "check", str(file))

    assert (code, words in err.splitlines()) == (1, True), err


@pytest.mark.parametrize(
    "change",
    [
        lambda old: old["paths"].pop("/api/v1/me"),
        lambda old: schemas(old)["Order"]["properties"].pop("sentence"),
        lambda old: schemas(old)["NewOrder"]["properties"].pop("user_id"),
        lambda old: [one for one in list_orders(old)["parameters"] if one["name"] != "q"],
        lambda old: schemas(old)["RunState"]["enum"].remove("abandoned"),
    ],
)
def test_what_is_only_added_breaks_nothing(now: dict[str, Any], tmp_path: Path, change: Change) -> None:
    old = copy.deepcopy(now)
    change(old)
    file = tmp_path / "old.json"
    file.write_text(text_of(old))

    assert run("schema", "check", str(file))[0] == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", None])
def test_what_is_no_document_is_said(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "old.json"
    if text is not None:
        file.write_text(text)

    code, _, err = run("schema", "check", str(file))

    assert (code, "is no OpenAPI document" in err) == (2, True)
