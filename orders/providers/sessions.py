"""Connections for the SDKs that call by `requests`: one pool for all threads, no redirects, nothing without an end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from orders.providers.http import LARGEST_ANSWER
from sagas import traces

# At DEBUG they tell what is sent: a card's token, a customer's address, at Amazon a signature too.
for name in ("stripe", "urllib3", "botocore", "boto3", "s3transfer"):
    logging.getLogger(name).setLevel(logging.WARNING)

NOT_SENT = (NewConnectionError, ConnectTimeoutError, NameResolutionError, requests.exceptions.ConnectTimeout)
CHUNK = 64 * 1024


class Session(requests.Session):
    """As many connections as a worker has threads. `seconds` is the end of an answer, and not only of its next byte."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=64, max_retries=0))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        host = urlsplit(request.url or "").hostname or ""
        told = {"http.request.method": request.method or "", "server.address": host}
        with traces.calling(f"{request.method} {host}", told) as span:
            response = self._answered(request, **kwargs)
            traces.answered(span, response.status_code)
            return response

    def _answered(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        until = time.monotonic() + self._seconds
        # A key is not sent on to wherever an answer points.
        response = super().send(request, **{**kwargs, "stream": True, "allow_redirects": False})
        parts, size = [], 0
        for part in response.iter_content(CHUNK):
            size += len(part)
            if size > LARGEST_ANSWER or time.monotonic() > until:
                response.close()
                raise requests.exceptions.ReadTimeout("An answer that did not come to its end.", request=request)
            parts.append(part)
        response._content = b"".join(parts)
        return response


def was_not_sent(error: BaseException) -> bool:
    """Whether no connection was made at all, as far as the error and what it came from tell."""
    return any(isinstance(one, NOT_SENT) for one in _origins(error))


def _origins(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    ahead: list[Any] = [error]
    while ahead:
        one = ahead.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            # urllib3 keeps the reason beside the error, requests among its arguments.
            ahead += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
