"""One contract for every adapter of an outside system, against its double: tests/doubles/."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from orders.models import OutsideEffect
from orders.providers.base import Address, Captures, Charge, Line, Message, Parcel, Refund, Reserved
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.http import close_all
from tests.doubles.adyen import CUSTOMER, notification
from tests.doubles.carriers import UpsDouble
from tests.doubles.paypal import DECLINED
from tests.doubles.server import Call, served
from tests.doubles.setups import CARRIERS, GATEWAYS, INVENTORIES, MAILERS, Setup
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)

TOTAL = Decimal("99.99")
KEY = "0191f2d4-7c1e-7000-8000-0123456789ab:process_payment:action"
UNDO_KEY = "0191f2d4-7c1e-7000-8000-0123456789ab:process_payment:compensation"
REFERENCE = "REF-0123456789ABCDEF"
LINES = [Line(sku="ITEM-001", quantity=2, weight_grams=400), Line(sku="ITEM-002", quantity=1)]
HOME = Address(name="Ada Pereira", line1="Torstraße 1", city="Berlin", postcode="10115", country="DE")
MESSAGE = Message(recipient="ada@example.com", subject="Your order", body="It is on its way.", html="<p>It is.</p>")
SECRETS = ("sk_test_double", "secret", "adyen-key", "SG.key", "token-1", "pm_card", "whsec")


class Played:
    """An adapter, its double, and what is right to send to it."""

    def __init__(self, name: str, setup: Setup, double: Any, settings: Settings) -> None:
        self.name, self.double = name, double
        settings.PROVIDER_SETTINGS = dict(setup.settings(double))
        self.settings = settings
        self.adapter: Any = setup.adapter()
        self._setup = setup

    def move_away(self) -> None:
        """From now on nobody listens where it calls."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            nowhere = f"127.0.0.1:{free.getsockname()[1]}"
        told = self._setup.settings(self.double)
        here = self.double.url.removeprefix("http://")
        self.settings.PROVIDER_SETTINGS = {name: value.replace(here, nowhere) for name, value in told.items()}
        self.adapter = self._setup.adapter()


def played(table: dict[str, Setup]) -> Callable[..., Iterator[Played]]:
    """A fixture for each setup of the table."""

    def fixture(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Played]:
        setup = table[request.param]
        with served(setup.double()) as double:
            one = Played(request.param, setup, double, settings)
            yield one
            close_all()
            getattr(one.adapter, "close", lambda: None)()

    return pytest.fixture(params=list(table))(fixture)


def failing(call: Callable[[], Any], *kinds: type[ProviderError]) -> ProviderError:
    """The error that `call` ends in; nobody's secrets are in it."""
    with pytest.raises(kinds) as caught:
        call()
    assert not any(secret in f"{caught.value!s} {caught.value!r}" for secret in SECRETS)
    return caught.value


till = played(GATEWAYS)
van = played(CARRIERS)
store = played(INVENTORIES)
post = played(MAILERS)


def method_for(till: Played, kind: str = "good") -> str:
    if till.name == "paypal":
        if kind == "declined":
            return str(till.double.approved(number=DECLINED))
        return "paypal" if kind == "3ds" else str(till.double.approved(number="ORDEROK"))
    words = {"good": "pm_card_visa", "declined": "pm_insufficient", "3ds": "pm_3ds"}
    if till.name == "adyen":
        words = {"good": "stored-visa", "declined": "declined", "3ds": "3ds"}
    return words[kind]


def pay(till: Played, method: str = "", **changes: Any) -> Charge:
    given = {"amount": TOTAL, "currency": "EUR", "key": KEY, "order_id": "ORD-123", "customer": CUSTOMER, **changes}
    charge: Charge = till.adapter.charge(method=method or method_for(till), **given)
    return charge


def give_back(till: Played) -> Refund | None:
    refund: Refund | None = till.adapter.refund(charge_key=KEY, key=UNDO_KEY)
    if refund is not None and refund.status == "pending" and till.name == "adyen":
        hear_all(till)
        refund = till.adapter.refund(charge_key=KEY, key=UNDO_KEY)
    return refund


def hear_all(till: Played) -> None:
    """Every modification has been carried out, and Adyen tells."""
    for psp in list(till.double.modifications):
        body = notification(till.double.settle(psp))
        for event in till.adapter.read_webhook({}, body):
            till.adapter.hear(event)


TAKES_MONEY = {"stripe": "/confirm", "paypal": "/capture", "adyen": "/payments"}


class TestGateways:
    def test_a_charge_is_made_and_can_be_looked_up(self, till: Played) -> None:
        made = pay(till)

        assert (made.amount, made.currency, made.status) == (TOTAL, "EUR", "completed")
        assert till.adapter.find_charge(key=KEY) == made
        assert till.double.taken == 9999

    def test_the_same_key_takes_money_once(self, till: Played) -> None:
        method = method_for(till)

        assert pay(till, method) == pay(till, method)
        assert till.double.taken == 9999

    def test_the_same_key_at_once_takes_money_once(self, till: Played) -> None:
        method = method_for(till)

        ends = together(*[lambda: pay(till, method)] * 3)

        made = till.adapter.find_charge(key=KEY)
        assert all(end == made or isinstance(end, Unavailable) for end in ends)
        assert made in ends
        assert till.double.taken == 9999

    def test_a_key_is_not_good_for_another_amount(self, till: Played) -> None:
        method = method_for(till)
        pay(till, method)

        assert failing(lambda: pay(till, method, amount=Decimal(1)), Declined).code == "key_reused"
        assert till.double.taken == 9999

    def test_a_declined_card_is_not_charged(self, till: Played) -> None:
        error = failing(lambda: pay(till, method_for(till, "declined")), Declined)

        codes = {"stripe": "insufficient_funds", "paypal": "INSTRUMENT_DECLINED", "adyen": "not_enough_balance"}
        assert error.code == codes[till.name]
        assert till.adapter.find_charge(key=KEY) is None
        assert give_back(till) is None
        assert till.double.taken == 0

    @pytest.mark.parametrize("ill", ["cut", "hang after", "not json"])
    def test_after_a_lost_answer_it_is_one_charge(self, till: Played, ill: Any) -> None:
        method = method_for(till)
        till.double.fall_ill(ill, TAKES_MONEY[till.name])

        failing(lambda: pay(till, method), OutcomeUnknown)
        seen = till.adapter.find_charge(key=KEY)
        again = pay(till, method)

        assert seen in (again, None)  # Adyen cannot be asked: there the same key is sent again
        assert (again.status, till.double.taken) == ("completed", 9999)

    @pytest.mark.parametrize("ill", ["cut before", "hang"])
    def test_a_call_that_was_swallowed_is_made_again(self, till: Played, ill: Any) -> None:
        method = method_for(till)
        till.double.fall_ill(ill, TAKES_MONEY[till.name])

        failing(lambda: pay(till, method), OutcomeUnknown)

        assert till.adapter.find_charge(key=KEY) is None
        assert pay(till, method).status == "completed"
        assert till.double.taken == 9999

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_failure_of_theirs_may_have_done_it(self, till: Played, status: int) -> None:
        method = method_for(till)
        till.double.fall_ill("status", TAKES_MONEY[till.name], status=status)

        failing(lambda: pay(till, method), OutcomeUnknown)

        assert till.double.taken == 0
        assert pay(till, method).status == "completed"

    def test_too_many_calls_have_done_nothing(self, till: Played) -> None:
        method = method_for(till)
        till.double.fall_ill("status", TAKES_MONEY[till.name], status=429)

        assert failing(lambda: pay(till, method), Unavailable).code == "too_many"
        assert pay(till, method).status == "completed"

    def test_wrong_credentials_are_ours_to_mend(self, till: Played) -> None:
        method = method_for(till)
        till.double.fall_ill("status", status=401, times=9)

        assert failing(lambda: pay(till, method), Unavailable).code == "credentials"
        assert till.double.taken == 0

    def test_nobody_there_is_no_charge(self, till: Played) -> None:
        method = method_for(till)
        till.move_away()

        failing(lambda: pay(till, method), Unavailable)

    def test_a_refund_gives_all_of_it_back_once(self, till: Played) -> None:
        pay(till)

        refund = give_back(till)

        assert refund is not None
        assert (refund.amount, refund.status) == (TOTAL, "completed")
        assert give_back(till) == till.adapter.find_refund(key=UNDO_KEY) == refund
        assert till.double.taken == 0

    @pytest.mark.parametrize("ill", ["cut", "cut before", "hang after"])
    def test_a_refund_whose_answer_was_lost_is_one_refund(self, till: Played, ill: Any) -> None:
        pay(till)
        till.double.fall_ill(ill, {"stripe": "/refunds", "paypal": "/refund", "adyen": "/reversals"}[till.name])

        failing(lambda: give_back(till), OutcomeUnknown)
        refund = give_back(till)

        assert refund is not None
        assert (refund.amount, till.double.taken) == (TOTAL, 0)

    def test_a_refund_of_what_never_was_turns_a_late_charge_away(self, till: Played) -> None:
        method = method_for(till)

        assert give_back(till) is None
        assert failing(lambda: pay(till, method), Declined).code == "already_undone"
        assert (till.double.taken, till.adapter.find_charge(key=KEY)) == (0, None)

    def test_a_refund_after_an_answer_that_never_came_leaves_nothing_taken(self, till: Played) -> None:
        method = method_for(till)
        till.double.fall_ill("cut", TAKES_MONEY[till.name])
        failing(lambda: pay(till, method), OutcomeUnknown)

        give_back(till)

        assert till.double.taken == 0
        assert failing(lambda: pay(till, method), Declined).code == "already_undone"

    def test_what_waits_for_the_customer_is_pending_until_they_are_done(self, till: Played) -> None:
        method = method_for(till, "3ds")

        waits = pay(till, method)

        assert (waits.status, waits.next_url.startswith("https://"), till.double.taken) == ("pending", True, 0)
        self.confirm(till, waits)
        assert pay(till, method).status == "completed"
        assert till.double.taken == 9999

    def test_what_waits_for_the_customer_can_be_called_off(self, till: Played) -> None:
        method = method_for(till, "3ds")
        pay(till, method)

        give_back(till)

        assert till.double.taken == 0
        assert failing(lambda: pay(till, method), Declined).code == "already_undone"

    def confirm(self, till: Played, charge: Charge) -> None:
        if till.name == "stripe":
            till.double.settle(charge.transaction_id)
        elif till.name == "paypal":
            till.double.approve(charge.transaction_id)
        else:
            (psp,) = till.double.payments
            till.double.payments[psp]["state"] = "Authorised"
            body = notification(till.double.event("AUTHORISATION", psp))
            (event,) = till.adapter.read_webhook({}, body)
            assert till.adapter.hear(event) == KEY

    def test_money_set_aside_is_taken_once(self, till: Played) -> None:
        assert isinstance(till.adapter, Captures)
        method = self.to_be_authorized(till)
        aside = till.adapter.authorize(
            amount=TOTAL, currency="EUR", method=method, key=KEY, order_id="ORD-123", customer=CUSTOMER
        )

        taken = [till.adapter.capture(charge_key=KEY, key="capture-key") for _ in range(2)]
        if till.name == "adyen":
            hear_all(till)
            taken = [till.adapter.capture(charge_key=KEY, key="capture-key")]

        assert aside.status == "authorized"
        assert {(one.status, one.amount) for one in taken} == {("completed", TOTAL)}
        assert till.double.taken == 9999

    def test_money_set_aside_is_let_go(self, till: Played) -> None:
        method = self.to_be_authorized(till)
        till.adapter.authorize(
            amount=TOTAL, currency="EUR", method=method, key=KEY, order_id="ORD-123", customer=CUSTOMER
        )

        give_back(till)

        assert till.double.taken == 0
        if till.name != "adyen":  # which decides by itself, and tells later
            failing(lambda: till.adapter.capture(charge_key=KEY, key="capture-key"), Declined)

    def to_be_authorized(self, till: Played) -> str:
        if till.name == "paypal":
            return str(till.double.approved(number="ORDERAUTH", intent="AUTHORIZE"))
        return method_for(till)

    def test_the_credentials_can_be_tried(self, till: Played) -> None:
        assert till.adapter.check()
        assert till.double.taken == 0

        till.double.fall_ill("status", status=401, times=9)
        assert failing(till.adapter.check, Unavailable).code in {"credentials", "unavailable"}

    @pytest.mark.parametrize("currency", ["JPY", "HUF", "EUR"])
    def test_amounts_keep_their_digits(self, till: Played, currency: str) -> None:
        amount = Decimal("5000") if currency != "EUR" else Decimal("0.07")
        if currency == "HUF":
            amount = Decimal("5000.00")
        method = method_for(till)
        if till.name == "paypal":
            value = "0.07" if currency == "EUR" else "5000"
            method = till.double.approved(value=value, currency=currency, number="ORDERC")

        made = pay(till, method, amount=amount, currency=currency)

        assert (made.amount, made.currency) == (amount, currency)


def book(van: Played, **changes: Any) -> Parcel:
    address = {"name": HOME.name, "line1": HOME.line1, "city": HOME.city, "postcode": HOME.postcode, "country": "DE"}
    parcel: Parcel = van.adapter.create_shipment(
        reference=REFERENCE, address=Address(**{**address, **changes}), lines=LINES, key=KEY
    )
    return parcel


def cancel(van: Played) -> None:
    van.adapter.cancel_shipment(reference=REFERENCE, key=UNDO_KEY)


BOOKS = {"ups": "/ship", "fedex": "/shipments", "dhl-express": "POST", "dhl-parcel-de": "POST"}


def time_passes(hours: int = 1) -> None:
    """What was asked for was asked for that much earlier."""
    for effect in OutsideEffect.objects.exclude(asked_at=None):
        assert effect.asked_at is not None
        OutsideEffect.objects.filter(pk=effect.pk).update(asked_at=effect.asked_at - timedelta(hours=hours))


class TestCarriers:
    def test_a_parcel_is_booked_once_and_found(self, van: Played) -> None:
        assert van.adapter.find_shipment(reference=REFERENCE) is None

        parcel = book(van)

        assert book(van) == van.adapter.find_shipment(reference=REFERENCE) == parcel
        assert (parcel.carrier, van.double.live) == (van.name, [REFERENCE])
        assert parcel.tracking_number in van.double.parcels
        assert parcel.estimated_delivery > timezone.localdate()

    def test_a_booking_is_asked_for_by_one_at_a_time(self, van: Played) -> None:
        ends = together(*[lambda: book(van)] * 3)

        parcel = van.adapter.find_shipment(reference=REFERENCE)
        assert all(end == parcel or isinstance(end, OutcomeUnknown) for end in ends)
        assert parcel in ends
        assert van.double.live == [REFERENCE]

    def test_an_address_that_is_not_served_is_refused(self, van: Played) -> None:
        where = {"postcode": "00000"} if van.name.startswith("dhl") else {"country": "AQ"}

        assert failing(lambda: book(van, **where), Declined).code == "address_not_served"
        assert (van.adapter.find_shipment(reference=REFERENCE), van.double.live) == (None, [])

    @pytest.mark.parametrize("ill", ["cut", "hang after", "not json"])
    def test_after_a_lost_answer_nothing_is_booked_twice(self, van: Played, ill: Any) -> None:
        van.double.fall_ill(ill, BOOKS[van.name])

        failing(lambda: book(van), OutcomeUnknown)

        if van.adapter.finds:
            parcel = van.adapter.find_shipment(reference=REFERENCE)
            assert parcel is not None
            assert book(van) == parcel
        else:  # nobody can be asked, for ever
            time_passes()
            failing(lambda: van.adapter.find_shipment(reference=REFERENCE), OutcomeUnknown)
            failing(lambda: book(van), OutcomeUnknown)
        assert van.double.live == [REFERENCE]

    @pytest.mark.parametrize("ill", ["cut before", "hang"])
    def test_a_booking_that_was_swallowed_is_made_again_once_that_is_sure(self, van: Played, ill: Any) -> None:
        van.double.fall_ill(ill, BOOKS[van.name])
        failing(lambda: book(van), OutcomeUnknown)

        failing(lambda: van.adapter.find_shipment(reference=REFERENCE), OutcomeUnknown)
        failing(lambda: book(van), OutcomeUnknown)
        time_passes()

        if van.adapter.finds:
            assert van.adapter.find_shipment(reference=REFERENCE) is None
            assert book(van).carrier == van.name
            assert van.double.live == [REFERENCE]
        else:
            failing(lambda: book(van), OutcomeUnknown)
            assert van.double.live == []

    def test_a_parcel_that_shows_up_late_is_the_one(self, van: Played) -> None:
        if not van.adapter.finds:
            assert van.name == "dhl-parcel-de"
            return
        van.double.fall_ill("cut", BOOKS[van.name])
        van.double.hidden = True
        failing(lambda: book(van), OutcomeUnknown)
        failing(lambda: van.adapter.find_shipment(reference=REFERENCE), OutcomeUnknown)

        van.double.hidden = False

        assert book(van) == van.adapter.find_shipment(reference=REFERENCE)
        assert van.double.live == [REFERENCE]

    @pytest.mark.parametrize(("status", "kind"), [(500, OutcomeUnknown), (503, OutcomeUnknown), (429, Unavailable)])
    def test_failures_are_told_apart(self, van: Played, status: int, kind: type[ProviderError]) -> None:
        van.double.fall_ill("status", BOOKS[van.name], status=status, Retry_After="7")

        error = failing(lambda: book(van), kind)

        assert type(error) is kind
        assert error.retry_after == timedelta(seconds=7)
        if kind is Unavailable:  # it certainly did not happen, so it may be sent again at once
            assert book(van).carrier == van.name

    def test_wrong_credentials_book_nothing_and_stand_in_nobodys_way(self, van: Played) -> None:
        van.double.fall_ill("status", status=401)

        assert failing(lambda: book(van), Unavailable).code == "credentials"
        assert book(van).carrier == van.name

    def test_nobody_there_is_no_parcel(self, van: Played) -> None:
        van.move_away()

        failing(lambda: book(van), Unavailable)

        assert OutsideEffect.objects.get().asked_at is None

    def test_a_cancelled_parcel_is_gone(self, van: Played) -> None:
        book(van)

        cancel(van)
        cancel(van)

        assert van.adapter.find_shipment(reference=REFERENCE) is None
        assert failing(lambda: book(van), Declined).code == "already_undone"
        # Express has no such call: the waybill lapses.
        assert van.double.live == ([REFERENCE] if van.name == "dhl-express" else [])

    def test_cancelling_what_never_was_turns_a_late_booking_away(self, van: Played) -> None:
        cancel(van)

        assert failing(lambda: book(van), Declined).code == "already_undone"
        assert van.double.live == []

    def test_cancelling_looks_first_for_what_was_never_answered(self, van: Played) -> None:
        van.double.fall_ill("cut", BOOKS[van.name])
        failing(lambda: book(van), OutcomeUnknown)

        if van.adapter.finds:
            cancel(van)
            assert van.double.live == ([REFERENCE] if van.name == "dhl-express" else [])
        else:
            failing(lambda: cancel(van), OutcomeUnknown)

    @pytest.mark.parametrize("ill", ["cut", "cut before"])
    def test_a_cancelling_whose_answer_was_lost_is_repeated(self, van: Played, ill: Any) -> None:
        book(van)
        van.double.fall_ill(ill)
        # Express is only asked whether the parcel is on its way, which changes nothing.
        failing(lambda: cancel(van), Unavailable if van.name == "dhl-express" else OutcomeUnknown)

        cancel(van)

        assert van.double.live == ([REFERENCE] if van.name == "dhl-express" else [])

    def test_what_is_on_its_way_cannot_be_cancelled(self, van: Played) -> None:
        book(van)
        van.double.tender()

        assert failing(lambda: cancel(van), Declined).code == "handed_over"
        assert van.adapter.find_shipment(reference=REFERENCE) is not None

    def test_a_token_that_is_over_is_renewed_once(self, van: Played) -> None:
        if van.name.startswith("dhl"):
            assert not van.double.tokens
            return
        book(van)
        van.double.forget_tokens()

        cancel(van)

        assert van.double.live == []
        assert len(van.double.called("/oauth/token")) == 2

    def test_the_credentials_can_be_tried(self, van: Played) -> None:
        assert van.adapter.check()
        assert van.double.live == []

    def test_its_description_was_there_to_hold_requests_against(self, van: Played) -> None:
        if not all(one.is_here for one in van.double.descriptions):
            pytest.skip(f"{van.name}'s description has no open licence and is not beside this checkout.")
        book(van)
        cancel(van)

        assert van.double.compared >= 1


def hold(store: Played, key: str = KEY, **pieces: int) -> Reserved:
    lines = [
        Line(sku=sku.replace("_", "-"), quantity=n) for sku, n in (pieces or {"ITEM_001": 2, "ITEM_002": 1}).items()
    ]
    reserved: Reserved = store.adapter.reserve(lines, key=key)
    return reserved


def release(store: Played) -> Reserved:
    reserved: Reserved = store.adapter.release(action_key=KEY, key=UNDO_KEY)
    return reserved


def pieces(reserved: Reserved) -> list[tuple[str, int]]:
    return [(item.sku, item.quantity) for item in reserved.items]


ALL, NONE = {"ITEM-001": 2, "ITEM-002": 1}, {"ITEM-001": 0, "ITEM-002": 0}


class TestInventories:
    def test_all_lines_are_held_and_found(self, store: Played) -> None:
        reserved = hold(store)

        assert pieces(reserved) == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert store.adapter.find_reservation(key=KEY) == hold(store) == reserved
        assert store.double.holds() == ALL

    def test_too_few_of_one_hold_nothing_of_any(self, store: Played) -> None:
        error = failing(lambda: hold(store, ITEM_001=2, ITEM_002=11), Declined)

        assert error.code == "insufficient_inventory"
        assert (store.adapter.find_reservation(key=KEY), store.double.holds()) == (None, NONE)

    def test_an_unknown_product_holds_nothing(self, store: Played) -> None:
        failing(lambda: hold(store, ITEM_001=2, ITEM_404=1), Declined)

        assert store.double.holds() == NONE

    def test_after_a_refusal_the_same_key_may_ask_again(self, store: Played) -> None:
        store.double.stock["ITEM-001"] = 1
        failing(lambda: hold(store), Declined)
        store.double.stock["ITEM-001"] = 10

        assert pieces(hold(store)) == [("ITEM-001", 2), ("ITEM-002", 1)]

    @pytest.mark.parametrize("ill", ["cut", "hang after", "not json"])
    def test_after_a_lost_answer_nothing_is_held_twice(self, store: Played, ill: Any) -> None:
        store.double.fall_ill(ill, "PUT" if store.name == "http" else "POST")

        failing(lambda: hold(store), OutcomeUnknown)
        if store.name == "oracle":  # one of two is held, and the other may be asked for just now
            failing(lambda: hold(store), OutcomeUnknown)
            time_passes()

        assert pieces(hold(store)) == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert store.adapter.find_reservation(key=KEY) == hold(store)
        assert store.double.holds() == ALL

    @pytest.mark.parametrize("ill", ["cut before", "hang"])
    def test_a_hold_that_was_swallowed_is_made_again_once_that_is_sure(self, store: Played, ill: Any) -> None:
        store.double.fall_ill(ill, "PUT" if store.name == "http" else "POST")
        failing(lambda: hold(store), OutcomeUnknown)
        time_passes()

        assert store.adapter.find_reservation(key=KEY) is None
        assert pieces(hold(store)) == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert store.double.holds() == ALL

    def test_a_release_gives_everything_back_once(self, store: Played) -> None:
        reserved = hold(store)

        assert [release(store), release(store)] == [reserved] * 2
        assert (store.adapter.find_reservation(key=KEY), store.double.holds()) == (None, NONE)

    def test_released_before_it_was_held_it_is_turned_away(self, store: Played) -> None:
        assert release(store) == Reserved(items=())

        assert failing(lambda: hold(store), Declined).code == "already_undone"
        assert store.double.holds() == NONE

    def test_a_release_looks_first_for_what_was_never_answered(self, store: Played) -> None:
        store.double.fall_ill("cut", "PUT" if store.name == "http" else "POST")
        failing(lambda: hold(store), OutcomeUnknown)
        if store.name == "oracle":  # what was still on its way there would be held for ever
            failing(lambda: release(store), OutcomeUnknown)
            time_passes()

        release(store)

        assert store.double.holds() == NONE

    def test_a_release_whose_answer_was_lost_is_repeated(self, store: Played) -> None:
        hold(store)
        store.double.fall_ill("cut", "DELETE")
        failing(lambda: release(store), OutcomeUnknown)

        assert pieces(release(store)) == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert store.double.holds() == NONE

    def test_others_holds_are_left_alone(self, store: Played) -> None:
        hold(store, key="another order", ITEM_001=3)
        hold(store)

        release(store)

        assert store.double.holds() == {"ITEM-001": 3, "ITEM-002": 0}

    @pytest.mark.parametrize(("status", "kind"), [(500, OutcomeUnknown), (429, Unavailable), (401, Unavailable)])
    def test_failures_are_told_apart(self, store: Played, status: int, kind: type[ProviderError]) -> None:
        # Nothing but what changes something there leaves an open question behind.
        store.double.fall_ill("status", "PUT" if store.name == "http" else "POST", status=status, times=9)

        assert type(failing(lambda: hold(store), kind)) is kind
        assert store.double.holds() == NONE

    def test_the_credentials_can_be_tried(self, store: Played) -> None:
        assert store.adapter.check()

    def test_a_token_that_is_over_is_fetched_anew(self, store: Played) -> None:
        if store.name != "sap":
            assert not any("csrf" in name.lower() for call in store.double.calls for name in call.headers)
            return
        hold(store)
        store.double.forget_tokens()

        release(store)

        assert store.double.holds() == NONE


def send(post: Played, **changes: Any) -> Any:
    given = {"recipient": MESSAGE.recipient, "subject": MESSAGE.subject, "body": MESSAGE.body, "html": MESSAGE.html}
    return post.adapter.send(Message(**{**given, **changes}), key=KEY)


class TestMailers:
    def test_a_mail_goes_out_once(self, post: Played) -> None:
        sent = send(post)

        assert send(post) == post.adapter.find(key=KEY) == sent
        assert post.double.mails == [("ada@example.com", "Your order")]

    def test_a_bad_address_is_refused(self, post: Played) -> None:
        error = failing(lambda: send(post, recipient="bounces@example.com"), Declined)

        assert error.code == ("bad_message" if post.name == "ses" else "bad_address")  # SES says no more than that
        assert (post.double.mails, post.adapter.find(key=KEY)) == ([], None)

    def test_a_mail_whose_answer_was_lost_is_sent_once_more_at_the_most(self, post: Played) -> None:
        post.double.fall_ill("cut", times=3)

        failing(lambda: send(post), OutcomeUnknown)
        assert post.adapter.find(key=KEY) is None
        failing(lambda: send(post), OutcomeUnknown)  # the first call may still be under way
        assert len(post.double.mails) == 1
        time_passes()
        failing(lambda: send(post), OutcomeUnknown)
        time_passes()
        failing(lambda: send(post), OutcomeUnknown)
        failing(lambda: post.adapter.find(key=KEY), OutcomeUnknown)

        assert len(post.double.mails) == 2

    def test_an_answer_that_cannot_be_read_may_have_sent_it(self, post: Played) -> None:
        post.double.fall_ill("not json")

        failing(lambda: send(post), OutcomeUnknown)
        assert len(post.double.mails) == 1

    @pytest.mark.parametrize(("status", "kind"), [(500, OutcomeUnknown), (429, Unavailable), (401, Unavailable)])
    def test_failures_are_told_apart(self, post: Played, status: int, kind: type[ProviderError]) -> None:
        post.double.fall_ill("status", status=status)

        assert type(failing(lambda: send(post), kind)) is kind
        if kind is Unavailable:
            assert send(post).email_id

    def test_the_credentials_can_be_tried(self, post: Played) -> None:
        assert post.adapter.check()
        assert post.double.mails == []


@pytest.mark.parametrize("body", [{}, {"ShipmentRequest": {"Shipment": {"Description": 7}}}])
def test_a_request_that_is_not_in_the_description_is_found(body: dict[str, Any]) -> None:
    """A double that let everything through would prove nothing."""
    double = UpsDouble()
    call = Call(method="POST", path="/api/shipments/v2409/ship", query={}, headers={}, body=json.dumps(body).encode())

    try:
        assert double.check(call, call.path)
        assert double.check(replace(call, path="/api/shipments/v2409/sink"), "/api/shipments/v2409/sink")
    finally:
        double.server_close()
