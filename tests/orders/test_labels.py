"""Labels of parcels: read out of carriers' answers, kept beside the parcel, and given to staff alone."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from django.test import Client
from openapi_schema_validator import OAS30Validator

from orders.labels import LARGEST, LINK, PDF, is_address, kind_of
from orders.models import Order, OutsideEffect, Shipment, ShipmentLabel
from orders.order_processing import parcel_books
from orders.providers import get_shipping
from orders.providers.base import Address, Label, Line, Parcel
from orders.providers.shipping.labels import label_of
from orders.services import cancel_order
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.testing import run_to_end
from tests.doubles import carriers
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import ORDERS, make_caller, problem
from tests.orders.pages import ended, run_of, text_of, visitor

pytestmark = pytest.mark.django_db(transaction=True)

Outside = Callable[..., dict[str, Any]]
DOCUMENTS = {
    "pdf": b"%PDF-1.4 a label",
    "png": b"\x89PNG\r\n\x1a\n a label",
    "gif": b"GIF89a a label",
    "zpl": b"CT~~CD,~CC^~CT~\n^XA^FO50,50^FDTorstra\xc3\x9fe 1^FS^XZ\n",
}
CARRIERS = {
    "ups": Label(content=carriers.PNG),
    "fedex": Label(url=carriers.ELSEWHERE),
    "dhl-express": Label(content=carriers.PDF),
    "dhl-parcel-de": Label(url=carriers.ELSEWHERE),
}
"""What each one's double gives."""
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")


def encoded(content: bytes) -> str:
    return b64encode(content).decode()


def book() -> Parcel:
    return get_shipping().create_shipment(
        reference="REF-0123456789ABCDEF", address=HOME, lines=[Line(sku="ITEM-001", quantity=1)], key="ship"
    )


class TestReading:
    @pytest.mark.parametrize("kind", DOCUMENTS)
    def test_a_document_is_known_by_its_first_bytes(self, kind: str) -> None:
        text = encoded(DOCUMENTS[kind])

        label = label_of(encoded=f"{text[:8]}\r\n{text[8:]}\n", url=carriers.ELSEWHERE)

        assert label == Label(content=DOCUMENTS[kind])
        assert kind_of(DOCUMENTS[kind]) == kind

    @pytest.mark.parametrize(
        "given",
        [
            None,
            "",
            7,
            True,
            {"content": "JVBERi0="},
            ["JVBERi0="],
            "JVBERi0",
            "%PDF-1.4 not encoded",
            "JVBERi0=\u20ac",
            encoded(b"<html><script>alert(1)</script>"),
            encoded(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            encoded(b"\xff\xd8\xff\xe0 JFIF"),
            encoded(b"^XA^FDno end"),
            encoded(b"^XZ before ^XA"),
            encoded(b"^XA\0^XZ"),
        ],
    )
    def test_anything_else_is_no_document(self, given: Any) -> None:
        assert label_of(encoded=given) is None
        assert label_of(encoded=given, url=carriers.ELSEWHERE) == Label(url=carriers.ELSEWHERE)

    def test_one_that_is_too_large_is_none(self) -> None:
        largest = b"%PDF-" + b"x" * (LARGEST - 5)

        assert label_of(encoded=encoded(largest)) == Label(content=largest)
        assert label_of(encoded=encoded(largest + b"x")) is None
        assert label_of(encoded="JVBERi0x" * LARGEST) is None

    @pytest.mark.parametrize(
        "url",
        [
            None,
            7,
            [carriers.ELSEWHERE],
            "",
            "http://labels.example/1",
            "www.dhl.de/download/myobscurelink?label.png",
            "//labels.example/1",
            "javascript:alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "file:///etc/passwd",
            "https://",
            "https:///1",
            "https://carrier@evil.example/1",
            "https://[::1/1",
            "https://labels.example:99999/1",
            "https://labels.example/a b",
            "https://labels.example/a\nb",
            "https://läbels.example/1",
            "https://labels.example/" + "x" * 2000,
        ],
    )
    def test_only_an_https_address_is_a_link(self, url: Any) -> None:
        assert label_of(url=url) is None
        assert not isinstance(url, str) or not is_address(url)

    def test_it_is_not_told_by_accident(self) -> None:
        label = Label(content=b"%PDF-secret", url="https://labels.example/secret")

        assert "secret" not in repr(label)


class TestAdapters:
    @pytest.mark.parametrize("name", CARRIERS)
    def test_the_answer_to_a_booking_brings_the_label(self, outside: Outside, name: str) -> None:
        outside(shipping=name)

        parcel = book()

        assert parcel.label == CARRIERS[name]
        assert (book(), book().label) == (parcel, None)  # it is not noted twice: only the first answer has it

    @pytest.mark.parametrize(
        "label", [None, {}, [], "label", 7, {"GraphicImage": 7, "b64": [], "content": {}, "url": 0}]
    )
    @pytest.mark.parametrize("name", CARRIERS)
    def test_an_answer_without_a_good_one_is_a_booking_all_the_same(
        self, outside: Outside, name: str, label: Any
    ) -> None:
        double = outside(shipping=name)[name]
        double.label = label

        parcel = book()

        assert (parcel.label, parcel.carrier) == (None, name)
        assert double.live == ["REF-0123456789ABCDEF"]

    @pytest.mark.parametrize("name", CARRIERS)
    def test_the_double_answers_as_the_vendor_describes_it(self, name: str) -> None:
        double: Any = {
            "ups": carriers.UpsDouble,
            "fedex": carriers.FedexDouble,
            "dhl-express": carriers.DhlExpressDouble,
            "dhl-parcel-de": carriers.DhlParcelDeDouble,
        }[name]
        description = double.descriptions[0]
        if not description.is_here:
            pytest.skip(f"{name}'s description has no open licence and is not at hand")
        spec = json.loads(description.file.read_text())
        schemas = spec.get("components", {}).get("schemas", {})
        schema = {
            "ups": lambda: schemas["PackageResults_ShippingLabel"],
            "fedex": lambda: schemas["LabelResponseVO"],
            "dhl-express": lambda: _dhl_express(spec)["properties"]["documents"]["items"],
            "dhl-parcel-de": lambda: schemas["Document"],
        }[name]()

        assert double.label.keys() <= schema["properties"].keys()
        validator = OAS30Validator({**schema, "components": spec["components"]})
        assert [error.message for error in validator.iter_errors(double.label)] == []


def _dhl_express(spec: Any) -> Any:
    answer = spec["paths"]["/shipments"]["post"]["responses"]["201"]["content"]["application/json"]["schema"]
    return spec["components"]["schemas"][answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer


@pytest.fixture
def shop() -> None:
    make_shop()


@pytest.mark.usefixtures("shop")
class TestKeeping:
    def test_it_is_kept_once_and_nowhere_else(self, outside: Outside) -> None:
        outside(shipping="ups")

        order = ended("completed")

        label = ShipmentLabel.objects.get()
        assert (label.shipment.order, label.kind, bytes(label.content), label.url) == (order, "png", carriers.PNG, "")
        written = [
            *SagaRun.objects.values_list(),
            *StepRecord.objects.values_list(),
            *RunEvent.objects.values_list(),
            *OutsideEffect.objects.values_list(),
            *Shipment.objects.values_list(),
        ]
        assert encoded(carriers.PNG) not in repr(written)
        assert repr(carriers.PNG)[2:-1] not in repr(written)

    def test_a_link_is_kept_as_one(self, outside: Outside) -> None:
        outside(shipping="fedex")

        ended("completed")

        label = ShipmentLabel.objects.get()
        assert (label.kind, bytes(label.content), label.url) == (LINK, b"", carriers.ELSEWHERE)

    @pytest.mark.parametrize("is_away", [False, True])
    def test_a_lost_one_is_asked_for_once_more_and_costs_no_booking(self, outside: Outside, is_away: bool) -> None:
        double = outside(shipping="ups")["ups"]
        double.fall_ill("cut", "/ship")
        if is_away:
            double.fall_ill("status", "/recovery", status=500, times=9)

        ended("completed")

        assert [(row.kind, bytes(row.content)) for row in ShipmentLabel.objects.all()] == (
            [] if is_away else [(PDF, carriers.PDF)]
        )
        assert len(double.called("/recovery")) == 1

    def test_the_sandbox_has_none(self) -> None:
        ended("completed")

        assert not ShipmentLabel.objects.exists()

    def test_the_first_one_stays(self) -> None:
        reference, parcel = _booked(Label(content=DOCUMENTS["pdf"]))

        assert parcel_books.note_booked(reference, replace(parcel, label=Label(content=DOCUMENTS["png"])))

        assert ShipmentLabel.objects.get().kind == PDF

    def test_one_that_comes_with_a_later_try_is_kept(self) -> None:
        reference, parcel = _booked(None)

        assert parcel_books.note_booked(reference, replace(parcel, label=Label(content=DOCUMENTS["pdf"])))

        assert ShipmentLabel.objects.get().kind == PDF

    @pytest.mark.parametrize(
        "label",
        [
            Label(),
            Label(content=b"<html>"),
            Label(content=b"%PDF-" + b"x" * LARGEST),
            Label(url="javascript:alert(1)"),
            Label(url="http://labels.example/1"),
        ],
    )
    def test_an_adapter_of_ones_own_cannot_break_a_booking_by_it(self, label: Label) -> None:
        _booked(label)

        assert (Shipment.objects.get().status, ShipmentLabel.objects.count()) == ("created", 0)

    def test_a_parcel_that_was_called_off_meanwhile_gets_none(self) -> None:
        order = make_order()
        parcel_books.opened(order, "REF-1")
        parcel_books.start_cancelling("REF-1")

        assert not parcel_books.note_booked("REF-1", _parcel(Label(content=DOCUMENTS["pdf"])))

        assert not ShipmentLabel.objects.exists()


def _parcel(label: Label | None) -> Parcel:
    return Parcel(
        shipment_id="S-1", tracking_number="T-1", estimated_delivery=date(2030, 1, 1), carrier="acme", label=label
    )


def _booked(label: Label | None, **changes: Any) -> tuple[str, Parcel]:
    """A parcel of an order's that the carrier has booked, noted with that label."""
    order = make_order(**changes)
    parcel = _parcel(label)
    parcel_books.opened(order, "REF-1")
    assert parcel_books.note_booked("REF-1", parcel)
    return "REF-1", parcel


@pytest.mark.usefixtures("shop")
class TestGiving:
    @pytest.fixture
    def order(self, outside: Outside) -> Order:
        """Ada's, whose parcel UPS has."""
        outside(shipping="ups")
        return ended("completed", user=make_user(username="ada"))

    def test_staff_saves_it_from_the_orders_page(self, order: Order, gina: Client) -> None:
        page = gina.get("/orders/ORD-123/")
        answer = gina.get("/orders/ORD-123/label/")

        link = '<a href="/orders/ORD-123/label/">Label<span class="hidden-text"> of the parcel</span>, PNG</a>'
        assert link in page.text
        assert (answer.status_code, answer.content) == (200, carriers.PNG)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="label-ORD-123.png"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert "no-store" in answer.headers["Cache-Control"]
        assert gina.post("/orders/ORD-123/label/").status_code == 405

    @pytest.mark.parametrize("kind", DOCUMENTS)
    def test_each_kind_says_what_it_is(self, gina: Client, kind: str) -> None:
        _booked(Label(content=DOCUMENTS[kind]))

        answer = gina.get("/orders/ORD-123/label/")

        kinds = {"pdf": "application/pdf", "png": "image/png", "gif": "image/gif", "zpl": "application/zpl"}
        assert (answer.headers["Content-Type"], answer.content) == (kinds[kind], DOCUMENTS[kind])
        assert answer.headers["Content-Disposition"].endswith(f'"label-ORD-123.{kind}"')

    def test_a_viewer_opens_what_the_page_offers(self, order: Order, vera: Client) -> None:
        assert "/orders/ORD-123/label/" in vera.get("/orders/ORD-123/").content.decode()
        assert vera.get("/orders/ORD-123/label/").status_code == 200

    def test_customers_are_told_nothing_of_it(self, order: Order) -> None:
        assert order.user is not None
        ada = Client()
        ada.force_login(order.user)
        caller = make_caller(order.user)

        assert "Label" not in text_of(ada.get("/orders/ORD-123/"))
        assert ada.get("/orders/ORD-123/label/").status_code == 404
        none = problem(caller.get(f"{ORDERS}/ORD-123/label"), 404, "not-found")
        assert none["detail"] == "Order ORD-123 has no label to print."
        eve = make_caller(make_user(username="mallory"))
        problem(eve.get(f"{ORDERS}/ORD-123/label"), 404, "not-found")
        assert visitor("eve").get("/orders/ORD-123/label/").status_code == 404
        assert Client().get("/orders/ORD-123/label/").headers["Location"].startswith("/accounts/login/")

    def test_programs_of_staff_get_it_as_base64(self, order: Order) -> None:
        gina = make_caller(make_user(username="gina", role="agent"))

        told = gina.get(f"{ORDERS}/ORD-123/label")

        assert (told.status_code, told.headers["Cache-Control"]) == (200, "no-store")
        assert {**told.json(), "content": b64decode(told.json()["content"])} == {
            "media_type": "image/png",
            "content": carriers.PNG,
            "url": None,
        }
        problem(gina.get(f"{ORDERS}/ORD-124/label"), 404, "not-found")

    def test_a_link_is_shown_and_fetched_by_nobody(self, outside: Outside, gina: Client) -> None:
        double = outside(shipping="dhl-parcel-de")["dhl-parcel-de"]
        ended("completed")
        caller = make_caller(make_user(username="sam", role="supervisor"))
        calls = len(double.calls)

        page = gina.get("/orders/ORD-123/")

        link = carriers.ELSEWHERE.replace("&", "&amp;")
        assert f'<a href="{link}" rel="noopener noreferrer">Label at dhl-parcel-de</a>' in page.text
        assert re.search(r"Label at dhl-parcel-de given \d+ s ago ; carriers keep it for a while", text_of(page))
        assert gina.get("/orders/ORD-123/label/").status_code == 404
        assert caller.get(f"{ORDERS}/ORD-123/label").json() == {
            "media_type": None,
            "content": None,
            "url": carriers.ELSEWHERE,
        }
        assert len(double.calls) == calls

    def test_without_a_label_there_is_none(self, gina: Client) -> None:
        ended("completed")
        caller = make_caller(make_user(username="sam", role="supervisor"))

        assert "Label" not in text_of(gina.get("/orders/ORD-123/"))
        assert gina.get("/orders/ORD-123/label/").status_code == 404
        problem(caller.get(f"{ORDERS}/ORD-123/label"), 404, "not-found")

    def test_the_label_of_a_cancelled_parcel_is_not_printed(self, order: Order, gina: Client) -> None:
        caller = make_caller(make_user(username="sam", role="supervisor"))
        cancel_order(order_id="ORD-123", actor="user:sam", reason="The customer asked.")
        run_to_end(run_of(order))

        assert Shipment.objects.get().status == "cancelled"
        assert "Label" not in text_of(gina.get("/orders/ORD-123/"))
        assert gina.get("/orders/ORD-123/label/").status_code == 404
        problem(caller.get(f"{ORDERS}/ORD-123/label"), 404, "not-found")
