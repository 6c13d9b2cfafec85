"""Our keys in the forms that outside systems take: each limits their length, and some their letters.

A key reads `<run>:<step>:<direction>`, 65 characters for a refund. What is made of it is the same at every attempt.
"""

from __future__ import annotations

import hashlib
import uuid

from django.conf import settings

OURS = uuid.UUID("6f1d2c1e-5a2b-5d0e-9f0a-3c1f6a7b8d90")


def as_uuid(key: str, part: str = "") -> str:
    """36 characters: fits Stripe (255), PayPal (108), Adyen (64) and DHL (36). `part` tells calls of one key apart."""
    return str(uuid.uuid5(OURS, f"{key}#{part}" if part else key))


def as_hex(key: str, length: int = 32) -> str:
    """Up to 32 of 0-9 and A-F: for fields without hyphens, like UPS' transId (32), Oracle's demand source (30)."""
    return hashlib.sha256(key.encode()).hexdigest()[:length].upper()


def return_address(provider: str) -> str:
    """Where a gateway sends customers back to: see orders/return_views.py."""
    return f"{settings.SITE_URL}/paid/{provider}"
