"""What would cost a shop money with one vendor or another: each of these was seen to go wrong, or would have."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from orders import inbound, providers, settling
from orders.models import InboundEvent, OutsideEffect, PaymentOperation, ProviderChoice, ProviderHealth
from orders.providers import get_inventory, get_mail, get_payments, get_shipping
from orders.providers.base import Address, BadSignature, Charge, Line, Message, Refund
from orders.providers.errors import Declined, OutcomeUnknown, Postponed, ProviderError, Unavailable
from orders.providers.http import Http
from sagas.models import SagaRun
from sagas.testing import FrozenClock, run_to_end
from tests.doubles.adyen import CUSTOMER, notification
from tests.doubles.server import Reply
from tests.factories import make_order, make_shop
from tests.orders.pages import visitor
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)

Outside = Callable[..., dict[str, Any]]
TOTAL = Decimal("99.99")
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")
LINES = [Line(sku="ITEM-001", quantity=2), Line(sku="ITEM-002", quantity=1)]
MAIL = Message(recipient="ada@example.com", subject="Your order", body="It is on its way.")
REFERENCE = "REF-0123456789ABCDEF"


def charge(method: str, key: str = "pay", **changes: Any) -> Charge:
    given = {"amount": TOTAL, "currency": "EUR", "order_id": "ORD-123", "customer": CUSTOMER, **changes}
    return get_payments().charge(method=method, key=key, **given)


def refund(key: str = "pay") -> Refund | None:
    return get_payments().refund(charge_key=key, key=f"{key}-undo")


def book(reference: str = REFERENCE, **changes: str) -> Any:
    address = replace(HOME, **changes)
    return get_shipping().create_shipment(reference=reference, address=address, lines=LINES, key="ship")


def cancel() -> None:
    get_shipping().cancel_shipment(reference=REFERENCE, key="ship-undo")


def failing(call: Callable[[], Any], kind: type[ProviderError]) -> ProviderError:
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def time_passes(**span: float) -> None:
    """What was asked for, was asked for that much earlier."""
    for effect in OutsideEffect.objects.all():
        asked = effect.asked_at - timedelta(**span) if effect.asked_at is not None else None
        OutsideEffect.objects.filter(pk=effect.pk).update(
            asked_at=asked, created_at=effect.created_at - timedelta(**span)
        )


class TestPayPal:
    @pytest.fixture
    def till(self, outside: Outside) -> Any:
        return outside(payments="paypal")["paypal"]

    def test_one_payment_does_not_pay_for_two_orders(self, till: Any) -> None:
        method = till.approved(number="ORDEROK")
        charge(method)

        error = failing(lambda: charge(method, key="another order"), Declined)

        assert (error.code, till.taken) == ("number_taken", 9999)
        assert refund("another order") is None
        assert till.taken == 9999  # the first one's money is not given back for the second one

    def test_a_payment_that_was_taken_elsewhere_does_not_pay_for_an_order(self, till: Any) -> None:
        method = till.approved(number="ORDEROK")
        till.orders[method]["status"] = "COMPLETED"

        assert failing(lambda: charge(method), Declined).code == "number_taken"

    def test_what_another_worker_of_ours_took_in_the_meantime_is_ours(self, till: Any) -> None:
        """It noted that it would ask, and took the money, between our reading of the note and of the order."""
        method = till.approved(number="ORDEROK")
        answer = till.answer

        def meanwhile(call: Any) -> Any:
            if call.method == "GET" and till.orders[method]["status"] == "APPROVED":
                till.orders[method]["status"] = "COMPLETED"
                made = {"id": "ORDEROKC1", "status": "COMPLETED", "amount": {"currency_code": "EUR", "value": "99.99"}}
                till.orders[method]["purchase_units"][0]["payments"] = {"captures": [made]}
                together(lambda: OutsideEffect.objects.update(facts={"asked": True}))
            return answer(call)

        till.answer = meanwhile

        assert charge(method).status == "completed"

    def test_a_number_from_outside_is_no_address(self, till: Any) -> None:
        for token in ("..", "ORDEROK:capture", "tok_visa"):
            assert failing(partial(charge, token, key=token), Declined).code == "order_not_found"

        assert till.calls == []

    def test_an_order_on_a_stored_means_whose_answer_was_lost_is_a_persons(self, till: Any) -> None:
        till.fall_ill("cut", "POST /v2/checkout/orders")
        failing(lambda: charge("vault:B-1"), OutcomeUnknown)

        error = failing(refund, OutcomeUnknown)
        assert "Look in PayPal for the invoice" in error.message

    def test_the_same_request_tells_its_number_as_long_as_paypal_keeps_it(self, till: Any) -> None:
        till.fall_ill("cut", "POST /v2/checkout/orders")
        failing(lambda: charge("vault:B-1"), OutcomeUnknown)

        assert get_payments().find_charge(key="pay") is None
        assert charge("vault:B-1").status == "completed"
        assert (till.taken, len(till.orders)) == (9999, 1)

    def test_what_pends_is_given_back_once_it_is_there_and_costs_no_tries(self, till: Any) -> None:
        till.slow = True
        charge(till.approved(number="ORDEROK"))

        error = failing(refund, Postponed)
        assert (error.code, error.retry_after) == ("still_processing", timedelta(minutes=10))
        time_passes(days=15)
        assert failing(refund, Declined).code == "still_processing"  # now a person is asked
        till.settle()
        till.slow = False
        made = refund()

        assert made is not None
        assert (made.amount, till.taken) == (TOTAL, 0)

    def test_an_authorization_that_was_voided_there_is_not_waited_for(self, till: Any) -> None:
        method = till.approved(number="ORDERAUTH", intent="AUTHORIZE")
        gateway: Any = get_payments()
        given = {"amount": TOTAL, "currency": "EUR", "method": method, "key": "pay", "order_id": "ORD-123"}
        assert gateway.authorize(**given).status == "authorized"
        till.orders[method]["purchase_units"][0]["payments"]["authorizations"][0]["status"] = "VOIDED"

        failing(lambda: gateway.authorize(**given), Declined)
        assert gateway.find_charge(key="pay") is None

    @pytest.mark.parametrize(
        "url", ["https://paypal.com.evil.example/c", "http://api.paypal.com/c", "https://evilpaypal.com/"]
    )
    def test_a_certificate_from_elsewhere_is_not_asked_about(self, till: Any, url: str) -> None:
        body, headers = till.signed("PAYMENT.CAPTURE.COMPLETED", "ORDER1")
        adapter = providers.adapter("payments", "paypal")

        with pytest.raises(BadSignature):
            adapter.read_webhook({**headers, "paypal-cert-url": url}, body)
        assert till.called("verify") == []

    def test_an_event_is_verified_to_the_letter(self, till: Any) -> None:
        body, headers = till.signed("PAYMENT.CAPTURE.COMPLETED", "ORDER1")
        body = body.replace(b'"X"', b'"\\u0058", "n": 1.50')

        (heard,) = providers.adapter("payments", "paypal").read_webhook(headers, body)

        assert heard.facts == {"order": "ORDER1"}
        assert body in till.called("verify")[0].body

    def test_a_refunds_event_wakes_the_refund(self, till: Any) -> None:
        charge(till.approved(number="ORDEROK"))
        made = refund()
        assert made is not None
        body, headers = till.signed("PAYMENT.CAPTURE.REFUNDED", "ORDEROK")
        adapter = providers.adapter("payments", "paypal")

        (heard,) = adapter.read_webhook(headers, body.replace(b'"X"', json.dumps(made.refund_id).encode()))

        assert adapter.hear(heard) == "pay-undo"


class TestAdyen:
    @pytest.fixture
    def till(self, outside: Outside) -> Any:
        return outside(payments="adyen")["adyen"]

    def test_a_stored_method_is_asked_for_by_whose_it_is(self, till: Any) -> None:
        assert charge("stored-visa").status == "completed"
        error = failing(lambda: charge("stored-visa", key="2", customer="somebody else"), Declined)

        assert error.code == "800"
        body = till.called("/payments")[0].json
        assert (body["captureDelayHours"], body["shopperInteraction"]) == (0, "ContAuth")

    def test_money_is_set_aside_only_where_that_is_asked(self, till: Any) -> None:
        gateway: Any = get_payments()
        gateway.authorize(
            amount=TOTAL, currency="EUR", method="stored-visa", key="pay", order_id="ORD-123", customer=CUSTOMER
        )

        body = till.called("/payments")[0].json
        assert (body["additionalData"], "captureDelayHours" in body) == ({"manualCapture": "true"}, False)

    def test_the_customer_comes_back_and_the_payment_goes_on(self, till: Any) -> None:
        make_shop()
        make_order(card_token="3ds")
        run = SagaRun.objects.get()
        assert run_to_end(run).status == "running"
        (number,) = till.payments
        where = till.called("/payments")[0].json["returnUrl"]
        assert where.startswith("https://shop.example/paid?order=")
        back = {"order": where.partition("order=")[2], "redirectResult": f"{number}!ok"}

        stranger = Client().get("/paid/adyen", back)
        page = visitor("gina", "agent").get("/paid/adyen", back)

        assert (stranger.status_code, b"ORD-123" in stranger.content) == (200, False)
        assert Client().get("/paid/ups", back).status_code == 404

        assert (page.status_code, page["Location"]) == (302, "/orders/ORD-123/")
        assert run_to_end(run).status == "completed"
        assert till.taken == 9999

    def test_who_brings_another_payments_result_gets_nothing(self, till: Any) -> None:
        waits = [charge("3ds", key=key) for key in ("mine", "theirs")]
        assert [one.status for one in waits] == ["pending"] * 2
        mine, theirs = OutsideEffect.objects.order_by("id")
        adapter = providers.adapter("payments", "adyen")

        assert adapter.come_back({"order": mine.reference, "redirectResult": f"{list(till.payments)[1]}!ok"}) == ""

        assert get_payments().find_charge(key="mine").status == "pending"  # type: ignore[union-attr]
        assert theirs.remote_id == ""

    def test_after_an_undo_nobody_can_pay_any_more(self, till: Any) -> None:
        charge("3ds")
        (number,) = till.payments
        refund()
        adapter = providers.adapter("payments", "adyen")

        adapter.come_back(
            {"order": OutsideEffect.objects.get(kind="charge").reference, "redirectResult": f"{number}!ok"}
        )

        assert till.called("/details") == []

    def test_a_payment_authorised_after_its_undo_is_given_back(self, till: Any) -> None:
        charge("3ds")
        (number,) = till.payments
        refund()
        adapter = providers.adapter("payments", "adyen")
        for psp in list(till.modifications):  # there was nothing to cancel yet
            for event in adapter.read_webhook({}, notification(till.settle(psp, success=False))):
                adapter.hear(event)
        assert refund() is None
        till.payments[number]["state"] = "Authorised"

        for event in adapter.read_webhook({}, notification(till.event("AUTHORISATION", number))) * 2:
            adapter.hear(event)

        assert len(till.called("/reversals")) == 2  # told twice, asked twice, by one key
        (late,) = [psp for psp, one in till.modifications.items() if one["kind"] == "reversals"]
        till.settle(late)
        assert till.taken == 0

    def test_a_payment_whose_undo_arrives_before_it_is_given_back(
        self, till: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = providers.adapter("payments", "adyen")
        asked = adapter._payments.payments  # of Adyen's own library

        def overtaken(*args: Any, **options: Any) -> Any:
            monkeypatch.undo()
            assert refund() is not None
            return asked(*args, **options)

        monkeypatch.setattr(adapter._payments, "payments", overtaken)
        charge("stored-visa")

        assert [one["kind"] for one in till.modifications.values()] == ["cancels", "reversals"]
        assert till.taken == 9999
        for psp in list(till.modifications):
            for event in adapter.read_webhook({}, notification(till.settle(psp))):
                adapter.hear(event)
        assert till.taken == 0
        assert failing(lambda: charge("stored-visa"), Declined).code == "already_undone"

    def test_what_was_refused_as_a_request_leaves_nothing_to_cancel(self, till: Any) -> None:
        failing(lambda: charge("stored-visa", customer="somebody else"), Declined)

        assert refund() is None
        assert till.modifications == {}

    def test_native_3ds_is_not_asked_for_and_refused_where_it_comes_all_the_same(self, till: Any) -> None:
        """Nobody could ever do what it asks: the customer is told at once, not after an hour."""
        for _ in range(2):
            assert failing(lambda: charge("native"), Declined).code == "native_3ds"

        (call,) = till.called("/payments")
        assert call.json["authenticationData"] == {"threeDSRequestData": {"nativeThreeDS": "disabled"}}
        assert refund() is not None  # what was begun there is called off by its number
        assert till.taken == 0

    def test_an_event_of_a_new_kind_is_left_alone(self, till: Any) -> None:
        charge("stored-visa")
        refund()
        (psp,) = till.modifications
        adapter = providers.adapter("payments", "adyen")

        (event,) = adapter.read_webhook({}, notification(till.event("REPORT_AVAILABLE", psp)))

        assert adapter.hear(event) == ""


class TestStripe:
    @pytest.fixture
    def till(self, outside: Outside) -> Any:
        return outside(payments="stripe")["stripe"]

    def test_a_key_that_ended_in_a_500_is_not_used_again(self, till: Any) -> None:
        till.fall_ill("status", "/confirm", status=500)
        failing(lambda: charge("pm_card_visa"), OutcomeUnknown)

        assert charge("pm_card_visa").status == "completed"
        keys = [call.headers["Idempotency-Key"] for call in till.called("/confirm")]
        assert (len(set(keys)), till.taken) == (2, 9999)

    def test_a_lost_answer_is_asked_for_by_the_same_key(self, till: Any) -> None:
        till.fall_ill("cut before", "/confirm")
        failing(lambda: charge("pm_card_visa"), OutcomeUnknown)
        charge("pm_card_visa")

        assert len({call.headers["Idempotency-Key"] for call in till.called("/confirm")}) == 1

    def test_a_refund_is_found_also_when_its_key_is_forgotten_there(self, till: Any) -> None:
        charge("pm_card_visa")
        till.fall_ill("cut", "/refunds")
        failing(refund, OutcomeUnknown)
        till.keys.clear()

        found = get_payments().find_refund(key="pay-undo")

        assert refund() == found
        assert found is not None
        assert len(till.refunds) == 1

    def test_what_a_person_gave_back_in_the_dashboard_is_given_back(self, till: Any) -> None:
        made = charge("pm_card_visa")
        till.refunds["re_9"] = {
            "id": "re_9",
            "object": "refund",
            "amount": 9999,
            "currency": "eur",
            "status": "succeeded",
            "payment_intent": made.transaction_id,
            "metadata": {},
        }

        assert refund() == Refund(refund_id="re_9", amount=TOTAL)

    def test_a_refused_connection_has_taken_nothing(self, till: Any, settings: Settings) -> None:
        charge("pm_card_visa", key="warm")
        adapter = providers.adapter("payments", "stripe")
        adapter._client.payment_intents  # noqa: B018
        till.fall_ill("hang", "nothing")
        adapter._session.mount("http://", Nowhere())

        failing(lambda: charge("pm_card_visa"), Unavailable)

    @pytest.mark.parametrize("thing", [{"object": "balance"}, {"object": "charge", "payment_intent": None}])
    def test_an_event_about_nothing_of_ours_is_none_of_ours(self, till: Any, thing: dict[str, Any]) -> None:
        OutsideEffect.objects.create(provider="stripe", key="still asked for", kind="charge")
        adapter = providers.adapter("payments", "stripe")
        till.intents["x"] = thing
        body, headers = till.signed("balance.available", "x")

        (heard,) = adapter.read_webhook(headers, body)

        assert adapter.hear(heard) == ""


class Nowhere:
    """A transport that reaches nobody."""

    def send(self, *args: Any, **kwargs: Any) -> Any:
        import requests
        from urllib3.exceptions import MaxRetryError, NewConnectionError

        refused = NewConnectionError(None, "refused")  # type: ignore[arg-type]
        raise requests.exceptions.ConnectionError(MaxRetryError(None, "/", refused))  # type: ignore[arg-type]

    def close(self) -> None: ...


CARRIERS = ["ups", "fedex", "dhl-express", "dhl-parcel-de"]
ASKING = {"ups": "/reference/", "fedex": "/referencenumbers", "dhl-express": "GET /mydhlapi/tracking"}
BOOKING = {"ups": "/ship", "fedex": "/shipments", "dhl-express": "POST", "dhl-parcel-de": "POST"}


class TestCarriers:
    @pytest.fixture(params=CARRIERS)
    def van(self, request: pytest.FixtureRequest, outside: Outside) -> Any:
        double = outside(shipping=request.param)[request.param]
        double.name = request.param
        return double

    @pytest.mark.parametrize("status", [400, 404, 302])
    def test_a_question_that_was_refused_is_no_absence(self, van: Any, status: int) -> None:
        if van.name not in ASKING:
            assert van.name == "dhl-parcel-de"
            return
        van.fall_ill("cut", BOOKING[van.name])
        failing(book, OutcomeUnknown)
        time_passes(hours=1)
        van.fall_ill("status", ASKING[van.name], status=status, times=3)  # without a word of why

        for call in (lambda: get_shipping().find_shipment(reference=REFERENCE), book, cancel):
            with pytest.raises((OutcomeUnknown, Unavailable)):
                call()

        assert van.live == [REFERENCE]

    @pytest.mark.parametrize("status", [400, 404])
    def test_a_cancelling_that_was_refused_without_a_reason_has_not_happened(self, van: Any, status: int) -> None:
        if van.name == "dhl-express":
            return  # which has nothing to cancel
        book()
        van.fall_ill("status", "DELETE" if van.name != "fedex" else "PUT", status=status)

        error = failing(cancel, Declined)

        assert error.code != "handed_over"
        assert (get_shipping().find_shipment(reference=REFERENCE) is not None, van.live) == (True, [REFERENCE])

    def test_a_redirect_is_no_refusal(self, van: Any) -> None:
        van.fall_ill("status", BOOKING[van.name], status=302, Location="http://127.0.0.1:1/")

        failing(book, OutcomeUnknown)

    def test_a_page_is_no_refusal(self, van: Any) -> None:
        van.fall_ill("status", BOOKING[van.name], status=404, Content_Type="text/html")

        failing(book, OutcomeUnknown)

    def test_a_fault_of_ours_is_not_the_customers_address(self, van: Any) -> None:
        van.fall_ill("status", BOOKING[van.name], status=400)

        assert failing(book, Declined).code != "address_not_served"


def test_a_void_that_ups_did_not_carry_out_is_none(outside: Outside) -> None:
    double = outside(shipping="ups")["ups"]
    book()
    no = {"VoidShipmentResponse": {"SummaryResult": {"Status": {"Code": "0", "Description": "Not voided"}}}}
    answer = double.answer
    double.answer = lambda call: Reply(said=no) if call.method == "DELETE" else answer(call)

    assert failing(cancel, Declined).code == "not_cancelled"


@pytest.mark.parametrize("name", CARRIERS)
def test_customs_are_told_nothing_that_nobody_knows(outside: Outside, settings: Settings, name: str) -> None:
    """Orders do not say what their goods are to customs: that is told before a carrier is asked, and by name."""
    double = outside(shipping=name)[name]

    error = failing(lambda: book(country="CH"), Declined)

    assert (error.code, double.calls) == ("address_not_served", [])
    assert "from DE to CH needs a customs declaration (each item's description, tariff number, origin" in error.message
    if name == "dhl-parcel-de":
        settings.PROVIDER_SETTINGS = {**settings.PROVIDER_SETTINGS, "DHL_PARCEL_DE_PRODUCT": "V53WPAK"}
        providers.forget()
    assert book("REF-0123456789ABCDE0", country="AT").carrier == name  # within the union nobody asks


def test_a_product_for_germany_does_not_go_abroad(outside: Outside) -> None:
    double = outside(shipping="dhl-parcel-de")["dhl-parcel-de"]

    error = failing(lambda: book(country="AT"), Declined)

    assert (error.code, double.calls) == ("address_not_served", [])
    assert "The product V01PAK stays in Germany, and this parcel goes to AT." in error.message


def test_dhl_may_say_no_within_a_207(outside: Outside) -> None:
    double = outside(shipping="dhl-parcel-de")["dhl-parcel-de"]
    book()
    double.parcels[next(iter(double.parcels))]["state"] = "cancelled"  # by somebody at the portal

    assert failing(cancel, Declined).code == "not_cancelled"  # a person looks: it may be in the manifest as well


class TestHolding:
    @pytest.fixture
    def store(self, outside: Outside) -> Any:
        return outside(inventory="oracle")["oracle"]

    def test_a_hold_in_the_middle_is_left_to_whoever_makes_it(self, store: Any) -> None:
        """One of two items is held; the other is asked for just now by another worker."""
        store.fall_ill("cut", "POST")
        failing(lambda: get_inventory().reserve(LINES, key="hold"), OutcomeUnknown)

        failing(lambda: get_inventory().reserve(LINES, key="hold"), OutcomeUnknown)
        failing(lambda: get_inventory().release(action_key="hold", key="undo"), OutcomeUnknown)
        store.hold(next(iter(store.texts)), "ITEM-002", 1)  # it arrives after the release has looked
        time_passes(minutes=3)
        get_inventory().release(action_key="hold", key="undo")

        assert store.holds() == {"ITEM-001": 0, "ITEM-002": 0}

    def test_a_fault_of_ours_is_no_shortage(self, store: Any) -> None:
        unknown = [Line(sku="ITEM-404", quantity=1)]

        error = failing(lambda: get_inventory().reserve(unknown, key="hold"), Declined)

        assert (error.code, error.message) == ("rejected", "The item number is not valid.")

    def test_a_part_that_is_held_is_completed_and_not_given_up_on(self, store: Any) -> None:
        """That the second item was certainly not held says nothing of the first."""
        answer = store.answer
        store.answer = lambda call: Reply(status=429, said={}) if b"ITEM-002" in call.body else answer(call)
        error = failing(lambda: get_inventory().reserve(LINES, key="hold"), OutcomeUnknown)
        assert "Held 1 of 2" in error.message

        store.answer = answer
        time_passes(minutes=3)
        get_inventory().reserve(LINES, key="hold")

        assert store.holds() == {"ITEM-001": 2, "ITEM-002": 1}

    def test_more_rows_than_an_answer_holds_are_all_read(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orders.providers.inventory.oracle.PAGE", 1)
        store.fall_ill("cut", "DELETE", times=1)
        reserved = get_inventory().reserve(LINES, key="hold")
        failing(lambda: get_inventory().release(action_key="hold", key="undo"), OutcomeUnknown)

        assert get_inventory().release(action_key="hold", key="undo") == reserved
        assert store.holds() == {"ITEM-001": 0, "ITEM-002": 0}


class TestSap:
    @pytest.fixture
    def store(self, outside: Outside) -> Any:
        return outside(inventory="sap")["sap"]

    @pytest.mark.parametrize(
        ("fields", "free"),
        [
            ({}, 2),
            ({"ReservationItmIsMarkedForDeltn": True}, 10),
            ({"ReservationItemIsFinallyIssued": True}, 10),
            ({"ResvnItmWithdrawnQtyInBaseUnit": "5"}, 7),
            ({"ResvnItmWithdrawnQtyInBaseUnit": "9"}, 10),
            ({"ResvnItmRequiredQtyInBaseUnit": "4"}, 6),
            ({"DebitCreditCode": "S"}, 10),
            ({"StorageLocation": "101B"}, 10),
            ({"StorageLocation": ""}, 2),
        ],
        ids=str,
    )
    def test_only_what_still_holds_stock_keeps_it_from_others(
        self, store: Any, fields: dict[str, Any], free: int
    ) -> None:
        get_inventory().reserve([Line(sku="ITEM-001", quantity=8)], key="theirs")
        store.note("ITEM-001", **fields)

        too_many = [Line(sku="ITEM-001", quantity=free + 1)]
        assert failing(lambda: get_inventory().reserve(too_many, key="too many"), Declined).code == (
            "insufficient_inventory"
        )
        (item,) = get_inventory().reserve([Line(sku="ITEM-001", quantity=free)], key="ours").items
        assert item.quantity == free

    def test_what_was_marked_for_deletion_there_is_not_held(self, store: Any) -> None:
        store.fall_ill("cut", "POST")
        failing(lambda: get_inventory().reserve(LINES, key="hold"), OutcomeUnknown)
        store.note("ITEM-001", ReservationItmIsMarkedForDeltn=True)
        store.note("ITEM-002", ReservationItmIsMarkedForDeltn=True)
        time_passes(minutes=3)

        assert get_inventory().find_reservation(key="hold") is None


class TestRouting:
    @pytest.fixture
    def vans(self, outside: Outside, settings: Settings) -> Any:
        settings.PROVIDER_ROUTES = {"shipping": [{"to": "fedex", "else": ["ups"]}]}
        return outside(shipping="fedex, ups")

    def test_no_other_is_asked_because_the_next_try_did_nothing(self, vans: Any) -> None:
        """The first call may have booked; that the second one certainly has not is no answer to the first."""
        vans["fedex"].fall_ill("cut", "/ship/v1/shipments")
        failing(book, OutcomeUnknown)
        vans["fedex"].fall_ill("status", "/track/", status=429)

        failing(book, Unavailable)

        assert vans["ups"].calls == []
        assert [(row.name, row.outcome) for row in ProviderChoice.objects.all()] == [("fedex", "asked")]

    def test_another_is_asked_once_it_is_sure_that_the_first_has_nothing(self, vans: Any) -> None:
        vans["fedex"].fall_ill("cut before", "/ship/v1/shipments")
        failing(book, OutcomeUnknown)
        time_passes(hours=1)
        assert get_shipping().find_shipment(reference=REFERENCE) is None
        vans["fedex"].fall_ill("status", "/ship/v1/shipments", status=429)

        assert book().carrier == "ups"
        assert (vans["fedex"].live, vans["ups"].live) == ([], [REFERENCE])

    def test_a_limit_that_is_reached_is_waited_for(self, vans: Any, settings: Settings, monkeypatch: Any) -> None:
        from config.env import env_limits

        monkeypatch.setenv("PROVIDER_LIMITS", "fedex=1/60")
        settings.PROVIDER_LIMITS = env_limits("PROVIDER_LIMITS")
        get_shipping().find_shipment(reference="nothing")
        book()

        with pytest.raises(Postponed):
            get_shipping().create_shipment(reference="REF-2", address=HOME, lines=LINES, key="2")
        assert vans["ups"].calls == []


ODD: list[Any] = [{}, {"output": None}, {"d": {}}, {"items": 7}, {"id": None}, {"ShipmentResponse": []}, 7]


@pytest.mark.parametrize(
    ("chosen", "call"),
    [
        ({"payments": "stripe"}, lambda key: charge("pm_card_visa", key)),
        ({"payments": "paypal"}, lambda key: charge("paypal", key)),
        ({"payments": "adyen"}, lambda key: charge("stored-visa", key)),
        *[({"shipping": name}, lambda key: book(f"REF-0123456789ABC{key}")) for name in CARRIERS],
        *[
            ({"inventory": name}, lambda key: get_inventory().reserve(LINES, key=key))
            for name in ("sap", "oracle", "http")
        ],
        ({"mail": "ses"}, lambda key: get_mail().send(MAIL, key=key)),
    ],
    ids=lambda one: "-".join(one.values()) if isinstance(one, dict) else "",
)
def test_an_answer_of_another_shape_is_an_open_question(outside: Outside, chosen: dict[str, str], call: Any) -> None:
    (double,) = outside(**chosen).values()
    double.checks_answers = False
    answer = double.answer
    for number, said in enumerate(ODD):
        forget_failures()
        double.answer = lambda call, said=said: answer(call) if "token" in call.path else Reply(said=said)

        error = failing(partial(call, str(number)), ProviderError)

        assert not isinstance(error, Declined), (said, error)
        assert error.code != "circuit_open"

    double.answer = answer
    double.fall_ill("not json", "" if chosen.get("payments") != "paypal" else "/checkout/orders", times=9)
    forget_failures()
    assert not isinstance(failing(lambda: call("8"), ProviderError), Declined)


def forget_failures() -> None:
    """Five failures in a row would end the asking."""
    ProviderHealth.objects.all().delete()


class Drip(BaseHTTPRequestHandler):
    """Says a byte at a time, or a great many at once, and never comes to an end."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        huge = self.path == "/huge"
        try:
            while True:
                self.wfile.write(b" " * (1024 * 1024 if huge else 1))
                self.server.over.wait(0 if huge else 0.05)  # type: ignore[attr-defined]
        except OSError:
            pass

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def drip() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Drip)
    server.over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.over.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/drip", "/huge"])
def test_an_answer_without_an_end_is_given_up(drip: str, path: str) -> None:
    http = Http("acme", drip, seconds=0.5)
    begun = time.monotonic()

    failing(lambda: http.ask("look", "GET", path), Unavailable)
    failing(lambda: http.ask("do", "GET", path, reads=False), OutcomeUnknown)

    assert time.monotonic() - begun < 10
    http.close()


def test_an_event_that_nobody_foresaw_stands_in_nobodys_way(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    outside(payments="stripe")
    adapter = providers.adapter("payments", "stripe")
    monkeypatch.setattr(adapter, "hear", lambda event: {}[event.kind])
    now = timezone.now()
    for number in range(3):
        InboundEvent.objects.create(
            provider="stripe", event_id=str(number), kind="odd", body="{}", next_at=now, received_at=now
        )

    assert inbound.hear_due() == 3
    assert {(row.status, row.tries) for row in InboundEvent.objects.all()} == {("waiting", 1)}
    assert "KeyError while it was looked at" in InboundEvent.objects.all()[0].message


def test_being_asked_after_does_not_prolong_the_wait_for_a_customer(outside: Outside) -> None:
    make_shop()
    outside(payments="paypal")
    make_order(card_token="paypal")
    run = SagaRun.objects.get()
    run_to_end(run)
    PaymentOperation.objects.update(created_at=timezone.now() - timedelta(minutes=59), look_at=timezone.now())

    assert settling.look_at_due() == 1
    run_to_end(run)
    report = run_to_end(run, clock=FrozenClock(timezone.now() + timedelta(minutes=61)))

    assert (report.status, report.error_code) == ("compensated", "signal_timeout")


def test_nothing_secret_is_logged_at_any_level(outside: Outside, caplog: pytest.LogCaptureFixture) -> None:
    make_shop()
    caplog.set_level(logging.DEBUG)
    for payments, shipping, mail, method in (
        ("stripe", "ups", "ses", "pm_card_visa"),
        ("adyen", "dhl-express", "sendgrid", "stored-visa"),
    ):
        outside(payments=payments, shipping=shipping, mail=mail)
        run_to_end(SagaRun.objects.get(business_key=make_order(order_id=f"ORD-{payments}", card_token=method).order_id))

    said = "\n".join(record.getMessage() for record in caplog.records)
    for secret in ("sk_test_double", "adyen-key", "SG.key", "pm_card_visa", "stored-visa", "ada@", "token-1", "Torstr"):
        assert secret not in said, next(line for line in said.splitlines() if secret in line)
