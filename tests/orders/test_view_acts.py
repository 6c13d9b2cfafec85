"""What people do on the pages: cancel, hand over, and help a run on, each by role, twice as good as once."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from orders.models import Order, Shipment
from orders.services import hand_over
from sagas.selectors import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import ended, run_of, text_of, told, visitor

pytestmark = pytest.mark.django_db(transaction=True)

REASON = "The customer changed their mind."
COLLECTED = "Collected at gate 3."
REFUND = {"step": "process_payment", "direction": "compensation"}
TAKES_A_SUPERVISOR = "This takes a supervisor, and your role is agent. Ask a supervisor to do it."
UNDER_WAY = "The cancellation is under way: everything that was done is being undone."
RETURN_IT = "the parcel was handed over to the carrier; take the goods back as a return"


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.fixture
def ada() -> User:
    return make_user(username="ada")


@pytest.fixture
def customer(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def events(order: Order) -> list[tuple[str, str, str]]:
    """(kind, actor, reason) of what happened to the run since it was started."""
    return [
        (event.kind, event.actor, event.reason) for event in run_of(order).events.exclude(kind="started").order_by("id")
    ]


def by_hand(order: Order) -> list[tuple[str, str, str]]:
    return [event for event in events(order) if event[1] != "engine"]


def seen_in(page: Any) -> str:
    """What a dialog was made of."""
    (seen,) = re.findall(r'name="seen" value="([^"]+)"', page.content.decode())
    return str(seen)


def act(client: Client, order: Order, name: str, **fields: str) -> Any:
    return client.post(f"/runs/{order.run_id}/{name}/", fields)


class TestCancelling:
    def test_the_page_lists_what_will_be_undone_in_its_order(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)
        parcel = Shipment.objects.get()

        words = text_of(customer.get(f"/orders/{order.order_id}/cancel/")).replace("\xa0", " ")

        assert (
            "Cancellation e-mail: the customer is told by mail "
            f"Cancel shipment: parcel {parcel.tracking_number} is called back "
            "Refund payment: 99.99 EUR goes back to the card "
            "Release inventory: 3 pieces go back on the shelf"
        ) in words

    def test_of_an_untouched_order_nothing_is_undone(self, customer: Client, ada: User) -> None:
        order = make_order(user=ada)

        assert "Nothing has been done yet" in text_of(customer.get(f"/orders/{order.order_id}/cancel/"))

    def test_looking_at_the_page_cancels_nothing(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)

        customer.get(f"/orders/{order.order_id}/cancel/", {"reason": REASON})

        assert by_hand(order) == []

    def test_a_customer_cancels_and_gets_the_money_back(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)

        response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON})

        assert (response.status_code, response.headers["Location"]) == (302, f"/orders/{order.order_id}/")
        assert told(response) == [UNDER_WAY]
        assert by_hand(order) == [("cancel_requested", "customer:ada", REASON)]
        assert run_to_end(run_of(order)).status == "compensated"
        words = text_of(customer.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")
        assert "Charged 99.99 EUR Refunded 99.99 EUR We hold 0.00 EUR" in words
        assert REASON in words

    def test_twice_is_once(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)

        for _ in range(2):
            response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON}, follow=True)
            assert UNDER_WAY in text_of(response)

        assert len(by_hand(order)) == 1

    @pytest.mark.parametrize(
        ("reason", "said"),
        [
            ("", "This is needed."),
            ("   ", "This is needed."),
            ("a\x00b", "This holds a control character. Take it out."),
            ("x" * 501, "This is 501 characters long; at most 500 are taken."),
            ("Too late.", "Say why in at least 10 characters: it is all that the history will know."),
        ],
    )
    def test_it_wants_a_reason(self, customer: Client, ada: User, reason: str, said: str) -> None:
        order = ended("completed", user=ada)

        response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": reason})

        assert response.status_code == 400
        body = response.content.decode()
        assert f'<p class="error" id="reason-fault" role="alert">{said}</p>' in body
        assert 'aria-invalid="true" aria-describedby="reason-fault' in body
        assert by_hand(order) == []

    def test_a_reason_that_was_refused_is_kept(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)

        response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": "<b>No</b>" + "x" * 500})

        assert "&lt;b&gt;No&lt;/b&gt;xxx" in response.content.decode()

    def test_a_reason_of_two_lines_is_taken(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)

        response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": "Too late.\r\nToo dear."})

        assert told(response) == [UNDER_WAY]
        assert [reason for _, _, reason in by_hand(order)] == ["Too late. Too dear."]

    def test_what_moved_since_the_page_was_made_is_shown_first(self, customer: Client, ada: User) -> None:
        order = make_order(user=ada)
        seen = seen_in(customer.get(f"/orders/{order.order_id}/cancel/"))
        run_to_end(run_of(order))

        response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON, "seen": seen})

        assert response.status_code == 409
        assert "The order has moved on since you were asked." in text_of(response)
        assert "99.99 EUR goes back to the card" in text_of(response).replace("\xa0", " ")
        assert REASON in response.content.decode()
        assert by_hand(order) == []
        again = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON, "seen": seen_in(response)})
        assert told(again) == [UNDER_WAY]

    def test_the_same_form_twice_is_once(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)
        seen = seen_in(customer.get(f"/orders/{order.order_id}/cancel/"))

        for _ in range(2):
            response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON, "seen": seen}, follow=True)
            assert UNDER_WAY in text_of(response)

        assert len(by_hand(order)) == 1

    def test_after_hand_over_it_is_refused_with_the_way_out(self, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)
        hand_over(order_id=order.order_id, actor="user:sam")

        page = customer.get(f"/orders/{order.order_id}/cancel/")
        response = customer.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON})

        assert RETURN_IT in text_of(page)
        assert 'name="reason"' not in page.content.decode()
        assert len(told(response)) == 1
        assert RETURN_IT in told(response)[0]
        assert run_of(order).status == "completed"
        assert [kind for kind, _, _ in by_hand(order)] == ["signal"]

    def test_staff_cancels_for_the_customer(self, gina: Client, ada: User) -> None:
        order = make_order(user=ada)

        gina.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON})

        assert by_hand(order) == [("cancel_requested", "user:gina", REASON)]

    def test_a_form_from_elsewhere_is_refused(self, ada: User) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(ada)
        order = make_order(user=ada)

        assert client.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON}).status_code == 403
        assert by_hand(order) == []


class TestHandingOver:
    def test_a_supervisor_is_told_what_follows_and_says_why(self, sam: Client) -> None:
        order = ended("completed")
        parcel = Shipment.objects.get()
        page = sam.get(f"/orders/{order.order_id}/hand-over/")

        response = sam.post(f"/orders/{order.order_id}/hand-over/", {"reason": COLLECTED, "seen": seen_in(page)})

        assert (
            f"Parcel: {parcel.tracking_number} is on its way to Ada Pereira, Berlin Stock: 3 pieces leave it "
            "Cancelling: not possible any more, for the customer and for us "
            "What was sent can only come back as a return. This cannot be taken back."
        ) in text_of(page)
        assert told(response) == ["The parcel is noted as handed over. From now on it can only come back as a return."]
        assert Shipment.objects.get().status == Shipment.Status.HANDED_OVER
        assert by_hand(order) == [("signal", "user:sam", f"handed_over: {COLLECTED}")]

    def test_the_same_form_twice_is_once(self, sam: Client) -> None:
        order = ended("completed")
        seen = seen_in(sam.get(f"/orders/{order.order_id}/hand-over/"))

        for _ in range(2):
            form = {"reason": COLLECTED, "seen": seen}
            assert sam.post(f"/orders/{order.order_id}/hand-over/", form).status_code == 302

        assert len(by_hand(order)) == 1

    @pytest.mark.parametrize("reason", ["", "at noon", "x" * 501])
    def test_without_a_reason_the_parcel_stays(self, sam: Client, reason: str) -> None:
        order = ended("completed")

        response = sam.post(f"/orders/{order.order_id}/hand-over/", {"reason": reason})

        assert response.status_code == 400
        assert 'id="reason-fault"' in response.content.decode()
        assert (by_hand(order), Shipment.objects.get().status) == ([], Shipment.Status.CREATED)

    def test_what_moved_since_the_page_was_made_is_shown_first(self, sam: Client) -> None:
        order = ended("completed")
        seen = seen_in(sam.get(f"/orders/{order.order_id}/hand-over/"))
        sam.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON})

        response = sam.post(f"/orders/{order.order_id}/hand-over/", {"reason": COLLECTED, "seen": seen})

        assert response.status_code == 409
        assert "It cannot be noted as handed over: the order is being undone, or has been." in text_of(response)
        assert 'name="reason"' not in response.content.decode()

    def test_nobody_else_does(self, gina: Client, customer: Client, ada: User) -> None:
        order = ended("completed", user=ada)

        for client, why in ((gina, TAKES_A_SUPERVISOR), (customer, "This is for the shop's people")):
            response = client.post(f"/orders/{order.order_id}/hand-over/", {"reason": COLLECTED})
            assert (response.status_code, why in text_of(response)) == (403, True)
            assert "hand-over" not in client.get(f"/orders/{order.order_id}/").content.decode()
        assert Shipment.objects.get().status == Shipment.Status.CREATED

    def test_it_is_refused_while_the_order_is_undone(self, sam: Client) -> None:
        order = ended("compensated")

        response = sam.post(f"/orders/{order.order_id}/hand-over/", {"reason": COLLECTED})

        assert len(told(response)) == 1
        assert "the order is being undone, or has been" in told(response)[0]
        assert "hand-over" not in sam.get(f"/orders/{order.order_id}/").content.decode()

    def test_a_parcel_leaves_though_the_mail_about_it_still_waits(self, sam: Client) -> None:
        order = ended("completed")
        assert f"/orders/{order.order_id}/hand-over/" in sam.get(f"/orders/{order.order_id}/").content.decode()
        SagaRun.objects.filter(business_key=order.order_id).update(status="retrying", ended_at=None)

        assert f"/orders/{order.order_id}/hand-over/" in sam.get(f"/orders/{order.order_id}/").content.decode()

    def test_looking_at_the_page_hands_nothing_over(self, sam: Client) -> None:
        order = ended("completed")

        assert sam.get(f"/orders/{order.order_id}/hand-over/", {"reason": COLLECTED}).status_code == 200
        assert Shipment.objects.get().status == Shipment.Status.CREATED


class TestHelpingARunOn:
    def test_an_agent_retries(self, gina: Client) -> None:
        order = ended("needs_attention")

        response = act(gina, order, "retry", **REFUND, next=f"/orders/{order.order_id}/")

        assert response.headers["Location"] == f"/orders/{order.order_id}/"
        assert told(response) == ["Retry now: done. The history says so."]
        assert by_hand(order) == [("retry_requested", "user:gina", "")]
        assert run_of(order).status == "compensating"

    def test_twice_is_once(self, gina: Client) -> None:
        order = ended("needs_attention")

        for _ in range(2):
            response = act(gina, order, "retry", **REFUND)
            assert "Retry now: done." in text_of(gina.get(response.headers["Location"]))

        assert len(by_hand(order)) == 1

    @pytest.mark.parametrize("name", ["skip", "resolve", "abandon"])
    def test_an_agent_does_no_more_than_that(self, gina: Client, name: str) -> None:
        order = ended("needs_attention")

        for response in (
            gina.get(f"/runs/{order.run_id}/{name}/"),
            act(gina, order, name, **REFUND, reason=REASON, evidence="BANK-1"),
        ):
            assert (response.status_code, TAKES_A_SUPERVISOR in text_of(response)) == (403, True)
        assert by_hand(order) == []
        assert run_of(order).status == "needs_attention"

    @pytest.mark.parametrize(
        ("name", "kind", "status"),
        [
            ("skip", "skipped", "compensated"),
            ("resolve", "resolved", "compensated"),
            ("abandon", "abandoned", "abandoned"),
        ],
    )
    def test_a_supervisor_settles_it(self, sam: Client, name: str, kind: str, status: str) -> None:
        order = ended("needs_attention")
        page = sam.get(f"/runs/{order.run_id}/{name}/", REFUND)

        response = act(sam, order, name, **REFUND, reason=REASON, evidence="BANK-1")

        assert page.status_code == 200
        assert response.headers["Location"] == f"/runs/{order.run_id}/"
        assert by_hand(order) == [(kind, "user:sam", REASON)]
        if status == "compensated":
            run_to_end(run_of(order))
        assert run_of(order).status == status
        assert REASON in text_of(sam.get(f"/runs/{order.run_id}/"))

    @pytest.mark.parametrize("end", ["completed", "compensated"])
    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("retry", "retry"),
            ("skip", "skip"),
            ("resolve", "resolve"),
            ("abandon", "only a run that needs attention can be given up"),
        ],
    )
    def test_what_cannot_be_done_says_why(self, sam: Client, end: str, name: str, why: str) -> None:
        order = ended(end)
        before = events(order)

        response = act(sam, order, name, **REFUND, reason=REASON, evidence="BANK-1")

        assert response.status_code == 302
        assert len(told(response)) == 1
        assert why in told(response)[0]
        assert told(response)[0].startswith("Cannot ")
        assert events(order) == before

    @pytest.mark.parametrize(
        ("name", "fields", "why"),
        [
            ("abandon", {}, "Reason : Say why in at least 10 characters"),
            ("skip", REFUND, "Reason : Say why in at least 10 characters"),
            ("skip", {**REFUND, "reason": "as agreed"}, "Reason : Say why in at least 10 characters"),
            ("resolve", {**REFUND, "evidence": "BANK-1"}, "Reason : Say why in at least 10 characters"),
            ("resolve", {**REFUND, "reason": REASON}, "Evidence : Give the reference"),
            ("resolve", {**REFUND, "reason": REASON, "evidence": " \x00 "}, "Evidence : Give the reference"),
            ("resolve", {**REFUND, "reason": REASON, "evidence": "x" * 501}, "Evidence : These are 501 characters"),
            ("skip", {**REFUND, "reason": "x" * 501}, "Reason : This is 501 characters long; at most 500 are kept."),
        ],
    )
    def test_what_is_missing_is_asked_for(self, sam: Client, name: str, fields: dict[str, str], why: str) -> None:
        order = ended("needs_attention")

        response = act(sam, order, name, **fields)

        assert response.status_code == 400
        assert f"Nothing was done: {why}" in text_of(response)
        for kept in ("reason", "evidence"):
            assert fields.get(kept, "").strip(" \x00") in response.content.decode()
        assert by_hand(order) == []

    @pytest.mark.parametrize(
        ("name", "fields", "why"),
        [
            ("retry", {"step": "bribe_the_bank", "direction": "compensation"}, "there is no step bribe_the_bank"),
            ("retry", {"step": "process_payment"}, "process_payment"),
            ("retry", {"step": "\x00", "direction": "compensation"}, "there is no step"),
        ],
    )
    def test_what_cannot_be_meant_says_why(self, sam: Client, name: str, fields: dict[str, str], why: str) -> None:
        order = ended("needs_attention")

        response = act(sam, order, name, **fields)

        assert len(told(response)) == 1
        assert why in told(response)[0]
        assert by_hand(order) == []
        assert sam.get(response.headers["Location"]).status_code == 200

    @pytest.mark.parametrize("direction", ["sideways", "", "\x00"])
    def test_there_are_two_directions(self, sam: Client, direction: str) -> None:
        order = ended("needs_attention")

        assert act(sam, order, "retry", step="process_payment", direction=direction).status_code == 404
        assert by_hand(order) == []

    @pytest.mark.parametrize(
        "address",
        [
            *("https://evil.example/", "//evil.example/", "\\\\evil.example", "javascript:alert(1)"),
            *("/\\evil.example", "https:evil.example", "http://testserver@evil.example/", ""),
        ],
    )
    def test_nobody_is_led_away(self, gina: Client, address: str) -> None:
        order = ended("needs_attention")

        response = act(gina, order, "retry", **REFUND, next=address)
        page = gina.get(f"/runs/{order.run_id}/retry/", {**REFUND, "next": address})

        assert response.headers["Location"] == f"/runs/{order.run_id}/"
        assert "evil.example" not in page.content.decode()
        assert "javascript:" not in page.content.decode()

    def test_nor_after_the_login(self, client: Client) -> None:
        make_user(username="bob")

        response = client.post("/accounts/login/?next=//evil.example/", {"username": "bob", "password": "bob-password"})

        assert response.headers["Location"] == "/"

    def test_a_form_from_elsewhere_is_refused(self) -> None:
        sam = visitor("sam", "supervisor", enforce_csrf_checks=True)
        order = ended("needs_attention")

        assert act(sam, order, "abandon", reason=REASON).status_code == 403
        assert run_of(order).status == "needs_attention"

    @pytest.mark.parametrize(
        ("name", "follows"),
        [
            ("retry", "now Refund payment: 99.99 EUR goes back to the card Then the run is undone."),
            ("skip", "left out Refund payment: we keep 99.99 EUR of the customer's Then the run is undone."),
            ("resolve", "noted as done Refund payment: 99.99 EUR goes back to the card Then the run is undone."),
            (
                "abandon",
                "stays Refund payment: we keep 99.99 EUR of the customer's "
                "The run ends here, and nobody is asked again.",
            ),
        ],
    )
    def test_a_dialog_says_what_will_follow(self, sam: Client, name: str, follows: str) -> None:
        order = ended("needs_attention")

        words = text_of(sam.get(f"/runs/{order.run_id}/{name}/", REFUND))

        assert f"What will follow {follows}" in words.replace("\xa0", " ")

    def test_a_run_that_moved_since_the_dialog_is_shown_first(self, sam: Client, gina: Client) -> None:
        order = ended("needs_attention")
        seen = seen_in(sam.get(f"/runs/{order.run_id}/skip/", REFUND))
        act(gina, order, "retry", **REFUND)

        response = act(sam, order, "skip", **REFUND, reason=REASON, seen=seen)

        assert response.status_code == 409
        assert "It has moved on since you were asked." in text_of(response)
        assert by_hand(order) == [("retry_requested", "user:gina", "")]

    def test_the_same_dialog_twice_is_once(self, sam: Client) -> None:
        order = ended("needs_attention")
        seen = seen_in(sam.get(f"/runs/{order.run_id}/skip/", REFUND))

        for _ in range(2):
            response = act(sam, order, "skip", **REFUND, reason=REASON, seen=seen)
            assert "Skip: done." in text_of(sam.get(response.headers["Location"]))

        assert by_hand(order) == [("skipped", "user:sam", REASON)]

    def test_what_cannot_be_done_has_no_form(self, sam: Client) -> None:
        order = ended("completed")

        page = sam.get(f"/runs/{order.run_id}/skip/", REFUND)

        assert "This cannot be done as the run stands now." in text_of(page)
        assert 'name="reason"' not in page.content.decode()

    def test_what_waits_is_grouped_by_its_cause(self, gina: Client) -> None:
        for number in (1, 2):
            ended("needs_attention", order_id=f"ORD-{number}")
        ended("completed", order_id="ORD-3")

        words = text_of(gina.get("/runs/attention/"))

        assert "2 runs" in words
        assert words.count("Retry refund payment of ORD-") == 2
        assert "ORD-3" not in words
        assert "Needs attention 2" in words

    def test_the_runs_page_shows_every_attempt(self, gina: Client) -> None:
        order = ended("needs_attention")

        response = gina.get(f"/runs/{order.run_id}/")

        assert response.content.decode().count('<td data-label="Try">') == run_of(order).records.count()
        assert "abandon" not in response.content.decode()
