"""Signatures by which a receiver knows that a message is ours, whole and new. Source: Standard Webhooks 1.0."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime

SECRET_START = "whsec_"  # noqa: S105  (not a secret: it lets scanners find secrets that were committed by mistake)


def new_secret() -> str:
    return SECRET_START + base64.b64encode(secrets.token_bytes(32)).decode()


def headers_for(message_id: str, at: datetime, body: bytes, known: Iterable[str]) -> dict[str, str]:
    """The headers of a message; signed with each of the secrets, so that a rotation drops none."""
    timestamp = str(int(at.timestamp()))
    signed = [signature(secret, message_id, timestamp, body) for secret in known]
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signed)}


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of id, timestamp and body in base64."""
    key = base64.b64decode(secret.removeprefix(SECRET_START))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
