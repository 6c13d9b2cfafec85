"""Two versions of the code on one database, as for the minutes of a deployment: the one before on the new tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orders.api_keys import create_key
from orders.models import Scope
from orders.models.sandbox import SandboxCharge
from orders.providers import faults
from sagas.models import SagaRun, StepRecord
from tests.conftest import failed
from tests.factories import make_shop, make_user
from tests.orders.api_client import order_body
from tests.processes import ROOT, Site, family, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

BASE = "60b40cc"
"""The version before: the oldest whose code runs on today's tables, as long as there is no release. The one before it
does not, since orders 0010 added a column that may not be null and has no default of the database's. It moves on with
each release: see CONTRIBUTING.md, "Migrations".
"""

RUNNING = ("manage.py", "config", "orders", "sagas", "templates")
SETTINGS = {
    "SAGA_LEASE_SECONDS": "5",
    "Q_WORKERS": "1",
    "ORDER_RETRY_FIRST_SECONDS": "0.2",
    "ORDER_RETRY_CAP_SECONDS": "1",
}
HELD = 120
"""Seconds that a carrier takes whose answer the worker is not to live to see."""

PATIENCE = 90
"""Seconds that a busy machine may take to start a worker, wait for a lease to end, and try again."""


@pytest.fixture(scope="module")
def house_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of BASE, as it was committed."""
    house = tmp_path_factory.mktemp("before")
    archive = subprocess.run(["git", "archive", BASE, *RUNNING], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.fail(
            f"Commit {BASE}, the version before, cannot be had from git here: {archive.stderr.decode().strip()}. "
            "This test wants a clone with its whole history; `git fetch --unshallow` brings it.",
            pytrace=False,
        )
    subprocess.run(["tar", "-x", "-C", house], input=archive.stdout, check=True)
    return house


@pytest.fixture
def versions(transactional_db: None, house_before: Path, tmp_path: Path, request: Any) -> Iterator[tuple[Site, Site]]:
    """(the version before, this one), on this version's tables."""
    sites = Site(tmp_path / "before", house_before, **SETTINGS), Site(tmp_path / "now", **SETTINGS)
    try:
        yield sites
    finally:
        for site in sites:
            kill(site)
        if request.node.stash.get(failed, False):
            print(*(site.logs() for site in sites), sep="\n")  # noqa: T201  (pytest shows it with the failure)


def kill(site: Site, *, but: int = 0) -> None:
    """As a power cut would; the web server's own group may stay."""
    for pid in family(site):
        if not but or os.getpgid(pid) != but:
            os.kill(pid, signal.SIGKILL)
    for process in site.processes:
        if process.pid != but:
            process.kill()


class Customer:
    def __init__(self, token: str) -> None:
        self.token = token

    def place(self, site: Site, order_id: str, **changes: Any) -> dict[str, Any]:
        """Sent under its number as key, so that the same again is a repeat, whichever version it comes to."""
        body = order_body(order_id=order_id, **changes)
        body["shipping_address"] |= {"name": order_id}  # what the carrier is told of it
        return self._post(site, "/api/v1/orders", body, order_id)

    def cancel(self, site: Site, order_id: str) -> dict[str, Any]:
        return self._post(
            site, f"/api/v1/orders/{order_id}/cancellations", {"reason": "changed my mind"}, f"-{order_id}"
        )

    def _post(self, site: Site, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "If-Match": "*",
        }
        request = urllib.request.Request(f"{site.url}{path}", json.dumps(body).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  (our own address)
            told: dict[str, Any] = json.load(answer)
            return told


def ended(**wanted: str) -> bool:
    found = dict(SagaRun.objects.values_list("business_key", "status"))
    return {number.replace("_", "-"): status for number, status in wanted.items()}.items() <= found.items()


def comes_to(what: str, **wanted: str) -> None:
    wait_for(what, lambda: ended(**wanted), seconds=PATIENCE)


def is_held(order_id: str) -> bool:
    return StepRecord.objects.filter(run__business_key=order_id, step="create_shipment", outcome="").exists()


def test_what_one_version_began_the_other_ends(versions: tuple[Site, Site]) -> None:
    before, now = versions
    make_shop()
    _, token = create_key(user=make_user(username="ada"), name="shop", scopes=[Scope.ORDERS_READ, Scope.ORDERS_WRITE])
    customer = Customer(token)
    for number in ("HELD-1", "HELD-2"):
        faults.plan("shipping", "create_shipment", "slow", match=number, seconds=HELD)
        faults.plan("payments", "charge", "lose_answer", match=number)

    # The version before takes orders on the new tables, and its worker dies in the middle of one.
    before.start_worker()
    webs = before.start_web(), now.start_web()
    customer.place(before, "DONE-1")
    customer.place(before, "NO-1", payment={"token": "tok_declined"})
    comes_to("what the version before does", DONE_1="completed", NO_1="compensated")
    first = customer.place(before, "HELD-1")
    wait_for("HELD-1 at the carrier", lambda: is_held("HELD-1"), seconds=PATIENCE)
    kill(before, but=webs[0].pid)

    # This version ends it, undoes what was done, hears a repeat; and its worker dies in the middle of another.
    now.start_worker()
    again = customer.place(now, "HELD-1")
    customer.cancel(now, "DONE-1")
    customer.place(now, "DONE-2")
    comes_to("what this version does", HELD_1="completed", DONE_1="compensated", DONE_2="completed")
    customer.place(now, "HELD-2")
    wait_for("HELD-2 at the carrier", lambda: is_held("HELD-2"), seconds=PATIENCE)
    kill(now, but=webs[1].pid)

    # The deployment is taken back.
    before.start_worker()
    customer.cancel(before, "DONE-2")
    comes_to("what the version before does again", HELD_2="completed", DONE_2="compensated")

    assert again == first
    assert ended(HELD_1="completed", DONE_1="compensated", NO_1="compensated", HELD_2="completed", DONE_2="compensated")
    charges = SandboxCharge.objects.filter(barred=False).values_list("order_id", "amount", "refunded")
    price, nothing = Decimal("99.99"), Decimal(0)
    assert sorted(charges) == [
        ("DONE-1", price, price),
        ("DONE-2", price, price),
        ("HELD-1", price, nothing),
        ("HELD-2", price, nothing),
    ]
    audits = [site.start("audit", "manage.py", "audit") for site in versions]
    for audit in audits:
        assert audit.popen.wait(30) == 0, audit.output()
        assert audit.output().endswith("nothing wrong.\n")
