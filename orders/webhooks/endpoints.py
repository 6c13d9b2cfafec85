"""What people do to endpoints and deliveries. Nobody is told anything they could not look up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from orders.exceptions import EndpointOff, FieldError, InvalidOrder
from orders.models import User, WebhookDelivery, WebhookEndpoint, WebhookEvent
from orders.webhooks.outbox import TEST, TYPES
from orders.webhooks.sending import BadAddress, check_url
from orders.webhooks.signing import new_secret

OLD_SECRET_FOR = timedelta(hours=24)
MOST_ENDPOINTS = 20
"""Of one user."""


def create(*, user: User, url: str, events: Iterable[str] = ()) -> WebhookEndpoint:
    """A new endpoint, with its secret. Raises InvalidOrder naming the field."""
    wanted = _checked(url, events)
    if WebhookEndpoint.objects.filter(user=user, deleted_at__isnull=True).count() >= MOST_ENDPOINTS:
        raise _fault("url", "too_many", f"You have {MOST_ENDPOINTS} endpoints. Delete one first.")
    return WebhookEndpoint.objects.create(
        user=user, url=url, events=wanted, secret=new_secret(), created_at=timezone.now()
    )


def change(
    endpoint: WebhookEndpoint,
    *,
    url: str | None = None,
    events: Iterable[str] | None = None,
    active: bool | None = None,
    by: str = "its owner",
) -> WebhookEndpoint:
    """Another address, other events, on or off. Raises InvalidOrder naming the field."""
    wanted = _checked(url or endpoint.url, endpoint.events if events is None else events)
    endpoint.url, endpoint.events = url or endpoint.url, wanted
    if active is not None:
        endpoint.is_active = active
        endpoint.disabled_reason = "" if active else f"Switched off by {by}."
    endpoint.save(update_fields=["url", "events", "is_active", "disabled_reason"])
    return endpoint


def delete(endpoint: WebhookEndpoint) -> None:
    """Nothing more is sent there. What was sent stays on record."""
    endpoint.is_active, endpoint.deleted_at = False, timezone.now()
    endpoint.disabled_reason = "Deleted by its owner."
    endpoint.save(update_fields=["is_active", "deleted_at", "disabled_reason"])


def rotate(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """A new secret; the old one signs too for a day, so that a receiver may change over in its own time."""
    endpoint.old_secret, endpoint.old_secret_until = endpoint.secret, timezone.now() + OLD_SECRET_FOR
    endpoint.secret = new_secret()
    endpoint.save(update_fields=["secret", "old_secret", "old_secret_until"])
    return endpoint


@transaction.atomic
def send_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """A message that tells of nothing, to this endpoint alone. Raises EndpointOff."""
    _check_on(endpoint)
    now = timezone.now()
    event = WebhookEvent.objects.create(type=TEST, endpoint=endpoint, is_spread=True, created_at=now)
    return WebhookDelivery.objects.create(endpoint=endpoint, event=event, next_at=now)


def redeliver(delivery: WebhookDelivery) -> WebhookDelivery:
    """Send it again now, under the same id, with all its tries before it. One that waits is sent sooner.

    Raises EndpointOff: it would wait unsent for as long as nobody looks.
    """
    _check_on(delivery.endpoint)
    delivery.status, delivery.next_at, delivery.attempts = WebhookDelivery.Status.PENDING, timezone.now(), 0
    delivery.save(update_fields=["status", "next_at", "attempts"])
    return delivery


def _check_on(endpoint: WebhookEndpoint) -> None:
    if not endpoint.is_active:
        raise EndpointOff(endpoint.pk, endpoint.disabled_reason)


def _checked(url: str, events: Iterable[str]) -> list[str]:
    try:
        check_url(url)
    except BadAddress as error:
        raise _fault("url", "bad_address", str(error)) from error
    wanted = sorted(set(events))
    unknown = [one for one in wanted if one not in TYPES]
    if unknown:
        raise _fault("events", "unknown", f"There is no event {unknown[0][:50]}; there are {', '.join(TYPES)}.")
    return wanted


def _fault(field: str, code: str, message: str) -> InvalidOrder:
    return InvalidOrder([FieldError(field=field, code=code, message=message)])
