"""Our own books of an order's mail: written down, text and all, before it goes out, once per order, kind and cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string
from django.utils import timezone

from orders.addresses import order_address
from orders.models import MailDelivery, Order, SentMessage
from orders.money import format_money
from orders.providers.base import Message, Sent
from sagas import StepContext
from sagas.barrier import insert_missing

CONFIRMATION = SentMessage.Kind.CONFIRMATION
CANCELLATION = SentMessage.Kind.CANCELLATION


@dataclass(frozen=True, kw_only=True)
class MailLine:
    """An order's line as a mail shows it."""

    quantity: int
    sku: str
    name: str
    total: str


def written(order: Order, kind: SentMessage.Kind, ctx: StepContext) -> SentMessage:
    """The message of this step, text and all; not stored yet."""
    context = _context(order, ctx)
    return SentMessage(
        key=ctx.key,
        order=order,
        kind=kind,
        cause=f"{ctx.run_id}:{ctx.step}",
        recipient=order.email,
        subject=" ".join(render_to_string(f"emails/{kind.value}_subject.txt", context).split()),
        body=render_to_string(f"emails/{kind.value}_body.txt", context),
        html=render_to_string(f"emails/{kind.value}_body.html", context),
    )


def queue(message: SentMessage) -> dict[str, Any]:
    """Store it, unless it is there. Call it inside a transaction."""
    insert_missing(message)
    return {"message": message.key}


def written_before(key: str) -> SentMessage:
    """What an earlier try wrote down under that key: nothing else goes out."""
    return SentMessage.objects.get(key=key)


def undo_has_begun(undo_key: str) -> bool:
    """Whether the customer is being told already that the order is cancelled."""
    return SentMessage.objects.filter(key=undo_key).exists()


def message_of(row: SentMessage) -> Message:
    """What goes to the mailer: to the letter what was written down."""
    return Message(recipient=row.recipient, subject=row.subject, body=row.body, html=row.html)


def note_sent(key: str, sent: Sent) -> None:
    """It went out. Said twice, the first time counts."""
    SentMessage.objects.filter(key=key).exclude(status=SentMessage.Status.SENT).update(
        status=SentMessage.Status.SENT, email_id=sent.email_id, sent_at=timezone.now()
    )


def note_delivery(key: str, kind: str, note: str) -> None:
    """What the mail service has heard since. Told in any order and more than once, it comes to the same."""
    message = SentMessage.objects.filter(key=key).first()
    if message is None or kind not in MailDelivery.Kind.values:
        return
    now = timezone.now()
    heard = MailDelivery(message=message, kind=kind, note=" ".join(note.split())[:300], heard_at=now)
    if insert_missing(heard):
        # So that the order's page, looked at just now, is shown anew.
        Order.objects.filter(pk=message.order_id).update(updated_at=now)


def _context(order: Order, ctx: StepContext) -> dict[str, Any]:
    """What the templates in templates/emails/ show, all of it ready to be read."""
    parcel = ctx.results.get("create_shipment", {})
    return {
        "order_id": order.order_id,
        "name": order.ship_name,
        "line1": order.ship_line1,
        "city": order.ship_city,
        "postcode": order.ship_postcode,
        "country": order.ship_country,
        "lines": [
            MailLine(
                quantity=line.quantity,
                sku=line.sku,
                name=line.name,
                total=format_money(line.line_total, order.currency),
            )
            for line in order.lines.order_by("id")
        ],
        "total": format_money(order.total_amount, order.currency),
        "tracking_number": parcel.get("tracking_number", ""),
        "estimated_delivery": parcel.get("estimated_delivery", ""),
        "order_url": order_address(order.order_id),
    }
