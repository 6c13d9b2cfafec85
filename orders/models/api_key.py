"""Keys with which programs call the API in a user's name. The key itself is never stored, only what recognises it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import F, Q

TOKEN_START = "osk_"  # noqa: S105  (not a secret: it lets scanners find keys that were committed by mistake)


class Scope(StrEnum):
    """What a key may do, within what its user may."""

    ORDERS_READ = "orders:read"  # see orders
    ORDERS_WRITE = "orders:write"  # place, cancel and tag them
    RUNS_READ = "runs:read"  # see runs, for staff
    RUNS_ACT = "runs:act"  # retry, skip, resolve, for staff
    WEBHOOKS_MANAGE = "webhooks:manage"  # see and change endpoints of the same user, and what was sent to them
    KEYS_MANAGE = "keys:manage"  # see, make and revoke keys of the same user


class ApiKey(models.Model):
    """One key of one user. Shown once when made; found by its prefix, proved by the hash of its secret."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16)
    """The public part, the same in the key and here: lists and logs show it."""
    secret_hash = models.CharField(max_length=64)
    """SHA-256 in hex. The secret has 256 random bits, so that nothing slower is needed against guessing."""
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150, default="engine")
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        constraints = [
            models.UniqueConstraint(fields=["prefix"], name="orders_api_key_prefix_once"),
            models.UniqueConstraint(fields=["secret_hash"], name="orders_api_key_secret_once"),
            # The history says "key:<name>". A name used twice, also after a revocation, would make it ambiguous.
            models.UniqueConstraint(fields=["name"], name="orders_api_key_name_once"),
            models.CheckConstraint(condition=~Q(name=""), name="orders_api_key_has_name"),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("created_at")),
                name="orders_api_key_expires_after_creation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({TOKEN_START}{self.prefix}…)"

    @property
    def actor(self) -> str:
        """How the history names whoever calls with this key."""
        return f"key:{self.name}"

    def is_live(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
