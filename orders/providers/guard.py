"""Between the shop and a provider that is somebody else's: limits on calls, and a circuit breaker.

Both are counted in the database, so that all workers see the same. A call that is not made is Postponed, which costs a
step none of its tries: a provider that is down makes runs wait. After a while one call, and one only, is let through to
find out whether it is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from orders import rates
from orders.exceptions import TooOften
from orders.models import ProviderHealth, ProviderSlot
from orders.providers.errors import NOT_SEEN, Declined, OutcomeUnknown, Postponed, ProviderError, Unavailable
from orders.providers.ledger import own_commit
from sagas import counting, tallies
from sagas.barrier import insert_missing

log = logging.getLogger(__name__)
UNGUARDED = frozenset({"read_webhook", "hear", "come_back", "check", "close"})
"""What asks nothing of the provider, or is asked by a person who wants to know."""
NOT_ITS_FAULT = frozenset({"busy", "still_processing", "locked", NOT_SEEN})
"""Codes of a provider that answers, and is at this very thing just now or does not show it."""
OUTCOMES: dict[type[ProviderError], str] = {
    Postponed: "postponed",
    Declined: "refused",
    Unavailable: "unavailable",
    OutcomeUnknown: "unknown",
}
"""In the words of attempts; the first that fits."""
FAILURES_TO_OPEN = 5
FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=5)
TRIAL = timedelta(seconds=60)
"""Longer than any call takes: a trial whose caller died is made again after it."""
SLOT = timedelta(seconds=60)
SHORT = timedelta(seconds=1)


class Limit(Protocol):
    """So many calls in so many seconds, and so many at once; 0: as many as come."""

    @property
    def most(self) -> int: ...
    @property
    def seconds(self) -> int: ...
    @property
    def at_once(self) -> int: ...


class Guarded:
    """A provider whose calls are counted and, while it is down, not made."""

    def __init__(self, name: str, provider: Any) -> None:
        self._name = name
        self._provider = provider

    def __getattr__(self, operation: str) -> Any:
        inner: Callable[..., Any] = getattr(self._provider, operation)
        if operation in UNGUARDED or not callable(inner):
            return inner

        def call(*args: Any, **kwargs: Any) -> Any:
            with _told(self._name, operation), _admitted(self._name, operation):
                return inner(*args, **kwargs)

        return call


@contextmanager
def _told(name: str, operation: str) -> Iterator[None]:
    """How calls go, for the metrics. One that was not made took no time of the provider's."""
    began, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "succeeded"
    except ProviderError as error:
        outcome = next((word for kind, word in OUTCOMES.items() if isinstance(error, kind)), outcome)
        raise
    finally:
        counting.count("provider_requests_total", provider=name, operation=operation, outcome=outcome)
        if outcome != OUTCOMES[Postponed]:
            took = time.perf_counter() - began
            counting.observe(
                "provider_request_duration_seconds", took, tallies.ATTEMPT_BOUNDS, provider=name, operation=operation
            )


@contextmanager
def _admitted(name: str, operation: str) -> Iterator[None]:
    health = ProviderHealth.objects.filter(name=name).first()
    if health is not None and health.opened_at is not None:
        _take_trial(health, operation)
    with _slot(name, operation):
        _count(name, operation)
        try:
            yield
        except Declined:
            _is_well(health)
            raise
        except (Unavailable, OutcomeUnknown) as error:
            if error.code in NOT_ITS_FAULT:
                _is_well(health)
            elif not isinstance(error, Postponed):
                _has_failed(name, error)
            raise
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            # The answer has another shape than it should: it came, so that something may well have happened.
            log.exception("An answer of %s to %s cannot be read.", name, operation)
            unread = OutcomeUnknown(
                f"It was asked, and its answer cannot be read ({type(error).__name__}).",
                provider=name,
                operation=operation,
                code="unreadable",
            )
            _has_failed(name, unread)
            raise unread from error
        _is_well(health)


def _take_trial(health: ProviderHealth, operation: str) -> None:
    """The right to be the one call that tries. Raises Postponed for everybody else."""
    now: datetime = timezone.now()
    due: datetime = health.trial_at or now
    if now >= due:
        with own_commit():
            ours = ProviderHealth.objects.filter(pk=health.pk, trial_at=health.trial_at)
            if ours.update(trial_at=now + TRIAL):
                return
        due = now + SHORT
    raise Postponed(
        f"It is not asked before {timezone.localtime(due):%H:%M:%S}, since it fails: {health.last_error}",
        provider=health.name,
        operation=operation,
        code="circuit_open",
        retry_after=max(due - now, SHORT),
    )


def _is_well(health: ProviderHealth | None) -> None:
    if health is not None and (health.failures or health.opened_at):
        with own_commit():
            ProviderHealth.objects.filter(pk=health.pk).update(
                failures=0, opened_at=None, trial_at=None, trials=0, updated_at=timezone.now()
            )


def _has_failed(name: str, error: ProviderError) -> None:
    now, said = timezone.now(), f"{error.operation}: {error.message}"[:300]
    with own_commit():
        insert_missing(ProviderHealth(name=name))
        row = ProviderHealth.objects.filter(name=name)
        row.update(failures=F("failures") + 1, last_error=said, updated_at=now)
        health = row.get()
        if health.opened_at is not None:
            row.update(trials=F("trials") + 1, trial_at=now + max(_wait(health.trials + 1), error.retry_after or SHORT))
        elif health.failures >= FAILURES_TO_OPEN:
            row.update(opened_at=now, trials=0, trial_at=now + max(_wait(0), error.retry_after or SHORT))


def _wait(trials: int) -> timedelta:
    return min(FIRST_WAIT * int(2 ** min(trials, 10)), LONGEST_WAIT)


def close(name: str) -> bool:
    """Somebody says that it is well again: the next call is made. False: it was not known to be ill."""
    return bool(
        ProviderHealth.objects.filter(name=name, opened_at__isnull=False).update(
            failures=0, opened_at=None, trial_at=None, trials=0, updated_at=timezone.now()
        )
    )


def limit_of(name: str) -> Limit | None:
    """From settings.PROVIDER_LIMITS; None: there is none."""
    return cast("Limit | None", settings.PROVIDER_LIMITS.get(name))


def _count(name: str, operation: str) -> None:
    limit = limit_of(name)
    if limit is None:
        return
    try:
        rates.count("provider", name, limit)
    except TooOften as error:
        raise Postponed(
            f"Its limit of {limit.most} calls in {limit.seconds} s is reached.",
            provider=name,
            operation=operation,
            code="rate_limit",
            retry_after=timedelta(seconds=error.retry_after),
        ) from error


@contextmanager
def _slot(name: str, operation: str) -> Iterator[None]:
    """One of the places for calls at once, where there is a limit."""
    limit = limit_of(name)
    most = limit.at_once if limit is not None else 0
    if not most:
        yield
        return
    taken = _take_slot(name, most)
    if taken is None:
        raise Postponed(
            f"{most} calls are under way, which is its limit.",
            provider=name,
            operation=operation,
            code="too_many_at_once",
            retry_after=SHORT,
        )
    pk, until = taken
    try:
        yield
    finally:
        ProviderSlot.objects.filter(pk=pk, taken_until=until).update(taken_until=None)


def _take_slot(name: str, most: int) -> tuple[int, datetime] | None:
    now = timezone.now()
    known = ProviderSlot.objects.filter(name=name, number__lte=most)
    if known.count() < most:
        with own_commit():
            for number in range(1, most + 1):
                insert_missing(ProviderSlot(name=name, number=number))
    free = Q(taken_until__isnull=True) | Q(taken_until__lt=now)
    for pk in list(known.filter(free).values_list("pk", flat=True)):
        with own_commit():
            if ProviderSlot.objects.filter(free, pk=pk).update(taken_until=now + SLOT):
                return pk, now + SLOT
    return None
