"""Webhooks that providers send: checked, stored as they came, answered, and looked at afterwards.

They come twice, late and in any order. What is stored is answered with 200; looking at it costs the sender nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone

from orders import settling
from orders.models import InboundDelivery, InboundEvent
from orders.order_processing import mail_books
from orders.providers import adapter, paths_of
from orders.providers.base import BadSignature, Heard, SendsWebhooks, TakesBack, offers
from orders.providers.errors import ProviderError
from sagas import counting

log = logging.getLogger(__name__)
HEAR = "orders.inbound.hear_due"
KINDS = ("payments", "mail", "shipping", "inventory")
EARLY = (1, 5, 30, 120, 600, 3600, 21_600)
"""Seconds after which an event of nothing known is looked at again: it may be faster than the answer to our call."""
AT_A_TIME = 50
WORK_SECONDS = 15.0
LEASE = timedelta(seconds=60)
Status = InboundEvent.Status


def sender(name: str) -> SendsWebhooks | None:
    """The provider of that name, if it is one of ours and sends webhooks."""
    found = _named(name)
    return found if offers(found, SendsWebhooks) else None


def taker_back(name: str) -> TakesBack | None:
    """The provider of that name, if it is one of ours and sends customers back."""
    found = _named(name)
    return found if offers(found, TakesBack) else None


def _named(name: str) -> Any:
    for kind in KINDS:
        if name in paths_of(kind):
            try:
                return adapter(kind, name)
            except ImproperlyConfigured:
                return None
    return None


def store(name: str, provider: SendsWebhooks, headers: Mapping[str, str], body: bytes) -> None:
    """Keep one delivery and its events, each once however often it comes. Raises BadSignature."""
    events = provider.read_webhook(headers, body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadSignature("This is no text.") from error
    ids = {event.event_id[:200] for event in events}
    known = InboundEvent.objects.filter(provider=name, event_id__in=ids).values_list("event_id", flat=True)
    if not ids - set(known):
        return  # it came before
    now = timezone.now()
    with transaction.atomic():
        delivery = InboundDelivery.objects.create(provider=name, body=text.replace("\0", ""), received_at=now)
        InboundEvent.objects.bulk_create(
            [
                InboundEvent(
                    provider=name,
                    delivery=delivery,
                    event_id=event.event_id[:200],
                    kind=event.kind[:100],
                    about=event.about[:200],
                    facts=dict(event.facts),
                    next_at=now,
                    received_at=now,
                )
                for event in events
            ],
            ignore_conflicts=True,
        )


def is_waiting() -> bool:
    """Whether some event is due to be looked at."""
    return InboundEvent.objects.filter(next_at__lte=timezone.now()).exists()


def hear_due() -> int:
    """Look at events that are due, for a while; how many. What the queue calls."""
    until, count = time.monotonic() + WORK_SECONDS, 0
    while time.monotonic() < until:
        taken = _take()
        if not taken:
            break
        for event in taken:
            hear(event)
            count += 1
    counting.write_down_when_due()
    return count


def hear(event: InboundEvent) -> None:
    """Have its provider take note of one event, and wake whoever waits for that."""
    event.tries += 1
    provider = sender(event.provider)
    try:
        heard = Heard(event_id=event.event_id, kind=event.kind, about=event.about, facts=event.facts)
        event.key = provider.hear(heard) if provider is not None else ""
        if event.key:
            settling.settle_key(event.key)
            mail_books.note_delivery(event.key, event.facts.get("delivery", ""), event.facts.get("reason", ""))
        event.message = ""
    except ProviderError as error:
        event.message = str(error)[:300]
    except Exception as error:  # an event that no adapter foresaw must not stand in the others' way
        log.exception("The event %s of %s could not be looked at.", event.event_id, event.provider)
        event.message = f"{type(error).__name__} while it was looked at; the log tells more."
    if event.key and not event.message:
        event.status, event.next_at = Status.HEARD, None
    elif event.tries > len(EARLY):
        event.status, event.next_at = Status.NOT_OURS, None
    else:
        event.next_at = timezone.now() + timedelta(seconds=EARLY[event.tries - 1])
    event.save(update_fields=["status", "key", "tries", "next_at", "message"])


def _take() -> list[InboundEvent]:
    """Due ones, for this worker alone until the lease is over."""
    now = timezone.now()
    with transaction.atomic():
        rows = InboundEvent.objects.filter(next_at__lte=now).order_by("next_at", "id")
        taken = list(rows.select_for_update(skip_locked=True)[:AT_A_TIME])
        InboundEvent.objects.filter(pk__in=[one.pk for one in taken]).update(next_at=now + LEASE)
    return taken
