"""How often one caller may ask the API for anything, told on every answer: RateLimit and RateLimit-Policy.

Counted before anything else is looked at, in the site's cache: a row for each request would cost more than the answer.
So the count is each process's own unless CACHE_URL names a cache that all of them share, and then it is exact. While
that cache is away nobody is counted, nor turned away: a shop takes orders without its limits.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from orders.api_errors import problem_answer
from orders.api_problems import PROBLEMS

log = logging.getLogger(__name__)
NAME = "request"


@dataclass(frozen=True, kw_only=True)
class Count:
    """Where a caller stands."""

    most: int
    window: int
    used: int
    seconds: int
    """Until the count begins anew."""

    @property
    def is_over(self) -> bool:
        return self.used > self.most

    @property
    def policy(self) -> str:
        return f'"{NAME}";q={self.most};w={self.window}'

    @property
    def left(self) -> str:
        return f'"{NAME}";r={max(self.most - self.used, 0)};t={self.seconds}'


class ApiRateMiddleware(MiddlewareMixin):
    """Counts each request below /api/v1/, and turns away what is too much."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        rate = settings.API_RATE
        if not rate.most or not request.path.startswith("/api/v1/"):
            return None
        count = _counted(_caller(request), rate.most, rate.seconds)
        if count is None:
            return None
        request.META["API_COUNT"] = count
        if not count.is_over:
            return None
        answer = problem_answer(request, PROBLEMS["rate-limited"], f"Ask again in {count.seconds} s.")
        answer.headers["Retry-After"] = str(count.seconds)
        return answer

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        count: Count | None = request.META.get("API_COUNT")
        if count is not None:
            # An operation with a limit of its own has told of that; a list of both is what the headers are for.
            for name, value in (("RateLimit-Policy", count.policy), ("RateLimit", count.left)):
                own = response.headers.get(name)
                response.headers[name] = f"{own}, {value}" if own else value
        return response


def _caller(request: HttpRequest) -> str:
    """Whose requests are counted together: by what they show of themselves, which is not checked yet, else where
    they come from. Hashed, because it is a secret."""
    shown = request.headers.get("Authorization") or request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    who = shown or request.META.get(settings.CLIENT_ADDRESS, "")
    return hashlib.sha256(who.encode(errors="replace")).hexdigest()


def _counted(who: str, most: int, window: int) -> Count | None:
    """One more of theirs; None if the cache does not answer."""
    now = int(time.time())
    key = f"api-rate:{now // window}:{who}"
    try:
        cache.add(key, 0, timeout=window + 1)
        used = cache.incr(key)
    except ValueError:  # gone between the two lines: the cache is full, or away and back
        used = 1
    except Exception as error:  # each kind of cache has errors of its own
        log.warning("The cache does not answer, and requests to the API are not counted: %s", error)
        return None
    return Count(most=most, window=window, used=used, seconds=window - now % window)
