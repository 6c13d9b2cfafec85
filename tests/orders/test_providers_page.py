"""The example in docs/providers.md is a provider that works: it is taken from the page and set to work."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pytest_django import Settings

from orders import providers
from orders.models import Shipment
from orders.providers.base import Address, Carrier, Line, Parcel
from orders.providers.errors import Declined, OutcomeUnknown, Unavailable
from sagas.selectors import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop
from tests.races import together

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"


class Acme(ThreadingHTTPServer):
    """Plays Acme. `ills` are what goes wrong next: a status to answer with, or "cut", after having done it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AcmeHandler)
        self.parcels: dict[str, dict[str, str]] = {}
        self.called_off: set[str] = set()
        self.ills: list[int | str] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()

    def do(self, method: str, reference: str, body: dict[str, Any]) -> tuple[int, dict[str, str]]:
        with self.lock:
            if method == "DELETE":
                if self.parcels.get(reference, {}).get("state") == "away":
                    return 409, {}
                self.parcels.pop(reference, None)
                self.called_off.add(reference)
                return 204, {}
            if reference in self.called_off:
                return 410, {}
            if method == "PUT" and body["to"]["country"] == "AQ":
                return 422, {}
            if method == "PUT" and reference not in self.parcels:
                number = len(self.parcels) + 1
                self.parcels[reference] = {
                    "id": f"A-{number}",
                    "tracking_number": f"T-{number}",
                    "delivery": "2030-01-15",
                }
            return (200, self.parcels[reference]) if reference in self.parcels else (404, {})


class AcmeHandler(BaseHTTPRequestHandler):
    server: Acme

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.server.keys.add(self.headers.get("Authorization"))
        ill = self.server.ills.pop(0) if self.server.ills else None
        if isinstance(ill, int):
            self.send_response(ill)
            self.end_headers()
            return
        status, said = self.server.do(self.command, self.path.rpartition("/")[2], body)
        if ill == "cut":
            return
        text = json.dumps(said).encode() if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_GET = do_DELETE = answer

    def log_message(self, *args: Any) -> None:
        """Tests say what happened by themselves."""


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Acme]:
    server = Acme()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("ACME_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("ACME_KEY", "a key")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's example, importable under its name."""
    found = re.search(r"```python\n# acme\.py\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert found
    example = ModuleType("acme")
    monkeypatch.setitem(sys.modules, "acme", example)
    exec(compile(found[1], str(PAGE), "exec"), example.__dict__)  # noqa: S102  (our own page)
    return example


@pytest.fixture
def carrier(acme: Acme, module: ModuleType) -> Carrier:
    carrier: Carrier = module.AcmeCarrier()
    return carrier


def book(carrier: Carrier, *, country: str = "DE") -> Parcel:
    address = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country=country)
    return carrier.create_shipment(
        reference="REF-1", address=address, lines=[Line(sku="ITEM-001", quantity=2)], key="run-1:action"
    )


def cancel(carrier: Carrier) -> None:
    carrier.cancel_shipment(reference="REF-1", key="run-1:compensation")


def test_a_parcel_is_booked_once_and_found(carrier: Carrier, acme: Acme) -> None:
    assert carrier.find_shipment(reference="REF-1") is None

    parcels = together(*[lambda: book(carrier)] * 3)

    assert [*parcels, book(carrier)] == [carrier.find_shipment(reference="REF-1")] * 4
    assert (parcels[0].shipment_id, parcels[0].carrier) == ("A-1", "acme")
    assert list(acme.parcels) == ["REF-1"]
    assert acme.keys == {"Bearer a key"}


def test_a_cancelled_parcel_is_gone_whichever_came_first(carrier: Carrier) -> None:
    cancel(carrier)
    cancel(carrier)

    with pytest.raises(Declined) as caught:
        book(carrier)
    assert caught.value.code == "already_undone"
    assert carrier.find_shipment(reference="REF-1") is None


def test_a_business_no_is_declined(carrier: Carrier, acme: Acme) -> None:
    with pytest.raises(Declined) as caught:
        book(carrier, country="AQ")
    assert caught.value.code == "address_not_served"

    book(carrier)
    acme.parcels["REF-1"]["state"] = "away"
    with pytest.raises(Declined) as caught:
        cancel(carrier)
    assert caught.value.code == "handed_over"


@pytest.mark.parametrize("status", [401, 429, 503])
def test_what_surely_did_not_happen_is_unavailable(carrier: Carrier, acme: Acme, status: int) -> None:
    acme.ills = [status]

    with pytest.raises(Unavailable):
        book(carrier)

    assert carrier.find_shipment(reference="REF-1") is None


def test_nobody_there_is_unavailable(module: ModuleType, acme: Acme) -> None:
    carrier = module.AcmeCarrier()
    acme.shutdown()
    acme.server_close()

    with pytest.raises(Unavailable, match="cannot be reached"):
        book(carrier)


def test_a_cut_connection_is_unknown_and_found_afterwards(carrier: Carrier, acme: Acme) -> None:
    acme.ills = ["cut"]

    with pytest.raises(OutcomeUnknown):
        book(carrier)

    assert carrier.find_shipment(reference="REF-1") == book(carrier)
    assert len(acme.parcels) == 1


def test_a_failure_inside_is_unknown(carrier: Carrier, acme: Acme) -> None:
    acme.ills = [500]

    with pytest.raises(OutcomeUnknown):
        book(carrier)


@pytest.mark.django_db(transaction=True)
def test_an_order_goes_out_with_it(acme: Acme, module: ModuleType, settings: Settings) -> None:
    settings.PROVIDERS = {**settings.PROVIDERS, "shipping": "acme.AcmeCarrier"}
    acme.ills = [503, "cut"]
    make_shop()
    make_order()

    report = run_to_end(SagaRun.objects.get())
    providers.forget()  # it knows this test's Acme

    assert report.status == "completed"
    assert [attempt[3] for attempt in report.attempts if attempt[0] == "create_shipment"] == [
        "unavailable",
        "unknown",
        "succeeded",
    ]
    parcel = Shipment.objects.get()
    assert (parcel.status, parcel.carrier, parcel.shipment_id, parcel.tracking_number) == (
        "created",
        "acme",
        "A-1",
        "T-1",
    )
    assert list(acme.parcels) == [parcel.reference]
