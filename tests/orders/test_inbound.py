"""Webhooks that providers send, and payments that take their time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from orders import inbound, providers, settling
from orders.models import (
    InboundDelivery,
    InboundEvent,
    MailDelivery,
    Order,
    OutsideEffect,
    Payment,
    PaymentOperation,
    SentMessage,
)
from orders.selectors import view_of
from orders.services import cancel_order
from sagas.models import SagaRun
from sagas.testing import FrozenClock, run_to_end
from tests.doubles.adyen import notification
from tests.factories import make_order, make_shop
from tests.orders.api_client import problem
from tests.orders.pages import visitor

pytestmark = pytest.mark.django_db(transaction=True)

Outside = Callable[..., dict[str, Any]]


class Till:
    """A gateway whose customer has something to do first, and an order that waits for that."""

    def __init__(self, name: str, outside: Outside) -> None:
        make_shop()
        self.name = name
        self.double = outside(payments=name)[name]
        method = {"stripe": "pm_3ds", "adyen": "3ds", "paypal": "paypal"}[name]
        make_order(card_token=method)
        self.run = SagaRun.objects.get()
        self.report = run_to_end(self.run)
        self.number = OutsideEffect.objects.get(kind="charge").remote_id
        if name == "adyen":  # whose number comes once the customer is back
            (self.number,) = self.double.payments

    def confirm(self) -> None:
        """The customer and their bank have done their part."""
        if self.name == "stripe":
            self.double.settle(self.number)
        elif self.name == "paypal":
            self.double.approve(self.number)
        else:
            self.double.payments[self.number]["state"] = "Authorised"

    def told(self, event_id: str = "1") -> tuple[bytes, dict[str, str]]:
        """The webhook that says so."""
        if self.name == "stripe":
            body, headers = self.double.signed("payment_intent.succeeded", self.number, f"evt_{event_id}")
        elif self.name == "paypal":
            body, headers = self.double.signed("CHECKOUT.ORDER.APPROVED", self.number, f"WH-{event_id}")
        else:
            return notification(self.double.event("AUTHORISATION", self.number)), {}
        return body, dict(headers)


@pytest.fixture(params=["stripe", "paypal", "adyen"])
def till(request: pytest.FixtureRequest, outside: Outside) -> Till:
    return Till(request.param, outside)


def send(name: str, body: bytes, headers: dict[str, str]) -> Any:
    return Client().post(f"/webhooks/{name}", body, content_type="application/json", headers=headers)


def test_an_order_waits_for_its_customer_and_goes_on_when_they_are_done(till: Till) -> None:
    assert till.report.status == "running"
    assert till.report.attempts[-1] == ("process_payment", "action", 1, "waiting")
    operation = PaymentOperation.objects.get()
    assert (operation.status, operation.next_url.startswith("https://")) == ("pending", True)
    page = visitor("gina", "agent").get("/orders/ORD-123/").content.decode()
    assert f'<a href="{operation.next_url}" rel="noreferrer">Go on with the payment</a>' in page

    till.confirm()
    answer = send(till.name, *till.told())
    assert (answer.status_code, answer.content) == (200, b"[accepted]")
    assert run_to_end(till.run).status == "running"  # stored and answered; nothing is done while the sender waits

    assert inbound.is_waiting()
    assert inbound.hear_due() == 1
    report = run_to_end(till.run)

    assert report.status == "completed"
    assert (till.double.taken, str(Payment.objects.get().charged)) == (9999, "99.990")
    assert (InboundEvent.objects.get().status, inbound.is_waiting()) == ("heard", False)
    assert PaymentOperation.objects.get().next_url == ""


def test_one_that_was_changed_on_its_way_comes_to_nothing(till: Till) -> None:
    till.confirm()
    body, headers = till.told()
    if till.name == "paypal":
        headers["paypal-transmission-sig"] = "forged"
    changed = body.replace(b"succeeded", b"canceled!").replace(b"9999", b"1")

    answer = send(till.name, changed, headers)

    assert (answer.status_code, InboundEvent.objects.exists()) == (400, False)
    assert run_to_end(till.run).status == "running"


def test_one_that_comes_twice_is_heard_once(till: Till) -> None:
    till.confirm()
    told = till.told()

    assert [send(till.name, *told).status_code for _ in range(3)] == [200] * 3
    inbound.hear_due()

    assert InboundEvent.objects.count() == 1
    assert run_to_end(till.run).status == "completed"
    assert till.double.taken == 9999


def test_one_that_says_what_is_not_so_yet_wakes_nobody(till: Till) -> None:
    if till.name == "adyen":
        return  # which cannot be asked: what it signs is the truth
    body, headers = till.told()  # and the customer has not confirmed anything

    send(till.name, body, headers)
    inbound.hear_due()

    if till.name == "stripe":
        assert run_to_end(till.run).status == "running"
    assert till.double.taken == 0


def test_one_that_is_faster_than_our_answer_is_looked_at_again(till: Till) -> None:
    till.confirm()
    told = till.told()
    number, key = till.number, OutsideEffect.objects.get(kind="charge").key
    OutsideEffect.objects.filter(key=key).update(remote_id="", reference="")  # as if the answer were still out

    send(till.name, *told)
    inbound.hear_due()
    event = InboundEvent.objects.get()
    assert (event.status, event.tries, event.next_at is not None) == ("waiting", 1, True)

    OutsideEffect.objects.filter(key=key).update(remote_id=number)
    InboundEvent.objects.update(next_at=timezone.now())
    inbound.hear_due()

    assert InboundEvent.objects.get().status == "heard"
    assert run_to_end(till.run).status == "completed"


def test_one_about_nothing_of_ours_is_kept_and_left_alone(till: Till) -> None:
    body, headers = till.told()
    OutsideEffect.objects.all().delete()
    send(till.name, body, headers)

    for _ in range(len(inbound.EARLY) + 1):
        InboundEvent.objects.update(next_at=timezone.now())
        inbound.hear_due()

    event = InboundEvent.objects.get()
    assert (event.status, event.next_at, event.tries) == ("not_ours", None, len(inbound.EARLY) + 1)


def test_without_any_webhook_it_is_asked_after(till: Till) -> None:
    assert not settling.is_waiting()  # it has only just become pending
    till.confirm()
    PaymentOperation.objects.update(look_at=timezone.now())
    assert settling.is_waiting()
    settling.look_at_due()

    report = run_to_end(till.run)

    # Adyen cannot be asked: without its word the step goes on waiting, to its end.
    assert report.status == ("running" if till.name == "adyen" else "completed")
    assert not settling.is_waiting()


def test_a_customer_who_never_comes_back_gets_nothing_and_pays_nothing(till: Till) -> None:
    clock = FrozenClock(timezone.now() + timedelta(hours=2))

    report = run_to_end(till.run, clock=clock)
    if till.name == "adyen":
        tell_undone(till)
        report = run_to_end(till.run, clock=clock)

    assert (report.status, report.error_code) == ("compensated", "signal_timeout")
    assert till.double.taken == 0
    # Whoever confirms now is too late.
    till.confirm() if till.name == "paypal" else None
    send(till.name, *till.told("2"))
    inbound.hear_due()
    assert (run_to_end(till.run).status, till.double.taken) == ("compensated", 0)


def test_cancelled_while_it_waits_it_is_called_off(till: Till) -> None:
    cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")

    report = run_to_end(till.run)
    if till.name == "adyen":
        tell_undone(till)
        report = run_to_end(till.run)

    assert (report.status, till.double.taken) == ("compensated", 0)


def tell_undone(till: Till) -> None:
    for psp in list(till.double.modifications):
        send("adyen", notification(till.double.settle(psp)), {})
    inbound.hear_due()


def test_events_in_the_wrong_order_come_to_the_same(outside: Outside) -> None:
    """The refund's event before the payment's."""
    till = Till("adyen", outside)
    cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")
    run_to_end(till.run)
    (psp,) = till.double.modifications

    send("adyen", notification(till.double.settle(psp), till.double.event("AUTHORISATION", till.number)), {})
    inbound.hear_due()

    assert run_to_end(till.run).status == "compensated"
    assert InboundEvent.objects.filter(status="heard").count() == 2


def test_a_refund_that_takes_days_is_waited_for(outside: Outside) -> None:
    make_shop()
    double = outside(payments="stripe")["stripe"]
    double.slow_refunds = True
    make_order(card_token="pm_card_visa", ship_postcode="00000")
    run = SagaRun.objects.get()

    report = run_to_end(run)

    assert report.status == "compensating"
    assert report.attempts[-1] == ("process_payment", "compensation", 1, "waiting")
    assert str(Payment.objects.get().refunded) == "0.000"
    for refund in double.refunds.values():
        refund["status"] = "succeeded"
    PaymentOperation.objects.filter(kind="refund").update(look_at=timezone.now())
    settling.look_at_due()
    assert run_to_end(run).status == "compensated"
    assert Payment.objects.get().charged == Payment.objects.get().refunded > 0


def test_a_refund_that_fails_in_the_end_is_a_debt(outside: Outside) -> None:
    make_shop()
    double = outside(payments="stripe")["stripe"]
    double.slow_refunds = True
    make_order(card_token="pm_card_visa", ship_postcode="00000")
    run = SagaRun.objects.get()
    run_to_end(run)

    for refund in double.refunds.values():
        refund["status"] = "failed"
    PaymentOperation.objects.filter(kind="refund").update(look_at=timezone.now())
    settling.look_at_due()
    report = run_to_end(run)

    assert report.status == "needs_attention"
    assert "The refund failed" in report.attention


@pytest.mark.parametrize("name", ["sandbox", "nobody", "local", "ups"])
def test_who_sends_no_webhooks_has_no_address(name: str, outside: Outside) -> None:
    outside(shipping="ups")

    assert send(name, b"{}", {}).status_code == 404


def test_a_huge_one_is_refused_unread(outside: Outside) -> None:
    outside(payments="stripe")

    assert send("stripe", b"x" * (2 * 1024 * 1024 + 1), {}).status_code == 413
    assert not InboundEvent.objects.exists()


def test_a_large_batch_is_taken_and_kept_once(outside: Outside) -> None:
    """As SendGrid sends it when much happens: up to 768 KiB in one go, whatever else a request may have."""
    double = outside(mail="sendgrid")["sendgrid"]
    events = [
        {"sg_event_id": f"e{n}", "event": "delivered", "sg_message_id": "x", "more": "." * 700} for n in range(1000)
    ]
    body, headers = double.signed(*events)
    assert 700 * 1024 < len(body) < 800 * 1024

    assert [send("sendgrid", body, headers).status_code for _ in range(2)] == [200, 200]

    delivery = InboundDelivery.objects.get()
    assert (delivery.body, delivery.events.count(), InboundEvent.objects.count()) == (body.decode(), 1000, 1000)
    body, headers = double.signed(events[0], {**events[1], "sg_event_id": "new"})
    assert send("sendgrid", body, headers).status_code == 200
    assert [one.events.count() for one in InboundDelivery.objects.order_by("id")] == [1000, 1]


def test_when_the_signature_cannot_be_checked_it_is_to_be_sent_again(outside: Outside) -> None:
    till = Till("paypal", outside)
    till.double.fall_ill("status", "verify", status=503)
    body, headers = till.told()

    assert send("paypal", body, headers).status_code == 503
    assert not InboundEvent.objects.exists()
    assert send("paypal", body, headers).status_code == 200


@pytest.fixture(params=["sendgrid", "ses"])
def post(request: pytest.FixtureRequest, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A mail service that tells what became of the confirmation of an order."""
    make_shop()
    double = outside(mail=request.param)[request.param]
    double.name = request.param
    if request.param == "ses":
        monkeypatch.setattr("orders.providers.mail.sns.get", double.fetch)
    make_order()
    run_to_end(SagaRun.objects.get())
    double.number = OutsideEffect.objects.get(kind="mail").remote_id
    return double


def told(post: Any, kind: str, number: str, reason: str = "") -> tuple[bytes, dict[str, str]]:
    """The webhook that says so, in the service's words."""
    if post.name == "sendgrid":
        words = {"bounced": "bounce", "complained": "spamreport", "delayed": "deferred"}.get(kind, kind)
        event = {"sg_event_id": number, "event": words, "sg_message_id": f"{post.number}.filter1", "reason": reason}
        signed: tuple[bytes, dict[str, str]] = post.signed(event)
        return signed
    words = {"bounced": "Bounce", "complained": "Complaint", "delayed": "DeliveryDelay", "delivered": "Delivery"}[kind]
    about: dict[str, Any] = {"eventType": words, "mail": {"messageId": post.number}}
    if kind == "bounced":
        about["bounce"] = {"bounceType": "Permanent", "bouncedRecipients": [{"diagnosticCode": reason}]}
    return post.signed(number, json.dumps(about)), {}


def test_staff_see_on_the_orders_page_that_a_mail_came_back(post: Any) -> None:
    body, headers = told(post, "bounced", "e1", "550 no such user")
    assert send(post.name, body.replace(b"550", b"250"), headers).status_code == 400
    assert [send(post.name, body, headers).status_code for _ in range(2)] == [200, 200]
    assert inbound.hear_due() == 1

    heard = MailDelivery.objects.get()
    assert (heard.kind, heard.note, heard.message.status) == ("bounced", "550 no such user", "sent")
    page = visitor("gina", "agent").get("/orders/ORD-123/").content.decode()
    assert "Came back" in page
    assert "550 no such user. The customer has not got it; ask them for another address." in page


@pytest.mark.parametrize(
    ("kinds", "end"),
    [
        (["delayed", "delivered"], "delivered"),
        (["delivered", "delayed"], "delivered"),
        (["bounced", "delivered"], "bounced"),
        (["delivered", "complained", "delivered"], "complained"),
    ],
)
def test_what_becomes_of_a_mail_is_told_in_any_order(post: Any, kinds: list[str], end: str) -> None:
    for number, kind in enumerate(kinds):
        assert send(post.name, *told(post, kind, f"e{number}")).status_code == 200
        inbound.hear_due()

    heard = view_of(Order.objects.get()).heard
    assert [(pk, one.kind) for pk, one in heard.items()] == [(SentMessage.objects.get().pk, end)]
    assert MailDelivery.objects.count() == len(set(kinds))


class TestSns:
    """What else Amazon's messages may be."""

    @pytest.fixture
    def ses(self, outside: Outside, monkeypatch: pytest.MonkeyPatch) -> Any:
        double = outside(mail="ses")["ses"]
        monkeypatch.setattr("orders.providers.mail.sns.get", double.fetch)
        return double

    def test_the_address_is_confirmed(self, ses: Any) -> None:
        assert send("ses", ses.confirmation(), {}).status_code == 200
        inbound.hear_due()

        assert ses.fetched[-1] == "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription"
        assert InboundEvent.objects.get().status == "heard"

    @pytest.mark.parametrize("version", ["1", "2"])
    def test_both_ways_to_sign_are_known(self, ses: Any, version: str) -> None:
        assert send("ses", ses.signed("m1", "hello", version=version), {}).status_code == 200

    @pytest.mark.parametrize(
        "changes",
        [
            {"TopicArn": "arn:aws:sns:eu-central-1:123456789012:another"},
            {"SigningCertURL": "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem"},
            {"SigningCertURL": "http://sns.eu-central-1.amazonaws.com/a.pem"},
            {"SigningCertURL": "https://evil@sns.eu-central-1.amazonaws.com:444/a.pem"},
            {"Message": "changed"},
            {"SignatureVersion": "3"},
            {"Type": "UnsubscribeConfirmation"},
            {"Signature": "AAAA"},
        ],
        ids=str,
    )
    def test_what_is_not_amazons_comes_to_nothing(self, ses: Any, changes: dict[str, str]) -> None:
        body = json.dumps({**json.loads(ses.signed("m1", "hello")), **changes}).encode()

        assert send("ses", body, {}).status_code == 400
        assert not InboundEvent.objects.exists()
        assert all(url.startswith("https://sns.eu-central-1.amazonaws.com/") for url in ses.fetched)

    def test_nothing_but_amazons_own_address_is_called(self, ses: Any) -> None:
        body = ses.confirmation(SubscribeURL="https://internal.example/admin")

        assert send("ses", body, {}).status_code == 200
        inbound.hear_due()

        assert "https://internal.example/admin" not in ses.fetched


def test_the_secret_is_of_its_own_provider(outside: Outside) -> None:
    till = Till("stripe", outside)
    body, headers = till.double.signed("payment_intent.succeeded", till.number, secret="whsec_other")

    assert send("stripe", body, headers).status_code == 400
    assert providers.adapter("payments", "stripe")


class TestCaptureAtShipment:
    """ORDER_CAPTURE=shipment: set aside at placing, taken once the parcel is booked."""

    @pytest.fixture(autouse=True)
    def at_shipment(self, settings: Any) -> None:
        settings.ORDER_CAPTURE = "shipment"

    def test_money_is_taken_after_the_parcel_is_booked(self, outside: Outside) -> None:
        make_shop()
        double = outside(payments="stripe")["stripe"]
        make_order(card_token="pm_card_visa")

        report = run_to_end(SagaRun.objects.get())

        assert report.done == [
            "reserve_inventory",
            "process_payment",
            "create_shipment",
            "capture_payment",
            "send_confirmation_email",
        ]
        assert report.results["process_payment"]["status"] == "authorized"
        assert report.results["capture_payment"]["status"] == "completed"
        assert (double.taken, str(Payment.objects.get().charged)) == (9999, "99.990")

    def test_a_refused_address_only_lets_it_go(self, outside: Outside) -> None:
        make_shop()
        double = outside(payments="stripe")["stripe"]
        make_order(card_token="pm_card_visa", ship_postcode="00000")

        report = run_to_end(SagaRun.objects.get())

        assert (report.status, double.taken, double.refunds) == ("compensated", 0, {})
        assert [one["status"] for one in double.intents.values()] == ["canceled"]
        assert str(Payment.objects.get().charged) == "0.000"

    def test_cancelled_afterwards_it_is_refunded(self, outside: Outside) -> None:
        make_shop()
        double = outside(payments="stripe")["stripe"]
        make_order(card_token="pm_card_visa")
        run = SagaRun.objects.get()
        run_to_end(run)

        cancel_order(order_id="ORD-123", actor="customer:ada", reason="changed my mind")
        report = run_to_end(run)

        assert (report.status, double.taken, len(double.refunds)) == ("compensated", 0, 1)
        assert Payment.objects.get().charged == Payment.objects.get().refunded > 0

    def test_adyen_tells_of_the_capture_later(self, outside: Outside) -> None:
        make_shop()
        double = outside(payments="adyen")["adyen"]
        make_order(card_token="stored-visa")
        run = SagaRun.objects.get()
        assert run_to_end(run).attempts[-1] == ("capture_payment", "action", 1, "waiting")
        (psp,) = double.modifications

        send("adyen", notification(double.settle(psp)), {})
        inbound.hear_due()

        assert run_to_end(run).status == "completed"
        assert str(Payment.objects.get().charged) == "99.990"


class TestBelowTheApi:
    """The same door, for whoever lets nothing but the API through: answers are the API's."""

    def call(self, name: str, body: bytes, headers: dict[str, str]) -> Any:
        path = f"/api/v1/provider-callbacks/{name}"
        return Client().post(path, body, content_type="application/json", headers=headers)

    def test_what_is_signed_is_stored_once_however_often_it_comes(self, till: Till) -> None:
        till.confirm()
        body, headers = till.told()

        answers = [self.call(till.name, body, headers) for _ in range(2)]

        assert [(one.status_code, one.content) for one in answers] == [(200, b"[accepted]")] * 2
        assert InboundEvent.objects.count() == 1

    def test_what_is_not_signed_is_a_problem_and_leaves_nothing(self, till: Till) -> None:
        answer = self.call(till.name, b'{"id": "evt_1"}', {})

        assert problem(answer, 401, "unauthenticated")["detail"] == "This is not signed as it should be."
        assert not InboundEvent.objects.exists()

    def test_strangers_and_other_methods_are_problems(self) -> None:
        make_shop()

        problem(self.call("nobody", b"{}", {}), 404, "not-found")
        refused = Client().get("/api/v1/provider-callbacks/stripe")
        problem(refused, 405, "method-not-allowed")
        assert refused.headers["Allow"] == "POST"
