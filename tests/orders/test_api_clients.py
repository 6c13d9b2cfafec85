"""Clients made from the OpenAPI document, by generators that know nothing of us, place orders and read errors."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.test import Client

from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_shop, make_user
from tests.orders.api_client import make_caller, order_body

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]
PACKAGE = "made_client"
ROOT = Path(__file__).resolve().parents[2]
NPM = ROOT / "var" / "npm"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[ModuleType]:
    """The client, as openapi-python-client writes it."""
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(Client().get("/api/v1/schema").json()))
    tools = str(Path(sys.executable).parent)
    done = subprocess.run(
        [
            *(f"{tools}/openapi-python-client", "generate", "--path", str(document)),
            *("--meta", "none", "--output-path", str(tmp_path / PACKAGE), "--fail-on-warning"),
        ],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(tmp_path))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def client(made: ModuleType, live_server: Any) -> Iterator[Any]:
    """Of Ada's, in a shop with enough of everything."""
    make_shop()
    token = make_caller(make_user(username="ada")).headers["Authorization"].removeprefix("Bearer ")
    with made.AuthenticatedClient(base_url=live_server.url, token=token) as opened:
        yield opened


def part(path: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{path}")


def test_it_places_follows_and_cancels_an_order(client: Any) -> None:
    body = part("models").NewOrder.from_dict(order_body())

    placed = part("api.orders.place_order").sync_detailed(client=client, body=body, idempotency_key="k-1")
    again = part("api.orders.place_order").sync_detailed(client=client, body=body, idempotency_key="k-1")
    run_to_end(SagaRun.objects.get())
    seen = part("api.orders.get_order").sync("ORD-123", client=client)
    listed = part("api.orders.list_orders").sync(client=client, state=part("models").RunState.COMPLETED)
    reason = part("models").NewCancellation(reason="changed my mind")
    known = part("api.orders.get_order").sync_detailed("ORD-123", client=client).headers["ETag"]
    cancelled = part("api.orders.cancel_order").sync(
        "ORD-123", client=client, body=reason, idempotency_key="k-2", if_match=known
    )

    assert (placed.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert (placed.parsed.order_id, placed.parsed.state) == ("ORD-123", "pending")
    assert (seen.state, seen.total_amount.amount) == ("completed", "99.99")
    assert [step.state for step in seen.run.steps] == ["done"] * 4
    assert [row.order_id for row in listed.results] == ["ORD-123"]
    assert cancelled.state == "undoing"


def test_it_understands_what_we_refuse(client: Any) -> None:
    body = part("models").NewOrder.from_dict(order_body(email="nobody"))

    refused = part("api.orders.place_order").sync(client=client, body=body, idempotency_key="k-1")
    missing = part("api.orders.get_order").sync("ORD-404", client=client)

    assert isinstance(refused, part("models").Problem)
    assert [(one.pointer, one.code) for one in refused.errors] == [("/email", "invalid")]
    assert (missing.status, missing.code, missing.retryable) == (404, "not-found", False)


@pytest.fixture
def typescript(tmp_path: Path) -> Path:
    """A folder with the generator, the compiler and our caller, as `make npm` fetched them."""
    if not (NPM / "stamp").exists():
        if os.environ.get("CI"):
            pytest.fail(f"{NPM} is not there; .ci/run should have called `make npm`.")
        pytest.skip("No TypeScript here; say `make npm` to have it.")
    (tmp_path / "node_modules").symlink_to(NPM / "node_modules")
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(ROOT / "tests" / "npm" / name, tmp_path)
    (tmp_path / "openapi.json").write_text(json.dumps(Client().get("/api/v1/schema").json()))
    in_folder(tmp_path, "node_modules/.bin/openapi-typescript", "openapi.json", "--output", "schema.d.ts")
    return tmp_path


def in_folder(folder: Path, *command: str) -> str:
    """What the command says."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_in_typescript_does_too(typescript: Path, live_server: Any) -> None:
    make_shop()
    token = make_caller(make_user(username="ada")).headers["Authorization"].removeprefix("Bearer ")
    in_folder(typescript, "node_modules/.bin/tsc")

    seen = json.loads(in_folder(typescript, "node", "client.js", live_server.url, token))

    assert seen == {
        "placed": [202, "ORD-123", "pending"],
        "again": [202, "true"],
        "read": ["99.99", ["reserve_inventory", "process_payment", "create_shipment", "send_confirmation_email"]],
        "listed": ["ORD-123"],
        "refused": [400, ["/email"]],
        "missing": [404, "not-found"],
    }


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('amount: "99.99"', "amount: 99.99"),
        ('state: "pending"', 'state: "undone"'),
        ("quantity: 2", 'quantity: "2"'),
        ("data?.order_id", "data?.orderid"),
    ],
)
def test_the_typescript_compiler_refuses_a_wrong_call(typescript: Path, right: str, wrong: str) -> None:
    caller = typescript / "client.ts"
    assert right in caller.read_text()
    caller.write_text(caller.read_text().replace(right, wrong, 1))

    done = subprocess.run(
        ["node_modules/.bin/tsc", "--noEmit"], cwd=typescript, capture_output=True, text=True, check=False, timeout=120
    )

    assert "client.ts(" in done.stdout
    assert done.returncode != 0
