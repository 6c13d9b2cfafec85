"""An order's events as they happen: text/event-stream, for servers that speak ASGI. Source: HTML Living Standard, 9.2.

Not an operation of the framework's, whose views are synchronous: a thread for each listener would be one too many.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from orders.api_auth import ApiKeyAuthentication
from orders.api_errors import Fault, found_in, problem_answer
from orders.api_follow_up import EventListApi
from orders.api_limits import note_known
from orders.api_problems import PROBLEMS
from orders.models import Scope
from orders.order_processing import ORDER_SAGA
from orders.selectors import orders_visible_to
from sagas.selectors import RunEvent, SagaRun, find_run

LOOK_EVERY = 1.0
SIGN_OF_LIFE_EVERY = 15.0
"""Seconds. Sooner than what stands between us takes a silent connection for a dead one."""
LONGEST = 600.0
"""Then it ends, and the listener comes again with its `Last-Event-ID`: to whichever server is there then."""
LARGEST_ID = 2**63 - 1


@csrf_exempt  # only looked at; whoever sends something else is told so as everywhere here
async def order_stream(request: HttpRequest, order_id: str) -> HttpResponseBase:
    """Every event of the order from `Last-Event-ID` on, then each as it happens; `event: end` when it is over."""
    if request.method != "GET":
        answer = problem_answer(request, PROBLEMS["method-not-allowed"])
        answer.headers["Allow"] = "GET"
        return answer
    # Before anything else is said: a stranger is told nothing, not even what this server can do.
    found = await sync_to_async(_run_of)(request, order_id)
    if not isinstance(found, SagaRun):
        return found
    if not isinstance(request, ASGIRequest):
        detail = "This server does not speak ASGI, and streams to nobody. Ask /events from time to time instead."
        return problem_answer(request, PROBLEMS["not-acceptable"], detail)
    if not request.accepts("text/event-stream"):
        return problem_answer(request, PROBLEMS["not-acceptable"], "This is text/event-stream and nothing else.")
    last = request.headers.get("Last-Event-ID", "0")
    if not (last.isascii() and last.isdigit() and int(last) <= LARGEST_ID):
        detail = f"{last[:40]!r} is no id of ours."
        faults = [Fault("Last-Event-ID:", "invalid", detail).as_json()]
        return problem_answer(request, PROBLEMS["validation-error"], detail, {"errors": faults})
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Authorization, Cookie"}
    return StreamingHttpResponse(_told(found, int(last)), content_type="text/event-stream", headers=headers)


async def _told(run: SagaRun, last: int) -> AsyncIterator[str]:
    began = spoken = time.monotonic()
    yield "retry: 2000\n\n"
    while time.monotonic() - began < LONGEST:
        rows, state, is_over = await sync_to_async(_next)(run, last)
        for row in rows:
            last = row["sequence"]
            yield f"id: {last}\nevent: {row['kind']}\ndata: {JSONRenderer().render(row).decode()}\n\n"
            spoken = time.monotonic()
        if is_over and not rows:
            yield f"event: end\ndata: {json.dumps({'state': state})}\n\n"
            return
        if time.monotonic() - spoken > SIGN_OF_LIFE_EVERY:
            yield ": still here\n\n"
            spoken = time.monotonic()
        await asyncio.sleep(0 if rows else LOOK_EVERY)


def _next(run: SagaRun, last: int) -> tuple[list[Any], str, bool]:
    """(the next events, the run's state, whether it is at its end). Looked up in this order: an end has all events."""
    state, ended_at = SagaRun.objects.filter(pk=run.pk).values_list("status", "ended_at").get()
    rows = list(RunEvent.objects.filter(run=run, id__gt=last).order_by("id")[:100])
    told = list(EventListApi.Event(rows, many=True).data)
    if not rows:
        connection.close()  # a thousand listeners who wait must not hold a thousand connections
    return told, state, ended_at is not None


def _run_of(request: HttpRequest, order_id: str) -> SagaRun | HttpResponse:
    """The run of the order, if whoever asks may know of it; else the problem to answer with."""
    try:
        found = ApiKeyAuthentication().authenticate(Request(request))
    except APIException as error:
        code, detail, more = found_in(error)
        return problem_answer(request, PROBLEMS[code], detail, more)
    user, key = found if found is not None else (request.user, None)
    if not user.is_authenticated:
        return problem_answer(request, PROBLEMS["unauthenticated"])
    note_known(request)
    if key is not None and Scope.ORDERS_READ not in key.scopes:
        return problem_answer(
            request, PROBLEMS["scope-missing"], f"This needs a key with the scope {Scope.ORDERS_READ}."
        )
    is_theirs = orders_visible_to(user).filter(order_id=order_id).exists()
    run = find_run(saga=ORDER_SAGA.name, business_key=order_id) if is_theirs else None
    return run or problem_answer(request, PROBLEMS["not-found"], f"There is no order {order_id}.")
