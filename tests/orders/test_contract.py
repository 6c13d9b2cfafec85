"""The promises of orders/providers/base.py, written once and asked of every provider: tests/orders/stands.py.

Then what is promised by one kind of them only: gateways that set money aside, carriers that have a parcel on its way,
stocks that hold all lines or none, and whoever sends webhooks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from orders.models import OutsideEffect
from orders.order_processing.parcel_books import reference_of
from orders.providers.base import BadSignature, Captures, GivesLabels, Label, SendsWebhooks, offers
from orders.providers.errors import Declined, OutcomeUnknown, Unavailable
from tests.doubles.adyen import notification
from tests.doubles.carriers import ELSEWHERE, PDF, UpsDouble
from tests.doubles.server import Call
from tests.orders.stands import EXCUSED, KEY, STANDS, TOTAL, UNDO_KEY, failing, fits, standing, written
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)

WEBHOOKS = ["stripe", "paypal", "adyen", "sendgrid", "ses"]
DESCRIBED = [name for name, row in STANDS.items() if row.adapter is None and name not in {"sap", "ses"}]
PROMISES: set[str] = set()


@pytest.fixture
def one(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with standing(request.param, settings, monkeypatch) as stand:
        yield stand


def promised(test: Callable[..., None]) -> Callable[..., None]:
    """Asked of everybody but those whom stands.py excuses by name."""
    PROMISES.add(test.__name__)
    asked = [name for name in STANDS if (test.__name__, name) not in EXCUSED]
    decorated: Callable[..., None] = pytest.mark.parametrize("one", asked, indirect=True)(test)
    return decorated


def by(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", names, indirect=True)


def of(kind: str, *, outside: bool = False) -> pytest.MarkDecorator:
    return by(*(name for name, row in STANDS.items() if row.kind == kind and not (outside and row.adapter)))


@promised
def test_the_same_key_is_one_effect_and_one_receipt(one: Any) -> None:
    assert one.find() is None

    receipt = one.do()

    assert one.do() == one.find() == receipt
    assert one.done == 1


@promised
def test_the_same_key_at_once_is_one_effect(one: Any) -> None:
    one.do("another's")  # what is looked up first, and kept, is not what they come for together
    ends = together(*[one.do] * 3)

    receipt = one.find()
    assert receipt in ends
    assert all(end == receipt or isinstance(end, Unavailable | OutcomeUnknown) for end in ends)
    assert one.done == 2


@promised
def test_a_refusal_does_nothing_and_leaves_nothing_to_undo(one: Any) -> None:
    one.request = {**one.request, **one.row.refused(one.double)}

    assert failing(one.do, Declined).code == one.row.code

    assert (one.find(), one.done) == (None, 0)
    if one.row.kind != "mail":
        assert one.undo() == one.nothing


@promised
def test_who_is_away_has_done_nothing(one: Any) -> None:
    if one.double is not None:
        one.move_away()
        failing(one.do, Unavailable)
        one.move_back()
    one.fall_ill("away")

    errors = [failing(one.do, Unavailable) for _ in range(one.row.times)]

    if one.double is not None:
        assert [error.code for error in errors] == ["too_many"]
    if one.double is not None and one.row.kind == "shipping":  # as all that ask by our own client
        assert [error.retry_after for error in errors] == [timedelta(seconds=7)]
    assert (one.find(), one.done) == (None, 0)
    assert one.do() == one.find()
    assert one.done == 1


@promised
def test_wrong_credentials_do_nothing_and_are_named(one: Any) -> None:
    assert one.adapter.check()
    one.fall_ill("credentials")

    assert failing(one.do, Unavailable).code == "credentials"
    failing(one.adapter.check, Unavailable)

    assert one.done == 0
    one.get_well()
    assert one.do() == one.find()  # and they stood in nobody's way


@promised
def test_a_lost_answer_is_looked_up_and_nothing_is_done_twice(one: Any) -> None:
    one.fall_ill("cut")
    failing(one.do, OutcomeUnknown)

    receipt = one.go_on()

    assert one.find() == one.do() == receipt
    assert 1 <= one.done <= one.row.most


@promised
def test_who_never_answers_is_given_up_and_looked_up(one: Any) -> None:
    one.do("another's")  # all that takes its time at first has been read by now
    one.hurry()
    one.fall_ill("hang")
    failing(one.do, OutcomeUnknown)
    one.move_back()

    assert one.go_on() == one.find()
    assert 2 <= one.done <= 1 + one.row.most


@promised
def test_what_was_swallowed_is_done_once_that_is_sure(one: Any) -> None:
    one.fall_ill("cut before")
    failing(one.do, OutcomeUnknown)
    assert one.done == 0

    assert one.go_on() == one.find()
    assert one.done == 1


@promised
def test_who_fails_while_at_it_may_have_done_it(one: Any) -> None:
    for status in (302, 408, 425, 500, 502, 503, 504):
        one.fail(status)
        failing(partial(one.do, f"{status}'s"), OutcomeUnknown)

    assert one.done == 0


@promised
def test_an_undo_takes_all_of_it_back_and_twice_is_once(one: Any) -> None:
    receipt = one.do()

    ends = [one.undo(), *together(one.undo, one.undo), one.undo()]

    assert ends == [ends[0]] * 4
    if one.row.kind == "payments":
        assert (ends[0].amount, ends[0].status) == (TOTAL, "completed")
        assert one.adapter.find_refund(key=UNDO_KEY) == ends[0]
    else:
        assert ends[0] == (receipt if one.row.kind == "inventory" else None)
        assert one.find() is None
    assert failing(one.do, Declined).code == "already_undone"
    assert one.done == one.row.left


@promised
def test_an_undo_of_what_never_happened_turns_it_away(one: Any) -> None:
    assert [one.undo(), one.undo()] == [one.nothing] * 2

    assert failing(one.do, Declined).code == "already_undone"
    assert (one.find(), one.done) == (None, 0)


@promised
def test_an_undo_after_a_lost_answer_leaves_nothing(one: Any) -> None:
    one.fall_ill("cut")
    failing(one.do, OutcomeUnknown)

    one.take_back()

    assert one.done == one.row.left
    assert failing(one.do, Declined).code == "already_undone"


@promised
def test_an_undo_whose_answer_was_lost_is_undone_once(one: Any) -> None:
    one.do("another's")
    for ill in ("cut before", "cut"):
        if ill == "cut before":
            one.do()
        one.fall_ill_undoing(ill)
        failing(one.undo, OutcomeUnknown)

    undone = one.undo()

    assert undone == one.undo()
    assert one.done == 1 + one.row.left  # the other one is left alone


@promised
def test_done_and_undone_at_once_ends_with_nothing(one: Any) -> None:
    together(one.do, one.undo)

    one.take_back()

    assert one.done in {0, one.row.left}
    assert failing(one.do, Declined).code == "already_undone"


@promised
def test_keys_and_references_fit_where_they_are_written(one: Any) -> None:
    one.do("0191f2d4-7c1e-7000-8000-0123456789ab:" + "a_step_with_a_long_name_" * 6 + ":compensation", **one.row.whole)

    assert one.row.limits
    for name, form in one.row.limits.items():
        values = written(one.double.calls, name)
        assert values, name
        assert [value for value in values if not fits(form, value)] == [], name


def test_nobody_is_excused_of_a_promise_that_there_is_not() -> None:
    assert {promise for promise, _ in EXCUSED} <= PROMISES
    assert {name for _, name in EXCUSED} <= set(STANDS)
    assert all(EXCUSED.values())


class TestGateways:
    @of("payments")
    def test_a_key_is_not_good_for_another_amount(self, one: Any) -> None:
        made = one.do()

        for changes in ({"amount": Decimal(1)}, {"currency": "USD"}):
            assert failing(partial(one.do, **changes), Declined).code == "key_reused"
        assert (one.find(), one.done) == (made, 1)

    @of("payments")
    def test_amounts_keep_their_digits(self, one: Any) -> None:
        for number, (value, currency) in enumerate([("5000", "JPY"), ("5000.00", "HUF"), ("0.07", "EUR")]):
            own = {}
            if one.name == "paypal":  # HUF has no decimals there
                plain = value.removesuffix(".00")
                own = {"method": one.double.approved(value=plain, currency=currency, number=f"ORDER{number}")}

            made = one.do(str(number), amount=Decimal(value), currency=currency, **own)

            assert (made.amount, made.currency, made.status) == (Decimal(value), currency, "completed")

    @of("payments", outside=True)
    def test_what_waits_for_the_customer_is_pending_until_they_are_done(self, one: Any) -> None:
        one.request = {"method": WAITS[one.name]}
        waits = one.do()
        assert (waits.status, waits.next_url.startswith("https://"), one.done) == ("pending", True, 0)

        if one.name == "stripe":
            one.double.settle(waits.transaction_id)
        elif one.name == "paypal":
            one.double.approve(waits.transaction_id)
        else:
            (psp,) = one.double.payments
            one.double.payments[psp]["state"] = "Authorised"
            assert one.hear(notification(one.double.event("AUTHORISATION", psp)), {}) == [KEY]

        assert (one.do().status, one.done) == ("completed", 1)

    @of("payments", outside=True)
    def test_what_waits_for_the_customer_can_be_called_off(self, one: Any) -> None:
        one.request = {"method": WAITS[one.name]}
        one.do()

        one.undo()

        assert failing(one.do, Declined).code == "already_undone"
        assert one.done == 0

    @of("payments", outside=True)
    def test_money_set_aside_is_taken_once(self, one: Any) -> None:
        assert offers(one.adapter, Captures)
        assert one.authorize().status == "authorized"

        taken = [one.adapter.capture(charge_key=KEY, key="capture-key") for _ in range(2)]
        if one.name == "adyen":
            one.hear_all()
            taken = [one.adapter.capture(charge_key=KEY, key="capture-key")]

        assert {(charge.status, charge.amount) for charge in taken} == {("completed", TOTAL)}
        assert one.done == 1

    @of("payments", outside=True)
    def test_money_set_aside_is_let_go(self, one: Any) -> None:
        one.authorize()

        assert one.undo() is None  # nothing was taken, so nothing goes back

        assert one.done == 0
        if one.name != "adyen":  # which decides by itself, and tells later
            failing(lambda: one.adapter.capture(charge_key=KEY, key="capture-key"), Declined)

    @by("adyen")
    def test_a_no_within_a_200_is_a_no(self, one: Any) -> None:
        one.request = one.row.refused(one.double)
        failing(one.do, Declined)

        assert failing(one.do, Declined).message == "Not enough balance"
        assert len(one.double.called("/payments")) == 1  # it is final, and remembered


WAITS = {"stripe": "pm_3ds", "paypal": "paypal", "adyen": "3ds"}


class TestCarriers:
    @of("shipping")
    def test_what_is_on_its_way_cannot_be_cancelled(self, one: Any) -> None:
        if one.double is None:
            one.request = {"postcode": "00003"}
        parcel = one.do()
        if one.double is not None:
            one.double.tender()

        error = failing(one.undo, Declined)

        assert (error.code, error.provider_id) == ("handed_over", parcel.shipment_id)
        assert (one.find(), one.done) == (parcel, 1)
        assert parcel.estimated_delivery > timezone.localdate()

    @by("ups", "fedex", "dhl-express")
    def test_a_parcel_that_shows_up_late_is_the_one(self, one: Any) -> None:
        one.fall_ill("cut")
        one.double.hidden = True
        failing(one.do, OutcomeUnknown)
        for ask in (one.find, one.do):
            assert failing(ask, OutcomeUnknown).code == "not_seen"

        one.double.hidden = False

        assert one.do() == one.find()
        assert one.done == 1

    @by("ups", "fedex", "dhl-express")
    def test_an_undo_finds_the_parcel_that_showed_up_after_a_second_was_booked(self, one: Any) -> None:
        one.fall_ill("cut")
        one.double.hidden = True
        failing(one.do, OutcomeUnknown)
        one.time_passes()
        one.do()
        assert one.done == 2

        one.double.hidden = False
        if one.row.undoes != "GET":
            one.fall_ill_undoing("cut")
            failing(one.undo, OutcomeUnknown)
        one.undo()
        one.undo()

        assert (one.find(), one.done) == (None, 2 * one.row.left)
        assert set(OutsideEffect.objects.get().facts["called_off"]) == set(one.double.parcels)

    @by("ups", "dhl-parcel-de")
    def test_a_label_is_given_out_once_more(self, one: Any) -> None:
        assert offers(one.adapter, GivesLabels)
        assert one.adapter.find_label(reference=reference_of(KEY)) is None
        one.do()

        label = one.adapter.find_label(reference=reference_of(KEY))

        assert label == (Label(content=PDF) if one.name == "ups" else Label(url=ELSEWHERE))
        one.double.parcels.clear()
        failing(lambda: one.adapter.find_label(reference=reference_of(KEY)), Declined)

    @by("ups", "fedex")
    def test_a_token_that_is_over_is_renewed_once(self, one: Any) -> None:
        one.do()
        one.double.forget_tokens()

        one.undo()

        assert (one.done, len(one.double.called("/oauth/token"))) == (0, 2)


class TestDhlParcelDe:
    """DHL cannot be asked by our reference: whatever was not answered is a person's, for ever."""

    @by("dhl-parcel-de")
    @pytest.mark.parametrize(("ill", "stands"), [("cut", 1), ("cut before", 0)])
    def test_nothing_is_done_about_a_lost_answer(self, one: Any, ill: str, stands: int) -> None:
        one.fall_ill(ill)
        failing(one.do, OutcomeUnknown)
        one.time_passes()

        for ask in (one.find, one.do, one.undo):
            assert "look for it in the carrier's portal" in failing(ask, OutcomeUnknown).message
        assert one.done == stands

    @by("dhl-parcel-de")
    def test_who_never_answers_is_given_up(self, one: Any) -> None:
        one.do("another's")
        one.hurry()
        one.fall_ill("hang")

        failing(one.do, OutcomeUnknown)


class TestInventories:
    @of("inventory")
    def test_all_lines_are_held_or_none(self, one: Any) -> None:
        failing(lambda: one.do("another's", **{"ITEM-404": 1}), Declined)
        one.stock("ITEM-002", 0)
        failing(one.do, Declined)
        assert one.done == 0
        one.stock("ITEM-002", 10)

        reserved = one.do()  # after a refusal the same key may ask again

        assert [(item.sku, item.quantity) for item in reserved.items] == [("ITEM-001", 2), ("ITEM-002", 1)]
        assert all(item.reservation_id for item in reserved.items)

    @of("inventory")
    def test_others_holds_are_left_alone(self, one: Any) -> None:
        one.do("another order")
        one.do()

        one.undo()

        assert one.done == 1

    @by("sap")
    def test_a_token_that_is_over_is_fetched_anew(self, one: Any) -> None:
        one.do()
        one.double.forget_tokens()

        one.undo()

        assert one.done == 0


class TestMailers:
    @of("mail", outside=True)
    def test_a_mail_whose_answers_are_lost_is_sent_twice_at_the_most(self, one: Any) -> None:
        one.double.fall_ill("cut", times=3)
        for _ in range(4):
            failing(one.do, OutcomeUnknown)
            one.time_passes()

        failing(one.find, OutcomeUnknown)
        assert one.done == 2


@by(*WEBHOOKS)
class TestWebhooks:
    """Read and heard; how they are stored, and whom they wake, is told in test_inbound.py."""

    @pytest.fixture
    def told(self, one: Any) -> list[tuple[bytes, dict[str, str]]]:
        adapter: object = one.adapter
        assert offers(adapter, SendsWebhooks)
        one.do()
        if one.row.kind == "payments":
            one.adapter.refund(charge_key=KEY, key=UNDO_KEY)
        webhooks: list[tuple[bytes, dict[str, str]]] = one.told_of()
        return webhooks

    def test_one_that_was_changed_or_is_none_is_turned_away(self, one: Any, told: Any) -> None:
        for body, headers in told:
            if one.name == "paypal":  # which judges by itself what it signed
                changed = [(body, {**headers, "paypal-transmission-sig": "forged"})]
            else:
                changed = [(change(body), headers) for change in (_other_event, lambda body: body[:-3])]
            for forged in changed:
                with pytest.raises(BadSignature):
                    one.hear(*forged)
            for nonsense in (b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"notificationItems": [{}]}', b"a=b"):
                with pytest.raises(BadSignature):
                    one.hear(nonsense, {})

    def test_one_that_comes_twice_is_the_same_event_and_changes_nothing(self, one: Any, told: Any) -> None:
        (body, headers), *_ = told
        first = one.hear(body, headers)
        known = [effect.facts for effect in OutsideEffect.objects.order_by("id")]

        assert one.hear(body, headers) == first == [KEY]
        assert [effect.facts for effect in OutsideEffect.objects.order_by("id")] == known
        ids = [[event.event_id for event in one.adapter.read_webhook(headers, body)] for _ in range(2)]
        assert ids[0] == ids[1]
        assert ids[0] != [event.event_id for event in one.adapter.read_webhook(told[1][1], told[1][0])]

    def test_one_that_comes_before_our_answer_is_of_nobody_until_then(self, one: Any, told: Any) -> None:
        (body, headers), *_ = told
        effect = OutsideEffect.objects.get(key=KEY)
        OutsideEffect.objects.filter(pk=effect.pk).update(remote_id="", reference="")

        assert one.hear(body, headers) == [""]

        OutsideEffect.objects.filter(pk=effect.pk).update(remote_id=effect.remote_id, reference=effect.reference)
        assert one.hear(body, headers) == [KEY]

    def test_in_the_wrong_order_they_come_to_the_same(self, one: Any, told: Any) -> None:
        for body, headers in reversed(told):
            one.hear(body, headers)

        if one.row.kind == "payments":
            assert one.undo().status == "completed"
            assert one.done == 0
        else:
            assert set(OutsideEffect.objects.get().facts["events"]) == {_kind(one, webhook) for webhook in told}


def _other_event(body: bytes) -> bytes:
    """The same letters, and another meaning."""
    return (
        body.replace(b"succeeded", b"canceled!")
        .replace(b"9999", b"1")
        .replace(b"bounce", b"opened")
        .replace(b"delivered", b"processed")
        .replace(b"Delivery", b"Opened")
        .replace(b"Bounce", b"Click")
    )


def _kind(one: Any, webhook: tuple[bytes, dict[str, str]]) -> str:
    (event,) = one.adapter.read_webhook(webhook[1], webhook[0])
    return str(event.kind)


@by(*DESCRIBED)
def test_its_description_was_there_to_hold_requests_against(one: Any) -> None:
    if not all(description.is_here for description in one.double.descriptions):
        pytest.skip(f"{one.name}'s description has no open licence and is not beside this checkout.")
    one.do()

    assert one.double.compared >= 1


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
