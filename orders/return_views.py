"""Where a gateway sends customers back to: /paid/<provider>."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET

from orders import inbound, settling
from orders.models import PaymentOperation
from orders.providers.errors import ProviderError
from orders.selectors import orders_visible_to


@require_GET
def come_back(request: HttpRequest, provider: str) -> HttpResponse:
    """Have the payment looked at now, without waiting for a webhook; then the order's page for whom it is there, and
    orders/paid.html for everybody else. What the address says is not believed."""
    known = inbound.taker_back(provider)
    if known is None:
        raise Http404
    key = ""
    try:
        key = known.come_back({name: str(value) for name, value in request.GET.items()})
        if key:
            settling.settle_key(key)
    except ProviderError:
        pass  # it is asked after all the same, a little later
    operation = PaymentOperation.objects.filter(key=key).select_related("payment__order").first() if key else None
    if operation is not None:
        order = operation.payment.order
        if orders_visible_to(request.user).filter(pk=order.pk).exists():
            return redirect("order_detail", order.order_id)
    return render(request, "orders/paid.html", {"section": ""})
