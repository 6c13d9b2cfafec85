"""Making, finding and revoking API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.utils import timezone

from orders.models import ApiKey, Scope, User
from orders.models.api_key import TOKEN_START

PREFIX_LENGTH = 12
TOKEN = re.compile(rf"{TOKEN_START}([0-9a-f]{{{PREFIX_LENGTH}}})_([0-9a-f]{{64}})")

USE_NOTED_EVERY = timedelta(minutes=1)
"""A write for each request would cost more than the answer, and nobody needs the second."""


class KeyNameTaken(ValueError):
    """Another key, live or revoked, has this name already."""


class UnknownScope(ValueError):
    """There is no such scope."""


def create_key(
    *,
    user: User,
    name: str,
    scopes: Iterable[str] = (Scope.ORDERS_READ, Scope.ORDERS_WRITE),
    expires_at: datetime | None = None,
    created_by: str = "engine",
) -> tuple[ApiKey, str]:
    """A new key and its text, which is shown now and never again. Raises KeyNameTaken, UnknownScope."""
    wanted = sorted({str(scope) for scope in scopes})
    unknown = [scope for scope in wanted if scope not in set(Scope)]
    if unknown or not wanted:
        known = ", ".join(scope.value for scope in Scope)
        raise UnknownScope(f"There is no scope {', '.join(unknown) or 'given'}; there are {known}.")
    if ApiKey.objects.filter(name=name).exists():
        raise KeyNameTaken(f"There is a key named {name} already. Names stay taken: the history uses them.")
    prefix, secret = secrets.token_hex(PREFIX_LENGTH // 2), secrets.token_hex(32)
    key = ApiKey.objects.create(
        user=user,
        name=name,
        prefix=prefix,
        secret_hash=hash_of(secret),
        scopes=wanted,
        created_at=timezone.now(),
        created_by=created_by,
        expires_at=expires_at,
    )
    return key, f"{TOKEN_START}{prefix}_{secret}"


def revoke_key(*, name: str) -> ApiKey:
    """From now on the key opens nothing. Twice is once. Raises ApiKey.DoesNotExist."""
    ApiKey.objects.filter(name=name, revoked_at__isnull=True).update(revoked_at=timezone.now())
    return ApiKey.objects.get(name=name)


def key_of(token: str) -> ApiKey | None:
    """The key that this text is, live or not; None if it is none of ours."""
    parts = TOKEN.fullmatch(token)
    if parts is None:
        return None
    key = ApiKey.objects.select_related("user").filter(prefix=parts[1]).first()
    # Compared in constant time: how far a guess got is not told by how long the answer took.
    if key is None or not hmac.compare_digest(key.secret_hash, hash_of(parts[2])):
        return None
    return key


def note_use(key: ApiKey, *, now: datetime) -> None:
    """Remember that the key was used, to the minute."""
    if key.last_used_at is None or now - key.last_used_at >= USE_NOTED_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)


def hash_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
