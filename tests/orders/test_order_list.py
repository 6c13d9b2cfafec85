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
from orders.services import add_note, hand_over, set_tags
from sagas.models import BulkOperation, SagaRun
from sagas.operations import work_off
from sagas.services import assign
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import ended, order_ids, run_of, text_of, told, visitor

pytestmark = pytest.mark.django_db
CHEAP: dict[str, Any] = {"items": [{"sku": "ITEM-001", "quantity": 1}], "total_amount": None}


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


RECALL = "Recalled by the maker."


def seen_in(page: Any) -> str:
    """What a preview was made of."""
    (seen,) = re.findall(r'name="seen" value="([^"]+)"', page.content.decode())
    return str(seen)


def copied(response: Any, button: str) -> list[str]:
    """What the buttons of that name copy."""
    found = re.findall(r'data-copy="([^"]*)" hidden>([^<]*)<', response.content.decode())
    return [unescape(text) for text, words in found if unescape(words) == button]


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
        set_tags(order_id="ORD-DONE", tags=["gift"], author="user:gina")
        assign(run_id=run_of(Order.objects.get(order_id="ORD-STUCK")).pk, owner="user:gina", actor="user:gina")
        # In an order that is not the one they were placed in.
        now = timezone.now()
        for minutes, number in enumerate(("ORD-OLD", "ORD-STUCK", "ORD-BACK", "ORD-DONE")):
            SagaRun.objects.filter(business_key=number).update(updated_at=now - timedelta(minutes=minutes))

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
            ("owner=me", ["ORD-STUCK"]),
            ("owner=user:gina", ["ORD-STUCK"]),
            ("owner=user:sam", []),
            ("tag=gift", ["ORD-DONE"]),
            ("provider=sandbox carrier", ["ORD-STUCK", "ORD-BACK"]),
            ("provider=nobody", []),
            ("sort=cheapest", ["ORD-BACK", "ORD-STUCK", "ORD-OLD", "ORD-DONE"]),
            ("sort=dearest", ["ORD-DONE", "ORD-OLD", "ORD-STUCK", "ORD-BACK"]),
            ("sort=unchanged", ["ORD-DONE", "ORD-BACK", "ORD-STUCK", "ORD-OLD"]),
            ("sort=changed", ["ORD-OLD", "ORD-STUCK", "ORD-BACK", "ORD-DONE"]),
            ("sort=changed&most=30.00&state=undone", ["ORD-BACK"]),
            ("placed_to=2000-01-01", []),
        ],
    )
    def test_each_narrows_it(self, gina: Client, query: str, numbers: list[str]) -> None:
        response = gina.get(f"/orders/?{query}")

        assert order_ids(response) == numbers
        assert f"{len(numbers)} order{'' if len(numbers) == 1 else 's'}" in text_of(response)

    @pytest.mark.parametrize(
        "query",
        [
            "",
            "sort=oldest",
            "state=today",
            "state=needs_attention&customer=carla",
            "error=address_not_served",
            "step=process_payment",
            "tag=gift",
            "q=ORD-BACK&customer=bob",
            "q=no-such-order",
            "placed_from=2000-01-01&placed_to=2000-01-02",
        ],
    )
    def test_the_copied_request_finds_the_same_orders(self, gina: Client, query: str) -> None:
        response = gina.get(f"/orders/?{query}", HTTP_HOST="testserver")

        (curl,) = copied(response, "Copy as curl")
        (address,) = re.findall(
            r'^curl -H "Authorization: Bearer \$API_KEY" "http://testserver(/api/v1/orders[^"]*)"$', curl
        )
        assert sorted(one["order_id"] for one in gina.get(address).json()["results"]) == sorted(order_ids(response))

    @pytest.mark.parametrize(
        ("query", "button", "command"),
        [
            ("", "Copy as command", ""),
            ("state=needs_attention", "Copy as command", " --state needs_attention"),
            ("error=no+such", "Copy as command", " --error 'no such'"),
            ("step=process_payment", "Copy as command", " --step process_payment"),
            ("state=undone&least=10", "Copy as command, but for: the view Undone, at least", ""),
            (
                "state=undone&least=10&sort=dearest",
                "Copy as command, but for: the view Undone, at least, the order",
                "",
            ),
        ],
    )
    def test_the_copied_command_has_the_filters_that_commands_know(
        self, gina: Client, query: str, button: str, command: str
    ) -> None:
        response = gina.get(f"/orders/?{query}")

        assert copied(response, button) == [f"python manage.py saga list --saga order_processing{command}"]

    def test_a_button_says_which_filters_a_request_has_no_words_for(self, gina: Client) -> None:
        response = gina.get("/orders/?state=in_progress&owner=me&noted=1&customer=bob&sort=dearest")

        words = "Copy as curl, but for: the view In progress, looked after by, with notes, the order"
        (curl,) = copied(response, words)
        assert curl.endswith('/api/v1/orders?user_id=bob"')

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

        assert queries() == few <= 8


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
        assert len(captured) <= 3  # session, user with the frame, the rows' versions

    def test_who_looks_after_it_is_seen_at_once(self, gina: Client) -> None:
        order = ended("needs_attention")
        first = gina.get("/orders/", headers={"X-Live": "1"})

        assign(run_id=run_of(order).pk, owner="user:gina", actor="user:gina")
        second = gina.get("/orders/", headers={"X-Live": "1", "If-None-Match": first.headers["ETag"]})

        assert (text_of(first).endswith(" nobody"), second.status_code) == (True, 200)
        assert text_of(second).endswith(" you")


class TestSorting:
    @pytest.mark.parametrize("sort", ["", "oldest", "changed", "unchanged", "dearest", "cheapest"])
    def test_pages_lose_and_repeat_none(self, gina: Client, monkeypatch: pytest.MonkeyPatch, sort: str) -> None:
        monkeypatch.setattr("orders.list_views.PAGE", 2)
        for number in range(5):
            make_order(order_id=f"ORD-{number}", **CHEAP)

        seen, address = [], f"/orders/?sort={sort}"
        while address:
            page = gina.get(address)
            seen += order_ids(page)
            address = links(page).get("More", "")

        assert len(seen) == 5
        assert sorted(seen) == [f"ORD-{number}" for number in range(5)]

    def test_what_changes_between_two_pages_moves_none_of_the_others(
        self, gina: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orders.list_views.PAGE", 2)
        for number in range(4):
            make_order(order_id=f"ORD-{number}", **CHEAP)
            minutes = timedelta(minutes=number)
            SagaRun.objects.filter(business_key=f"ORD-{number}").update(updated_at=timezone.now() - minutes)
        first = gina.get("/orders/?sort=changed")
        SagaRun.objects.filter(business_key="ORD-1").update(updated_at=timezone.now())

        second = gina.get(links(first)["More"])

        assert (order_ids(first), order_ids(second)) == (["ORD-0", "ORD-1"], ["ORD-2", "ORD-3"])

    @pytest.mark.parametrize("query", ["before=ORD-1&at=nonsense", "before=ORD-1", "before=ORD-1&at=2026-01-01"])
    def test_an_edge_that_is_none_is_no_limit(self, gina: Client, query: str) -> None:
        make_order(order_id="ORD-1", **CHEAP)

        assert order_ids(gina.get(f"/orders/?sort=changed&{query}")) == ["ORD-1"]

    def test_heads_say_how_it_is_sorted_and_sort_it(self, gina: Client) -> None:
        make_order(**CHEAP)

        page = gina.get("/orders/?sort=changed&most=50")

        assert '<th scope="col" aria-sort="descending">' in page.content.decode()
        found = links(page)
        assert found["Last change ↓"] == "/orders/?most=50&sort=unchanged"
        assert found["Total"] == "/orders/?most=50&sort=dearest"
        assert found["Placed"] == "/orders/?most=50"


class TestColumns:
    def test_a_row_says_what_was_ordered_and_what_is_owed(self, gina: Client) -> None:
        ended("needs_attention")
        gina.post("/orders/columns/", {"column": ["items", "refund"]})

        words = text_of(gina.get("/orders/")).replace("\xa0", " ")

        assert "State Order Items Refund Needs attention " in words
        assert "ORD-123 2 × Product ITEM-001, 1 more 99.99 EUR owed" in words

    def test_they_are_kept_for_the_next_login(self) -> None:
        ada = make_user(username="ada")
        make_order(user=ada)
        client = Client()
        client.force_login(ada)
        assert "Last change" in text_of(client.get("/orders/"))

        chosen = client.post("/orders/columns/", {"column": ["total", "nonsense", "owner"], "query": "least=5"})

        assert chosen.headers["Location"] == "/orders/?least=5"
        client.post("/accounts/logout/")
        client.post("/accounts/login/", {"username": "ada", "password": "ada-password"})
        page = client.get("/orders/").content.decode()
        assert re.findall(r'<td data-label="([^"]+)"', page) == ["State", "Order", "Total"]


class TestKeptViews:
    def test_one_of_them_is_what_the_list_begins_with(self, gina: Client) -> None:
        ended("completed", order_id="ORD-1", **CHEAP)
        make_order(order_id="ORD-2")
        gina.post("/orders/views/", {"query": "state=completed", "name": "Done"})
        view = SavedView.objects.get()

        begun = gina.post(f"/orders/views/{view.pk}/begin/", {"begin": "1"})

        assert told(begun)[-1] == "The list begins with Done from now on."
        assert order_ids(gina.get("/orders/", follow=True)) == ["ORD-1"]
        assert links(gina.get("/orders/?state=completed"))["All"] == "/orders/?state="
        assert order_ids(gina.get("/orders/?state=")) == ["ORD-2", "ORD-1"]
        gina.post("/accounts/logout/")
        gina.post("/accounts/login/", {"username": "gina", "password": "gina-password"})
        assert gina.get("/orders/").headers["Location"] == "/orders/?state=completed"
        gina.post(f"/orders/views/{view.pk}/delete/")
        assert order_ids(gina.get("/orders/")) == ["ORD-2", "ORD-1"]

    def test_nobody_begins_with_what_is_not_theirs_to_see(self, gina: Client, sam: Client) -> None:
        gina.post("/orders/views/", {"query": "least=5", "name": "x"})

        assert sam.post(f"/orders/views/{SavedView.objects.get().pk}/begin/", {"begin": "1"}).status_code == 404
        assert sam.get("/orders/").status_code == 200

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
        monkeypatch.setattr("orders.list_acts.AT_A_TIME", 2)  # so that five orders are three pages
        for number in range(4):
            make_order(order_id=f"ORD-{number}", **CHEAP)
        ended("compensated", order_id="ORD-BACK", customer_ref="=cmd()", **CHEAP)

        rows = self.rows(gina)

        assert rows[0][:3] == ["order", "state", "step"]
        assert [row[0] for row in rows[1:]] == ["ORD-BACK", "ORD-3", "ORD-2", "ORD-1", "ORD-0"]
        assert rows[1][1:6] == ["compensated", "No delivery to postcode 00000.", "'=cmd()", "30.00", "EUR"]
        assert [row[0] for row in self.rows(gina, "?sort=oldest&most=50")[1:]][:2] == ["ORD-0", "ORD-1"]

    def test_marked_ones(self, sam: Client) -> None:
        for number in range(3):
            make_order(order_id=f"ORD-{number}", **CHEAP)

        response: Any = sam.post("/orders/export.csv", {"order": ["ORD-2", "ORD-0", "ORD-9"]})

        rows = list(csv.reader(io.StringIO(b"".join(response.streaming_content).decode())))
        assert [row[0] for row in rows[1:]] == ["ORD-2", "ORD-0"]
        assert rows[1][-3:] == ["1 × Product ITEM-001", "", ""]

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
        response = self.ask(sam, order=["ORD-0", "ORD-2"], seen=seen_in(preview), reason=RECALL)

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
        response = self.ask(sam, all="1", query="most=50", seen=seen_in(preview), reason=RECALL)

        assert "Cancel 3 orders" in text_of(preview)
        assert response.status_code == 302
        numbers = BulkOperation.objects.get().items.values_list("run__business_key", flat=True)
        assert sorted(numbers) == ["ORD-0", "ORD-1", "ORD-2"]

    def test_others_than_were_seen_are_asked_for_again(self, sam: Client) -> None:
        ended("completed", **CHEAP)

        response = self.ask(sam, all="1", seen="7", reason=RECALL)

        assert (response.status_code, BulkOperation.objects.count()) == (400, 0)
        assert "Other orders fit now than when you were asked." in text_of(response)

    def test_none_and_no_reason(self, sam: Client) -> None:
        ended("completed", **CHEAP)

        assert told(self.ask(sam)) == ["No run was chosen, or none fits any more."]
        seen = seen_in(self.ask(sam, order=["ORD-123"]))
        refused = self.ask(sam, order=["ORD-123"], seen=seen, reason="Late.")
        assert "Say why in at least 10 characters" in text_of(refused)
        assert ">Late.</textarea>" in refused.content.decode()
        assert not BulkOperation.objects.exists()

    def test_as_many_others_are_not_acted_on(self, sam: Client) -> None:
        ended("completed", order_id="ORD-1", **CHEAP)
        preview = self.ask(sam, all="1", query="most=50")
        Order.objects.filter(order_id="ORD-1").update(total_amount=60)
        ended("completed", order_id="ORD-2", **CHEAP)

        response = self.ask(sam, all="1", query="most=50", seen=seen_in(preview), reason=RECALL)

        assert (response.status_code, BulkOperation.objects.count()) == (400, 0)
        assert "Other orders fit now than when you were asked." in text_of(response)

    def test_a_dry_run_says_what_would_come_of_each(self, sam: Client) -> None:
        ended("completed", order_id="ORD-1", **CHEAP)
        hand_over(order_id=ended("completed", order_id="ORD-2", **CHEAP).order_id, actor="user:sam")
        ended("needs_attention", order_id="ORD-3", **CHEAP)
        numbers = ["ORD-1", "ORD-2", "ORD-3"]

        cancel, retry, assign = (
            text_of(self.ask(sam, act=act, order=numbers)).replace("\xa0", " ") for act in ("cancel", "retry", "assign")
        )

        assert "A dry run: 1 would be done, 2 left as they are" in cancel
        assert "ORD-1 undone, 30.00 EUR back" in cancel
        assert "ORD-2 stays: the parcel was handed over to the carrier; take the goods back as a return" in cancel
        assert "ORD-3 tried again" in retry
        assert "ORD-1 stays: nothing of it has failed or waits for another try" in retry
        assert "ORD-3 you look after it" in assign
        assert "ORD-1 stays: it does not wait for a person" in assign
        assert not BulkOperation.objects.exists()

    def test_agents_and_customers_do_not(self, gina: Client) -> None:
        ended("completed", **CHEAP)

        for client in (gina, visitor("ada")):
            assert self.ask(client, order=["ORD-123"], seen="1", reason="x").status_code == 403
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
        assert ada.post("/orders/ORD-123/notes/", {"text": "x"}).status_code == 403

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
