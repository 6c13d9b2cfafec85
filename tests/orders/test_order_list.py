"""The order list as people work with it: narrowed, kept under names, exported, and acted on many at a time."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.models import Order, OrderNote, SavedView
from orders.order_filter import COUNTED, OrderFilter
from orders.services import add_note
from sagas.models import BulkOperation
from sagas.operations import work_off
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import ended, order_ids, run_of, text_of, told, visitor

pytestmark = pytest.mark.django_db
CHEAP: dict[str, Any] = {"items": [{"sku": "ITEM-001", "quantity": 1}], "total_amount": None}


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


def links(response: Any) -> dict[str, str]:
    """Text -> address of every link."""
    found = re.findall(r'<a [^>]*href="([^"]*)"[^>]*>(.*?)</a>', response.content.decode(), re.DOTALL)
    words = [(unescape(re.sub(r"<[^>]+>", "", text)), unescape(address)) for address, text in found]
    return {" ".join(text.split()): address for text, address in words}


class TestFilters:
    @pytest.fixture(autouse=True)
    def _orders(self) -> None:
        ended("completed", order_id="ORD-DONE", customer_ref="ada")
        ended("compensated", order_id="ORD-BACK", customer_ref="bob", **CHEAP)
        ended("needs_attention", order_id="ORD-STUCK", **CHEAP)
        old = make_order(order_id="ORD-OLD", **CHEAP)
        Order.objects.filter(pk=old.pk).update(placed_at=timezone.now() - timedelta(days=40))
        add_note(order_id="ORD-BACK", author="user:gina", text="Called.")

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            ("", ["ORD-STUCK", "ORD-BACK", "ORD-DONE", "ORD-OLD"]),
            ("sort=oldest", ["ORD-OLD", "ORD-DONE", "ORD-BACK", "ORD-STUCK"]),
            ("state=today", ["ORD-STUCK", "ORD-BACK", "ORD-DONE"]),
            ("state=refund_pending", ["ORD-STUCK"]),
            ("error=address_not_served", ["ORD-STUCK", "ORD-BACK"]),
            ("error=address_not_served&state=undone", ["ORD-BACK"]),
            ("step=process_payment", ["ORD-STUCK"]),
            ("least=50", ["ORD-DONE"]),
            ("most=30.00", ["ORD-STUCK", "ORD-BACK", "ORD-OLD"]),
            ("least=99,99&most=99.99", ["ORD-DONE"]),
            ("noted=1", ["ORD-BACK"]),
            ("customer=bob", ["ORD-BACK"]),
            ("placed_to=2000-01-01", []),
        ],
    )
    def test_each_narrows_it(self, gina: Client, query: str, numbers: list[str]) -> None:
        response = gina.get(f"/orders/?{query}")

        assert order_ids(response) == numbers
        assert f"{len(numbers)} order{'' if len(numbers) == 1 else 's'}" in text_of(response)

    def test_days_are_whole(self, gina: Client) -> None:
        today = timezone.now().date().isoformat()

        assert len(order_ids(gina.get(f"/orders/?placed_from={today}&placed_to={today}"))) == 3

    def test_a_chip_takes_its_filter_away_and_leaves_the_others(self, gina: Client) -> None:
        response = gina.get("/orders/?state=undone&customer=bob&least=10")

        found = links(response)
        assert found["customer: bob ×, remove this filter"] == "/orders/?state=undone&least=10"
        assert found["at least: 10 ×, remove this filter"] == "/orders/?state=undone&customer=bob"
        assert found["Completed"] == "/orders/?state=completed&customer=bob&least=10"

    def test_an_empty_list_says_which_filter_to_leave_out(self, gina: Client) -> None:
        words = text_of(gina.get("/orders/?state=completed&customer=bob&noted=1"))

        assert "No order fits. Show all Without “Completed”: 1" in words

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("placed_from=yesterday", "'yesterday' is no date, like 2026-11-23."),
            ("placed_to=2026-02-31", "'2026-02-31' is no date, like 2026-11-23."),
            ("placed_to=9999-12-31", "'9999-12-31' is no date, like 2026-11-23."),
            ("least=much", "'much' is no amount, like 99.99."),
            ("most=-1", "'-1' is no amount, like 99.99."),
            ("most=NaN", "'NaN' is no amount, like 99.99."),
            ("most=1e30", "'1e30' is no amount, like 99.99."),
        ],
    )
    def test_what_cannot_be_looked_for_is_said_and_left_out(self, gina: Client, query: str, words: str) -> None:
        response = gina.get(f"/orders/?{query}&state=undone")

        assert order_ids(response) == ["ORD-BACK"]
        assert words in text_of(response)

    def test_customers_have_no_filters_of_staffs(self) -> None:
        make_user(username="eve")
        eve = visitor("bob")

        assert OrderFilter.read({"error": "x", "least": "5"}, staff=False).query() == "least=5"
        words = text_of(eve.get("/orders/?noted=1&step=process_payment"))
        assert "Turned back with" not in words
        assert "No orders yet." in words

    def test_its_queries_do_not_grow(self, sam: Client) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert sam.get("/orders/?most=500").status_code == 200
            return len(captured)

        few = queries()
        for number in range(4):
            make_order(order_id=f"ORD-{number}", **CHEAP)

        assert queries() == few <= 10


class TestLive:
    def test_new_orders_wait_until_they_are_asked_for(self, gina: Client) -> None:
        for number in (1, 2):
            make_order(order_id=f"ORD-{number}", **CHEAP)
        page = gina.get("/orders/").content.decode()
        (address,) = re.findall(r'data-live="([^"]+)"', page)
        assert address == "/orders/?top=ORD-2"
        first = gina.get(address, headers={"X-Live": "1"})

        for number in (3, 4):
            make_order(order_id=f"ORD-{number}", **CHEAP)
        second = gina.get(address, headers={"X-Live": "1", "If-None-Match": first.headers["ETag"]})

        assert (order_ids(first), "new order" in text_of(first)) == (["ORD-2", "ORD-1"], False)
        assert (second.status_code, order_ids(second)) == (200, ["ORD-2", "ORD-1"])
        assert links(second)["2 new orders, show"] == "/orders/"
        assert order_ids(gina.get("/orders/")) == ["ORD-4", "ORD-3", "ORD-2", "ORD-1"]

    def test_unchanged_it_is_a_304_with_few_queries(self, gina: Client) -> None:
        make_order()
        tag = gina.get("/orders/?top=ORD-123", headers={"X-Live": "1"}).headers["ETag"]

        with CaptureQueriesContext(connection) as captured:
            response = gina.get("/orders/?top=ORD-123", headers={"X-Live": "1", "If-None-Match": tag})

        assert (response.status_code, response.content) == (304, b"")
        assert len(captured) <= 10


class TestKeptViews:
    def test_kept_for_oneself_or_for_the_team(self, gina: Client) -> None:
        fields = {"query": "state=undone&customer=bob&sort=oldest", "name": " Bob's  returns "}

        saved = gina.post("/orders/views/", fields)
        gina.post("/orders/views/", {"query": "least=100", "name": "Large", "is_shared": "1"})

        assert saved.headers["Location"] == "/orders/?state=undone&customer=bob&sort=oldest"
        assert told(saved) == ["Kept as Bob's returns."]
        found = links(gina.get("/orders/"))
        assert found["Bob's returns"] == "/orders/?state=undone&customer=bob&sort=oldest"
        assert found["Large team"] == "/orders/?least=100"
        others = links(visitor("otto", "agent").get("/orders/"))
        assert "Bob's returns" not in others
        assert others["Large team"] == "/orders/?least=100"
        assert "Large team" not in links(visitor("ada").get("/orders/"))

    def test_only_filters_are_kept(self, gina: Client) -> None:
        gina.post("/orders/views/", {"query": "next=https://evil.example&least=5&state=lost", "name": "x"})

        assert SavedView.objects.get().query == "least=5"

    @pytest.mark.parametrize("name", ["", "  ", "x" * 61])
    def test_it_wants_a_name(self, gina: Client, name: str) -> None:
        assert "its name has 1 to 60 characters" in told(gina.post("/orders/views/", {"query": "", "name": name}))[0]
        assert not SavedView.objects.exists()

    def test_a_name_once(self, gina: Client) -> None:
        for _ in range(2):
            response = gina.post("/orders/views/", {"query": "least=5", "name": "x"})

        assert told(response)[-1] == "You have a view named x already. Take another name, or delete that one."
        assert SavedView.objects.count() == 1

    def test_only_ones_own_is_forgotten(self, gina: Client, sam: Client) -> None:
        gina.post("/orders/views/", {"query": "least=5", "name": "x", "is_shared": "1"})
        address = f"/orders/views/{SavedView.objects.get().pk}/delete/"

        assert sam.post(address).status_code == 404
        assert told(gina.post(address))[-1] == "The view x is gone."
        assert not SavedView.objects.exists()

    def test_customers_keep_theirs_to_themselves(self) -> None:
        visitor("ada").post("/orders/views/", {"query": "least=5", "name": "x", "is_shared": "1"})

        assert SavedView.objects.get().is_shared is False


class TestExport:
    def rows(self, client: Client, query: str = "") -> list[list[str]]:
        response: Any = client.get(f"/orders/export.csv{query}")
        assert response.headers["Content-Disposition"] == 'attachment; filename="orders.csv"'
        return list(csv.reader(io.StringIO(b"".join(response.streaming_content).decode())))

    def test_what_fits_whole(self, gina: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orders.list_views.AT_A_TIME", 2)  # so that five orders are three pages
        for number in range(4):
            make_order(order_id=f"ORD-{number}", **CHEAP)
        ended("compensated", order_id="ORD-BACK", customer_ref="=cmd()", **CHEAP)

        rows = self.rows(gina)

        assert rows[0][:3] == ["order", "state", "step"]
        assert [row[0] for row in rows[1:]] == ["ORD-BACK", "ORD-3", "ORD-2", "ORD-1", "ORD-0"]
        assert rows[1][1:6] == ["compensated", "No delivery to postcode 00000.", "'=cmd()", "30.00", "EUR"]
        assert [row[0] for row in self.rows(gina, "?sort=oldest&most=50")[1:]][:2] == ["ORD-0", "ORD-1"]

    def test_customers_get_their_own(self) -> None:
        ada = visitor("ada")
        make_order(order_id="ORD-OTHERS")

        assert len(self.rows(ada)) == 1


class TestManyAtOnce:
    def ask(self, client: Client, **fields: Any) -> Any:
        return client.post("/orders/bulk/", {"act": "cancel", "query": "", **fields})

    def test_marked_ones_are_cancelled_after_a_preview(self, sam: Client) -> None:
        orders = [ended("completed", order_id=f"ORD-{number}", **CHEAP) for number in range(3)]

        preview = self.ask(sam, order=["ORD-0", "ORD-2"])
        assert "Cancel 2 orders" in text_of(preview)
        assert not BulkOperation.objects.exists()
        response = self.ask(sam, order=["ORD-0", "ORD-2"], seen="2", reason="recalled")

        assert response.headers["Location"] == f"/runs/bulk/{BulkOperation.objects.get().pk}/"
        work_off()
        for order in orders:
            run_to_end(run_of(order))
        assert [run_of(order).status for order in orders] == ["compensated", "completed", "compensated"]

    def test_all_that_fit(self, sam: Client) -> None:
        for number in range(3):
            ended("completed", order_id=f"ORD-{number}", **CHEAP)
        ended("completed", order_id="ORD-DEAR")

        preview = self.ask(sam, all="1", query="most=50", order=["ORD-DEAR"])
        response = self.ask(sam, all="1", query="most=50", seen="3", reason="recalled")

        assert "Cancel 3 orders" in text_of(preview)
        assert response.status_code == 302
        numbers = BulkOperation.objects.get().items.values_list("run__business_key", flat=True)
        assert sorted(numbers) == ["ORD-0", "ORD-1", "ORD-2"]

    def test_others_than_were_seen_are_asked_for_again(self, sam: Client) -> None:
        ended("completed", **CHEAP)

        response = self.ask(sam, all="1", seen="7", reason="recalled")

        assert (response.status_code, BulkOperation.objects.count()) == (400, 0)
        assert "Other orders fit now than when you were asked." in text_of(response)

    def test_none_and_no_reason(self, sam: Client) -> None:
        ended("completed", **CHEAP)

        assert told(self.ask(sam)) == ["No run was chosen, or none fits any more."]
        assert "A reason is needed" in text_of(self.ask(sam, order=["ORD-123"], seen="1", reason=""))
        assert not BulkOperation.objects.exists()

    def test_agents_and_customers_do_not(self, gina: Client) -> None:
        ended("completed", **CHEAP)

        for client in (gina, visitor("ada")):
            assert self.ask(client, order=["ORD-123"], seen="1", reason="x").status_code == 404
            assert "Mark ORD-123" not in client.get("/orders/").content.decode()
        assert not BulkOperation.objects.exists()


class TestNotes:
    def test_staff_write_for_each_other(self, gina: Client) -> None:
        user = make_user(username="ada")
        make_order(user=user)

        response = gina.post("/orders/ORD-123/notes/", {"text": "Called.\r\n<b>Twice</b>."})

        assert told(response) == ["The note is kept."]
        note = OrderNote.objects.get()
        assert (note.author, note.text) == ("user:gina", "Called.\n<b>Twice</b>.")
        assert "user:gina Called. <b>Twice</b>." in text_of(gina.get("/orders/ORD-123/"))
        ada = Client()
        ada.force_login(user)
        assert "Called." not in ada.get("/orders/ORD-123/").content.decode()
        assert ada.post("/orders/ORD-123/notes/", {"text": "x"}).status_code == 404

    @pytest.mark.parametrize("text", ["", "  \n", "x" * 2001, "a\x00b"])
    def test_what_is_no_note(self, gina: Client, text: str) -> None:
        make_order()

        assert told(gina.post("/orders/ORD-123/notes/", {"text": text}))[0].startswith("The note was not kept: ")
        assert not OrderNote.objects.exists()

    def test_how_to_ask_from_a_terminal(self, gina: Client) -> None:
        make_order()

        page = gina.get("/orders/ORD-123/").content.decode()

        assert 'data-copy="python manage.py saga show ORD-123"' in page
        assert "/api/v1/orders/ORD-123" in page


def test_many_are_counted_up_to_a_limit(gina: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert COUNTED == 10_000
    for module in ("order_filter", "list_views"):
        monkeypatch.setattr(f"orders.{module}.COUNTED", 2)
    for number in range(3):
        make_order(order_id=f"ORD-{number}", **CHEAP)

    assert "2+ orders" in text_of(gina.get("/orders/"))


def test_a_runs_id_leads_to_its_order(gina: Client) -> None:
    order = make_order()

    assert gina.get("/orders/", {"q": str(order.run_id)}).headers["Location"] == "/orders/ORD-123/"
