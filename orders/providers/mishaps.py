"""Counting the failures that a sandbox makes on purpose, across processes."""

from __future__ import annotations

from django.db.models import F

from orders.models import SandboxMishap


def first_times(key: str, times: int) -> bool:
    """Whether this is one of the first `times` calls under that key; counts the call."""
    SandboxMishap.objects.get_or_create(key=key)
    return bool(SandboxMishap.objects.filter(key=key, count__lt=times).update(count=F("count") + 1))
