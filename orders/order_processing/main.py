"""The order saga: its four steps in order, and OrderProcessingSaga, the way in for Python code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any, Self

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import transaction

from orders.intake import check_order, store_order
from orders.models import Order
from orders.money import quantize
from orders.order_processing import actions, compensations
from orders.order_processing.shapes import OrderInput
from sagas import Kind, RetryPolicy, Saga, Step
from sagas import services as engine
from sagas.selectors import RunView, SagaRun, run_view

HANDED_OVER = "handed_over"
"""The signal by which a run learns that its parcel has left."""

# Short first delays: most outages are over in a second. The caps and the counts come from settings.
FORWARD = RetryPolicy(
    attempts=settings.ORDER_RETRY_ATTEMPTS,
    first=timedelta(seconds=settings.ORDER_RETRY_FIRST),
    cap=timedelta(seconds=settings.ORDER_RETRY_CAP),
)
# Money that is owed, and mail about a paid order, are worth more patience than an order that can still be given up.
PATIENT = RetryPolicy(
    attempts=settings.ORDER_PATIENT_ATTEMPTS,
    first=timedelta(seconds=settings.ORDER_RETRY_FIRST),
    cap=timedelta(seconds=settings.ORDER_RETRY_CAP),
)


def refuse_cancel(
    input: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    signals: Mapping[str, Mapping[str, Any]],
) -> str:
    """Why an order can no longer be cancelled: only a parcel that has left stands in the way."""
    if HANDED_OVER in signals:
        return "the parcel was handed over to the carrier; take the goods back as a return"
    return ""


def reservation_ids(result: Mapping[str, Any]) -> str:
    """Of a reservation, or of its release."""
    items = result.get("reserved_items") or result.get("released_items") or ()
    return ", ".join(item["reservation_id"] for item in items)


STEPS = (
    Step(
        name="reserve_inventory",
        action=actions.reserve_inventory,
        look_up=actions.look_up_reservation,
        receipt_id=reservation_ids,
        retry=FORWARD,
        compensation=compensations.release_inventory,
        compensation_receipt_id=reservation_ids,
        compensation_retry=PATIENT,
    ),
    Step(
        name="process_payment",
        action=actions.process_payment,
        look_up=actions.look_up_payment,
        receipt_id=itemgetter("transaction_id"),
        retry=FORWARD,
        compensation=compensations.refund_payment,
        compensation_look_up=compensations.look_up_refund,
        compensation_receipt_id=itemgetter("refund_id"),
        compensation_retry=PATIENT,
    ),
    Step(
        name="create_shipment",
        kind=Kind.PIVOT,
        action=actions.create_shipment,
        look_up=actions.look_up_shipment,
        receipt_id=itemgetter("shipment_id"),
        retry=FORWARD,
        compensation=compensations.cancel_shipment,
        compensation_receipt_id=itemgetter("shipment_id"),
        compensation_retry=PATIENT,
    ),
    Step(
        name="send_confirmation_email",
        kind=Kind.RETRIABLE,
        title="Confirmation e-mail",
        action=actions.send_confirmation_email,
        look_up=actions.look_up_confirmation,
        receipt_id=itemgetter("email_id"),
        retry=PATIENT,
        compensation=compensations.send_cancellation_email,
        compensation_title="Cancellation e-mail",
        compensation_look_up=compensations.look_up_cancellation,
        compensation_receipt_id=itemgetter("email_id"),
        compensation_retry=PATIENT,
    ),
)

ORDER_SAGA = Saga(
    name="order_processing",
    version=1,
    deadline=timedelta(seconds=settings.ORDER_DEADLINE),
    refuse_cancel=refuse_cancel,
    steps=STEPS,
)

CAPTURE = Step(
    name="capture_payment",
    kind=Kind.RETRIABLE,
    action=actions.capture_payment,
    receipt_id=itemgetter("transaction_id"),
    retry=PATIENT,
)

CAPTURING_SAGA = replace(
    ORDER_SAGA,
    version=2,
    # The order's total is set aside first and taken once the parcel is booked. refund_payment undoes both: it voids
    # what was not taken, and refunds what was.
    steps=(STEPS[0], replace(STEPS[1], action=actions.authorize_payment), STEPS[2], CAPTURE, STEPS[3]),
)


def current_saga() -> Saga:
    """What new orders go by: settings.ORDER_CAPTURE. Runs under way keep theirs."""
    return CAPTURING_SAGA if settings.ORDER_CAPTURE == "shipment" else ORDER_SAGA


@dataclass(frozen=True, kw_only=True)
class OrderResult:
    """How an order's run stands. A failed order is a result, not an exception."""

    order_id: str
    run_id: str
    status: str
    """completed, compensated, needs_attention, … : the run's status."""
    results: Mapping[str, Mapping[str, Any]]
    """What each step that was done returned, by step name."""
    undone: tuple[str, ...]
    """The steps whose compensation was done, in the order it ran."""
    failed_step: str = ""
    error_code: str = ""
    error: str = ""
    """Why the run turned back, or what it waits for; empty when all went well."""

    @property
    def is_completed(self) -> bool:
        return self.status == "completed"


class OrderProcessingSaga:
    """One order on its way through the saga.

    Nothing is stored until `start()` or `execute()`. Both raise InvalidOrder, naming the fields, for an order that
    cannot be taken, and OrderConflict if `order_id` belongs to another one; the same order again is the first one.
    What the four arguments of the README's example leave out (currency, e-mail, address, card) comes from
    settings.ORDER_DEFAULTS.
    """

    @property
    def definition(self) -> Saga:
        return current_saga()

    def __init__(
        self,
        *,
        order_id: str | None,
        user_id: str,
        items: Iterable[Mapping[str, Any]],
        total_amount: float | Decimal | str | int | None,
        currency: str | None = None,
        email: str | None = None,
        ship_name: str | None = None,
        ship_line1: str | None = None,
        ship_city: str | None = None,
        ship_postcode: str | None = None,
        ship_country: str | None = None,
        card_token: str | None = None,
        actor: str = "engine",
    ) -> None:
        given = {
            "currency": currency,
            "email": email,
            "ship_name": ship_name,
            "ship_line1": ship_line1,
            "ship_city": ship_city,
            "ship_postcode": ship_postcode,
            "ship_country": ship_country,
            "card_token": card_token,
        }
        self._order: Order | None = None
        self._actor = actor
        self._given: dict[str, Any] = {
            "order_id": order_id,
            "customer_ref": user_id,
            "items": items,
            "total_amount": total_amount,
            **settings.ORDER_DEFAULTS,
            **{name: value for name, value in given.items() if value is not None},
        }

    @classmethod
    def for_order(cls, order: Order, *, actor: str = "engine") -> Self:
        """The saga of an order that is stored already."""
        saga = cls.__new__(cls)
        saga._order = order
        saga._actor = actor
        saga._given = {}
        return saga

    def start(self, *, ring: bool = True) -> SagaRun:
        """Store the order and its run, both or neither, and hand it to the queue. Again: the same run."""
        with transaction.atomic():
            if self._order is None:
                self._order, _ = store_order(check_order(**self._given), actor=self._actor)
            order = self._order
            run = engine.start(
                saga=self.definition,
                business_key=order.order_id,
                input=snapshot(order),
                actor=self._actor,
                ring=ring,
            )
            if order.run_id != run.pk:
                order.run_id = run.pk
                order.save(update_fields=["run_id", "updated_at"])
            return run

    async def execute(self) -> OrderResult:
        """Run the order here and now, recorded like any other run, and tell how it ended."""
        run = await sync_to_async(self.start)(ring=False)
        await engine.execute(run_id=run.pk)
        return await sync_to_async(self.result)()

    def result(self) -> OrderResult:
        """How the run stands now. Raises Order.DoesNotExist before start()."""
        if self._order is None or self._order.run_id is None:
            raise Order.DoesNotExist("This order has not been started.")
        return result_of(self._order.order_id, run_view(self._order.run_id))


def snapshot(order: Order) -> OrderInput:
    """What the run is given. The card's token stays with the order: runs are shown to more people."""
    return {
        "order_id": order.order_id,
        "user_id": order.customer_ref,
        "email": order.email,
        "currency": order.currency,
        "total_amount": str(quantize(order.total_amount, order.currency)),
        "items": [
            {"sku": sku, "quantity": quantity}
            for sku, quantity in order.lines.order_by("id").values_list("sku", "quantity")
        ],
        "address": {
            "name": order.ship_name,
            "line1": order.ship_line1,
            "city": order.ship_city,
            "postcode": order.ship_postcode,
            "country": order.ship_country,
        },
    }


def result_of(order_id: str, view: RunView) -> OrderResult:
    """A run as the caller of `execute()` wants to see it."""
    run = view.run
    return OrderResult(
        order_id=order_id,
        run_id=str(run.pk),
        status=run.status,
        results={step.name: step.result for step in view.steps if step.result is not None},
        undone=tuple(
            step.name
            for step in sorted(
                (step for step in view.steps if step.undo_attempts), key=lambda step: step.undo_attempts[0].started_at
            )
            if step.undo_state == "undone"
        ),
        failed_step=run.failure_step,
        error_code=run.failure_code,
        error=run.attention_reason or run.failure_message,
    )
