"""The auditor of the shop: nothing wrong after any end an order can come to, and each loss found."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from orders import audit_ledgers
from orders.audit import audit_shop
from orders.models import (
    Order,
    Payment,
    PaymentOperation,
    Reservation,
    SandboxCharge,
    SandboxMail,
    SandboxParcel,
    SandboxRefund,
    SentMessage,
    Shipment,
    StockItem,
    StockMovement,
)
from orders.services import cancel_order, hand_over
from sagas.audit import audit_runs
from sagas.selectors import SagaRun
from sagas.services import abandon, resolve
from sagas.testing import FrozenClock, RunReport, run_to_end
from tests.factories import make_order, make_product, make_shop

pytestmark = pytest.mark.django_db

TOTAL = Decimal("99.99")


@pytest.fixture(autouse=True)
def shop() -> None:
    make_shop()


def codes() -> list[str]:
    return [finding.code for finding in audit_shop()]


def run_of(order: Order) -> SagaRun:
    return SagaRun.objects.get(business_key=order.order_id)


def finish(order: Order, *, clock: FrozenClock | None = None) -> RunReport:
    return run_to_end(run_of(order), clock=clock)


def make_undone(**changes: Any) -> Order:
    order = make_order(**changes)
    clock = FrozenClock(timezone.now() + timedelta(seconds=1))
    finish(order, clock=clock)
    cancel_order(order_id=order.order_id, actor="customer:ada", reason="changed my mind")
    clock.advance(timedelta(minutes=1))
    assert finish(order, clock=clock).status == "compensated"
    return order


@pytest.fixture
def done() -> Order:
    order = make_order()
    assert finish(order).status == "completed"
    return order


@pytest.fixture
def undone() -> Order:
    return make_undone()


class TestNothingWrong:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"card_token": "tok_declined"},
            {"card_token": "tok_lose_answer"},
            {"card_token": "tok_gateway_down_once"},
            {"ship_postcode": "00000"},
            {"ship_postcode": "00000", "card_token": "tok_refund_refused"},
            {"ship_postcode": "00000", "card_token": "tok_refund_fails"},
            {"items": [{"sku": "ITEM-001", "quantity": 11}], "total_amount": Decimal("330.00")},
        ],
        ids=lambda changes: ", ".join(map(str, changes.values())) or "well",
    )
    def test_however_the_order_ends(self, changes: dict[str, Any]) -> None:
        order = make_order(**changes)
        assert codes() == []

        finish(order)

        assert codes() == []
        assert list(audit_runs()) == []

    def test_cancelled_after_completion(self, undone: Order) -> None:
        assert codes() == []

    def test_handed_over(self, done: Order) -> None:
        hand_over(order_id=done.order_id, actor="carrier")

        assert codes() == []

    def test_what_a_person_settled_or_gave_up_is_explained(self) -> None:
        for number, token in (("ORD-1", "tok_refund_refused"), ("ORD-2", "tok_refund_refused")):
            finish(make_order(order_id=number, ship_postcode="00000", card_token=token))
        first, second = Order.objects.order_by("order_id")

        resolve(
            run_id=run_of(first).pk,
            step="process_payment",
            direction="compensation",
            actor="user:sam",
            reason="paid in cash",
            evidence="receipt 7",
        )
        abandon(run_id=run_of(second).pk, actor="user:sam", reason="the customer keeps it")
        finish(first)

        assert codes() == []

    def test_an_empty_shop(self) -> None:
        Reservation.objects.all().delete()

        assert codes() == []


class TestFindings:
    def test_what_it_says(self, done: Order) -> None:
        Shipment.objects.update(status="cancelling")

        (finding,) = audit_shop()

        assert str(finding) == "order ORD-123: It is completed, and no parcel is booked. [no_parcel]"

    def test_an_order_without_a_run(self, done: Order) -> None:
        Order.objects.update(run_id=None)

        assert codes() == ["order_without_run", "run_of_nobody", "stock_held_by_nobody", "stock_held_by_nobody"]

    def test_the_run_of_another_order(self, done: Order) -> None:
        SagaRun.objects.update(business_key="ORD-7")

        assert codes() == ["another_orders_run"]

    def test_stock_still_held(self, undone: Order) -> None:
        poster = make_product(sku="ITEM-003").stock
        key = Reservation.objects.values_list("key", flat=True)[0]
        Reservation.objects.create(reservation_id="RES-7", key=key, stock=poster, quantity=2)

        assert [str(finding) for finding in audit_shop()] == [
            "order ORD-123: It is undone, and still holds 2 × ITEM-003. [stock_still_held]",
            "stock ITEM-003: 0 are allocated, and 2 are held by reservations. [stock_not_its_reservations]",
        ]

    def test_stock_not_held(self, done: Order) -> None:
        Reservation.objects.filter(stock__product__sku="ITEM-001").update(quantity=1)

        assert [str(finding) for finding in audit_shop()] == [
            "order ORD-123: It is completed, and holds 1 × ITEM-001, 1 × ITEM-002 of 2 × ITEM-001, 1 × ITEM-002. "
            "[stock_not_held]",
            "stock ITEM-001: 2 are allocated, and 1 are held by reservations. [stock_not_its_reservations]",
        ]

    def test_a_counter_that_drifted(self, done: Order) -> None:
        StockItem.objects.filter(product__sku="ITEM-002").update(on_hand=11)

        assert [str(finding) for finding in audit_shop()] == [
            "stock ITEM-002: 11 on hand and 1 allocated; its movements come to 10 and 1. [stock_not_its_movements]"
        ]

    def test_a_payment_that_is_not_the_sum_of_its_operations(self, done: Order) -> None:
        Payment.objects.update(charged=Decimal("100.99"))

        assert codes() == ["payment_not_its_operations", "money_does_not_fit"]

    def test_a_charge_that_nobody_gave_back(self, undone: Order) -> None:
        SandboxCharge.objects.update(refunded=0)

        assert codes() == ["unexplained_charge", "refund_not_in_ledger"]

    def test_a_completed_order_that_nobody_paid(self, done: Order) -> None:
        SandboxCharge.objects.all().delete()

        assert codes() == ["unexplained_charge", "not_done_by_the_gateway"]

    def test_a_charge_that_nobody_asked_for(self, done: Order) -> None:
        SandboxCharge.objects.create(key="k", transaction_id="TXN-7", amount=TOTAL, currency="EUR")

        assert [str(finding) for finding in audit_shop()] == [
            "charge TXN-7: The gateway took 99.990 under k, and no operation of ours asked. [charge_of_nobody]"
        ]

    def test_a_charge_of_another_amount(self, done: Order) -> None:
        SandboxCharge.objects.update(amount=TOTAL * 2)

        assert codes() == ["unexplained_charge", "not_done_by_the_gateway", "another_amount"]

    def test_a_refund_that_nobody_asked_for(self, done: Order) -> None:
        charge = SandboxCharge.objects.get()
        SandboxRefund.objects.create(key="k", refund_id="RFN-7", charge=charge, amount=TOTAL)

        assert codes() == ["refund_not_in_ledger", "refund_of_nobody"]

    def test_a_parcel_that_was_not_taken_back(self, undone: Order) -> None:
        SandboxParcel.objects.update(status="booked")

        assert codes() == ["carrier_still_has_parcel"]

    def test_a_parcel_that_still_stands_in_the_books(self, undone: Order) -> None:
        Shipment.objects.update(status="created", cancelled_at=None)

        assert codes() == ["parcel_still_booked"]

    def test_a_parcel_that_the_carrier_does_not_have(self, done: Order) -> None:
        SandboxParcel.objects.all().delete()

        assert codes() == ["carrier_has_no_parcel"]

    def test_a_parcel_of_nobody(self, done: Order) -> None:
        SandboxParcel.objects.create(reference="REF-7", status="booked")

        assert codes() == ["parcel_of_nobody"]

    def test_a_completed_order_of_which_nobody_was_told(self, done: Order) -> None:
        SentMessage.objects.all().delete()

        assert codes() == ["not_confirmed", "mail_of_nobody"]

    def test_a_cancellation_of_what_was_never_confirmed(self, undone: Order) -> None:
        SentMessage.objects.filter(kind="confirmation").delete()
        SandboxMail.objects.filter(key__endswith=":action")._raw_delete("default")

        assert codes() == ["cancelled_without_confirmation"]

    def test_told_twice_and_cancelled_while_it_stands(self, done: Order) -> None:
        for kind, key in (("confirmation", "k1"), ("cancellation", "k2")):
            SentMessage.objects.create(
                order=done, kind=kind, cause=key, key=key, recipient=done.email, subject="s", body="b"
            )

        assert codes() == ["mailed_twice", "cancellation_of_what_stands"]

    def test_a_mail_of_nobody(self, done: Order) -> None:
        SandboxMail.objects.create(key="k", email_id="EMAIL-7", recipient="ada@example.com")

        assert codes() == ["mail_of_nobody"]


def test_ledgers_that_are_not_kept_here_are_not_asked(done: Order, settings: Settings) -> None:
    settings.PROVIDERS = dict.fromkeys(settings.PROVIDERS, "somewhere.Else")
    SandboxCharge.objects.all().delete()
    SandboxParcel.objects.all().delete()
    Reservation.objects.all().delete()

    assert codes() == ["stock_not_its_reservations"] * 2


def test_it_reads_in_pages(monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any) -> None:
    make_product(sku="ITEM-003", stock=100)
    for n in range(7):
        finish(make_order(order_id=f"ORD-{n}", items=[{"sku": "ITEM-003", "quantity": 1}], total_amount=Decimal(30)))
    monkeypatch.setattr(audit_ledgers, "PAGE", 3)
    seen: list[int] = []

    with django_assert_max_num_queries(12 * 3 + 60):  # by page, not by order
        assert list(audit_shop(seen=seen.append)) == []

    assert seen == [3, 3, 1]


class TestCommand:
    def test_all_is_well(self, done: Order, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("audit")

        assert capsys.readouterr().out.startswith("Audited 1 order and 1 run in ")

    def test_findings_are_listed_and_fail_it(self, done: Order, capsys: pytest.CaptureFixture[str]) -> None:
        Shipment.objects.update(status="cancelling")
        SagaRun.objects.update(turned_back_at=timezone.now())

        with pytest.raises(SystemExit) as end:
            call_command("audit")

        lines = capsys.readouterr().out.splitlines()
        assert end.value.code == 1
        assert [line.rpartition(" ")[2] for line in lines[:-1]] == ["[completed_and_undone]", "[no_parcel]"]
        assert lines[-1].endswith(": 2 findings.")

    def test_for_programs(self, done: Order, capsys: pytest.CaptureFixture[str]) -> None:
        Shipment.objects.update(status="cancelling")

        with pytest.raises(SystemExit):
            call_command("audit", "--json")

        told = json.loads(capsys.readouterr().out)
        assert (told["orders"], told["runs"]) == (1, 1)
        assert told["findings"] == [
            {"code": "no_parcel", "subject": "order ORD-123", "message": "It is completed, and no parcel is booked."}
        ]

    def test_how_stale_is_too_stale(self, capsys: pytest.CaptureFixture[str]) -> None:
        make_order()
        SagaRun.objects.update(due_at=timezone.now() - timedelta(minutes=2))
        call_command("audit")

        with pytest.raises(SystemExit):
            call_command("audit", "--stale-minutes", "1")

        assert "[nobody_takes_it]" in capsys.readouterr().out

    def test_misuse(self) -> None:
        with pytest.raises(CommandError, match="--stale-minutes is -1; it must be 0 or more"):
            call_command("audit", "--stale-minutes", "-1")


def test_it_changes_nothing(undone: Order) -> None:
    def rows() -> list[Any]:
        kinds = [Order, Payment, PaymentOperation, Reservation, Shipment, SentMessage, StockItem, StockMovement]
        return [list(kind.objects.order_by("pk").values()) for kind in kinds]  # type: ignore[attr-defined]

    before = rows()

    list(audit_shop())

    assert rows() == before
