"""Calls over HTTP, and what their failures mean: the one place where that is decided for every adapter.

What was certainly not sent is Unavailable; what was sent and not answered is OutcomeUnknown, unless it only reads.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from weakref import WeakSet

import httpx
from django.conf import settings
from django.utils import timezone

from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from sagas import traces

# Its own log tells each address that is called, and an address may hold a key or a customer's e-mail.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)

CONNECT_SECONDS = 5.0
LONGEST_SAID = 300
LARGEST_ANSWER = 8 * 1024 * 1024
"""Bytes. Labels are some hundred thousand; more than this is no answer, and would be kept in memory."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)
BAD_CREDENTIALS = frozenset({401, 403})
NOT_JUDGED = frozenset({407, 408, 421, 425})
"""Who answers so has not looked at what was asked: a proxy, or a server that had no time."""
LONGEST_RETRY_AFTER = timedelta(days=1)


_pools: WeakSet[Http] = WeakSet()


def close_all() -> None:
    """Let go of every provider's connections."""
    for one in list(_pools):
        one.close()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, whatever its status; `said` is its JSON if that is an object, or {} where there was none."""

    status: int
    said: Any
    headers: httpx.Headers

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Http:
    """One provider's connections: a pool for the whole process, for all its threads."""

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        seconds: float,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | tuple[str, str] | None = None,
    ) -> None:
        self.provider = provider
        self._seconds = seconds
        self._client = httpx.Client(
            base_url=base_url,
            headers=dict(headers or {}),
            auth=auth,
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
            follow_redirects=False,  # a key is not sent on to wherever an answer points
        )
        _pools.add(self)

    def ask(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        form: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        reads: bool | None = None,
    ) -> Answer:
        """One call, and no second one. `reads`: it changes nothing there; GET does not, unless it is said.

        Raises Unavailable (no connection, 401, 403, 429) and OutcomeUnknown (no answer, 5xx, an answer that is none:
        a page, a redirect, one without an end). Any other status is the caller's to judge.
        """
        harmless = method == "GET" if reads is None else reads
        asked = self._client.build_request(
            method, path, json=json, content=content, data=form, params=params, headers=headers
        )
        try:
            response, said = self._sent(operation, asked)
        except NOT_SENT as error:
            raise self._away(operation, f"It cannot be reached ({type(error).__name__}).") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._open(
                operation, harmless, f"It was asked and gave no answer ({type(error).__name__})."
            ) from error
        status = response.status_code
        if status in BAD_CREDENTIALS:
            raise self._away(operation, f"It does not accept our credentials ({status}).", code="credentials")
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise self._away(operation, "It wants fewer calls (429).", code="too_many", after=_retry_after(response))
        if status < 200 or 300 <= status < 400 or status in NOT_JUDGED:
            raise self._open(operation, harmless, f"It gave no answer, but {status}.", _retry_after(response))
        if status >= 500:
            raise self._open(operation, harmless, f"It failed while it was at it ({status}).", _retry_after(response))
        return Answer(status=status, said=said, headers=response.headers)

    def _sent(self, operation: str, asked: httpx.Request) -> tuple[httpx.Response, Any]:
        # Of the address only the host: behind it may stand a key or a customer's e-mail.
        told = {"http.request.method": asked.method, "server.address": asked.url.host}
        with traces.calling(f"{self.provider} {operation}", told) as span:
            traceparent = traces.outgoing() if self.provider in settings.TRACEPARENT_TO else ""
            if traceparent:
                asked.headers[traces.HEADER] = traceparent
            response = self._client.send(asked, stream=True)
            try:
                traces.answered(span, response.status_code)
                return response, _said(response, _read(response, until=time.monotonic() + self._seconds))
            finally:
                response.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def declined(self, operation: str, message: str, code: str, *, provider_id: str = "") -> Declined:
        """A no, in words fit for people."""
        return Declined(
            shortened(message), provider=self.provider, operation=operation, code=code[:100], provider_id=provider_id
        )

    def unknown(self, operation: str, message: str, code: str = "") -> OutcomeUnknown:
        return OutcomeUnknown(shortened(message), provider=self.provider, operation=operation, code=code)

    def away(self, operation: str, message: str, code: str = "") -> Unavailable:
        return Unavailable(shortened(message), provider=self.provider, operation=operation, code=code)

    def _away(self, operation: str, message: str, *, code: str = "", after: timedelta | None = None) -> ProviderError:
        return Unavailable(message, provider=self.provider, operation=operation, code=code, retry_after=after)

    def _open(self, operation: str, harmless: bool, message: str, after: timedelta | None = None) -> ProviderError:
        kind = Unavailable if harmless else OutcomeUnknown
        return kind(message, provider=self.provider, operation=operation, retry_after=after)


class ClientCredentials(httpx.Auth):
    """OAuth 2.0 by client credentials: a token for the whole process, fetched when needed, renewed once on a 401.

    `fetch` returns (token, seconds it is good for). Fetching sends nothing of ours, so its failures are Unavailable.
    """

    def __init__(self, fetch: Callable[[], tuple[str, float]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self._current()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            request.headers["Authorization"] = f"Bearer {self._current(instead_of=token)}"
            yield request

    def _current(self, instead_of: str = "") -> str:
        with self._lock:
            if not self._token or self._token == instead_of or self._clock() >= self._until:
                self._token, seconds = self._fetch()
                # A minute before its time: a token that ends on the way is a call that was made for nothing.
                self._until = self._clock() + max(seconds - 60, 0)
            return self._token


def fetch_token(
    http: Http, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> tuple[str, float]:
    """A token by the ordinary OAuth call. Raises Unavailable."""
    answer = http.ask("token", "POST", path, form=form, headers=headers, reads=True)
    if not answer.is_good or "access_token" not in answer.said:
        raise http.away("token", f"It gave no access token ({answer.status}).", "credentials")
    try:
        seconds = float(answer.said["expires_in"])
    except (KeyError, TypeError, ValueError):
        seconds = 600.0  # it does not say for how long: nothing was asked for yet, and a 401 has it renewed
    return str(answer.said["access_token"]), seconds


def number_of(said: Any, name: str) -> str:
    """A number or name there. ValueError if that is nothing of the kind: it would be kept, and asked for later."""
    found = said[name]
    if isinstance(found, bool) or not isinstance(found, str | int) or not str(found).strip():
        raise ValueError(f"The {name} of an answer is missing.")
    return str(found)


def shortened(text: str) -> str:
    """A foreign sentence, as much of it as is kept, on one line."""
    return " ".join(str(text).split())[:LONGEST_SAID]


def _read(response: httpx.Response, *, until: float) -> bytes:
    """All of an answer, within its time and size: the client's own timeout begins anew with every byte."""
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > LARGEST_ANSWER:
            raise httpx.ReadError(f"An answer of more than {LARGEST_ANSWER} bytes.")
        if time.monotonic() > until:
            raise httpx.ReadTimeout("An answer that did not come to its end in time.")
        parts.append(part)
    return b"".join(parts)


def _said(response: httpx.Response, content: bytes) -> Any:
    """The JSON object of an answer. ValueError for a good one that holds something else, and for a page."""
    if not content.strip():
        return {}
    if "html" in response.headers.get("Content-Type", ""):
        # Whoever stands before the API answers with pages; what became of the call is not in them.
        raise ValueError("A page instead of an answer.")
    try:
        said = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError):
        if response.is_success:
            raise
        return {}
    if not isinstance(said, dict):
        if response.is_success:
            raise ValueError("An answer that is no object.")
        return {}
    return said


def _retry_after(response: httpx.Response) -> timedelta | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(timedelta(seconds=min(int(value), 10**6)), LONGEST_RETRY_AFTER)
    try:
        wait = parsedate_to_datetime(value) - timezone.now()
    except (ValueError, TypeError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_RETRY_AFTER)
