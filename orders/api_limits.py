"""How often one caller may ask the API for anything, told on every answer: RateLimit and RateLimit-Policy.

Counted before anything else is looked at, in the site's cache: a row for each request would cost more than the answer.
So the count is each process's own unless CACHE_URL names a cache that all of them share, and then it is exact. While
that cache is away nobody is counted, nor turned away: a shop takes orders without its limits.

A key or a session is counted by itself once it has been found to be good. Until then its address is: whoever makes up
another key for each request would otherwise never be counted twice. Those that turn out to be no good are counted by
address once more, with a limit of their own, beyond which what is not known to be good is not even looked up.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from orders.api_errors import problem_answer
from orders.api_problems import PROBLEMS
from orders.rates import Rate
from sagas import counting

log = logging.getLogger(__name__)
REQUEST, FAILED = "request", "failed"
KNOWN_FOR = 86_400
"""Seconds. It gives a caller nothing but a count of their own."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """Where a caller stands."""

    name: str
    most: int
    window: int
    used: int
    seconds: int
    """Until the count begins anew."""

    @property
    def is_over(self) -> bool:
        return self.used > self.most

    @property
    def is_full(self) -> bool:
        return self.used >= self.most

    @property
    def words(self) -> str:
        """What to tell whoever is turned away."""
        why = "Your address has sent too many keys or sessions that open nothing. Check yours. "
        return f"{why if self.name == FAILED else ''}Ask again in {self.seconds} s."

    @property
    def policy(self) -> str:
        return f'"{self.name}";q={self.most};w={self.window}'

    @property
    def left(self) -> str:
        return f'"{self.name}";r={max(self.most - self.used, 0)};t={self.seconds}'


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, as far as the request itself tells. Hashed: what they show is a secret, and may be of any length."""

    address: str
    shown: str
    """The key or session; empty if there is none."""
    is_known: bool
    """It was found to be good lately."""

    @classmethod
    def of(cls, request: HttpRequest) -> Caller:
        address = _hashed(str(request.META.get(settings.CLIENT_ADDRESS, "")))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        # As it is read when it is checked: a key with another number of spaces before it is the same key.
        is_key = scheme.lower() == "bearer"
        what = f"key:{token.strip()}" if is_key else request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
        shown = _hashed(what) if what else ""
        return cls(address=address, shown=shown, is_known=bool(shown) and cache.get(f"api-known:{shown}") is not None)

    def counts(self) -> list[Count]:
        """One more request of theirs: where they stand, what turns them away first."""
        asked = _count(REQUEST, self.shown if self.is_known else self.address, settings.API_RATE)
        failed = None
        if self.shown and not self.is_known:
            failed = _count(FAILED, self.address, settings.API_FAILED_RATE, more=0)
        counts = [failed if failed is not None and failed.is_full else None, asked]
        return [count for count in counts if count is not None]


class ApiRateMiddleware(MiddlewareMixin):
    """Counts each request below /api/v1/, and turns away what is too much."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        if not request.path.startswith("/api/v1/"):
            return None
        with _done_without():
            caller = Caller.of(request)
            request.META |= {"API_CALLER": caller, "API_COUNTS": caller.counts()}
        for count in request.META.get("API_COUNTS", ()):
            if count.name == FAILED or count.is_over:
                counting.count("rate_limited_total", scope=count.name)
                answer = problem_answer(request, PROBLEMS["rate-limited"], count.words)
                answer.headers["Retry-After"] = str(count.seconds)
                return answer
        return None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        for count in request.META.get("API_COUNTS", ()):
            # An operation with a limit of its own has told of that; a list of both is what the headers are for.
            for name, value in (("RateLimit-Policy", count.policy), ("RateLimit", count.left)):
                own = response.headers.get(name)
                response.headers[name] = f"{own}, {value}" if own else value
        caller: Caller | None = request.META.get("API_CALLER")
        if caller is not None and caller.shown and response.status_code == HTTPStatus.UNAUTHORIZED:
            with _done_without():
                _count(FAILED, caller.address, settings.API_FAILED_RATE)
                if caller.is_known:  # a key that was revoked meanwhile, a session that is over
                    cache.delete(f"api-known:{caller.shown}")
        return response


def note_known(request: HttpRequest) -> None:
    """What the caller showed is good: from now on they are counted by it, and not by their address."""
    caller: Caller | None = request.META.get("API_CALLER")
    if caller is not None and caller.shown and not caller.is_known:
        with _done_without():
            cache.set(f"api-known:{caller.shown}", 1, timeout=KNOWN_FOR)


def _count(name: str, who: str, rate: Rate, *, more: int = 1) -> Count | None:
    """Where they stand after so many more of theirs; None if there is no limit."""
    if not rate.most:
        return None
    now = int(time.time())
    key = f"api-{name}:{now // rate.seconds}:{who}"
    if more:
        cache.add(key, 0, timeout=rate.seconds + 1)
        try:
            used = cache.incr(key, more)
        except ValueError:  # gone between the two lines: the cache is full, or away and back
            used = more
    else:
        used = cache.get(key, 0)
    return Count(name=name, most=rate.most, window=rate.seconds, used=used, seconds=rate.seconds - now % rate.seconds)


@contextmanager
def _done_without() -> Iterator[None]:
    """A cache that does not answer counts nobody; it is asked once a request, since each time may cost a second."""
    try:
        yield
    except Exception as error:  # each kind of cache has errors of its own
        log.warning("The cache does not answer, and requests to the API are not counted: %s", error)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
