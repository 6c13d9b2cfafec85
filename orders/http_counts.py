"""Counts requests over HTTP and how long they took: by the name of the address, method and kind of answer."""

from __future__ import annotations

import time

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from sagas import counting

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NOWHERE = "none"
"""No page was reached: a file, an address that is none, a request that was turned away before."""
OTHER = "other"
"""A method that somebody made up."""


class HttpCountsMiddleware(MiddlewareMixin):
    """Until the answer begins: what a stream sends later does not count."""

    def process_request(self, request: HttpRequest) -> None:
        request.META["BEGAN_AT"] = time.perf_counter()

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        # The name, of which there are as many as pages; of addresses there is no end.
        labels = {
            "route": request.resolver_match.view_name if request.resolver_match else NOWHERE,
            "method": request.method if request.method and request.method in METHODS else OTHER,
            "status": f"{response.status_code // 100}xx",
        }
        counting.count("http_requests_total", **labels)
        counting.observe(
            "http_request_duration_seconds", time.perf_counter() - request.META["BEGAN_AT"], BOUNDS, **labels
        )
        return response
