"""The inbox's pages, as agents and supervisors use them."""

from __future__ import annotations

import csv
import io
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from orders.models import Order, User
from sagas.models import Assignment, BulkItem, BulkOperation
from sagas.operations import digest_of, work_off
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop
from tests.orders.pages import INLINE, ended, run_of, text_of, told, visitor

pytestmark = pytest.mark.django_db

REASON = "The bank is back."
LINE: dict[str, Any] = {"items": [{"sku": "ITEM-001", "quantity": 1}], "total_amount": None}


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


def stuck(number: int) -> Order:
    return ended("needs_attention", order_id=f"ORD-{number}", **LINE)


def cause_of(client: Client) -> dict[str, str]:
    """What the page's own link to a bulk retry carries."""
    page = client.get("/runs/attention/").content.decode()
    (query,) = re.findall(r'href="/runs/bulk/new/\?act=retry&amp;([^"]+)"', page)
    return dict(parse_qsl(unescape(query), keep_blank_values=True))


def ask(client: Client, count: int, **changes: str) -> Any:
    orders = Order.objects.order_by("-pk")[:count]
    seen = digest_of(order.run_id for order in orders if order.run_id is not None)
    fields = {"act": "retry", "reason": REASON, "seen": seen, **cause_of(client), **changes}
    return client.post("/runs/bulk/new/", fields)


class TestInbox:
    def test_a_group_says_what_it_is_what_hangs_on_it_and_what_helps(self, gina: Client) -> None:
        stuck(1)
        stuck(2)

        words = text_of(gina.get("/runs/attention/"))

        assert "2 runs" in words
        assert "60.00 EUR paid by customers and not settled" in words
        assert "What helps: " in words
        assert "Looked after by" in words
        assert "nobody" in words

    def test_it_is_brought_up_to_date_and_unchanged_it_is_a_304(self, gina: Client) -> None:
        order = stuck(1)
        page = gina.get("/runs/attention/?resting=1")
        again = {"X-Live": "1", "If-None-Match": page.headers["ETag"]}

        unchanged = gina.get("/runs/attention/?resting=1", headers=again)
        gina.post(f"/runs/{order.run_id}/snooze/", {"rest": "1h"})
        put_off = gina.get("/runs/attention/?resting=1", headers=again)

        assert 'data-live="/runs/attention/?resting=1" data-every="10000"' in page.content.decode()
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert put_off.status_code == 200
        assert "put off until" in text_of(put_off)
        assert "<html" not in put_off.content.decode()
        stuck(2)
        assert "2 need attention" in gina.get("/runs/attention/?resting=1", headers=again).content.decode()

    def test_unchanged_it_asks_for_little_and_tells_how_many_wait(self, gina: Client) -> None:
        stuck(1)
        live = {"X-Live": "1", "If-None-Match": gina.get("/runs/attention/").headers["ETag"]}

        with CaptureQueriesContext(connection) as asked:
            unchanged = gina.get("/runs/attention/", headers=live)

        assert (unchanged.status_code, unchanged.headers["X-Needs-Attention"]) == (304, "1")
        assert len(asked) <= 3  # session, user with the frame, the version

    def test_every_page_that_follows_tells_staff_how_many_wait(self, gina: Client) -> None:
        order = stuck(1)
        ada = visitor("ada")
        make_order(order_id="ORD-ADA", user=User.objects.get(username="ada"))

        for address in ("/orders/", f"/orders/{order.order_id}/live/"):
            first = gina.get(address, headers={"X-Live": "1"})
            again = gina.get(address, headers={"X-Live": "1", "If-None-Match": first.headers["ETag"]})
            told = [one.headers["X-Needs-Attention"] for one in (first, again)]
            assert (again.status_code, told) == (304, ["1", "1"]), address
            assert "X-Needs-Attention" not in gina.get(address).headers  # a page has it in its frame
        for address in ("/orders/", "/orders/ORD-ADA/live/"):
            assert "X-Needs-Attention" not in ada.get(address, headers={"X-Live": "1"}).headers

    def test_programs_can_ask_for_the_same(self, gina: Client) -> None:
        page = gina.get("/runs/attention/").content.decode()

        assert 'data-copy="python manage.py saga list --state needs_attention"' in page
        assert "http://testserver/api/v1/saga-runs?state=needs_attention" in page
        assert (
            'data-copy="python manage.py saga stats --since week"'
            in gina.get("/overview/?period=week").content.decode()
        )

    def test_one_takes_a_run_on_and_gives_it_back(self, gina: Client) -> None:
        order = stuck(1)
        address = f"/runs/{order.run_id}/assign/"

        taken = gina.post(address, {"owner": "me", "next": "/runs/attention/?mine=1"})

        assert taken.headers["Location"] == "/runs/attention/?mine=1"
        assert told(taken) == ["You look after it now."]
        assert "ORD-1" in text_of(gina.get("/runs/attention/?mine=1"))
        assert "Taken on" in text_of(gina.get(f"/runs/{order.run_id}/"))
        gina.post(address, {"owner": ""})
        assert "Nothing of yours waits." in text_of(gina.get("/runs/attention/?mine=1"))

    def test_one_hands_a_run_to_somebody_else(self, gina: Client, sam: Client) -> None:
        order = stuck(1)
        visitor("bob", role="agent")
        visitor("vera", role="viewer")
        visitor("carl")
        address = f"/runs/{order.run_id}/assign/"

        asked = gina.get(f"{address}?next=/orders/ORD-1/").content.decode()
        handed = gina.post(address, {"owner": "user:bob", "next": "/orders/ORD-1/"})

        assert re.findall(r'<option value="([^"]*)">([^<]*)<', asked) == [
            ("user:bob", "bob"),
            ("user:gina", "gina, that is you"),
            ("user:sam", "sam"),
        ]
        assert (handed.headers["Location"], told(handed)) == ("/orders/ORD-1/", ["bob looks after it now."])
        page = text_of(gina.get("/orders/ORD-1/"))
        assert "looked after by bob" in page
        assert "Handed to bob by user:gina" in page
        assert "Now: bob." in text_of(sam.get(address))
        assert '<option value="">nobody in particular</option>' in sam.get(address).content.decode()

    @pytest.mark.parametrize("owner", ["user:vera", "user:carl", "user:gone", "user:nobody", "bob", "\0", "x" * 400])
    def test_nobody_is_given_what_they_may_not_help(self, gina: Client, owner: str) -> None:
        order = stuck(1)
        visitor("vera", role="viewer")
        visitor("carl")
        visitor("gone", role="agent")
        User.objects.filter(username="gone").update(is_active=False)

        response = gina.post(f"/runs/{order.run_id}/assign/", {"owner": owner})

        assert response.status_code == 400
        assert "is nobody who may look after it. Choose one of the list." in text_of(response)
        assert not Assignment.objects.exists()

    def test_what_is_put_off_is_folded_away_and_can_be_had_back(self, gina: Client) -> None:
        order = stuck(1)
        address = f"/runs/{order.run_id}/snooze/"

        assert told(gina.post(address, {"rest": "1h"})) == ["Put off for an hour."]

        words = text_of(gina.get("/runs/attention/"))
        assert "Nothing needs you. 1 put off for now: show them ." in words
        assert "ORD-1" in text_of(gina.get("/runs/attention/?resting=1"))
        assert "Put off until" in text_of(gina.get(f"/runs/{order.run_id}/"))
        assert told(gina.post(address, {"rest": ""})) == ["It is no longer put off."]
        assert "ORD-1" in text_of(gina.get("/runs/attention/"))

    @pytest.mark.parametrize("rest", ["for ever", "\0", "2h"])
    def test_there_are_three_rests(self, gina: Client, rest: str) -> None:
        order = stuck(1)

        assert gina.post(f"/runs/{order.run_id}/snooze/", {"rest": rest}).status_code == 404
        assert not Assignment.objects.exists()

    def test_what_went_on_meanwhile_says_so(self, gina: Client) -> None:
        order = ended("completed")

        response = gina.post(f"/runs/{order.run_id}/assign/", {"owner": "me"})

        assert "only a run that waits for a person" in told(response)[0]
        assert not Assignment.objects.exists()


class TestManyAtOnce:
    def test_retried_with_preview_and_result(self, sam: Client) -> None:
        orders = [stuck(number) for number in (1, 2)]

        preview = text_of(sam.get("/runs/bulk/new/", {"act": "retry", **cause_of(sam)}))
        response = ask(sam, 2)

        assert "Retry “Refund payment” of 2 runs" in preview
        assert "60.00 EUR hang on them." in preview
        operation = BulkOperation.objects.get()
        assert response.headers["Location"] == f"/runs/bulk/{operation.pk}/"
        assert "2 of 2 still to come." in text_of(sam.get(f"/runs/bulk/{operation.pk}/"))
        assert work_off() == 2
        for order in orders:
            run_to_end(run_of(order))
        page = text_of(sam.get(f"/runs/bulk/{operation.pk}/"))
        assert "All 2 were taken." in page
        assert "ORD-1 Done is tried again" in page
        assert page.count("Undone") + page.count("Needs attention") >= 2  # the run's state now, not that it was asked
        assert [e.reason for e in run_of(orders[0]).events.filter(kind="retry_requested")] == [REASON]
        assert "Retry: 2 that wait at “Refund payment”" in text_of(sam.get("/runs/bulk/"))

    def test_its_results_as_a_file(self, sam: Client) -> None:
        stuck(1)
        ask(sam, 1)
        work_off()
        operation = BulkOperation.objects.get()

        response: Any = sam.get(f"/runs/bulk/{operation.pk}/items.csv")

        rows = list(csv.reader(io.StringIO(b"".join(response.streaming_content).decode())))
        assert rows[0] == ["run", "key", "result", "note", "done at", "run is now"]
        assert [(row[1], row[2], row[3], row[5]) for row in rows[1:]] == [
            ("ORD-1", "done", "is tried again", "compensating")
        ]

    def test_it_is_asked_again_if_others_wait_by_now(self, sam: Client) -> None:
        first = run_of(stuck(1))
        fields = {"act": "retry", "reason": REASON, "seen": digest_of([first.pk]), **cause_of(sam)}
        second = run_of(stuck(2))

        response = sam.post("/runs/bulk/new/", fields)

        assert response.status_code == 400
        assert "Other runs wait now than when you were asked." in text_of(response)
        assert f'name="seen" value="{digest_of([first.pk, second.pk])}"' in response.content.decode()
        assert not BulkOperation.objects.exists()

    def test_it_wants_a_reason(self, sam: Client) -> None:
        stuck(1)

        response = ask(sam, 1, reason=" ")

        assert response.status_code == 400
        assert "Say why in at least 10 characters" in text_of(response)
        assert not BulkItem.objects.exists()

    def test_stopped_and_resumed(self, sam: Client) -> None:
        stuck(1)
        ask(sam, 1)
        address = f"/runs/bulk/{BulkOperation.objects.get().pk}/"

        assert sam.post(f"{address}stop/").status_code == 302
        assert "Stopped with 1 of 1 left as they were." in text_of(sam.get(address))
        assert work_off() == 0
        sam.post(f"{address}resume/")

        assert work_off() == 1

    def test_agents_look_and_do_not_act_on_many(self, sam: Client, gina: Client) -> None:
        stuck(1)
        fields = {"act": "retry", "reason": REASON, "seen": "", **cause_of(sam)}
        ask(sam, 1)
        operation = BulkOperation.objects.get()

        assert "Retry all" not in text_of(gina.get("/runs/attention/"))
        assert gina.get("/runs/bulk/new/", fields).status_code == 403
        assert gina.post("/runs/bulk/new/", fields).status_code == 403
        assert gina.post(f"/runs/bulk/{operation.pk}/stop/").status_code == 403
        assert gina.get(f"/runs/bulk/{operation.pk}/").status_code == 200
        assert BulkOperation.objects.get().state == "open"

    def test_its_pages_hold_to_the_policy_and_to_few_queries(self, sam: Client) -> None:
        stuck(1)
        ask(sam, 1)
        addresses = [f"/runs/bulk/{BulkOperation.objects.get().pk}/", "/runs/bulk/", "/runs/bulk/new/?act=retry"]

        for address in addresses:
            with CaptureQueriesContext(connection) as captured:
                response = sam.get(address)
            assert (address, response.status_code, INLINE.findall(response.content.decode())) == (address, 200, [])
            assert len(captured) <= 10
