"""The label of a parcel, for whoever packs it."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.http import content_disposition_header
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from orders.roles import is_staff
from orders.selectors import label_to_print
from orders.views import storable

SHUT_IN = "sandbox; default-src 'none'"


@never_cache
@require_GET
@login_required
def order_label(request: HttpRequest, order_id: str) -> HttpResponse:
    """A file to save, and none that a browser would open on this site: a carrier wrote it. For staff."""
    if not is_staff(request.user):
        raise Http404
    label = label_to_print(storable(order_id))
    if label is None or not label.media_type:
        raise Http404
    name = f"label-{order_id}.{label.kind}"
    return HttpResponse(
        bytes(label.content),
        content_type=label.media_type,
        headers={
            "Content-Disposition": content_disposition_header(True, name) or "attachment",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": SHUT_IN,
        },
    )
