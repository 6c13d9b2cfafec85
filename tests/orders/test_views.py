"""The pages that show: the list, an order at each of its ends, what keeps them up to date, and who sees what."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from config.middleware import POLICY
from orders.models import Order, PaymentOperation, Reservation, SentMessage, Shipment
from orders.services import cancel_order, hand_over, set_tags
from sagas.heartbeats import beat
from sagas.models import SagaRun
from sagas.services import assign
from sagas.testing import FrozenClock, drive_once, run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import INLINE, ended, order_ids, run_of, text_of, told
from tests.sagas.toys import World, make_run, make_trip, registered

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = ("order_detail", "order_live", "order_cancel")


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


def own_order(username: str = "ada", **changes: Any) -> tuple[Client, Order]:
    """A customer's client, and an order of theirs."""
    user = make_user(username=username)
    client = Client()
    client.force_login(user)
    return client, make_order(user=user, customer_ref=username, **changes)


class TestWhoSeesWhat:
    @pytest.mark.parametrize("page", ["order_list", "order_new", "run_list", "run_attention", "health", "overview"])
    def test_a_stranger_is_sent_to_the_login(self, client: Client, page: str) -> None:
        address = reverse(page)

        response = client.get(address)

        assert (response.status_code, response.headers["Location"]) == (302, f"/accounts/login/?next={address}")

    @pytest.mark.parametrize("page", PAGES)
    def test_a_stranger_is_sent_to_the_login_from_an_order(self, client: Client, page: str) -> None:
        address = reverse(page, args=[make_order().order_id])

        response = client.get(address)

        assert (response.status_code, response.headers["Location"]) == (302, f"/accounts/login/?next={address}")

    def test_a_stranger_is_sent_to_the_login_from_a_run(self, client: Client) -> None:
        run = run_of(make_order())

        for address in (reverse("run_detail", args=[run.pk]), reverse("run_act", args=[run.pk, "retry"])):
            assert client.get(address).headers["Location"] == f"/accounts/login/?next={address}"

    def test_customers_see_their_own_orders_only(self) -> None:
        ada, own = own_order("ada", order_id="ORD-ADA")
        bob, other = own_order("bob", order_id="ORD-BOB")

        assert order_ids(ada.get("/orders/")) == ["ORD-ADA"]
        assert order_ids(bob.get("/orders/")) == ["ORD-BOB"]
        for page in PAGES:
            assert ada.get(reverse(page, args=[own.order_id])).status_code == 200
            assert ada.get(reverse(page, args=[other.order_id])).status_code == 404
        for page in ("order_cancel", "order_hand_over"):
            assert ada.post(reverse(page, args=[other.order_id]), {"reason": "mine now"}).status_code == 404
        assert run_of(other).status == "pending"
        assert not run_of(other).events.exclude(kind="started").exists()

    def test_staff_sees_every_order(self, gina: Client, sam: Client) -> None:
        own_order("ada", order_id="ORD-ADA")
        own_order("bob", order_id="ORD-BOB")

        for client in (gina, sam):
            assert order_ids(client.get("/orders/")) == ["ORD-BOB", "ORD-ADA"]
            assert client.get("/orders/ORD-ADA/").status_code == 200

    def test_runs_are_not_there_for_customers(self) -> None:
        ada, order = own_order()
        run = run_of(order)

        for address in (
            *("/runs/", "/runs/attention/", "/health/", "/overview/"),
            *(f"/runs/{run.pk}/", f"/runs/{run.pk}/cancel/"),
        ):
            assert ada.get(address).status_code == 404
        assert ada.post(f"/runs/{run.pk}/cancel/", {"reason": "please"}).status_code == 404
        assert run_of(order).cancel_requested_at is None
        assert "/runs/" not in ada.get(f"/orders/{order.order_id}/").content.decode()

    def test_a_runs_page_leads_to_its_lines_in_the_log(self, gina: Client, settings: Any) -> None:
        run = run_of(make_order())
        assert "Log of this run" not in text_of(gina.get(f"/runs/{run.pk}/"))

        settings.SAGA_LOGS_LINK = 'https://logs.example.com/?q="{run}"&days=7'

        page = gina.get(f"/runs/{run.pk}/").content.decode()
        link = f'href="https://logs.example.com/?q=&quot;{run.pk}&quot;&amp;days=7" rel="noopener noreferrer"'
        assert f"{link}>Log of this run<" in page

    @pytest.mark.parametrize("number", ["ORD-NONE", "%00", "ORD%00-123", "%F0%9F%92%A5", "x" * 500, "'%20OR%201=1--"])
    def test_an_order_that_is_not_there_is_not_found(self, gina: Client, number: str) -> None:
        make_order()

        for tail in ("", "live/", "cancel/"):
            assert gina.get(f"/orders/{number}/{tail}").status_code == 404

    def test_a_run_that_is_not_there_is_not_found(self, sam: Client) -> None:
        nobody = "00000000-0000-0000-0000-000000000000"

        for address in (f"/runs/{nobody}/", f"/runs/{nobody}/retry/", "/runs/nothing/"):
            assert sam.get(address).status_code == 404
        assert sam.get(f"/runs/{run_of(make_order()).pk}/erase/").status_code == 404


class TestList:
    def test_the_newest_stands_first_with_what_it_costs_and_where_it_is(self) -> None:
        ada, _ = own_order(order_id="ORD-1")
        user = Order.objects.get().user
        ended("completed", order_id="ORD-2", user=user)

        response = ada.get("/orders/")

        assert order_ids(response) == ["ORD-2", "ORD-1"]
        words = text_of(response)
        assert "Completed ORD-2 2 × Product ITEM-001, 1 more 99.99 EUR" in words.replace("\xa0", " ")
        assert "Pending ORD-1 2 × Product ITEM-001, 1 more 99.99 EUR" in words.replace("\xa0", " ")
        assert "Customer" not in words

    def test_states_narrow_it(self, gina: Client) -> None:
        for end in ("completed", "compensated", "needs_attention"):
            ended(end, order_id=f"ORD-{end}")
        make_order(order_id="ORD-pending")

        found = {
            state: order_ids(gina.get("/orders/", {"state": state}))
            for state in ("", "in_progress", "retrying", "needs_attention", "completed", "undone")
        }

        assert found == {
            "": ["ORD-pending", "ORD-needs_attention", "ORD-compensated", "ORD-completed"],
            "in_progress": ["ORD-pending"],
            "retrying": [],
            "needs_attention": ["ORD-needs_attention"],
            "completed": ["ORD-completed"],
            "undone": ["ORD-compensated"],
        }

    def test_an_unknown_state_shows_all(self, gina: Client) -> None:
        make_order()

        assert order_ids(gina.get("/orders/", {"state": "lost"})) == ["ORD-123"]

    def test_every_id_leads_to_the_order(self, gina: Client) -> None:
        order = ended("completed", customer_ref="USER-9", email="nine@example.com")
        ended("completed", order_id="ORD-OTHER")
        charge = PaymentOperation.objects.get(payment__order=order)
        parcel = Shipment.objects.get(order=order)
        message = SentMessage.objects.get(order=order)
        reservation = Reservation.objects.filter(key__startswith=str(order.run_id)).first()
        assert reservation is not None
        ids = [
            order.order_id,
            "USER-9",
            "NINE@example.com",
            charge.provider_id,
            parcel.shipment_id,
            parcel.tracking_number,
            message.email_id,
            reservation.reservation_id,
        ]

        for text in ids:
            response = gina.get("/orders/", {"q": f"  {text} "})
            assert (text, response.status_code) == (text, 302)
            assert response.headers["Location"] == f"/orders/{order.order_id}/"

    def test_what_names_several_orders_lists_them(self, gina: Client) -> None:
        make_order(order_id="ORD-1", email="two@example.com")
        make_order(order_id="ORD-2", email="two@example.com")
        make_order(order_id="ORD-3")

        response = gina.get("/orders/", {"q": "two@example.com"})

        assert order_ids(response) == ["ORD-2", "ORD-1"]
        assert "found by: two@example.com" in text_of(response)

    def test_a_customer_finds_nobody_elses_order(self) -> None:
        ada, _ = own_order("ada", order_id="ORD-ADA")
        own_order("bob", order_id="ORD-BOB")

        response = ada.get("/orders/", {"q": "ORD-BOB"})

        assert (response.status_code, order_ids(response)) == (200, [])
        assert "No order fits." in text_of(response)

    def test_staff_narrows_it_to_a_customer_and_customers_cannot(self, gina: Client) -> None:
        ada, _ = own_order("ada", order_id="ORD-ADA")
        own_order("bob", order_id="ORD-BOB")

        assert order_ids(gina.get("/orders/", {"customer": "bob"})) == ["ORD-BOB"]
        assert order_ids(ada.get("/orders/", {"customer": "bob"})) == ["ORD-ADA"]

    @pytest.mark.parametrize("name", ["q", "customer", "before", "state"])
    @pytest.mark.parametrize(
        "value", ["\x00", "a\x00b", "<script>alert(1)</script>", "' OR 1=1 --", "\U0001f4a5" * 300]
    )
    def test_odd_filters_find_nothing_and_break_nothing(self, gina: Client, name: str, value: str) -> None:
        make_order()

        response = gina.get("/orders/", {name: value})

        assert response.status_code == 200
        assert order_ids(response) == ([] if name in {"q", "customer"} else ["ORD-123"])
        assert "<script>" not in response.content.decode()

    def test_it_turns_pages_without_losing_or_repeating_any(self, gina: Client) -> None:
        for number in range(27):
            make_order(order_id=f"ORD-{number:02}", email="many@example.com")

        first = gina.get("/orders/", {"q": "many@example.com"})
        older = re.findall(r'href="([^"]+)">More</a>', first.content.decode())
        second = gina.get(older[0].replace("&amp;", "&"))

        assert order_ids(first) == [f"ORD-{number:02}" for number in range(26, 1, -1)]
        assert order_ids(second) == ["ORD-01", "ORD-00"]
        assert "More" not in text_of(second)
        assert "Back to the first" not in text_of(first)
        assert 'href="/orders/?q=many%40example.com">Back to the first</a>' in second.content.decode()

    def test_an_empty_list_says_why(self, gina: Client) -> None:
        assert "No orders yet." in text_of(gina.get("/orders/"))
        assert "No order fits." in text_of(gina.get("/orders/", {"state": "completed"}))
        assert "No run has begun yet." in text_of(gina.get("/runs/"))
        assert "No run fits." in text_of(gina.get("/runs/?error=card_declined"))
        assert "Nothing needs you." in text_of(gina.get("/runs/attention/"))

    def test_its_live_part_is_the_rows_alone(self, gina: Client) -> None:
        order = make_order()

        first = gina.get("/orders/", headers={"X-Live": "1"})
        again = gina.get("/orders/", headers={"X-Live": "1", "If-None-Match": first.headers["ETag"]})
        cancel_order(order_id=order.order_id, actor="user:gina", reason="changed their mind")
        after = gina.get("/orders/", headers={"X-Live": "1", "If-None-Match": first.headers["ETag"]})

        assert (first.status_code, again.status_code, after.status_code) == (200, 304, 200)
        assert (order_ids(first), again.content) == (["ORD-123"], b"")
        assert "<html" not in first.content.decode()

    def test_its_queries_do_not_grow_with_it(self, gina: Client) -> None:
        def queries() -> int:
            with CaptureQueriesContext(
                connection,
            ) as captured:
                assert gina.get("/orders/").status_code == 200
            return len(captured)

        ended("completed", order_id="ORD-1")
        few = queries()
        for number in range(2, 8):
            ended(
                "needs_attention" if number % 2 else "completed",
                order_id=f"ORD-{number}",
                items=[{"sku": "ITEM-001", "quantity": 1}],
                total_amount=None,
            )

        assert queries() == few


class TestOrder:
    def test_completed(self, gina: Client) -> None:
        order = ended("completed")
        parcel, message = Shipment.objects.get(), SentMessage.objects.get()

        words = text_of(gina.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")

        assert "ORD-123 Completed All 4 steps are done." in words
        for step in ("Reserve inventory Done", "Process payment Done", "Create shipment Done"):
            assert step in words
        assert "Charged 99.99 EUR Refunded 0.00 EUR We hold 99.99 EUR" in words
        assert parcel.tracking_number in words
        assert message.email_id in words
        assert "to ada@example.com" in words
        assert "Torstraße 1 10115 Berlin, DE" in words
        assert "Not needed" in words

    def test_compensated(self, gina: Client) -> None:
        order = ended("compensated")

        words = text_of(gina.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")

        assert "ORD-123 Undone" in words
        assert "Refund payment Undone" in words
        assert "Release inventory Undone" in words
        assert "Charged 99.99 EUR Refunded 99.99 EUR We hold 0.00 EUR" in words
        assert "Create shipment Failed" in words
        assert "Cancel order" not in words

    def test_needs_attention(self, sam: Client) -> None:
        order = ended("needs_attention")
        undo = run_of(order).records.filter(step="process_payment", direction="compensation")

        response = sam.get(f"/orders/{order.order_id}/")

        words = text_of(response).replace("\xa0", " ")
        assert "ORD-123 Needs attention A person is needed." in words
        assert f"{undo.count()} tries: Refund payment" in words
        assert "Release inventory Undone" in words
        assert "Charged 99.99 EUR Refunded 0.00 EUR Refund owed 99.99 EUR We hold 99.99 EUR" in words
        for act in ("Retry now : Refund payment", "Settle by hand … Refund payment", "Give up …"):
            assert act in words
        keys = re.findall(r"key <code>([^<]+)</code>", response.content.decode())
        assert set(keys) == set(run_of(order).records.values_list("key", flat=True))

    def test_retrying(self, gina: Client) -> None:
        order = make_order(ship_postcode="00001")
        # A minute ahead: the wait is drawn by chance, and a short one would be over before the page is shown.
        drive_once(run_of(order), clock=FrozenClock(timezone.now() + timedelta(minutes=1)))

        words = text_of(gina.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")

        assert "Create shipment Retrying" in words
        assert "Safe to repeat: same key." in words
        assert "Cancel order …" in words

    def test_pending(self) -> None:
        ada, order = own_order()

        words = text_of(ada.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")

        assert "ORD-123 Pending Stored and waiting for a worker." in words
        assert words.count("Not reached") == 4
        assert "We hold 0.00 EUR" in words
        assert "Cancel order …" in words

    def test_the_carrier_has_it(self, gina: Client) -> None:
        order = ended("completed")
        hand_over(order_id=order.order_id, actor="user:sam")

        words = text_of(gina.get(f"/orders/{order.order_id}/"))

        assert "Handed over" in words
        assert "Cannot be cancelled: " in words
        assert "Cancel order …" not in words

    def test_agents_are_shown_what_agents_may_do(self, gina: Client, sam: Client) -> None:
        order = ended("needs_attention")

        shown = {
            name: re.findall(r"/runs/[0-9a-f-]+/([a-z]+)/", client.get(f"/orders/{order.order_id}/").content.decode())
            for name, client in (("agent", gina), ("supervisor", sam))
        }

        assert set(shown["agent"]) == {"retry", "assign"}
        assert set(shown["supervisor"]) == {"retry", "assign", "skip", "resolve", "abandon"}

    def test_the_first_act_is_the_one_that_helps(self, gina: Client) -> None:
        stuck, well = ended("needs_attention", order_id="ORD-1"), ended("completed", order_id="ORD-2")
        first = re.compile(r'<button class="btn main">([^<]+)</button>')

        assert first.findall(gina.get(f"/orders/{stuck.order_id}/").content.decode()) == ["Retry refund payment now"]
        assert first.findall(gina.get(f"/orders/{well.order_id}/").content.decode()) == []

    def test_who_looks_after_it_stands_on_it(self, gina: Client) -> None:
        order = ended("needs_attention")
        page = f"/orders/{order.order_id}/"
        tag = gina.get(f"{page}live/").headers["ETag"]
        assert "looked after by nobody" in text_of(gina.get(page))

        response = gina.post(f"/runs/{order.run_id}/assign/", {"owner": "me", "next": page})

        assert response.headers["Location"] == page
        assert "looked after by you" in text_of(gina.get(page))
        assert gina.get(f"{page}live/", headers={"If-None-Match": tag}).status_code == 200

    @pytest.mark.parametrize(
        ("end", "words"),
        [
            ("completed", "99.99 EUR was charged. Parcel TRK-"),
            ("compensated", "99.99 EUR went back to the card."),
            ("needs_attention", "99.99 EUR is owed to Ada Pereira."),
        ],
    )
    def test_the_sentence_says_where_the_money_is(self, gina: Client, end: str, words: str) -> None:
        order = ended(end)

        assert words in text_of(gina.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")

    def test_its_customer_is_told_what_it_means_for_them_and_not_what_we_have_to_do(self, gina: Client) -> None:
        ada, order = own_order(ship_postcode="00000", card_token="tok_refund_fails")
        assert run_to_end(run_of(order)).status == "needs_attention"
        page = f"/orders/{order.order_id}/"

        told_ada, told_gina = (text_of(one.get(page)).replace("\xa0", " ") for one in (ada, gina))

        ours = "Something went wrong on our side, and one of us is looking after it. You need not do anything."
        assert f"{ours} 99.99 EUR is owed to you." in told_ada
        assert "A person is needed." not in told_ada.partition("Steps, and what undoes them")[0]
        why = "A person is needed. Refund payment failed: The gateway is away (503)."
        assert f"{why} 99.99 EUR is owed to Ada Pereira." in told_gina

    def test_its_tags_lead_to_others_with_them_and_are_staffs(self, gina: Client) -> None:
        ada, order = own_order()
        set_tags(order_id=order.order_id, tags=["a gift"], author="user:gina")

        assert '<a href="/orders/?tag=a%20gift">a gift</a>' in gina.get(f"/orders/{order.order_id}/").content.decode()
        assert "a gift" not in ada.get(f"/orders/{order.order_id}/").content.decode()

    def test_every_row_of_money_is_shown(self, gina: Client) -> None:
        order = ended("needs_attention")
        charge = PaymentOperation.objects.get(kind="charge")

        words = text_of(gina.get(f"/orders/{order.order_id}/")).replace("\xa0", " ")

        assert f"Charge : done 99.99 EUR {charge.provider_id}" in words
        assert "Refund : gateway away 99.99 EUR The gateway is away (503). unavailable" in words

    def test_the_history_is_one_story_and_is_narrowed_by_kind(self, gina: Client) -> None:
        order = ended("needs_attention")
        gina.post(f"/orders/{order.order_id}/notes/", {"text": "The bank was called."})
        assign(run_id=run_of(order).pk, owner="key:shop", actor="key:shop")
        assign(run_id=run_of(order).pk, owner="user:gina", actor="user:gina")

        def told_of(kind: str) -> str:
            words = text_of(gina.get(f"/orders/{order.order_id}/", {"history": kind}))
            return words.partition("History All People Programs Tries System Notes")[2].partition("Write a note")[0]

        whole, tries, system, notes = (told_of(kind) for kind in ("", "steps", "system", "notes"))
        assert re.findall(r"Taken on by (\S+)", whole) == ["user:gina", "key:shop"]
        assert re.findall(r"Taken on by (\S+)", told_of("people")) == ["user:gina"]
        assert re.findall(r"Taken on by (\S+)", told_of("programs")) == ["key:shop"]
        for words in ("Refund payment, try 4 : unavailable", "Turned back: No delivery to postcode 00000."):
            assert words in whole
        assert "Note by user:gina The bank was called." in whole
        assert whole.count(", try ") == tries.count(", try ") == run_of(order).records.count()
        assert ("Turned back" in tries, "Turned back" in system, ", try " in system) == (False, True, False)
        assert notes.split(" ago ")[1].strip() == "Note by user:gina The bank was called."
        assert "Nothing of that kind." not in told_of("nonsense")

    def test_every_try_has_an_address_and_a_key_with_what_came_of_it(self, gina: Client) -> None:
        order = ended("needs_attention")

        response = gina.get(f"/orders/{order.order_id}/")

        page = response.content.decode()
        for record in run_of(order).records.all():
            anchor = f"try-{record.step}-{record.direction}-{record.number}"
            assert f'<li id="{anchor}">' in page
            assert f'href="#{anchor}"' in page
        words = text_of(response)
        undos = run_of(order).records.filter(step="process_payment", direction="compensation").count()
        assert re.search(rf"key \S+ sent {undos} times, not done", words)
        assert re.search(r"key \S+ sent 1 time, done once", words)

    def test_every_try_that_went_well_has_the_providers_id(self, gina: Client) -> None:
        order = ended("compensated")
        (operation,) = PaymentOperation.objects.filter(kind="charge")
        refund = PaymentOperation.objects.get(kind="refund")
        held = ", ".join(Reservation.objects.order_by("id").values_list("reservation_id", flat=True))

        page = gina.get(f"/orders/{order.order_id}/").content.decode()

        def shown(step: str, direction: str) -> str:
            (row,) = re.findall(rf'<li id="try-{step}-{direction}-1">(.*?)</li>', page, re.DOTALL)
            return ", ".join(re.findall(r'class="meta">.*?<code>(.*?)</code>', row, re.DOTALL))

        assert shown("reserve_inventory", "action") == shown("reserve_inventory", "compensation") == held
        assert shown("process_payment", "action") == operation.provider_id
        assert shown("process_payment", "compensation") == refund.provider_id
        assert shown("create_shipment", "action") == ""  # the carrier refused, and gave no number
        told = gina.get(f"/api/v1/saga-runs/{order.run_id}").json()["steps"][1]
        assert told["attempts"][0]["provider_id"] == operation.provider_id

    def test_what_the_api_tells_stands_below_for_staff_alone(self, gina: Client) -> None:
        ada, order = own_order()

        page = gina.get(f"/orders/{order.order_id}/")

        assert "&quot;order_id&quot;: &quot;ORD-123&quot;" in page.content.decode()
        assert "tok_visa" not in page.content.decode()
        assert "As the API tells it" not in text_of(ada.get(f"/orders/{order.order_id}/"))

    def test_customers_are_shown_no_acts_of_staff(self) -> None:
        ada, order = own_order(ship_postcode="00000", card_token="tok_refund_fails")
        run_to_end(run_of(order))

        response = ada.get(f"/orders/{order.order_id}/")

        assert "/runs/" not in response.content.decode()
        assert "Retry now" not in text_of(response)

    def test_its_queries_do_not_grow_with_attempts(self, gina: Client) -> None:
        def queries(order: Order) -> int:
            with CaptureQueriesContext(connection) as captured:
                assert gina.get(f"/orders/{order.order_id}/").status_code == 200
            return len(captured)

        plain = ended("compensated", order_id="ORD-1")
        rough = ended("needs_attention", order_id="ORD-2")
        mailed = ended("completed", order_id="ORD-3")
        assert run_of(rough).records.count() > run_of(plain).records.count() + 2

        assert queries(rough) == queries(plain) == queries(mailed) <= 12

    def test_text_of_customers_is_shown_as_text(self, gina: Client) -> None:
        order = ended("completed", ship_name="<b>Ada</b><script>alert(1)</script>", customer_ref="<i>x</i>")

        for address in (f"/orders/{order.order_id}/", "/orders/", f"/runs/{order.run_id}/"):
            body = gina.get(address).content.decode()
            assert "<script>alert" not in body
            assert "<b>Ada" not in body
            assert "<i>x" not in body


class TestLivePart:
    def test_unchanged_it_answers_without_contents(self) -> None:
        ada, order = own_order()
        address = f"/orders/{order.order_id}/live/"

        first = ada.get(address)
        again = ada.get(address, headers={"If-None-Match": first.headers["ETag"]})

        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
        assert "<html" not in first.content.decode()

    def test_unchanged_it_asks_little(self, gina: Client) -> None:
        order = ended("completed")
        address = f"/orders/{order.order_id}/live/"
        tag = gina.get(address).headers["ETag"]

        with CaptureQueriesContext(connection) as captured:
            assert gina.get(address, headers={"If-None-Match": tag}).status_code == 304

        assert len(captured) == 3  # session, user with the frame, the order's version

    def test_what_stands_beside_the_run_changes_it_too(self, gina: Client) -> None:
        order = ended("needs_attention")
        address = f"/orders/{order.order_id}/live/"
        tags = [gina.get(address).headers["ETag"]]

        gina.post(f"/orders/{order.order_id}/notes/", {"text": "Called."})
        tags.append(gina.get(address).headers["ETag"])
        for wanted in (["gift", "vip"], ["gift"], []):
            set_tags(order_id=order.order_id, tags=wanted, author="user:gina")
            tags.append(gina.get(address).headers["ETag"])
        PaymentOperation.objects.filter(kind="refund").update(updated_at=timezone.now())
        tags.append(gina.get(address).headers["ETag"])

        assert len(set(tags[:-2])) == 4
        assert tags[-1] != tags[-2]

    def test_every_act_changes_it(self, gina: Client) -> None:
        order = make_order()
        address = f"/orders/{order.order_id}/live/"
        tags = [gina.get(address).headers["ETag"]]

        run_to_end(run_of(order))
        tags.append(gina.get(address).headers["ETag"])
        cancel_order(order_id=order.order_id, actor="user:gina", reason="changed their mind")
        tags.append(gina.get(address).headers["ETag"])
        run_to_end(run_of(order))
        tags.append(gina.get(address).headers["ETag"])

        assert len(set(tags)) == 4
        for tag in tags[:3]:
            assert gina.get(address, headers={"If-None-Match": tag}).status_code == 200

    def test_hand_over_changes_it(self, gina: Client) -> None:
        order = ended("completed")
        address = f"/orders/{order.order_id}/live/"
        tag = gina.get(address).headers["ETag"]

        hand_over(order_id=order.order_id, actor="user:sam")

        assert gina.get(address, headers={"If-None-Match": tag}).status_code == 200

    def test_it_says_when_there_is_nothing_more_to_wait_for(self, gina: Client) -> None:
        under_way = make_order(order_id="ORD-1")
        waiting = ended("needs_attention", order_id="ORD-2")
        done = ended("completed", order_id="ORD-3")

        said = [
            "data-ended" in gina.get(f"/orders/{order.order_id}/live/").content.decode()
            for order in (under_way, waiting, done)
        ]

        assert said == [False, False, True]


class TestHealth:
    def test_all_is_well(self, gina: Client) -> None:
        make_order()

        text = text_of(gina.get("/health/"))

        assert "Ok Work is being taken no run has been due for more than 30 s" in text

    def test_work_that_nobody_takes_is_told_before_the_cluster_is_restarted(self, gina: Client) -> None:
        for number, seconds in enumerate((42, 11, 9)):
            due_for(make_order(order_id=f"ORD-{number}"), seconds)

        text = text_of(gina.get("/health/"))

        assert (
            "Failing Work is being taken Nobody takes work: 2 runs have been due for more than 10 s, "
            "the longest for 42 s. `manage.py sagaworker` restarts a stalled cluster; is it running?"
        ) in text

    def test_work_that_is_taken_too_slowly(self, gina: Client) -> None:
        run_to_end(run_of(make_order(order_id="ORD-0")))
        for number, seconds in enumerate((42, 29), start=1):
            due_for(make_order(order_id=f"ORD-{number}"), seconds)

        text = text_of(gina.get("/health/"))

        assert (
            "Warning Work is being taken Workers take work and are behind: 1 run has been due for more than 30 s, "
            "the longest for 42 s."
        ) in text

    def test_what_a_dead_worker_held_waits_since_its_lease_ended(self, gina: Client) -> None:
        order = make_order()
        due_for(order, 90)
        SagaRun.objects.filter(pk=run_of(order).pk).update(
            lease_owner="w1", lease_until=timezone.now() - timedelta(seconds=20)
        )

        text = text_of(gina.get("/health/"))

        assert "1 run has been due for more than 10 s, the longest for 20 s." in text


def due_for(order: Order, seconds: float) -> None:
    """As if nobody had taken it for so long."""
    SagaRun.objects.filter(pk=run_of(order).pk).update(due_at=timezone.now() - timedelta(seconds=seconds))


class TestOverview:
    def test_says_how_the_day_went(self, gina: Client) -> None:
        ended("completed", order_id="ORD-1")
        ended("compensated", order_id="ORD-2")
        ended("needs_attention", order_id="ORD-3")
        make_order(order_id="ORD-4")

        text = text_of(gina.get("/overview/"))

        assert "4 runs Completed 1 Undone 1 Under way 1 Needs attention 1 Abandoned 0" in text
        assert "Needs attention a person: Refund payment 1 " in text
        assert "Pending a worker to begin 1 " in text
        assert re.search(r"Process payment 3 3 \d+ ms \d+ ms Refund payment \(undo\) \d+ 1 ", text)
        cause = "Create shipment address_not_served : the runs of this period that had it 2"
        assert text.removesuffix(" Accessibility API Keys and times").endswith(cause)
        (theirs,) = re.findall(r'href="(/runs/\?error=[^"]+)"', gina.get("/overview/").content.decode())
        listed = gina.get(unescape(theirs)).content.decode()
        assert sorted(re.findall(r">(ORD-\d)</a>", listed)) == ["ORD-2", "ORD-3"]

    def test_of_a_period_without_runs(self, gina: Client) -> None:
        text = text_of(gina.get("/overview/?period=hour"))

        for sentence in (
            "No run began in this period.",
            "Nothing is under way.",
            "No attempt ended in this period.",
            "No run of this period turned back.",
        ):
            assert sentence in text

    def test_of_a_period_there_is_not(self, gina: Client) -> None:
        response = gina.get("/overview/?period=century")

        assert (response.status_code, response.headers["Location"]) == (302, "/overview/")
        assert told(response) == ["There is no period 'century'. There are: hour, day, week, month."]


class TestRuns:
    def test_filters_are_in_the_address_and_stay_while_one_changes(self, gina: Client) -> None:
        ended("completed", order_id="ORD-1")
        ended("compensated", order_id="ORD-2")

        response = gina.get("/runs/?error=address_not_served&saga=order_processing")

        assert re.findall(r'href="/runs/[^"]+">(ORD-\d)</a>', response.content.decode()) == ["ORD-2"]
        kept = "saga=order_processing&amp;error=address_not_served"
        assert f'href="?{kept}&amp;status=completed"' in response.content.decode()
        assert f'href="?{kept}" aria-current="page">All' in response.content.decode()
        assert '<option value="day" selected>' in response.content.decode()  # a rare error must not have all be read
        assert "No run fits." in text_of(gina.get("/runs/?error=address_not_served&status=completed"))

    def test_a_page_keeps_the_filters_of_the_one_before(self, gina: Client) -> None:
        for number in range(51):
            now = timezone.now()
            key = f"K-{number}"
            SagaRun.objects.create(saga="order_processing", version=1, business_key=key, created_at=now, updated_at=now)

        first = gina.get("/runs/?saga=order_processing").content.decode()
        (older,) = re.findall(r'href="([^"]+)">Older', first)
        second = gina.get("/runs/" + older.replace("&amp;", "&")).content.decode()

        assert older.startswith("?saga=order_processing&amp;before=")
        shown = [re.findall(r'href="/runs/[^"]+">(K-\d+)</a>', page) for page in (first, second)]
        assert [len(page) for page in shown] == [50, 1]
        assert sorted(shown[0] + shown[1]) == sorted(f"K-{number}" for number in range(51))

    @pytest.mark.parametrize("query", ["status=gone", "since=century", "before=nonsense"])
    def test_what_is_no_filter_filters_nothing(self, gina: Client, query: str) -> None:
        make_order()

        assert ">ORD-123</a>" in gina.get(f"/runs/?{query}").content.decode()

    def test_a_run_of_an_odd_key_has_its_page_all_the_same(self, gina: Client) -> None:
        order = ended("needs_attention")
        SagaRun.objects.filter(business_key=order.order_id).update(business_key="web/7#1")

        page = gina.get(f"/runs/{order.run_id}/")
        inbox = gina.get("/runs/attention/")

        assert (page.status_code, inbox.status_code) == (200, 200)
        assert f'href="/runs/{order.run_id}/">web/7#1' in inbox.text

    def test_a_run_tells_where_its_time_went_and_who_fared_like_it(self, gina: Client) -> None:
        order = ended("compensated", order_id="ORD-1")
        ended("compensated", order_id="ORD-2")

        response = gina.get(f"/runs/{run_of(order).pk}/")

        text = text_of(response)
        assert "1 other run had address_not_served at “Create shipment” in the last hour" in text
        assert re.search(r"waited for a worker \d+ ms, worked \d+ ms, waited in between \d+ ms", text)
        assert (
            "Process payment was given the input and what reserve_inventory left What “Process payment” added" in text
        )
        assert f'data-copy="{run_of(order).pk}"' in response.content.decode()

    def test_its_export_is_a_file(self, gina: Client) -> None:
        run = run_of(ended("completed", email="ada.only@example.net"))

        whole = gina.get(f"/runs/{run.pk}/export/")
        redacted = gina.get(f"/runs/{run.pk}/export/?redact=1")

        assert whole.headers["Content-Disposition"] == f'attachment; filename="run-{run.pk}.json"'
        assert whole.json()["run"]["business_key"] == redacted.json()["run"]["business_key"] == "ORD-123"
        assert "(left out)" in redacted.content.decode()
        assert gina.get(f"/runs/{uuid.uuid4()}/export/").status_code == 404

    def test_its_queries_do_not_grow_with_attempts(self, gina: Client) -> None:
        def queries(order: Order) -> int:
            with CaptureQueriesContext(connection) as captured:
                assert gina.get(f"/runs/{run_of(order).pk}/").status_code == 200
            return len(captured)

        few, many = ended("needs_attention", order_id="ORD-1"), ended("compensated", order_id="ORD-2")

        assert queries(few) == queries(many) <= 12


class TestEveryPage:
    def test_says_to_staff_that_nobody_takes_work(self, gina: Client) -> None:
        ada, order = own_order()
        before = text_of(gina.get("/orders/"))
        SagaRun.objects.filter(business_key=order.order_id).update(due_at=timezone.now() - timedelta(seconds=31))

        words = "Work has been due for more than 30 seconds and nobody takes it."
        assert words not in before
        for address in ("/orders/", f"/orders/{order.order_id}/", "/runs/", "/overview/"):
            assert words in text_of(gina.get(address)), address
        assert words not in text_of(ada.get("/orders/"))

    def test_says_to_staff_that_no_worker_is_there(self, gina: Client) -> None:
        ada, order = own_order()
        words = "No worker has been seen for 30 seconds: orders are taken, and wait. Start manage.py sagaworker ."
        now = timezone.now()

        for address in ("/orders/", f"/orders/{order.order_id}/", "/runs/", "/overview/"):
            assert words in text_of(gina.get(address)), address
        assert "No worker" not in text_of(ada.get("/orders/"))
        beat("host:1", cluster="orders", now=now)
        assert "No worker" not in text_of(gina.get("/orders/"))
        beat("host:1", cluster="orders", now=now - timedelta(seconds=31))
        assert words in text_of(gina.get("/orders/"))

    def test_carries_the_policy_and_nothing_that_it_forbids(self, sam: Client) -> None:
        order = ended("needs_attention")
        ended("completed", order_id="ORD-2")
        run = f"/runs/{order.run_id}/"
        addresses = [
            *("/orders/", "/orders/new/", "/orders/ORD-123/", "/orders/ORD-123/live/", "/orders/ORD-2/cancel/"),
            *("/runs/", run, "/runs/attention/", "/health/", "/overview/", "/orders/ORD-NONE/"),
            f"{run}retry/?step=process_payment&direction=compensation",
            f"{run}resolve/?step=process_payment&direction=compensation",
        ]

        for address in addresses:
            response = sam.get(address)
            body = response.content.decode()
            assert response.status_code == (404 if "NONE" in address else 200), address
            assert (address, INLINE.findall(body)) == (address, [])
            assert response.headers["Content-Security-Policy"] == POLICY
            assert response.headers["X-Frame-Options"] == "DENY"

    def test_so_does_the_login(self, client: Client) -> None:
        response = client.get("/accounts/login/")

        assert (response.status_code, INLINE.findall(response.content.decode())) == (200, [])
        assert response.headers["Content-Security-Policy"] == POLICY

    def test_runs_and_their_queries_do_not_grow(self, sam: Client) -> None:
        def queries() -> list[int]:
            counts = []
            for address in ("/runs/", "/runs/attention/"):
                with CaptureQueriesContext(connection) as captured:
                    assert sam.get(address).status_code == 200
                counts.append(len(captured))
            return counts

        ended("needs_attention", order_id="ORD-1")
        few = queries()
        for number in range(2, 6):
            ended(
                "needs_attention",
                order_id=f"ORD-{number}",
                items=[{"sku": "ITEM-001", "quantity": 1}],
                total_amount=None,
            )

        assert queries() == few


class TestRunsPage:
    def test_it_leads_to_the_order_and_to_a_terminal(self, gina: Client) -> None:
        order = ended("completed")

        page = gina.get(f"/runs/{order.run_id}/").content.decode()

        assert f'<a href="/orders/{order.order_id}/">' in page
        assert f'data-copy="python manage.py saga show {order.run_id} --events"' in page
        assert f"http://testserver/api/v1/saga-runs/{order.run_id}" in page

    def test_many_tries_and_events_are_turned_in_pages(self, gina: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sagas.views.PAGE", 2)
        order = ended("needs_attention")
        count = run_of(order).records.count()

        last = gina.get(f"/runs/{order.run_id}/")
        first = gina.get(f"/runs/{order.run_id}/?tries=1&events=1")

        assert last.content.decode().count('<td data-label="Try">') == (count % 2 or 2)
        assert f"tries 1 to 2 of {count}" in text_of(first)
        assert "events 1 to 2 of 3" in text_of(first)
        assert "events 3 to 3 of 3" in text_of(last)
        assert 'id="row-reserve_inventory-action-1"' in first.content.decode()

    def test_an_order_that_was_tried_for_days_shows_the_newest_fifty(self, gina: Client) -> None:
        order = ended("needs_attention")
        run = run_of(order)
        last = run.records.filter(step="process_payment", direction="compensation").latest("id")
        for _ in range(60):
            last.pk, last.number = None, last.number + 1
            last.save(force_insert=True)

        words = text_of(gina.get(f"/orders/{order.order_id}/"))

        assert f"{last.number} of " in words
        assert f"The newest 50; {last.number - 50} earlier on the run's page." in words


def test_a_run_that_was_started_for_nothing_here_does_not_lead_to_an_order(gina: Client) -> None:
    """It led to itself, as "the order of this run"."""
    saga = make_trip(World())
    with registered(saga):
        run = run_to_end(make_run(saga, key="TOUR-1")).run
        page = gina.get(f"/runs/{run.pk}/").content.decode()

    assert "TOUR-1" in page
    assert "started for" not in page


def test_a_run_of_an_order_leads_to_it(gina: Client) -> None:
    order = make_order()

    page = gina.get(f"/runs/{order.run_id}/").content.decode()

    assert re.search(
        r'<a href="/orders/ORD-123/">ORD-123<span class="hidden-text">: what this run was started for', page
    )
