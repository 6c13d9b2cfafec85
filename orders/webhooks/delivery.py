"""Sending what is due: spread events into deliveries, try each, try again later, and know when to give up."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from orders.models import Order, WebhookDelivery, WebhookEndpoint, WebhookEvent
from orders.roles import is_staff
from orders.webhooks.sending import Answer, send
from orders.webhooks.signing import headers_for
from sagas import counting

log = logging.getLogger(__name__)

DELIVER = "orders.webhooks.delivery.deliver_due"
WAITS = tuple(timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400))
"""After the first try, the second and so on: ten tries in about three days. Source: Standard Webhooks 1.0."""
LEASE = timedelta(seconds=60)
AT_A_TIME = 100
SENDERS = 16
"""Sent side by side, and taken at a time: one slow receiver holds nobody up for longer than one timeout."""
WORK_SECONDS = 15.0
GONE = 410

Status = WebhookDelivery.Status
OUTCOMES = {Status.DELIVERED: "delivered", Status.PENDING: "again", Status.FAILED: "given_up"}


def is_waiting() -> bool:
    """Whether there is anything to spread or to send, and nobody at it.

    One worker at a time: receivers that never answer must not keep all workers from orders.
    """
    if _is_at_work():
        return False
    if WebhookEvent.objects.filter(is_spread=False).exists():
        return True
    return WebhookDelivery.objects.filter(next_at__lte=timezone.now()).exists()


def deliver_due() -> int:
    """Spread and send what is due, for a while; how many were sent. What the queue calls."""
    until = time.monotonic() + WORK_SECONDS
    sent = 0
    while time.monotonic() < until and not _is_at_work():
        spread()
        taken = _take()
        if not taken:
            break
        with ThreadPoolExecutor(SENDERS) as senders:
            answers = list(senders.map(_post, taken))
        for delivery, answer in zip(taken, answers, strict=True):
            _record(delivery, answer)
            counting.count("webhook_deliveries_total", outcome=OUTCOMES[Status(delivery.status)])
        sent += len(taken)
    counting.write_down_when_due()
    return sent


def spread() -> int:
    """Make of each new event a delivery for each endpoint that wants it; how many."""
    made = 0
    while True:
        with transaction.atomic():
            rows = WebhookEvent.objects.filter(is_spread=False).order_by("id").select_for_update(skip_locked=True)
            events = list(rows[:AT_A_TIME])
            if not events:
                return made
            endpoints = list(WebhookEndpoint.objects.filter(is_active=True).select_related("user"))
            owners = dict(
                Order.objects.filter(order_id__in=[event.order_id for event in events]).values_list(
                    "order_id", "user_id"
                )
            )
            now = timezone.now()
            deliveries = [
                WebhookDelivery(endpoint=endpoint, event=event, next_at=now)
                for event in events
                for endpoint in endpoints
                if _wants(endpoint, event, owners.get(event.order_id))
            ]
            made += len(WebhookDelivery.objects.bulk_create(deliveries, ignore_conflicts=True))
            WebhookEvent.objects.filter(pk__in=[event.pk for event in events]).update(is_spread=True)


def body_of(event: WebhookEvent) -> bytes:
    """What is sent: ids, state and where to look. Anything more would be out of date by the time it is read."""
    data: dict[str, object] = {}
    if event.order_id:
        data = {"order_id": event.order_id, "state": event.state, "step": event.step or None, "sequence": event.pk}
        data["url"] = settings.SITE_URL + reverse("api-order", kwargs={"order_id": event.order_id})
    told = {"type": event.type, "timestamp": event.created_at.isoformat(), "data": data}
    return json.dumps(told, separators=(",", ":")).encode()


def _wants(endpoint: WebhookEndpoint, event: WebhookEvent, owner: int | None) -> bool:
    if event.endpoint_id is not None:
        return event.endpoint_id == endpoint.pk
    if endpoint.events and event.type not in endpoint.events:
        return False
    if event.created_at < endpoint.created_at:
        return False
    return is_staff(endpoint.user) or owner == endpoint.user_id


def _is_at_work() -> bool:
    return WebhookDelivery.objects.filter(taken_until__gt=timezone.now()).exists()


def _take() -> list[WebhookDelivery]:
    """Due ones, for this worker alone until the lease is over."""
    with transaction.atomic():
        now = timezone.now()
        rows = WebhookDelivery.objects.filter(next_at__lte=now).exclude(taken_until__gt=now).order_by("next_at", "id")
        taken = [one.pk for one in rows.select_for_update(skip_locked=True)[:SENDERS]]
        WebhookDelivery.objects.filter(pk__in=taken).update(taken_until=now + LEASE)
    return list(WebhookDelivery.objects.filter(pk__in=taken).select_related("endpoint", "event").order_by("id"))


def _post(delivery: WebhookDelivery) -> Answer:
    """In a thread of its own, without the database."""
    endpoint, event = delivery.endpoint, delivery.event
    if not endpoint.is_active:
        return Answer(code=None, error=f"The endpoint is switched off. {endpoint.disabled_reason}".strip())
    now, body = timezone.now(), body_of(event)
    known = [endpoint.secret]
    if endpoint.old_secret and endpoint.old_secret_until is not None and endpoint.old_secret_until > now:
        known.append(endpoint.old_secret)
    return send(endpoint.url, body, headers_for(f"msg_{event.message_id.hex}", now, body, known))


@transaction.atomic
def _record(delivery: WebhookDelivery, answer: Answer) -> None:
    now = timezone.now()
    delivery.attempts, delivery.taken_until = delivery.attempts + 1, None
    delivery.last_code, delivery.last_error = answer.code, answer.error
    if answer.is_taken:
        delivery.status, delivery.next_at, delivery.delivered_at = Status.DELIVERED, None, now
    elif answer.code == GONE or not delivery.endpoint.is_active or delivery.attempts > len(WAITS):
        delivery.status, delivery.next_at = Status.FAILED, None
    else:
        delivery.next_at = _again(delivery.attempts, now)
    columns = ["attempts", "taken_until", "last_code", "last_error", "status", "next_at", "delivered_at"]
    delivery.save(update_fields=columns)
    if answer.code == GONE:
        WebhookEndpoint.objects.filter(pk=delivery.endpoint_id, is_active=True).update(
            is_active=False, disabled_reason=f"It answered {GONE}: it wants no more."
        )


def _again(attempts: int, now: datetime) -> datetime:
    return now + WAITS[attempts - 1]
