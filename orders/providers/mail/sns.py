"""Amazon SNS, by which SES tells what became of a mail: whether a message is Amazon's, and what is in it.

Source: AWS, "Verifying the signatures of Amazon SNS messages". The certificate is fetched from Amazon's own hosts only.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from orders.providers.base import BadSignature
from orders.providers.errors import Unavailable

HOST = re.compile(r"sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
SIGNED: Mapping[str, tuple[str, ...]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (*("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),),
}
"""What is signed of each kind, in this order; Subject only where there is one."""
HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {"1": hashes.SHA1, "2": hashes.SHA256}
LARGEST_CERTIFICATE = 64 * 1024
SECONDS = 10


def read(body: bytes, *, topic: str, fetch: Callable[[str], bytes]) -> dict[str, Any]:
    """The message, if Amazon signed it for our topic. Raises BadSignature."""
    try:
        message: dict[str, Any] = json.loads(body)
        names = SIGNED[message["Type"]]
        if not topic or message["TopicArn"] != topic:
            raise BadSignature("It is of another topic.")
        certificate = message["SigningCertURL"]
        if not is_amazons(certificate):
            raise BadSignature("The certificate is not Amazon's.")
        signed = "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None)
        key = x509.load_pem_x509_certificate(fetch(certificate)).public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise BadSignature("The certificate has no RSA key.")
        how = HASHES[str(message["SignatureVersion"])]()
        key.verify(base64.b64decode(message["Signature"]), signed.encode(), padding.PKCS1v15(), how)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature) as error:
        raise BadSignature("Amazon did not sign this.") from error
    return message


def is_amazons(url: str) -> bool:
    """Whether an address is one of SNS': nothing else is ever called because a message says so."""
    where = urlsplit(url)
    return where.scheme == "https" and bool(HOST.fullmatch(where.netloc))


def get(url: str) -> bytes:
    """What is at one of SNS' addresses. Raises Unavailable."""
    try:
        with httpx.stream("GET", url, timeout=SECONDS, follow_redirects=False) as answer:
            answer.raise_for_status()
            found = b""
            for part in answer.iter_bytes():
                found += part
                if len(found) > LARGEST_CERTIFICATE:
                    raise httpx.ReadError("More than a certificate.")
            return found
    except httpx.HTTPError as error:
        raise Unavailable(
            f"Amazon SNS cannot be asked ({type(error).__name__}).", provider="ses", operation="read_webhook"
        ) from error
