"""The adapters against other people's emulators: what none of ours has made up.

localstripe plays Stripe's life cycles, stripe-stateful-mock its idempotency keys, Prism holds requests against the
vendors' own descriptions and answers with their own examples, aiosmtpd takes mail. Prism and stripe-stateful-mock come
by `make npm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from django.core.mail.backends.smtp import EmailBackend
from pytest_django import Settings

from orders import inbound, providers
from orders.models import InboundEvent, OutsideEffect
from orders.providers import get_inventory, get_mail, get_payments, get_shipping
from orders.providers.base import Address, Charge, Line, Message, Refund
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.shipping.booking import Destination
from tests.doubles import stripe
from tests.doubles.emulators import PrismFront, localstripe, prism, stripe_stateful_mock
from tests.doubles.mail import Sink
from tests.doubles.setups import TABLES
from tests.processes import free_port, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]

TOTAL = Decimal("99.99")
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")
LINES = [Line(sku="ITEM-001", quantity=2), Line(sku="ITEM-002", quantity=1)]
MAIL = Message(recipient="ada@example.com", subject="Your order", body="It is on its way.", html="<p>It is.</p>")


class Told:
    """What a setup wants to know of its double, where the double is an address."""

    public_key = "unused"

    def __init__(self, url: str) -> None:
        self.url = url


def use(settings: Settings, url: str, **chosen: str) -> None:
    """Have the shop use these, at that address."""
    told: dict[str, str] = {}
    for kind, name in chosen.items():
        told |= TABLES[kind][name].settings(Told(url))
    # A process of Node's that has just begun may take its time.
    settings.PROVIDER_SETTINGS = {name: "20" if "TIMEOUT" in name else value for name, value in told.items()}
    settings.PROVIDERS = {**settings.PROVIDERS, **chosen}
    providers.forget()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    providers.forget()


def charge(method: str, key: str = "pay", verb: str = "charge") -> Charge:
    call = getattr(get_payments(), verb)
    made: Charge = call(amount=TOTAL, currency="EUR", method=method, key=key, order_id="ORD-123", customer="USER-456")
    return made


def refund(key: str = "pay") -> Refund | None:
    return get_payments().refund(charge_key=key, key=f"{key}-undo")


class TestLocalstripe:
    @pytest.fixture
    def url(self, tmp_path: Path, settings: Settings) -> Iterator[str]:
        with localstripe(tmp_path) as url:
            use(settings, url, payments="stripe")
            yield url

    def state(self, url: str, number: str) -> Any:
        return httpx.get(f"{url}/v1/payment_intents/{number}", auth=(stripe.KEY, "")).json()

    def card(self, url: str, number: str) -> str:
        """A payment method with a test card of that number."""
        card = {"card[number]": number, "card[exp_month]": "12", "card[exp_year]": "2035", "card[cvc]": "123"}
        made = httpx.post(f"{url}/v1/payment_methods", data={"type": "card", **card}, auth=(stripe.KEY, ""))
        return str(made.json()["id"])

    def test_a_charge_its_look_up_and_its_refund(self, url: str) -> None:
        made = charge("pm_card_visa")

        assert (made.amount, made.currency, made.status) == (TOTAL, "EUR", "completed")
        assert get_payments().find_charge(key="pay") == charge("pm_card_visa") == made
        intent = self.state(url, made.transaction_id)
        assert (intent["status"], intent["amount"], intent["metadata"]["order_id"]) == ("succeeded", 9999, "ORD-123")

        given_back = refund()
        assert given_back is not None
        assert (given_back.amount, given_back.status) == (TOTAL, "completed")
        assert refund() == get_payments().find_refund(key="pay-undo") == given_back
        (only,) = httpx.get(f"{url}/v1/refunds", auth=(stripe.KEY, "")).json()["data"]
        assert (only["id"], only["amount"]) == (given_back.refund_id, 9999)

    def test_money_set_aside_is_taken_or_let_go(self, url: str) -> None:
        gateway: Any = get_payments()
        kept, gone = (charge("pm_card_visa", key, "authorize") for key in ("kept", "gone"))
        assert {kept.status, gone.status} == {"authorized"}

        assert gateway.capture(charge_key="kept", key="take").status == "completed"
        assert refund("gone") is None

        assert self.state(url, kept.transaction_id)["status"] == "succeeded"
        assert self.state(url, gone.transaction_id)["status"] == "canceled"
        with pytest.raises(Declined):
            gateway.capture(charge_key="gone", key="take-2")

    def test_a_declined_card(self, url: str) -> None:
        with pytest.raises(Declined) as caught:
            charge(self.card(url, "4000000000000341"))

        assert caught.value.code == "card_declined"
        assert get_payments().find_charge(key="pay") is None
        assert refund() is None

    def test_its_own_signed_webhooks_are_understood(self, url: str, live_server: Any) -> None:
        """Sent by localstripe itself to our address, over the wire."""
        told = {"url": f"{live_server.url}/webhooks/stripe", "secret": stripe.WEBHOOK_SECRET}
        httpx.post(f"{url}/_config/webhooks/shop", json=told).raise_for_status()

        made = charge("pm_card_visa")

        wait_for("the webhook", lambda: InboundEvent.objects.filter(kind="payment_intent.succeeded").exists())
        inbound.hear_due()
        event = InboundEvent.objects.get(kind="payment_intent.succeeded")
        assert (event.about, event.key, event.status) == (made.transaction_id, "pay", "heard")


class TestStripeStatefulMock:
    """It knows no payment intents, but keeps idempotency keys as Stripe does: our reading of its answers."""

    @pytest.fixture
    def gateway(self, tmp_path: Path, settings: Settings) -> Iterator[Any]:
        with stripe_stateful_mock(tmp_path) as url:
            use(settings, url, payments="stripe")
            yield providers.adapter("payments", "stripe")

    def charge(self, gateway: Any, source: str, key: str = "k", amount: int = 9999) -> Any:
        asked = {"amount": amount, "currency": "eur", "source": source}
        return gateway._call("charge", lambda: gateway._client.charges.create(asked, {"idempotency_key": key}))

    def give_back(self, gateway: Any, number: str, key: str) -> Any:
        asked = {"charge": number}
        return gateway._call("refund", lambda: gateway._client.refunds.create(asked, {"idempotency_key": key}))

    def test_the_same_key_is_the_same_charge_and_another_request_is_refused(self, gateway: Any) -> None:
        made = self.charge(gateway, "tok_visa")

        assert self.charge(gateway, "tok_visa").id == made.id
        with pytest.raises(Declined):
            self.charge(gateway, "tok_visa", amount=1)

    def test_a_charge_is_given_back_once(self, gateway: Any) -> None:
        made = self.charge(gateway, "tok_visa")

        assert self.give_back(gateway, made.id, "r").id == self.give_back(gateway, made.id, "r").id
        with pytest.raises(Declined) as caught:
            self.give_back(gateway, made.id, "another")
        assert caught.value.code == "charge_already_refunded"

    @pytest.mark.parametrize(
        ("token", "kind", "code"),
        [
            ("tok_429", Unavailable, "too_many"),
            ("tok_500", OutcomeUnknown, "server_error"),
            ("tok_chargeDeclined", Declined, "generic_decline"),
            ("tok_chargeDeclinedInsufficientFunds", Declined, "insufficient_funds"),
        ],
    )
    def test_failures_are_told_apart(self, gateway: Any, token: str, kind: type[ProviderError], code: str) -> None:
        with pytest.raises(kind) as caught:
            self.charge(gateway, token)

        assert (type(caught.value), caught.value.code) == (kind, code)


Front = Callable[..., PrismFront]

FILES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "paypal": {
        "/v2/checkout": ("paypal/checkout_orders_v2.json", ""),
        "/v2/payments": ("paypal/payments_payment_v2.json", ""),
        "/v1/notifications": ("paypal/notifications_webhooks_v1.json", ""),
    },
    "adyen": {"/v72": ("adyen/checkout_v72.payments_modifications.json", "/v72")},
    "ups": {
        "/api/track": ("ups/tracking.json", "/api"),
        "/api/shipments": ("ups/shipping_v2409.json", "/api"),
        "/security": ("ups/oauth_client_credentials.json", ""),
    },
    "fedex": {"/ship": ("fedex/ship_v1.json", ""), "/track": ("fedex/track_v1.json", "")},
    "dhl-express": {"/mydhlapi": ("dhl_express/mydhl_3.1.1.shipments_pickups_tracking.json", "/mydhlapi")},
    "dhl-parcel-de": {"/parcel": ("dhl_parcel_de/parcel_de_shipping_v2.json", "/parcel/de/shipping/v2")},
    "oracle": {"/fscmRestApi": ("oracle/inventoryReservations.transcribed.json", "")},
    "sendgrid": {"/v3": ("sendgrid/mail_v3.json", "")},
}


class TestPrism:
    @pytest.fixture
    def at(self, tmp_path: Path, settings: Settings) -> Iterator[Callable[..., PrismFront]]:
        from contextlib import ExitStack

        with ExitStack() as stack:

            def start(**chosen: str) -> PrismFront:
                ((_, name),) = chosen.items()
                front = stack.enter_context(prism(tmp_path, FILES[name]))
                use(settings, front.url, **chosen)
                return front

            yield start

    def test_adyen(self, at: Front) -> None:
        front = at(payments="adyen")
        front.prefers = {"/payments": "code=200, example=card-direct"}
        front.prefers["/reversals"] = front.prefers["/cancels"] = "code=201"

        made = charge("stored-visa")
        given_back = refund()

        assert (made.status, made.transaction_id) == ("completed", "993617895204576J")
        assert given_back is not None
        assert given_back.status == "pending"
        assert [status for _, _, status in front.seen] == [200, 201]
        OutsideEffect.objects.all().delete()  # the example has one number only
        gateway: Any = get_payments()
        front.prefers["/captures"] = "code=201"
        assert charge("stored-visa", "2", "authorize").status == "authorized"
        assert gateway.capture(charge_key="2", key="take").status == "pending"

    @pytest.mark.parametrize(
        ("code", "kind"), [(401, Unavailable), (403, Unavailable), (422, Declined), (500, OutcomeUnknown)]
    )
    def test_adyens_own_errors(self, at: Front, code: int, kind: type[ProviderError]) -> None:
        front = at(payments="adyen")
        front.prefers = {"/payments": f"code={code}"}

        with pytest.raises(kind) as caught:
            charge("stored-visa")

        assert type(caught.value) is kind
        assert front.seen == [("POST", "/v72/payments", code)]

    def test_paypal(self, at: Front) -> None:
        """Its answers are made up from the schema: what they say is left aside, that the requests are right counts."""
        front = at(payments="paypal")
        for ask in (
            lambda: charge("paypal"),
            lambda: charge("ORDER1", "2"),
            lambda: charge("ORDER2", "3", "authorize"),
            lambda: get_payments().find_charge(key="pay"),
            refund,
            lambda: refund("2"),
        ):
            with suppress(ProviderError):
                ask()
        adapter = providers.adapter("payments", "paypal")
        for method, path, key in (
            ("POST", "/v2/checkout/orders/ORDER1/capture", "a"),
            ("POST", "/v2/checkout/orders/ORDER1/authorize", "b"),
            ("POST", "/v2/payments/captures/CAPTURE1/refund", "c"),
        ):
            adapter._http.ask("proof", method, path, json={}, headers={"PayPal-Request-Id": key, "Prefer": ""})
        adapter._void("AUTH1", "d")
        adapter._http.ask("proof", "GET", "/v2/payments/refunds/REFUND1")

        assert {(method, path.split("/")[2]) for method, path, _ in front.seen} >= {
            ("POST", "checkout"),
            ("GET", "checkout"),
            ("POST", "payments"),
            ("GET", "payments"),
        }
        # A number that was made up breaks the description's own pattern for numbers.
        assert [one for one in front.seen if one[2] >= 300 and "string" not in one[1]] == [], front.said

    @pytest.mark.parametrize("name", ["ups", "fedex", "dhl-express", "dhl-parcel-de"])
    def test_carriers(self, at: Front, name: str) -> None:
        front = at(shipping=name)
        adapter = providers.adapter("shipping", name)

        parcel = get_shipping().create_shipment(reference="REF-0123456789ABCDEF", address=HOME, lines=LINES, key="ship")
        with suppress(ProviderError):  # what is made up seldom says yes
            get_shipping().cancel_shipment(reference="REF-0123456789ABCDEF", key="undo")
        if adapter.finds:
            with suppress(ProviderError):
                adapter.look_for("REF-0123456789ABCDEF", Destination(country="DE", postcode="10115"))

        assert parcel.shipment_id
        assert parcel.tracking_number
        assert [one for one in front.seen if one[2] >= 300] == [], front.said
        assert len([one for one in front.seen if "token" not in one[1]]) == (3 if adapter.finds else 2)

    def test_a_request_that_a_carrier_does_not_know_is_found_out(self, at: Front) -> None:
        """Prism would prove nothing if it took everything."""
        front = at(shipping="ups")
        adapter = providers.adapter("shipping", "ups")

        adapter._http.ask("proof", "POST", "/api/shipments/v2409/ship", json={"ShipmentRequest": {}})

        assert front.seen[-1][2] == 400

    def test_sendgrid(self, at: Front) -> None:
        front = at(mail="sendgrid")

        assert get_mail().send(MAIL, key="mail").email_id
        assert front.seen == [("POST", "/v3/mail/send", 202)]

    def test_oracle(self, at: Front, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orders.providers.inventory.oracle.MOST_ROWS", 3)
        front = at(inventory="oracle")
        adapter = providers.adapter("inventory", "oracle")

        with suppress(ProviderError):
            get_inventory().reserve(LINES, key="hold")
        with pytest.raises(Unavailable, match="does not come to its end"):  # it says for ever that there is more
            adapter.look_for("0123456789ABCDEF")
        adapter.let_go("0123456789ABCDEF", {"ITEM-001": ("300000001", 2)})

        assert {method for method, _, _ in front.seen} == {"POST", "GET", "DELETE"}
        assert [one for one in front.seen if one[2] >= 300] == [], front.said


class TestSmtp:
    @pytest.fixture
    def sink(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
        sink = Sink()
        port = free_port()
        server = Controller(sink, hostname="127.0.0.1", port=port)
        server.start()
        monkeypatch.setattr(
            "django.core.mail.message.EmailMessage.get_connection",
            lambda self, fail_silently=False: EmailBackend(host="127.0.0.1", port=port, timeout=5),
        )
        yield sink
        server.stop()

    def test_a_mail_goes_out_once_with_an_id_of_its_key(self, sink: Sink) -> None:
        sent = get_mail().send(MAIL, key="mail")

        assert get_mail().send(MAIL, key="mail") == get_mail().find(key="mail") == sent
        ((recipient, number),) = sink.mails
        assert (recipient, number.startswith("<"), number.endswith("@example.com>")) == ("ada@example.com", True, True)

    @pytest.mark.parametrize(
        ("answer", "kind", "code"),
        [("550 No such user", Declined, "bad_address"), ("451 Come again", Unavailable, "unavailable")],
    )
    def test_what_the_server_says_of_an_address(
        self, sink: Sink, answer: str, kind: type[ProviderError], code: str
    ) -> None:
        sink.answers["ada@example.com"] = answer

        with pytest.raises(kind) as caught:
            get_mail().send(MAIL, key="mail")

        assert (type(caught.value), caught.value.code, sink.mails) == (kind, code, [])
        assert get_mail().find(key="mail") is None
