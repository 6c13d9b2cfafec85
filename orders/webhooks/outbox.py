"""What there is to tell, written where it happens: in the transaction that makes it so."""

from __future__ import annotations

from collections.abc import Sequence

from orders.models import WebhookEndpoint, WebhookEvent
from orders.order_processing import ORDER_SAGA
from sagas.notices import STEP_DONE, Notice

TYPES = (
    "order.created",
    "order.completed",
    "order.compensating",
    "order.compensated",
    "order.needs_attention",
    "order.step.completed",
    "order.step.failed",
    "refund.completed",
    "refund.failed",
)
TEST = "webhook.test"
PAYMENT = "process_payment"
SIMPLE = {
    "started": "order.created",
    "completed": "order.completed",
    "compensated": "order.compensated",
}


def note(notices: Sequence[Notice]) -> None:
    """Store what endpoints may want to know; nothing while there is no endpoint."""
    events = [
        WebhookEvent(
            type=type_,
            order_id=notice.run.business_key,
            step=notice.step if type_.startswith("order.step") else "",
            state=notice.run.status,
            created_at=notice.at,
        )
        for notice in notices
        if notice.run.saga == ORDER_SAGA.name
        for type_ in types_of(notice)
    ]
    if events and WebhookEndpoint.objects.filter(is_active=True).exists():
        WebhookEvent.objects.bulk_create(events)


def types_of(notice: Notice) -> list[str]:
    """The types of events that a notice is; most are none."""
    is_undo = notice.direction == "compensation"
    match notice.kind:
        case "turned_back":
            return [*(["order.step.failed"] if notice.step else []), "order.compensating"]
        case "cancel_requested":
            return ["order.compensating"] if notice.run.status == "compensating" else []
        case "needs_attention":
            is_refund = notice.run.turned_back_at is not None and notice.step == PAYMENT
            return ["order.needs_attention", *(["refund.failed"] if is_refund else [])]
        case kind if kind == STEP_DONE and is_undo:
            return ["refund.completed"] if notice.step == PAYMENT else []
        case kind if kind == STEP_DONE:
            return ["order.step.completed"]
        case kind:
            return [SIMPLE[kind]] if kind in SIMPLE else []
