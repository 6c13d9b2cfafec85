"""Limits on what one caller may do in a while. Counted in the database, so that all processes and hosts share a count.

A window begins with the first time and is over when its time is: within it, so many times and no more.
"""

from __future__ import annotations

import hashlib
import math
from datetime import timedelta
from typing import Protocol

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from orders.exceptions import TooOften
from orders.models import RateWindow
from sagas import counting


class Rate(Protocol):
    """So many times in so many seconds; `most` 0: no limit."""

    @property
    def most(self) -> int: ...
    @property
    def seconds(self) -> int: ...


def count(what: str, who: str, rate: Rate) -> None:
    """Count one more time. Raises TooOften, with the seconds to wait, when that is too many."""
    if not rate.most:
        return
    key, now = _key(what, who), timezone.now()
    over = now - timedelta(seconds=rate.seconds)
    if RateWindow.objects.filter(key=key, begins_at__gt=over, count__lt=rate.most).update(count=F("count") + 1):
        return
    try:
        with transaction.atomic():
            _, is_new = RateWindow.objects.get_or_create(key=key, defaults={"begins_at": now, "count": 1})
    except IntegrityError:  # somebody else was first by a hair: theirs is the window
        is_new = False
    if is_new or RateWindow.objects.filter(key=key, begins_at__lte=over).update(begins_at=now, count=1):
        return
    # The window may have been begun anew between our two looks.
    if not RateWindow.objects.filter(key=key, begins_at__gt=over, count__lt=rate.most).update(count=F("count") + 1):
        raise _too_often(what, key, rate)


def check(what: str, who: str, rate: Rate) -> None:
    """Raise TooOften if there have been too many already, and count nothing."""
    since = timezone.now() - timedelta(seconds=rate.seconds)
    key = _key(what, who)
    if rate.most and RateWindow.objects.filter(key=key, begins_at__gt=since, count__gte=rate.most).exists():
        raise _too_often(what, key, rate)


def left(what: str, who: str, rate: Rate) -> tuple[int, int]:
    """(how many more times, seconds until the count begins anew)."""
    since = timezone.now() - timedelta(seconds=rate.seconds)
    window = RateWindow.objects.filter(key=_key(what, who), begins_at__gt=since).first()
    if window is None:
        return rate.most, rate.seconds
    ends = window.begins_at + timedelta(seconds=rate.seconds) - timezone.now()
    return max(rate.most - window.count, 0), max(math.ceil(ends.total_seconds()), 1)


def forget(what: str, who: str) -> None:
    """Begin anew."""
    RateWindow.objects.filter(key=_key(what, who)).delete()


def _key(what: str, who: str) -> str:
    """Hashed: what people type into a login form may be their password, and may be of any length."""
    return f"{what}:{hashlib.sha256(who.encode(errors='replace')).hexdigest()}"


def _too_often(what: str, key: str, rate: Rate) -> TooOften:
    counting.count("rate_limited_total", scope=what)
    return TooOften(what, _wait(key, rate), most=rate.most, seconds=rate.seconds)


def _wait(key: str, rate: Rate) -> int:
    begun = RateWindow.objects.filter(key=key).values_list("begins_at", flat=True).first() or timezone.now()
    left = begun + timedelta(seconds=rate.seconds) - timezone.now()
    return max(math.ceil(left.total_seconds()), 1)
