"""Every provider, stood up over what is on its other side, in the same few words: what test_contract.py is asked by.

`do` is the action, `find` its look-up, `undo` its undo, `done` how often its effect stands on the other side, and
`fall_ill` what goes wrong with the next `do`. A provider of one's own joins by a row in STANDS; a promise that cannot
be asked of one stands in EXCUSED, by name and with the reason.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import parse_qsl

import pytest
from django.core import mail as outbox
from pytest_django import Settings

from orders.models import OutsideEffect, SandboxCharge, SandboxParcel, StockItem
from orders.order_processing.parcel_books import reference_of
from orders.providers import faults
from orders.providers.base import Address, Line, Message, Reserved
from orders.providers.errors import OutcomeUnknown, ProviderError
from orders.providers.faults import Faulty
from orders.providers.http import close_all
from orders.providers.inventory.local import LocalInventory
from orders.providers.mail.django import DjangoMail
from orders.providers.payments.sandbox import SandboxGateway
from orders.providers.shipping.sandbox import SandboxCarrier
from tests.doubles.adyen import CUSTOMER, notification
from tests.doubles.paypal import DECLINED
from tests.doubles.server import Call, served
from tests.doubles.setups import TABLES
from tests.factories import make_product

RUN = "0191f2d4-7c1e-7000-8000-0123456789ab"
KEY, UNDO_KEY = f"{RUN}:the_step:action", f"{RUN}:the_step:compensation"
TOTAL = Decimal("99.99")
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")
MESSAGE = Message(recipient="ada@example.com", subject="Your order", body="It is on its way.", html="<p>It is.</p>")
WANTED = {"ITEM-001": 2, "ITEM-002": 1}
SECRETS = ("sk_test_double", "secret", "adyen-key", "SG.key", "token-1", "pm_", "tok_", "whsec")
SILENCE = "0.25"
"""Seconds for which a server that never answers is waited for; all else has the time that it takes."""

Ill = Literal["cut", "hang", "cut before", "away", "credentials"]
"""Cut once it is done; silent once it is done; cut before anything is done; 429; 401 until further notice."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is right to say to one provider, and by which words its calls are known."""

    kind: str
    adapter: Callable[[], Any] | None = None
    """An embedded one; the others have their setups in tests/doubles/setups.py."""
    is_faulty: bool = False
    good: Callable[[Any], dict[str, Any]] = lambda double: {}
    """Of the double: what of the request is its own."""
    refused: Callable[[Any], dict[str, Any]] = lambda double: {}
    code: str = ""
    """Of the refusal."""
    ills: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """What an embedded one is asked for, so that it falls ill by itself."""
    times: int = 1
    """How often it is then away."""
    acts: str = ""
    undoes: str = ""
    """In the "METHOD path" of the call that has the effect, and that takes it back."""
    whole: Mapping[str, Any] = field(default_factory=dict)
    """A request that writes our keys wherever it can, if the good one does not."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """Name of a header or of a member of what is sent -> the form that the vendor allows our keys there."""
    left: int = 0
    """How much an undo leaves standing on the other side."""
    most: int = 1
    """How often an effect may stand there after an answer was lost."""


def _method(good: str, refused: str, code: str, **more: Any) -> dict[str, Any]:
    return {"good": lambda _: {"method": good}, "refused": lambda _: {"method": refused}, "code": code, **more}


ELSEWHERE: dict[str, Any] = {"refused": lambda _: {"postcode": "99999"}, "code": "address_not_served"}
NOWHERE: dict[str, Any] = {"refused": lambda _: {"postcode": "00000"}, "code": "address_not_served"}
TOO_MANY: dict[str, Any] = {"refused": lambda _: {"ITEM-002": 11}, "code": "insufficient_inventory"}
BOUNCES: dict[str, Any] = {"refused": lambda _: {"recipient": "bounces@example.com"}, "code": "bad_address"}
UUID, HEX = r"[0-9a-f-]{36}", r"[0-9A-F]{32}"
REFERENCE = r"[A-Z0-9-]{8,35}"

SANDBOX_GATEWAY = _method(
    "tok_visa",
    "tok_insufficient_funds",
    "insufficient_funds",
    kind="payments",
    adapter=SandboxGateway,
)
SANDBOX_CARRIER: dict[str, Any] = {"kind": "shipping", "adapter": SandboxCarrier, **NOWHERE}
LOCAL: dict[str, Any] = {"kind": "inventory", "adapter": LocalInventory, **TOO_MANY}
DJANGO: dict[str, Any] = {"kind": "mail", "adapter": DjangoMail, **BOUNCES}

STANDS: dict[str, Row] = {
    "stripe": Row(
        **_method("pm_card_visa", "pm_insufficient", "insufficient_funds"),
        kind="payments",
        acts="/confirm",
        undoes="POST /v1/refunds",
        limits={"Idempotency-Key": r"[\w:-]{1,255}"},
    ),
    "paypal": Row(
        kind="payments",
        good=lambda double: {"method": double.approved(number="ORDEROK")},
        refused=lambda double: {"method": double.approved(number=DECLINED)},
        code="INSTRUMENT_DECLINED",
        acts="/capture",
        undoes="/refund",
        whole={"method": "vault:B-1"},
        limits={"PayPal-Request-Id": UUID, "custom_id": UUID, "invoice_id": UUID},
    ),
    "adyen": Row(
        **_method("stored-visa", "declined", "not_enough_balance"),
        kind="payments",
        acts="/payments",
        undoes="/reversals",
        # A hyphen would make several references of one.
        limits={"Idempotency-Key": UUID, "reference": HEX},
    ),
    "sandbox gateway": Row(
        **SANDBOX_GATEWAY, ills={"cut": {"method": "tok_lose_answer"}, "away": {"method": "tok_gateway_down_once"}}
    ),
    "sandbox gateway in faults": Row(**SANDBOX_GATEWAY, is_faulty=True, acts="charge", undoes="refund"),
    "ups": Row(
        kind="shipping",
        **ELSEWHERE,
        acts="/ship",
        undoes="DELETE",
        limits={"transId": HEX, "Value": REFERENCE, "CustomerContext": REFERENCE},
    ),
    "fedex": Row(
        kind="shipping",
        **ELSEWHERE,
        acts="/shipments",
        undoes="PUT",
        limits={"x-customer-transaction-id": UUID, "value": rf"{REFERENCE}|740561073|[\d.]+"},
    ),
    # Express has no such call: the waybill lapses.
    "dhl-express": Row(
        kind="shipping",
        **NOWHERE,
        acts="POST",
        undoes="GET",
        limits={"Message-Reference": UUID, "value": REFERENCE},
        left=1,
    ),
    "dhl-parcel-de": Row(kind="shipping", **NOWHERE, acts="POST", undoes="DELETE", limits={"refNo": REFERENCE}),
    "sandbox carrier": Row(
        **SANDBOX_CARRIER, ills={"cut": {"postcode": "00002"}, "away": {"postcode": "00001"}}, times=2
    ),
    "sandbox carrier in faults": Row(
        **SANDBOX_CARRIER, is_faulty=True, acts="create_shipment", undoes="cancel_shipment"
    ),
    "sap": Row(kind="inventory", **TOO_MANY, acts="POST", undoes="DELETE", limits={"ReservationItemText": HEX}),
    "oracle": Row(
        kind="inventory", **TOO_MANY, acts="POST", undoes="DELETE", limits={"DemandSourceName": r"[0-9A-F]{30}"}
    ),
    "http": Row(kind="inventory", **TOO_MANY, acts="PUT", undoes="DELETE"),
    "local": Row(**LOCAL),
    "local in faults": Row(**LOCAL, is_faulty=True, acts="reserve", undoes="release"),
    # A mail that may have gone is sent once more, and no more than that.
    "sendgrid": Row(kind="mail", **BOUNCES, acts="POST", limits={"key": UUID}, most=2),
    "ses": Row(kind="mail", **{**BOUNCES, "code": "bad_message"}, acts="POST", limits={"Value": HEX}, most=2),
    "django": Row(**DJANGO, ills={"away": {"recipient": "mail-away-then-back@example.com"}}, times=2),
    "django in faults": Row(**DJANGO, is_faulty=True, acts="send"),
}

EMBEDDED = frozenset(name for name, row in STANDS.items() if row.adapter is not None)
NO_MAIL_COMES_BACK = "a mail cannot be taken back"
OUR_OWN = "it is in our own database or process: nothing lies between us that could be cut"
PLANNED = "a plan says at once what came of it: nobody is silent for a time, and no status is read"
NO_CREDENTIALS = "it is embedded, and knows nobody by a password"
NO_FIELDS = "it keeps our key as it is"
NO_REFERENCE = "DHL cannot be asked by our reference: a person is (TestDhlParcelDe)"
MAILS = [name for name, row in STANDS.items() if row.kind == "mail"]
UNDOS = (
    "test_an_undo_takes_all_of_it_back_and_twice_is_once",
    "test_an_undo_of_what_never_happened_turns_it_away",
    "test_an_undo_after_a_lost_answer_leaves_nothing",
    "test_an_undo_whose_answer_was_lost_is_undone_once",
    "test_done_and_undone_at_once_ends_with_nothing",
)
LOST = "test_a_lost_answer_is_looked_up_and_nothing_is_done_twice"
SWALLOWED = "test_what_was_swallowed_is_done_once_that_is_sure"
SILENT = "test_who_never_answers_is_given_up_and_looked_up"
FAILING = "test_who_fails_while_at_it_may_have_done_it"
AWAY = "test_who_is_away_has_done_nothing"
CREDENTIALS = "test_wrong_credentials_do_nothing_and_are_named"
LIMITS = "test_keys_and_references_fit_where_they_are_written"

EXCUSED: dict[tuple[str, str], str] = {
    **{(promise, name): NO_MAIL_COMES_BACK for promise in UNDOS for name in MAILS},
    **{(promise, name): NO_CREDENTIALS for promise in (CREDENTIALS,) for name in EMBEDDED},
    **{(LIMITS, name): NO_FIELDS for name in [*EMBEDDED, "http"]},
    **{(one, name): PLANNED if "faults" in name else OUR_OWN for one in (FAILING, SILENT) for name in EMBEDDED},
    **{(SWALLOWED, name): OUR_OWN for name in EMBEDDED if "faults" not in name},
    **{(UNDOS[3], name): OUR_OWN for name in EMBEDDED if "faults" not in name},
    (LOST, "local"): OUR_OWN,
    (UNDOS[2], "local"): OUR_OWN,
    (AWAY, "local"): OUR_OWN,
    (LOST, "django"): "a server that breaks off is Unavailable: both mails bear one Message-ID (TestDjangoMail)",
    ("test_the_same_key_at_once_is_one_effect", "django"): "SMTP keeps no key: TestDjangoMail tells what it does",
    ("test_the_same_key_at_once_is_one_effect", "django in faults"): "the same",
    **{(promise, "dhl-parcel-de"): NO_REFERENCE for promise in (LOST, SILENT, SWALLOWED, UNDOS[2], UNDOS[4])},
    (UNDOS[3], "dhl-express"): "its undo only asks whether the parcel is on its way, which changes nothing",
}


class Stand:
    """One provider and its other side."""

    nothing: Any = None
    """What an undo of nothing returns."""

    def __init__(self, name: str, double: Any, settings: Settings) -> None:
        self.name, self.row, self.double, self.settings = name, STANDS[name], double, settings
        self._make()
        self.request = self.row.good(double)

    def _make(self, **changes: str) -> None:
        if self.row.adapter is not None:
            made = self.row.adapter()
            self.adapter: Any = Faulty(self.row.kind, made) if self.row.is_faulty else made
            return
        setup = TABLES[self.row.kind][self.name]
        self.settings.PROVIDER_SETTINGS = {**setup.settings(self.double), **changes}
        self.close()
        close_all()
        self.adapter = setup.adapter()

    def close(self) -> None:
        getattr(getattr(self, "adapter", None), "close", lambda: None)()

    @property
    def told(self) -> Mapping[str, str]:
        return dict(self.settings.PROVIDER_SETTINGS)

    def hurry(self) -> None:
        """From now on a silent server is given up soon."""
        self._make(**{name: SILENCE for name in self.told if name.endswith("_TIMEOUT_SECONDS")})

    def move_away(self) -> None:
        """From now on nobody listens where it calls."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            nowhere = f"127.0.0.1:{free.getsockname()[1]}"
        here = self.double.url.removeprefix("http://")
        self._make(**{name: value.replace(here, nowhere) for name, value in self.told.items()})

    def move_back(self) -> None:
        self._make()

    def fall_ill(self, ill: Ill) -> None:
        """What goes wrong with the next `do`."""
        if self.row.is_faulty:
            kinds = {"cut": "lose_answer", "cut before": "silent", "away": "unavailable"}
            faults.plan(self.row.kind, self.row.acts, kinds[ill])
        elif self.row.adapter is not None:
            self.request = {**self.request, **self.row.ills[ill]}
        else:
            self._fall_ill(ill, self.row.acts)

    def fail(self, status: int) -> None:
        """The next `do` is answered with that."""
        self.double.fall_ill("status", self.row.acts, status=status)

    def fall_ill_undoing(self, ill: Ill) -> None:
        if self.row.is_faulty:
            faults.plan(self.row.kind, self.row.undoes, "lose_answer" if ill == "cut" else "silent")
        else:
            self._fall_ill(ill, self.row.undoes)

    def _fall_ill(self, ill: Ill, match: str) -> None:
        if ill == "away":
            self.double.fall_ill("status", match, status=429, Retry_After="7")
        elif ill == "credentials":
            self.double.fall_ill("status", status=401, times=9)
        else:
            self.double.fall_ill("hang after" if ill == "hang" else ill, match)

    def get_well(self) -> None:
        if self.double is not None:
            self.double.ills.clear()

    def time_passes(self) -> None:
        """What was asked for was asked for an hour earlier."""
        for effect in OutsideEffect.objects.exclude(asked_at=None):
            assert effect.asked_at is not None
            OutsideEffect.objects.filter(pk=effect.pk).update(asked_at=effect.asked_at - timedelta(hours=1))

    def go_on(self) -> Any:
        """As the engine does: look, do it again if there is nothing, and come again later if that cannot be said."""
        return self._patiently(lambda: self.find() or self.do())

    def take_back(self) -> Any:
        return self._patiently(self.undo)

    def _patiently(self, act: Callable[[], Any]) -> Any:
        for _ in range(3):
            try:
                return act()
            except OutcomeUnknown:
                self.time_passes()
        raise AssertionError(f"{self.name} does not come to an end.")

    def do(self, key: str = KEY, **changes: Any) -> Any:
        raise NotImplementedError

    def find(self) -> Any:
        raise NotImplementedError

    def undo(self) -> Any:
        raise NotImplementedError

    @property
    def done(self) -> int:
        raise NotImplementedError

    def told_of(self) -> list[tuple[bytes, dict[str, str]]]:
        """Webhooks about what was done, in the order in which it happened."""
        raise NotImplementedError

    def hear(self, body: bytes, headers: Mapping[str, str]) -> list[str]:
        return [self.adapter.hear(event) for event in self.adapter.read_webhook(headers, body)]


class Gateway(Stand):
    def do(self, key: str = KEY, **changes: Any) -> Any:
        return self._ask("charge", key, changes)

    def authorize(self) -> Any:
        if self.name == "paypal":
            self.request = {"method": self.double.approved(number="ORDERAUTH", intent="AUTHORIZE")}
        return self._ask("authorize", KEY, {})

    def _ask(self, verb: str, key: str, changes: dict[str, Any]) -> Any:
        given = {"amount": TOTAL, "currency": "EUR", "order_id": "ORD-123", "customer": CUSTOMER, **self.request}
        if self.name == "paypal" and key != KEY and "method" not in changes:
            given["method"] = self.double.approved(number=f"ORDEROTHER{len(self.double.orders)}")
        return getattr(self.adapter, verb)(key=key, **{**given, **changes})

    def find(self) -> Any:
        return self.adapter.find_charge(key=KEY)

    def undo(self) -> Any:
        refund = self.adapter.refund(charge_key=KEY, key=UNDO_KEY)
        if refund is not None and refund.status == "pending" and self.name == "adyen":
            self.hear_all()
            refund = self.adapter.refund(charge_key=KEY, key=UNDO_KEY)
        return refund

    def hear_all(self) -> None:
        """Every modification has been carried out, and Adyen tells."""
        for psp in list(self.double.modifications):
            self.hear(notification(self.double.settle(psp)), {})

    @property
    def done(self) -> int:
        if self.double is not None:
            cents = self.double.taken
        else:
            rows = SandboxCharge.objects.filter(barred=False)
            cents = round(sum((row.amount - row.refunded for row in rows), Decimal(0)) * 100)
        assert cents % 9999 == 0, cents
        return int(cents // 9999)

    def told_of(self) -> list[tuple[bytes, dict[str, str]]]:
        charge = OutsideEffect.objects.get(kind="charge")
        undo = OutsideEffect.objects.get(kind="refund").remote_id
        if self.name == "stripe":
            return [
                self.double.signed("payment_intent.succeeded", charge.remote_id, "evt_1"),
                self.double.signed("refund.updated", undo, "evt_2"),
            ]
        if self.name == "paypal":
            return [
                self.double.signed("CHECKOUT.ORDER.APPROVED", charge.remote_id, "WH-1"),
                self.double.signed("PAYMENT.CAPTURE.REFUNDED", charge.remote_id, "WH-2"),
            ]
        return [
            (notification(self.double.event("AUTHORISATION", charge.remote_id)), {}),
            (notification(self.double.settle(undo)), {}),
        ]


class Van(Stand):
    def do(self, key: str = KEY, **changes: Any) -> Any:
        address = replace(HOME, **{**self.request, **changes})
        lines = [Line(sku="ITEM-001", quantity=2, weight_grams=400), Line(sku="ITEM-002", quantity=1)]
        return self.adapter.create_shipment(reference=reference_of(key), address=address, lines=lines, key=key)

    def find(self) -> Any:
        return self.adapter.find_shipment(reference=reference_of(KEY))

    def undo(self) -> Any:
        return self.adapter.cancel_shipment(reference=reference_of(KEY), key=UNDO_KEY)

    @property
    def done(self) -> int:
        if self.double is not None:
            return len(self.double.live)
        return SandboxParcel.objects.exclude(status="cancelled").count()


class Store(Stand):
    nothing = Reserved(items=())

    def __init__(self, name: str, double: Any, settings: Settings) -> None:
        super().__init__(name, double, settings)
        if double is None:
            make_product(sku="ITEM-002", stock=10)  # so that the keys of the rows go the other way than the SKUs
            make_product(sku="ITEM-001", stock=10)

    def do(self, key: str = KEY, **changes: Any) -> Any:
        wanted = {**WANTED, **self.request, **changes}
        return self.adapter.reserve([Line(sku=sku, quantity=count) for sku, count in wanted.items()], key=key)

    def find(self) -> Any:
        return self.adapter.find_reservation(key=KEY)

    def undo(self) -> Any:
        return self.adapter.release(action_key=KEY, key=UNDO_KEY)

    def stock(self, sku: str, pieces: int) -> None:
        if self.double is not None:
            self.double.stock[sku] = pieces
        else:
            StockItem.objects.filter(product__sku=sku).update(on_hand=pieces)

    @property
    def held(self) -> dict[str, int]:
        if self.double is not None:
            return dict(self.double.holds())
        return {item.product.sku: item.allocated for item in StockItem.objects.select_related("product")}

    @property
    def done(self) -> int:
        times = self.held["ITEM-002"]
        assert self.held == {sku: times * count for sku, count in WANTED.items()}
        return times


class Post(Stand):
    def do(self, key: str = KEY, **changes: Any) -> Any:
        return self.adapter.send(replace(MESSAGE, **{**self.request, **changes}), key=key)

    def find(self) -> Any:
        return self.adapter.find(key=KEY)

    @property
    def done(self) -> int:
        return len(self.double.mails if self.double is not None else outbox.outbox)

    def told_of(self) -> list[tuple[bytes, dict[str, str]]]:
        number = OutsideEffect.objects.get(kind="mail").remote_id
        if self.name == "sendgrid":
            return [
                self.double.signed({"sg_event_id": kind, "event": kind, "sg_message_id": f"{number}.filter1"})
                for kind in ("delivered", "bounce")
            ]
        about = {"mail": {"messageId": number}, "bounce": {"bounceType": "Permanent", "bouncedRecipients": []}}
        return [
            (self.double.signed(kind, json.dumps({"eventType": kind, **about})), {}) for kind in ("Delivery", "Bounce")
        ]


KINDS: dict[str, type[Stand]] = {"payments": Gateway, "shipping": Van, "inventory": Store, "mail": Post}


@contextmanager
def standing(name: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The provider of that name with its other side."""
    row = STANDS[name]
    made = KINDS[row.kind]
    if row.adapter is not None:
        yield made(name, None, settings)
        return
    with served(TABLES[row.kind][name].double()) as double:
        if name == "ses":
            monkeypatch.setattr("orders.providers.mail.sns.get", double.fetch)  # type: ignore[attr-defined]
        one = made(name, double, settings)
        yield one
        close_all()
        one.close()


def failing(call: Callable[[], Any], *kinds: type[ProviderError]) -> ProviderError:
    """The error that `call` ends in; nobody's secrets are in it."""
    with pytest.raises(kinds) as caught:
        call()
    assert not any(secret in f"{caught.value!s} {caught.value!r}" for secret in SECRETS)
    return caught.value


def written(calls: Collection[Call], name: str) -> list[str]:
    """All that was sent in a header or member of that name."""
    found: list[str] = []

    def look(thing: Any) -> None:
        if isinstance(thing, dict):
            for key, value in thing.items():
                if key == name and isinstance(value, str | int):
                    found.append(str(value))
                look(value)
        elif isinstance(thing, list):
            for one in thing:
                look(one)

    for call in calls:
        found += [value for key, value in call.headers.items() if key.lower() == name.lower()]
        if "json" in call.headers.get("Content-Type", "") or call.body[:1] in {b"{", b"["}:
            look(json.loads(call.body or b"null"))
        else:
            look(dict(parse_qsl(call.body.decode())))
    return found


def fits(form: str, value: str) -> bool:
    return re.fullmatch(form, value) is not None
