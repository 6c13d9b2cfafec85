"""What the shop has to say on the health page: its providers' breakers, and what waits to be told by webhook."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from orders.models import WebhookDelivery
from orders.provider_status import ProviderStatus, provider_statuses
from sagas.health import FAILING, OK, WARNING, Line

LATE_AFTER = timedelta(minutes=15)


def lines(now: datetime) -> Iterator[Line]:
    """One for the providers' settings and breakers, one for webhooks."""
    yield _providers([one for one in provider_statuses() if one.state != "well"])
    yield _webhooks(now)


def _providers(ill: list[ProviderStatus]) -> Line:
    if not ill:
        return Line(name="providers", title="Providers", state=OK, text="all are asked")
    text = "; ".join(f"{one.name} is {one.state}" for one in ill)
    state = WARNING if all(one.state == "failing" for one in ill) else FAILING
    since = min((one.opened_at for one in ill if one.opened_at is not None), default=None)
    return Line(name="providers", title="Providers", state=state, text=text, since=since)


def _webhooks(now: datetime) -> Line:
    waiting = WebhookDelivery.objects.filter(next_at__isnull=False)
    oldest = waiting.order_by("next_at").values_list("next_at", flat=True).first()
    count = waiting.count()
    text = f"{count} to be sent" if count else "nothing waits to be sent"
    is_late = oldest is not None and now - oldest > LATE_AFTER
    return Line(
        name="webhooks",
        title="Webhooks",
        state=WARNING if is_late else OK,
        text=text,
        since=oldest if is_late else None,
    )
