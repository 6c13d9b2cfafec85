"""What the shop adds to the engine's metrics, and the page that tells them all: /metrics."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from django.conf import settings
from django.db.models import Count, F, Min, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from orders.models import Payment, ProviderHealth, StockItem, WebhookDelivery
from orders.provider_status import provider_statuses
from orders.roles import is_staff
from sagas.metrics import HELP as ENGINES_HELP
from sagas.metrics import Sample, as_text, engine_samples, gauge
from sagas.selectors import SagaRun

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_UNSETTLED = 10_000
HELP = {
    "http_request_duration_seconds": "How long it took until an answer began.",
    "http_requests_total": "Requests to pages and to the API, by the name of their address.",
    "idempotency_requests_total": "Requests with an Idempotency-Key: new, replayed, in_flight or a mismatch.",
    "provider_request_duration_seconds": "How long calls to providers of others took.",
    "provider_requests_total": "Calls to providers of others; postponed are those that were not made.",
    "rate_limited_total": "What was turned away because it came too often.",
    "webhook_deliveries_total": "Tries to deliver a webhook: delivered, to be tried again, or given_up.",
}
UNSETTLED = ("needs_attention", "abandoned")


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For a scraper with METRICS_TOKEN as its bearer token, and for staff. Others are told that there is nothing."""
    if not (_is_scraper(request) or is_staff(request.user)):
        return HttpResponse("There is nothing here for you.\n", status=404, content_type="text/plain")
    return HttpResponse(
        as_text([*engine_samples(help_of=ENGINES_HELP | HELP), *shop_samples()]), content_type=CONTENT_TYPE
    )


def shop_samples() -> Iterator[Sample]:
    """Money that waits for a person, webhooks, stock and providers."""
    # By number, or the database looks through all payments there ever were.
    unsettled = list(SagaRun.objects.in_states(*UNSETTLED).values_list("pk", flat=True)[:MOST_UNSETTLED])
    held = Payment.objects.filter(order__run_id__in=unsettled, charged__gt=F("refunded")).order_by()
    for currency, amount in held.values_list("currency").annotate(amount=Sum(F("charged") - F("refunded"))):
        words = "Charged for orders that need a person or were given up, and not given back."
        yield gauge("unreconciled_amount", float(amount), words, {"currency": currency})
    pending = WebhookDelivery.objects.filter(next_at__isnull=False)
    waits = pending.aggregate(count=Count("id"), oldest=Min("event__created_at"))
    age = (timezone.now() - waits["oldest"]).total_seconds() if waits["oldest"] else 0
    yield gauge("webhook_backlog", waits["count"], "Deliveries that are still to be made.")
    yield gauge("webhook_oldest_age_seconds", age, "Age of the event that has waited longest to be delivered.")
    units = StockItem.objects.aggregate(on_hand=Sum("on_hand"), reserved=Sum("allocated"))
    for kind, count in units.items():
        yield gauge("stock_units", count or 0, "Pieces of all products together.", {"kind": kind})
    open_now = set(ProviderHealth.objects.filter(opened_at__isnull=False).values_list("name", flat=True))
    for name in dict.fromkeys(status.name for status in provider_statuses()):
        words = "1: it is not called at present, because it failed too often."
        yield gauge("provider_circuit_open", name in open_now, words, {"provider": name})
    version = {"version": str(settings.SPECTACULAR_SETTINGS["VERSION"])}
    yield gauge("build_info", 1, "The API's version.", version)


def _is_scraper(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    wanted = settings.METRICS_TOKEN
    return bool(wanted) and scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), wanted.encode())
