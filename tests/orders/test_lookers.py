"""Viewers: staff who see every order, run and figure, and act on nothing; what they may send is their own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from orders.models import (
    ApiKey,
    Order,
    OrderNote,
    OrderTag,
    Preference,
    SavedView,
    Shipment,
    StockItem,
    WebhookEndpoint,
)
from orders.roles import ONLY_LOOKS, Act, actor_of, can, is_agent, is_staff, only_looks
from sagas.models import Assignment, BulkOperation
from tests.factories import make_shop, make_user
from tests.orders.api_client import make_caller
from tests.orders.pages import ended, order_ids, run_of, text_of, told, visitor

pytestmark = pytest.mark.django_db(transaction=True)

REASON = "The customer changed their mind."
REFUND = {"step": "process_payment", "direction": "compensation"}
LOOKS_ON = "Your role looks on: agents and supervisors act."
OWN_FORMS = re.compile(r"^/(accounts/(logout|stay)/|orders/(views/|views/\d+/(delete|begin)/|columns/)|admin/logout/)$")
ACTING = re.compile(
    r'href="[^"]*/(orders/new|orders/[^/"]+/cancel|runs/[^/"]+/(retry|skip|resolve|abandon|cancel)|runs/bulk/new)/'
)


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


def forms_of(page: Any) -> list[str]:
    """Where the page's forms would send something to."""
    return re.findall(r'<form[^>]*method="post"[^>]*action="([^"]+)"', page.content.decode()) + re.findall(
        r'formaction="([^"]+)"', page.content.decode()
    )


def events(order: Order) -> list[str]:
    return list(run_of(order).events.values_list("kind", flat=True))


class TestLooking:
    def test_every_order_is_seen_with_what_staff_sees_of_it(self, vera: Client) -> None:
        order = ended("completed", user=make_user(username="ada"))
        OrderNote.objects.create(order=order, author="user:sam", text="Called, and it is a gift.")

        page = text_of(vera.get(f"/orders/{order.order_id}/"))

        assert order_ids(vera.get("/orders/")) == [order.order_id]
        assert "Called, and it is a gift." in page
        assert LOOKS_ON in page

    def test_every_page_of_staff_opens_and_offers_nothing_to_do(self, vera: Client) -> None:
        stuck, done = ended("needs_attention"), ended("completed", order_id="ORD-2")
        pages = ["/orders/", "/runs/", "/runs/attention/", "/runs/bulk/", "/overview/", "/health/", "/providers/"]
        for order in (stuck, done):
            pages += [f"/orders/{order.order_id}/", f"/orders/{order.order_id}/live/", f"/runs/{order.run_id}/"]
            pages += [f"/admin/orders/order/{order.pk}/change/", f"/admin/sagas/sagarun/{order.run_id}/change/"]
        pages += ["/admin/", "/admin/orders/order/", "/admin/sagas/sagarun/", "/admin/orders/product/"]
        pages += ["/admin/orders/stockitem/", "/admin/orders/apikey/", "/admin/orders/shipment/"]

        for address in pages:
            page = vera.get(address)
            body = page.content.decode()
            assert page.status_code == 200, address
            assert [form for form in forms_of(page) if not OWN_FORMS.match(form)] == [], address
            assert ACTING.search(body) is None, address
            assert not re.search(r'<option value="(cancel|hand_over|retry|revoke)_', body), address
            assert "Place order" not in body, address
        assert vera.get("/metrics").status_code == 200

    def test_an_agent_is_offered_all_of_it(self, gina: Client) -> None:
        """What the test above looks for is there for those who act."""
        order = ended("needs_attention")

        for address in ("/runs/attention/", f"/orders/{order.order_id}/"):
            assert [form for form in forms_of(gina.get(address)) if not OWN_FORMS.match(form)] != []
        page = gina.get(f"/orders/{order.order_id}/")
        assert ACTING.search(page.content.decode()) is not None
        assert LOOKS_ON not in text_of(page)

    def test_an_empty_shop_asks_them_for_no_order(self, vera: Client) -> None:
        page = vera.get("/orders/")

        assert "No orders yet." in text_of(page)
        assert "/orders/new/" not in page.content.decode()

    def test_stock_is_shown_without_the_way_to_change_it(self, vera: Client, sam: Client) -> None:
        page = f"/admin/orders/stockitem/{StockItem.objects.get(product__sku='ITEM-001').pk}/change/"

        assert "Change it by a movement" not in text_of(vera.get(page))
        assert "Change it by a movement" in text_of(sam.get(page))


class TestActing:
    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("/orders/ORD-123/cancel/", {"reason": REASON}),
            ("/orders/ORD-123/hand-over/", {}),
            ("/orders/ORD-123/notes/", {"text": "I was here."}),
            ("/orders/new/", {"order_id": "ORD-9"}),
            ("/orders/bulk/", {"act": "cancel", "all": "1"}),
            ("/runs/{run}/retry/", REFUND),
            ("/runs/{run}/skip/", {**REFUND, "reason": REASON}),
            ("/runs/{run}/resolve/", {**REFUND, "reason": REASON, "evidence": "BANK-1"}),
            ("/runs/{run}/abandon/", {"reason": REASON}),
            ("/runs/{run}/cancel/", {"reason": REASON}),
            ("/runs/{run}/assign/", {"owner": "me"}),
            ("/runs/{run}/snooze/", {"rest": "1h"}),
            ("/runs/bulk/new/", {"act": "retry", "reason": REASON}),
            ("/providers/payments/close/", {}),
            ("/admin/orders/order/", {"action": "cancel_orders", "_selected_action": "{order}", "reason": REASON}),
            ("/admin/orders/order/", {"action": "hand_over_orders", "_selected_action": "{order}", "reason": REASON}),
            ("/admin/sagas/sagarun/", {"action": "retry_runs", "_selected_action": "{run}", "reason": REASON}),
            ("/admin/orders/stockitem/1/move/", {"kind": "receive", "quantity": "5", "reason": REASON}),
            ("/admin/orders/product/add/", {"sku": "NEW", "name": "New", "price": "1", "currency": "EUR"}),
            ("/admin/orders/apikey/add/", {"name": "theirs", "scopes": "orders:read", "user": "1"}),
        ],
    )
    @pytest.mark.parametrize("end", ["completed", "needs_attention"])
    def test_it_is_refused_with_the_reason_and_nothing_happens(
        self, vera: Client, end: str, path: str, fields: dict[str, str]
    ) -> None:
        order = ended(end)
        before, parcels = events(order), list(Shipment.objects.values_list("status", flat=True))
        filled = {name: value.format(run=order.run_id, order=order.pk) for name, value in fields.items()}

        answer = vera.post(path.format(run=order.run_id), filled)

        assert answer.status_code == 403
        assert ONLY_LOOKS in text_of(answer)
        assert (events(order), list(Shipment.objects.values_list("status", flat=True))) == (before, parcels)
        assert Order.objects.count() == 1
        for model in (OrderNote, Assignment, BulkOperation, ApiKey):
            assert not model._default_manager.exists()

    @pytest.mark.parametrize(
        "path",
        [
            *("/orders/new/", "/orders/ORD-123/cancel/", "/orders/ORD-123/hand-over/", "/runs/{run}/cancel/"),
            *("/runs/{run}/retry/", "/runs/bulk/new/"),
        ],
    )
    def test_the_dialogs_are_refused_too(self, vera: Client, path: str) -> None:
        order = ended("completed")

        answer = vera.get(path.format(run=order.run_id))

        assert (answer.status_code, ONLY_LOOKS in text_of(answer)) == (403, True)

    def test_an_order_of_their_own_is_no_exception(self) -> None:
        user = make_user(username="vera", role="viewer")
        client = Client()
        client.force_login(user)
        order = ended("completed", user=user)

        page = client.get(f"/orders/{order.order_id}/")

        assert "Cancel order" not in text_of(page)
        assert client.post(f"/orders/{order.order_id}/cancel/", {"reason": REASON}).status_code == 403
        assert run_of(order).status == "completed"

    def test_a_customer_is_told_no_more_than_that_there_is_nothing_here(self) -> None:
        order = ended("completed")

        assert visitor("ada").post(f"/runs/{order.run_id}/cancel/", {"reason": REASON}).status_code == 404


class TestTheirOwn:
    def test_how_they_look_is_theirs_to_set(self, vera: Client) -> None:
        order = ended("completed")

        assert vera.post("/preferences/", {"theme": "dark", "zone": "Europe/Berlin", "keys": "1"}).status_code == 302
        assert vera.post("/orders/columns/", {"column": "customer"}).status_code == 302
        assert told(vera.post("/orders/views/", {"query": "least=5", "name": "Large"}))[-1] == "Kept as Large."
        exported: Any = vera.post("/orders/export.csv", {"order": order.order_id})
        assert b"ORD-123" in b"".join(exported.streaming_content)
        assert Preference.objects.get().theme == "dark"
        assert (SavedView.objects.get().name, SavedView.objects.get().is_shared) == ("Large", False)
        assert vera.post("/accounts/logout/").status_code == 302

    def test_the_teams_views_are_not(self, vera: Client) -> None:
        answer = vera.post("/orders/views/", {"query": "least=5", "name": "Large", "is_shared": "1"})

        assert (answer.status_code, ONLY_LOOKS in text_of(answer)) == (403, True)
        assert not SavedView.objects.exists()
        assert 'name="is_shared"' not in vera.get("/orders/").content.decode()


class TestApi:
    def test_they_read_what_staff_reads(self) -> None:
        order = ended("completed", user=make_user(username="ada"))
        caller = make_caller(make_user(username="vera", role="viewer"))

        for address in (
            *(
                "orders",
                f"orders/{order.order_id}",
                f"orders/{order.order_id}/events",
                f"orders/{order.order_id}/notes",
            ),
            *("saga-runs", f"saga-runs/{order.run_id}", f"saga-runs/{order.run_id}/steps", "saga-definitions"),
            *("inventory-items", "webhook-endpoints", "api-keys"),
        ):
            assert caller.get(f"/api/v1/{address}").status_code == 200, address
        told = caller.get("/api/v1/me").json()
        assert (told["roles"], told["may"]) == (["viewer"], ["see_runs"])

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("post", "orders", {}),
            ("patch", "orders/ORD-123", {"tags": ["gift"]}),
            ("patch", "orders/ORD-123", {"owner": "user:vera"}),
            ("post", "orders/ORD-123/cancellations", {"reason": REASON}),
            ("post", "orders/ORD-123/notes", {"text": "I was here."}),
            ("patch", "saga-runs/{run}", {"owner": "user:vera"}),
            ("post", "saga-runs/{run}/retries", {**REFUND, "reason": REASON}),
            ("post", "saga-runs/{run}/skips", {**REFUND, "reason": REASON}),
            ("post", "saga-runs/{run}/resolutions", {**REFUND, "reason": REASON, "evidence": "BANK-1"}),
            ("post", "saga-runs/{run}/compensations", {"reason": REASON}),
            ("post", "bulk-operations", {"act": "retry", "run_ids": ["{run}"], "reason": REASON, "dry_run": True}),
            ("post", "webhook-endpoints", {"url": "https://1.1.1.1/hooks"}),
        ],
    )
    @pytest.mark.parametrize("by", ["key", "session"])
    def test_every_act_is_forbidden_with_the_reason(
        self, vera: Client, by: str, method: str, path: str, body: dict[str, Any]
    ) -> None:
        order = ended("needs_attention")
        before = events(order)
        keyed = {"Idempotency-Key": "k-1", "If-Match": "*"}
        if by == "key":
            # With every scope there is: it is the person who may not.
            keyed |= make_caller(make_user(username="vic", role="viewer")).headers
        client = Client() if by == "key" else vera

        answer = getattr(client, method)(
            f"/api/v1/{path}".format(run=order.run_id), body, content_type="application/json", headers=keyed
        )

        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert answer.json()["detail"] == ONLY_LOOKS
        assert events(order) == before
        assert Order.objects.count() == 1
        for model in (OrderNote, OrderTag, Assignment, BulkOperation, WebhookEndpoint):
            assert not model._default_manager.exists()

    def test_a_key_of_ones_own_gives_no_more_than_one_has(self) -> None:
        order = ended("completed")
        caller = make_caller(make_user(username="vera", role="viewer"))

        made = caller.post("/api/v1/api-keys", {"name": "wall", "scopes": ["orders:read", "orders:write"]})

        assert made.status_code == 201
        assert ApiKey.objects.get(name="wall").user.username == "vera"
        mine = {"Authorization": f"Bearer {made.json()['key']}"}
        assert Client().get(f"/api/v1/orders/{order.order_id}", headers=mine).status_code == 200
        refused = Client().post(
            "/api/v1/orders/ORD-123/cancellations",
            {"reason": REASON},
            content_type="application/json",
            headers={**mine, "Idempotency-Key": "k"},
        )
        assert (refused.status_code, refused.json()["detail"]) == (403, ONLY_LOOKS)


class TestRoles:
    @pytest.mark.parametrize(
        ("roles", "sees", "looks", "acts"),
        [
            ((), False, False, []),
            (("viewer",), True, True, ["see_runs"]),
            (("agent",), True, False, ["see_runs", "cancel", "retry", "assign"]),
            (("viewer", "agent"), True, False, ["see_runs", "cancel", "retry", "assign"]),
            (("supervisor",), True, False, [act.value for act in Act]),
            (("viewer", "supervisor"), True, False, [act.value for act in Act]),
        ],
    )
    def test_the_highest_role_counts(self, roles: tuple[str, ...], sees: bool, looks: bool, acts: list[str]) -> None:
        user = make_user(username="one")
        user.groups.set(Group.objects.filter(name__in=roles))

        assert (is_staff(user), only_looks(user)) == (sees, looks)
        assert [act.value for act in Act if can(user, act)] == acts
        assert is_agent(user) == (sees and not looks)
        assert actor_of(user) == ("user:one" if sees else "customer:one")

    def test_a_superuser_among_the_viewers_acts_and_who_has_left_sees_nothing(self) -> None:
        root = make_user(username="root", role="viewer", is_superuser=True)
        gone = make_user(username="gone", role="viewer", is_active=False)

        assert (only_looks(root), can(root, Act.STOCK)) == (False, True)
        assert (is_staff(gone), only_looks(gone), can(gone, Act.SEE_RUNS)) == (False, False, False)
