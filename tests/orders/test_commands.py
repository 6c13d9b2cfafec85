"""The shop's commands, as its operators use them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, ProgrammingError, connection
from django.utils import timezone

from orders.audit import audit_shop
from orders.exceptions import HandOverRefused, OrderNotCancellable
from orders.models import Order, Payment
from orders.services import cancel_order, hand_over
from sagas.models import RunEvent, SagaRun, StepRecord
from tests.factories import make_order, make_shop
from tests.orders.api_client import order_body
from tests.orders.pages import ended, visitor

pytestmark = pytest.mark.django_db(transaction=True)


def run(*words: str) -> tuple[int, str, str]:
    """(exit code, what it says, what it complains of)."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*words, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_shop()
    path = tmp_path / "order.json"
    path.write_text(json.dumps(order_body()))
    return path


@pytest.mark.parametrize("words", [("saga", "list"), ("webhooks", "list"), ("apikey", "list"), ("sweep_sagas",)])
def test_a_database_that_does_not_answer_is_said_in_a_sentence(words: tuple[str, ...]) -> None:
    for error, way_out in (
        (OperationalError("connection refused"), "(connection refused). Start it, or mend DATABASE_URL;"),
        (OperationalError("no such table: sagas_sagarun"), "Say `manage.py migrate`, then try again."),
        (ProgrammingError('relation "sagas_sagarun" does not exist'), "Say `manage.py migrate`, then try again."),
    ):
        with connection.execute_wrapper(raising(error)):
            code, out, said = run(*words)
            with pytest.raises(type(error)):
                call_command(words[0], "--traceback", *words[1:])

        assert (code, out, way_out in said) == (69, "", True)


def test_a_mistake_of_ours_is_no_want_of_the_database() -> None:
    with connection.execute_wrapper(raising(ProgrammingError("syntax error"))), pytest.raises(ProgrammingError):
        call_command("saga", "list")


def raising(error: Exception) -> Any:
    def raise_it(*args: Any) -> None:
        raise error

    return raise_it


class TestStartingAnOrder:
    def test_an_order_in_a_file_is_placed_once(self, file: Path) -> None:
        first = run("saga", "start", "order", str(file))
        again = run("saga", "start", "order", str(file), "--key", "ORD-123")

        order = Order.objects.get()
        assert first == again == (0, f"ORD-123: pending, {order.run_id}\n", "")
        assert (order.customer_ref, str(order.total_amount), order.user) == ("USER-456", "99.990", None)
        assert SagaRun.objects.get().business_key == "ORD-123"

    def test_the_sagas_own_name_places_an_order_too(self, file: Path) -> None:
        """A run of it without an order held stock that belonged to nobody."""
        assert run("saga", "start", "order_processing", str(file), "--key", "ORD-123")[0] == 0
        assert (Order.objects.get().order_id, SagaRun.objects.get().business_key) == ("ORD-123", "ORD-123")

    def test_its_number_may_be_the_key(self, file: Path) -> None:
        file.write_text(json.dumps(order_body(order_id=None)))

        assert run("saga", "start", "order", str(file), "--key", "ORD-7")[1].startswith("ORD-7: pending, ")

    @pytest.mark.parametrize(
        ("changes", "key", "complaint"),
        [
            ({"email": "nobody"}, "", "/email"),
            ({"total_amount": {"amount": "1.00", "currency": "EUR"}}, "", "/total_amount/amount"),
            ({"items": [{"sku": "NO", "quantity": 1}]}, "", "/items/0/sku"),
            ({"more": 1}, "", "/more: There is no member of this name here."),
            ({}, "ORD-9", "The file is of order ORD-123, and --key says ORD-9."),
        ],
    )
    def test_what_is_no_order_is_said_and_nothing_stored(
        self, file: Path, changes: dict[str, Any], key: str, complaint: str
    ) -> None:
        file.write_text(json.dumps(order_body(**changes)))

        code, _, err = run("saga", "start", "order", str(file), *(["--key", key] if key else []))

        assert (code, complaint in err) == (1, True), err
        assert not Order.objects.exists()
        assert not SagaRun.objects.exists()

    def test_another_order_of_that_number_is_refused(self, file: Path) -> None:
        run("saga", "start", "order", str(file))
        file.write_text(json.dumps(order_body(email="other@example.com")))

        code, _, err = run("saga", "start", "order", str(file))

        assert (code, "order-conflict" in err, Order.objects.count()) == (1, True, 1)


class TestAfterPruning:
    """What `saga prune` left of an order's run: tests/sagas/test_pruning.py has the rest."""

    @pytest.fixture
    def order(self) -> Order:
        make_shop()
        order = ended("completed")
        run = SagaRun.objects.get(business_key=order.order_id)
        StepRecord.objects.filter(run=run).delete()
        RunEvent.objects.filter(run=run).delete()
        SagaRun.objects.filter(pk=run.pk).update(pruned_at=timezone.now())
        return order

    def test_pages_and_api_tell_of_it_as_they_can(self, order: Order) -> None:
        gina = visitor("gina", "agent")

        for path in (f"/orders/{order.order_id}/", "/orders/", f"/runs/{order.run_id}/", "/runs/", "/overview/"):
            assert gina.get(path).status_code == 200, path
        told = gina.get(f"/api/v1/orders/{order.order_id}").json()
        assert (told["state"], told["can"], told["run"]["steps"]) == ("completed", [], [])
        assert "its history was archived on" in told["sentence"]
        assert told["payment"]["charged"] == {"amount": "99.99", "currency": "EUR"}

    def test_it_is_neither_placed_cancelled_nor_handed_over_again(self, order: Order) -> None:
        again = make_order(order_id=order.order_id)
        with pytest.raises(OrderNotCancellable, match="its history was archived"):
            cancel_order(order_id=order.order_id, actor="user:gina", reason="late")
        with pytest.raises(HandOverRefused, match="its history was archived"):
            hand_over(order_id=order.order_id, actor="user:gina")

        assert (again.pk, SagaRun.objects.count(), Payment.objects.count()) == (order.pk, 1, 1)
        assert list(audit_shop()) == []
