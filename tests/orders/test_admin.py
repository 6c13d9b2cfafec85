"""The admin: everything can be looked at, nothing that happened can be edited, and acts go through the services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import OrmQ, Task

from orders import models as orders
from orders.api_keys import create_key, key_of
from orders.models import Order, Product, RefusedRequest, Shipment, StockItem, StockMovement
from orders.services import add_note, cancel_order, hand_over
from orders.webhooks import endpoints
from sagas import admin_large, admin_tools
from sagas.admin_tools import ReadOnlyAdmin
from sagas.models import Assignment, RunEvent, StepRecord
from sagas.operations import Target, begin
from sagas.selectors import SagaRun, run_view
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user

pytestmark = pytest.mark.django_db(transaction=True)

SHOWN = [model for model in admin.site._registry if model._meta.app_label in {"orders", "sagas"}]
LEFT_EMPTY = ["sagas.Signal"]
"""Of what the story below leaves no row."""
READ_ONLY = [model for model in SHOWN if model not in (Product, orders.SavedView)]


def address(model: type[Model], page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def run_of(order: Order) -> SagaRun:
    return SagaRun.objects.get(business_key=order.order_id)


def told(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def act(client: Client, model: type[Model], action: str, *rows: Model, **fields: str) -> Any:
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows], **fields}
    return client.post(address(model, "changelist"), data)


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


@pytest.fixture
def supervisor() -> User:
    return make_user(username="sam", role="supervisor")


@pytest.fixture
def sam(supervisor: User) -> Client:
    client = Client()
    client.force_login(supervisor)
    return client


@pytest.fixture
def root() -> Client:
    """Whom nothing is forbidden."""
    client = Client()
    client.force_login(make_user(username="root", role="supervisor", is_superuser=True))
    return client


@pytest.fixture
def gina() -> Client:
    client = Client()
    client.force_login(make_user(username="gina", role="agent"))
    return client


@pytest.fixture
def story() -> Order:
    """An order that was completed and then undone: there is a row of nearly everything."""
    order = make_order()
    run_to_end(run_of(order))
    cancel_order(order_id=order.order_id, actor="user:gina", reason="changed their mind")
    run_to_end(run_of(order))
    add_note(order_id=order.order_id, author="user:sam", text="Called.")
    endpoint = endpoints.create(user=make_user(username="hooks"), url="https://1.1.1.1/hooks")
    endpoints.send_test(endpoint)
    begin(act="retry", targets=[Target(run_id=run_of(order).pk)], about="one", actor="user:sam", reason="x")
    Assignment.objects.create(run=run_of(order), owner="user:sam")
    orders.OutsideEffect.objects.create(provider="ups", key="k", kind="parcel", remote_id="1Z1")
    orders.ProviderChoice.objects.create(kind="shipping", key="k", name="ups", position=1, why="rule: country DE")
    told = orders.InboundDelivery.objects.create(provider="stripe", body="{}", received_at=order.placed_at)
    told.events.create(provider="stripe", event_id="evt_1", kind="refund.updated", received_at=order.placed_at)
    mail = orders.SentMessage.objects.filter(order=order)[0]
    orders.MailDelivery.objects.create(message=mail, kind="bounced", heard_at=order.placed_at)
    orders.OrderTag.objects.create(order=order, tag="gift", author="user:sam")
    orders.RetiredUse.objects.create(operation="GET api-me", caller="key:shop", count=1, last_at=order.placed_at)
    create_key(user=make_user(username="shop"), name="shop")
    refuse("req-00000001")
    orders.SavedView.objects.create(user=User.objects.get(username="shop"), name="Mine", query="state=retrying")
    return order


def refuse(request_id: str, *, status: int = 409, code: str = "state-conflict", order_id: str = "") -> RefusedRequest:
    return RefusedRequest.objects.create(
        request_id=request_id, actor="key:shop", method="POST", path="/api/v1/orders", order_id=order_id, status=status,
        code=code, detail="It is over.", created_at=timezone.now(),
    )  # fmt: skip


class TestRefusals:
    def test_one_is_found_by_its_request_and_read(self, gina: Client) -> None:
        refuse("req-00000001")
        row = refuse("req-00000002", order_id="ORD-7")

        found = gina.get(address(RefusedRequest, "changelist"), {"q": "req-00000002"}).content.decode()
        page = gina.get(address(RefusedRequest, "change", row.pk)).content.decode()

        assert ("req-00000002" in found, "req-00000001" in found) == (True, False)
        for words in ("It is over.", 'href="/orders/ORD-7/"', 'href="/api/v1/problems/state-conflict"', "key:shop"):
            assert words in page, words
        assert "_save" not in page

    def test_they_are_told_apart_by_status_and_code(self, gina: Client) -> None:
        refuse("req-00000001")
        refuse("req-00000002", status=403, code="forbidden")

        for query in ({"status": "403"}, {"code": "forbidden"}):
            page = gina.get(address(RefusedRequest, "changelist"), query).content.decode()
            assert ("req-00000002" in page, "req-00000001" in page) == (True, False), query
            assert "?status=409" in gina.get(address(RefusedRequest, "changelist")).content.decode()

    def test_the_search_leads_there(self, gina: Client) -> None:
        row = refuse("req-00000001")

        page = gina.get("/orders/", {"q": "req-00000001"}).content.decode()

        assert f'href="{address(RefusedRequest, "change", row.pk)}">As it is stored</a>' in page

    def test_its_list_reads_a_stretch_of_them(self, gina: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many there are: counted to an end, filters and days told by the newest."""
        monkeypatch.setattr(admin_large, "AMONG", 2)
        monkeypatch.setattr(ReadOnlyAdmin, "list_per_page", 2)
        refuse("req-00000001", status=500, code="internal")
        for number in range(2, 5):
            refuse(f"req-0000000{number}")

        with CaptureQueriesContext(connection) as asked:
            page = gina.get(address(RefusedRequest, "changelist")).content.decode()

        assert "?status=500" not in page
        ours = [one["sql"] for one in asked if 'FROM "orders_refusedrequest"' in one["sql"]]
        assert [sql for sql in ours if "LIMIT" not in sql] == []


class TestLooking:
    def test_everything_the_shop_and_the_engine_keep_is_shown(self) -> None:
        assert {model._meta.label for model in SHOWN} >= {
            "orders.Order",
            "orders.Payment",
            "orders.PaymentOperation",
            "orders.Product",
            "orders.Reservation",
            "orders.SandboxCharge",
            "orders.SandboxParcel",
            "orders.SandboxRefund",
            "orders.SentMessage",
            "orders.Shipment",
            "orders.StockItem",
            "orders.StockMovement",
            "orders.ApiKey",
            "orders.InboundDelivery",
            "orders.InboundEvent",
            "orders.MailDelivery",
            "orders.OrderNote",
            "orders.OutsideEffect",
            "orders.ProviderChoice",
            "orders.WebhookDelivery",
            "orders.WebhookEndpoint",
            "orders.SavedView",
            "orders.OrderTag",
            "sagas.Assignment",
            "sagas.Barrier",
            "sagas.BulkItem",
            "sagas.BulkOperation",
            "sagas.RunEvent",
            "sagas.SagaRun",
            "sagas.Signal",
            "sagas.StepRecord",
        }

    def test_an_endpoints_secret_is_not_shown(self, story: Order, sam: Client) -> None:
        endpoint = orders.WebhookEndpoint.objects.get()

        page = sam.get(address(orders.WebhookEndpoint, "change", endpoint.pk)).content.decode()

        assert endpoint.url in page
        assert "whsec_" not in page

    def test_lists_read_a_stretch_of_the_table_whatever_it_holds(
        self, story: Order, sam: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is counted, offered and dated comes from the newest rows: no statement goes through all of them."""
        monkeypatch.setattr(admin_large, "COUNTED", 2)
        monkeypatch.setattr(admin_large, "AMONG", 2)
        for number in range(3):
            run_to_end(run_of(make_order(order_id=f"ORD-{number}")))
        for model in SHOWN:
            with CaptureQueriesContext(connection) as queries:
                assert sam.get(address(model, "changelist")).status_code == 200
            if not issubclass(type(admin.site._registry[model]), ReadOnlyAdmin):
                continue
            for query in queries.captured_queries:
                words = query["sql"]
                if '"auth_user"' in words:  # who is looking; another page's business
                    continue
                assert "DISTINCT" not in words, (model, words)
                assert "COUNT(" not in words or "LIMIT 2" in words, (model, words)
                assert "MIN(" not in words, (model, words)

    def test_a_list_counts_so_far_and_goes_back_by_day(
        self, story: Order, sam: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin_large, "COUNTED", 1)
        run_to_end(run_of(make_order(order_id="ORD-2")))
        run = run_of(story)
        SagaRun.objects.filter(pk=run.pk).update(created_at=run.created_at - timedelta(days=400))

        page = sam.get(address(SagaRun, "changelist"))
        old = sam.get(address(SagaRun, "changelist"), {"created_at__year": run.created_at.year - 2}).content.decode()
        then = run.created_at - timedelta(days=400)
        day = {"created_at__year": then.year, "created_at__month": then.month, "created_at__day": then.day}
        found = sam.get(address(SagaRun, "changelist"), day).content.decode()

        assert page.context["cl"].result_count == 1
        assert f"created_at__year={then.year}" in page.content.decode()
        assert "ORD-123" not in old
        assert ("ORD-123" in found, "ORD-2" in found) == (True, False)

    def test_every_list_search_and_page_opens(self, story: Order, sam: Client) -> None:
        for model in SHOWN:
            assert sam.get(address(model, "changelist")).status_code == 200, model
            assert sam.get(address(model, "changelist"), {"q": "ORD-123"}).status_code == 200, model
            row = model._default_manager.first()
            assert (row is None) == (model._meta.label in LEFT_EMPTY), model
            if row is not None:
                assert sam.get(address(model, "change", row.pk)).status_code == 200, model

    def test_nothing_that_happened_can_be_added_changed_or_deleted(self, story: Order, sam: Client) -> None:
        for model in READ_ONLY:
            row = model._default_manager.first()
            before = model._default_manager.count()
            assert sam.get(address(model, "add")).status_code == 403, model
            assert "delete_selected" not in sam.get(address(model, "changelist")).content.decode(), model
            if row is not None:
                assert sam.post(address(model, "change", row.pk), {}).status_code == 403, model
                assert sam.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model
            assert model._default_manager.count() == before, model

    def test_orders_are_found_by_what_they_are_known_by(self, story: Order, sam: Client) -> None:
        make_order(order_id="ORD-OTHER", customer_ref="OTHER", email="other@example.com")

        for term in ("ORD-123", "USER-456", "ada@example.com", str(story.run_id)):
            page = sam.get(address(Order, "changelist"), {"q": term}).content.decode()
            assert ("ORD-123" in page, "ORD-OTHER" in page) == (True, False), term

    def test_a_run_is_found_by_its_id_and_by_its_order(self, story: Order, sam: Client) -> None:
        for term in ("ORD-123", str(story.run_id)):
            page = sam.get(address(SagaRun, "changelist"), {"q": term}).content.decode()
            assert str(story.run_id) in page

    @pytest.mark.parametrize("term", ["nothing", "' OR 1=1 --", "%", "é", "0" * 300])
    def test_a_search_for_anything_else_finds_nothing(self, term: str, story: Order, sam: Client) -> None:
        for model in SHOWN:
            page = sam.get(address(model, "changelist"), {"q": term})
            assert (page.status_code, page.context["cl"].result_count) == (200, 0), model

    def test_pages_lead_to_one_another(self, story: Order, sam: Client) -> None:
        order_page = sam.get(address(Order, "change", story.pk)).content.decode()
        run_page = sam.get(address(SagaRun, "change", story.run_id)).content.decode()

        assert address(SagaRun, "change", story.run_id) in order_page
        assert address(Shipment, "change", Shipment.objects.get().pk) in order_page
        assert "/orders/ORD-123/" in order_page
        assert f"run__id__exact={story.run_id}" in run_page
        assert "/orders/ORD-123/" in run_page
        assert f"/runs/{story.run_id}/" in run_page

    def test_a_cards_token_is_not_shown(self, story: Order, sam: Client) -> None:
        assert "tok_visa" not in sam.get(address(Order, "change", story.pk)).content.decode()

    def test_what_a_customer_wrote_is_text(self, sam: Client) -> None:
        order = make_order(customer_ref="<script>alert(1)</script>")

        for page in (address(Order, "changelist"), address(Order, "change", order.pk)):
            content = sam.get(page).content.decode()
            assert "<script>alert(1)" not in content
            assert "&lt;script&gt;alert(1)" in content

    def test_no_list_takes_a_query_per_row(self, story: Order, sam: Client) -> None:
        def queries() -> dict[str, int]:
            counts = {}
            for model in SHOWN:
                with CaptureQueriesContext(connection) as captured:
                    sam.get(address(model, "changelist"))
                counts[model._meta.label] = len(captured)
            return counts

        few = queries()
        for number in range(5):
            items = [{"sku": "ITEM-001", "quantity": 1}]
            run_to_end(run_of(make_order(order_id=f"ORD-{number}", items=items, total_amount=30)))
        many = queries()

        assert {label: count for label, count in many.items() if count > few[label] + 1} == {}

    def test_customers_and_strangers_stay_outside(self, story: Order) -> None:
        client = Client()
        for _ in range(2):
            assert client.get(address(Order, "changelist")).status_code == 302
            client.force_login(User.objects.filter(username="ada").first() or make_user(username="ada"))


class TestActing:
    def test_a_cancellation_asks_for_a_reason_first(self, gina: Client) -> None:
        order = make_order()
        run_to_end(run_of(order))

        asked = act(gina, Order, "cancel_orders", order)

        assert asked.status_code == 200
        assert "reason" in asked.context["form"].fields
        assert run_of(order).status == "completed"

    def test_with_a_reason_the_order_is_cancelled_in_the_persons_name(self, gina: Client) -> None:
        order = make_order()
        run_to_end(run_of(order))

        done = act(gina, Order, "cancel_orders", order, reason="changed their mind")

        assert done.status_code == 302
        assert told(done) == ["ORD-123: everything is being undone."]
        event = run_view(run_of(order).pk).events[-1]
        assert (event.kind, event.actor, event.reason) == ("cancel_requested", "user:gina", "changed their mind")

    def test_each_refusal_is_told_and_the_others_go_on(self, sam: Client) -> None:
        first, second = make_order(order_id="ORD-1"), make_order(order_id="ORD-2")
        for order in (first, second):
            run_to_end(run_of(order))
        hand_over(order_id="ORD-1", actor="user:sam")

        done = act(sam, Order, "cancel_orders", first, second, reason="fire in the warehouse")

        assert sorted(told(done)) == [
            "ORD-1: Order ORD-1 cannot be cancelled: the parcel was handed over to the carrier; "
            "take the goods back as a return.",
            "ORD-2: everything is being undone.",
        ]
        assert (run_of(first).status, run_of(second).status) == ("completed", "compensating")

    def test_a_supervisor_hands_parcels_over(self, sam: Client) -> None:
        order = make_order()
        run_to_end(run_of(order))

        asked = act(sam, Order, "hand_over_orders", order)

        assert asked.status_code == 200
        assert "reason" in asked.context["form"].fields
        assert (Shipment.objects.get().status, run_of(order).events.filter(kind="signal").count()) == ("created", 0)

        done = act(sam, Order, "hand_over_orders", order, reason="collected at gate 3")

        assert told(done) == ["ORD-123: the parcel is handed over."]
        assert Shipment.objects.get().status == "handed_over"
        event = run_view(run_of(order).pk).events[-1]
        assert (event.kind, event.actor, event.reason) == ("signal", "user:sam", "handed_over: collected at gate 3")

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
    def test_without_a_reason_that_can_be_kept_no_parcel_is_handed_over(self, sam: Client, reason: str) -> None:
        order = make_order()
        run_to_end(run_of(order))

        asked = act(sam, Order, "hand_over_orders", order, reason=reason)

        assert asked.status_code == 200
        assert list(asked.context["form"].errors) == ["reason"]
        assert Shipment.objects.get().status == "created"

    def test_a_parcel_that_cannot_be_handed_over_is_told_and_the_others_go_on(self, sam: Client) -> None:
        gone, good = make_order(order_id="ORD-1", ship_postcode="00000"), make_order(order_id="ORD-2")
        for order in (gone, good):
            run_to_end(run_of(order))

        done = act(sam, Order, "hand_over_orders", gone, good, reason="collected at gate 3")

        assert sorted(told(done)) == [
            "ORD-1: The parcel of order ORD-1 cannot be handed over: the order is being undone, or has been.",
            "ORD-2: the parcel is handed over.",
        ]
        assert list(run_of(gone).signals.all()) == []

    def test_an_agent_does_not(self, gina: Client) -> None:
        order = make_order()
        run_to_end(run_of(order))

        act(gina, Order, "hand_over_orders", order, reason="collected at gate 3")

        assert Shipment.objects.get().status == "created"

    def test_a_stuck_undo_is_tried_again(self, gina: Client) -> None:
        order = make_order(card_token="tok_refund_fails", ship_postcode="00000")
        run = run_of(order)
        assert run_to_end(run).status == "needs_attention"

        asked = act(gina, SagaRun, "retry_runs", run)
        done = act(gina, SagaRun, "retry_runs", run, reason="the gateway is back")

        assert asked.status_code == 200
        assert told(done) == [f"{run}: Refund payment will be tried again."]
        report = run_to_end(run)
        assert (report.status, report.undone) == ("compensated", ["reserve_inventory", "process_payment"])

    def test_what_has_not_failed_is_not_tried_again(self, gina: Client) -> None:
        order = make_order()
        run_to_end(run_of(order))

        done = act(gina, SagaRun, "retry_runs", run_of(order), reason="why not")

        (message,) = told(done)
        assert "no step or undo of it has failed" in message

    def test_a_run_is_cancelled_from_its_own_list(self, gina: Client) -> None:
        order = make_order()
        run_to_end(run_of(order))

        act(gina, SagaRun, "cancel_runs", run_of(order), reason="changed their mind")

        assert run_to_end(run_of(order)).status == "compensated"

    def test_staff_without_a_role_acts_on_nothing(self) -> None:
        order = make_order()
        run_to_end(run_of(order))
        clerk = make_user(username="clerk", is_staff=True)
        client = Client()
        client.force_login(clerk)

        assert client.get(address(Order, "changelist")).status_code == 403
        act(client, SagaRun, "cancel_runs", run_of(order), reason="because")

        assert run_of(order).status == "completed"


class TestStock:
    def move(self, client: Client, **fields: Any) -> Any:
        stock = StockItem.objects.get(product__sku="ITEM-001")
        return client.post(reverse("admin:orders_stockitem_move", args=[stock.pk]), fields)

    def test_the_page_of_a_stock_item_leads_to_the_form(self, sam: Client) -> None:
        stock = StockItem.objects.get(product__sku="ITEM-001")

        page = sam.get(address(StockItem, "change", stock.pk)).content.decode()

        form = reverse("admin:orders_stockitem_move", args=[stock.pk])
        assert form in page
        assert "10 on hand" in sam.get(form).content.decode()

    def test_goods_that_came_in_are_noted_with_a_reason(self, sam: Client) -> None:
        done = self.move(sam, kind="receive", quantity="5", reason="delivery 7")

        assert done.status_code == 302
        assert told(done) == ["ITEM-001: 15 on hand, 15 of them free."]
        movement = StockMovement.objects.latest("id")
        assert (movement.kind, movement.delta_on_hand, movement.actor, movement.reason) == (
            "receive",
            5,
            "user:sam",
            "delivery 7",
        )

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"kind": "receive", "quantity": "0", "reason": "x"}, "quantity"),
            ({"kind": "receive", "quantity": "-5", "reason": "x"}, "quantity"),
            ({"kind": "receive", "quantity": "many", "reason": "x"}, "quantity"),
            ({"kind": "receive", "quantity": "10000000", "reason": "x"}, "quantity"),
            ({"kind": "correct", "quantity": "-11", "reason": "x"}, "quantity"),
            ({"kind": "receive", "quantity": "5", "reason": ""}, "reason"),
            ({"kind": "receive", "quantity": "5", "reason": "a\x00b"}, "reason"),
            ({"kind": "steal", "quantity": "5", "reason": "x"}, "kind"),
        ],
    )
    def test_what_cannot_be_is_told_beside_its_field(self, sam: Client, fields: dict[str, str], field: str) -> None:
        answer = self.move(sam, **fields)

        assert answer.status_code == 200
        assert list(answer.context["form"].errors) == [field]
        assert StockItem.objects.get(product__sku="ITEM-001").on_hand == 10

    def test_an_agent_changes_no_stock(self, gina: Client) -> None:
        assert self.move(gina, kind="receive", quantity="5", reason="x").status_code == 403
        assert StockItem.objects.get(product__sku="ITEM-001").on_hand == 10


def test_supervisors_keep_the_products_and_agents_do_not(sam: Client, gina: Client) -> None:
    product = Product.objects.get(sku="ITEM-001")

    assert sam.get(address(orders.Product, "add")).status_code == 200
    assert gina.get(address(orders.Product, "add")).status_code == 403
    assert sam.post(address(orders.Product, "delete", product.pk), {"post": "yes"}).status_code == 403


class TestTheQueuesOwnPages:
    """What django-q2 offers beside ours: pressed on everything it keeps, it changes no order."""

    def everything(self) -> dict[str, list[Any]]:
        kept = (SagaRun, StepRecord, RunEvent, *(getattr(orders, name) for name in ("PaymentOperation", "Reservation")))
        return {model._meta.label: list(model._default_manager.order_by("pk").values_list()) for model in kept}

    def test_resubmitting_every_task_there_can_be_harms_no_run(self, root: Client) -> None:
        done = make_order(order_id="ORD-1")
        stuck = make_order(order_id="ORD-2", ship_postcode="00000", card_token="tok_refund_fails")
        for order in (done, stuck):
            run_to_end(run_of(order))
        now = timezone.now()
        for number, func in enumerate(("sagas.queue.drive", "sagas.queue.sweep", "sagas.operations.work_off")):
            for success in (True, False):
                Task.objects.create(
                    id=f"{number}-{success}", name=f"{func} {success}", func=func, args=(), kwargs={},
                    started=now, stopped=now, success=success, group="saga",
                )  # fmt: skip
        before = self.everything()
        OrmQ.objects.all().delete()

        for model in ("success", "failure"):
            chosen = list(Task.objects.filter(success=model == "success").values_list("pk", flat=True))
            pressed = {"action": "resubmit_task", ACTION_CHECKBOX_NAME: chosen}
            assert root.post(f"/admin/django_q/{model}/", pressed).status_code == 302
        waiting = [one.task for one in OrmQ.objects.all()]
        assert len(waiting) == 6
        for task in waiting:
            import_string(task["func"])(*task["args"], **task["kwargs"])

        assert self.everything() == before


class TestSelectingAll:
    @pytest.mark.parametrize(
        ("model", "action"),
        [(Order, "cancel_orders"), (Order, "hand_over_orders"), (SagaRun, "retry_runs"), (SagaRun, "cancel_runs")],
    )
    def test_nobody_acts_on_a_whole_table(
        self, sam: Client, monkeypatch: pytest.MonkeyPatch, model: type[Model], action: str
    ) -> None:
        """The page shows fifty of them, and "select all" would mean a million."""
        monkeypatch.setattr(admin_tools, "MOST_AT_ONCE", 2)
        orders_of = [make_order(order_id=f"ORD-{number}") for number in range(3)]
        rows = list(model._default_manager.all())
        before = RunEvent.objects.count()

        answer = act(sam, model, action, rows[0], select_across="1", reason="all of them")

        assert told(answer)[0].startswith("More than 2 are chosen.")
        assert (RunEvent.objects.count(), len(orders_of)) == (before, 3)


class TestTheDoor:
    def test_a_customer_who_is_logged_in_is_told_that_it_is_not_for_them(self) -> None:
        ada = Client()
        ada.force_login(make_user(username="ada"))

        answer = ada.get("/admin/", follow=True)

        assert answer.status_code == 403
        assert len(answer.redirect_chain) == 1

    def test_a_stranger_logs_in_and_comes_back(self) -> None:
        answer = Client().get("/admin/sagas/sagarun/", follow=True)

        assert answer.redirect_chain[-1] == ("/accounts/login/?next=%2Fadmin%2Fsagas%2Fsagarun%2F", 302)


class TestKeys:
    def test_a_key_is_made_shown_once_and_revoked(self, story: Order, root: Client) -> None:
        ada = make_user(username="ada")
        fields = {"user": str(ada.pk), "name": "webshop", "scopes": ["orders:read"]}

        made = root.post(address(orders.ApiKey, "add"), fields)

        key = orders.ApiKey.objects.get(name="webshop")
        (warning, _) = told(made)
        token = warning.rpartition(" ")[2]
        assert made.status_code == 302
        assert key_of(token) == key
        assert (key.user, key.scopes, key.created_by) == (ada, ["orders:read"], "user:root")
        page = root.get(address(orders.ApiKey, "change", key.pk)).content.decode()
        assert "webshop" in page
        assert key.secret_hash not in page
        act(root, orders.ApiKey, "revoke_keys", key, reason="leaked")
        key.refresh_from_db()
        assert key.revoked_at is not None
        assert "Revoked: leaked" in LogEntry.objects.latest("id").change_message

    @pytest.mark.parametrize("fields", [{"name": "shop"}, {"scopes": []}, {"scopes": ["everything"]}, {"user": ""}])
    def test_what_is_no_key_makes_none(self, story: Order, root: Client, fields: dict[str, Any]) -> None:
        whole = {"user": str(make_user(username="ada").pk), "name": "webshop", "scopes": ["orders:read"]}

        answer = root.post(address(orders.ApiKey, "add"), {**whole, **fields})

        assert answer.status_code == 200
        assert list(orders.ApiKey.objects.values_list("name", flat=True)) == ["shop"]

    def test_supervisors_and_agents_make_and_revoke_none(self, story: Order, sam: Client, gina: Client) -> None:
        key = orders.ApiKey.objects.get()
        for client in (sam, gina):
            assert client.get(address(orders.ApiKey, "add")).status_code == 403
            act(client, orders.ApiKey, "revoke_keys", key, reason="x")
        key.refresh_from_db()
        assert key.revoked_at is None


class TestEndpoints:
    def send(self, client: Client, endpoint: orders.WebhookEndpoint, **changes: Any) -> Any:
        fields = {"url": endpoint.url, "events": list(endpoint.events), "is_active": "on", **changes}
        return client.post(
            address(orders.WebhookEndpoint, "change", endpoint.pk),
            {name: value for name, value in fields.items() if value is not None},
        )

    def test_one_is_set_right_and_the_log_says_by_whom(self, story: Order, root: Client) -> None:
        endpoint = orders.WebhookEndpoint.objects.get()
        page = root.get(address(orders.WebhookEndpoint, "change", endpoint.pk)).content.decode()

        done = self.send(root, endpoint, url="https://1.1.1.1/new", events=["order.completed"], is_active=None)

        assert done.status_code == 302
        assert endpoint.secret not in page
        changed = orders.WebhookEndpoint.objects.get()
        assert (changed.url, changed.events) == ("https://1.1.1.1/new", ["order.completed"])
        assert (changed.is_active, changed.disabled_reason) == (False, "Switched off by user:root.")
        assert (changed.secret, changed.user) == (endpoint.secret, endpoint.user)
        assert LogEntry.objects.latest("id").user.username == "root"
        assert self.send(root, changed, events=[]).status_code == 302
        changed.refresh_from_db()
        assert (changed.is_active, changed.disabled_reason, changed.events) == (True, "", [])

    @pytest.mark.parametrize(
        "changes",
        [{"url": "https://127.0.0.1/x"}, {"url": "http://1.1.1.1/x"}, {"events": ["order.lost"]}, {"url": ""}],
    )
    def test_what_is_no_endpoint_is_refused(self, story: Order, root: Client, changes: dict[str, Any]) -> None:
        before = orders.WebhookEndpoint.objects.values().get()

        answer = self.send(root, orders.WebhookEndpoint.objects.get(), **changes)

        assert (answer.status_code, "errorlist" in answer.content.decode()) == (200, True)
        assert orders.WebhookEndpoint.objects.values().get() == before

    def test_supervisors_only_look_and_what_is_deleted_stays(self, story: Order, sam: Client, root: Client) -> None:
        endpoint = orders.WebhookEndpoint.objects.get()

        assert sam.get(address(orders.WebhookEndpoint, "change", endpoint.pk)).status_code == 200
        assert self.send(sam, endpoint, url="https://1.1.1.1/new").status_code == 403
        endpoints.delete(endpoint)
        assert self.send(root, endpoint).status_code == 403
        endpoint.refresh_from_db()
        assert (endpoint.url, endpoint.is_active) == ("https://1.1.1.1/hooks", False)
