"""Where providers send their webhooks: /webhooks/<provider>."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from orders import inbound
from orders.providers.base import BadSignature
from orders.providers.errors import ProviderError

LARGEST = 2 * 1024 * 1024
"""Bytes of a delivery, which may have many events in it: SendGrid's grow to 768 KiB, and a message of SNS' has 256 KiB
before it is written as JSON. All else that is sent to us is held to settings.DATA_UPLOAD_MAX_MEMORY_SIZE."""


@csrf_exempt
@require_POST
def receive(request: HttpRequest, provider: str) -> HttpResponse:
    """200 once it is stored, with the words that Adyen wants; 400 for what the provider has not signed.

    Who asks wrongly learns nothing of why, and nothing is stored.
    """
    status, words = received(request, provider)
    return HttpResponse(words, status=status, content_type="text/plain")


def received(request: HttpRequest, provider: str) -> tuple[int, str]:
    """(status, words) to answer a delivery with, which is stored if it is signed."""
    known = inbound.sender(provider)
    if known is None:
        return 404, "No such provider sends webhooks here."
    if int(request.META.get("CONTENT_LENGTH") or 0) > LARGEST:
        return 413, f"A delivery has {LARGEST} bytes at the most."
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = request.read(LARGEST + 1)
    if len(body) > LARGEST:
        return 413, f"A delivery has {LARGEST} bytes at the most."
    try:
        inbound.store(provider, known, headers, body)
    except BadSignature:
        return 400, "This is not signed as it should be."
    except ProviderError:
        # Whether it is signed could not be found out: it will be sent again.
        return 503, "The signature cannot be checked just now."
    return 200, "[accepted]"
