"""Requests that may be sent twice: `Idempotency-Key`.

    claim()   ── own transaction ──▶ a marker with a lease, or the answer given before
    the work  ── one transaction ──▶ what was asked for, and its answer in the marker's place

A crash before the second leaves a marker that frees itself when its lease has passed, and nothing else. A crash
after it leaves the answer, which the next try gets. There is no moment between the two.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from orders.api_auth import caller_of
from orders.api_errors import Fault, ProblemError
from orders.models import IdempotentRequest, User
from sagas import counting

LEASE = timedelta(seconds=60)
"""Longer than any request takes; a key whose worker died is free again after it."""
KEPT_FOR = timedelta(days=7)
"""How long an answer can be had again."""
FORGOTTEN_AT_A_TIME = 100
COUNTED = "idempotency_requests_total"
KEPT_HEADERS = ("Location", "Retry-After", "ETag")

KEY = re.compile(r"[\x21-\x7e]{1,255}")

KEY_PARAMETER = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x21-\\x7e]{1,255}$"},
    OpenApiParameter.HEADER,
    required=True,
    description="One per thing to be done, made up by you; the same one when you try again. Kept for 7 days.",
)
REPLAYED_PARAMETER = OpenApiParameter(
    "Idempotent-Replayed",
    {"type": "string", "enum": ["true"]},
    OpenApiParameter.HEADER,
    response=[202],
    description="Present on an answer that was given before.",
)


@dataclass(frozen=True)
class Claim:
    """The right to answer a key, as long as the fence is ours."""

    pk: int
    fence: int


@dataclass(frozen=True)
class Answer:
    """What is kept under a key and sent again."""

    status: int
    headers: Mapping[str, str]
    body: str

    def as_response(self, *, replayed: bool) -> Response:
        headers = {**self.headers, **({"Idempotent-Replayed": "true"} if replayed else {})}
        return Response(json.loads(self.body), status=self.status, headers=headers)


def once(request: Request, work: Callable[[], Response]) -> Response:
    """The answer of `work`, which is done once however often this request comes. A failure is not kept.

    Raises ProblemError for a missing or misused key. `work` runs in a transaction that also keeps its answer.
    """
    user, key = caller_of(request), key_in(request)
    try:
        claimed = claim(
            user=user, key=key, fingerprint=fingerprint_of(request), request_id=request.META.get("REQUEST_ID", "")
        )
    except ProblemError as error:
        counting.count(COUNTED, outcome="mismatch" if error.problem.code == "idempotency-mismatch" else "in_flight")
        raise
    if isinstance(claimed, Answer):
        counting.count(COUNTED, outcome="replayed")
        return claimed.as_response(replayed=True)
    try:
        with transaction.atomic():
            response = work()
            answer = Answer(
                status=response.status_code,
                headers={name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
                body=JSONRenderer().render(response.data).decode(),
            )
            keep(claimed, answer)
    except BaseException:
        # Should the database be away, the lease frees the key a little later.
        with suppress(DatabaseError):
            let_go(claimed)
        raise
    counting.count(COUNTED, outcome="new")
    if claimed.pk % FORGOTTEN_AT_A_TIME == 0:
        forget_old()
    return answer.as_response(replayed=False)


def key_in(request: Request) -> str:
    """The key. Raises ProblemError."""
    key = request.headers.get("Idempotency-Key")
    if not key:
        raise ProblemError("idempotency-key-missing")
    if not KEY.fullmatch(key):
        detail = "An Idempotency-Key has 1 to 255 visible ASCII characters."
        raise ProblemError("validation-error", detail, faults=[Fault("Idempotency-Key:", "invalid", detail)])
    return key


def fingerprint_of(request: Request) -> str:
    """Method, path and body as one hash: blanks and the order of members make no difference."""
    text = json.dumps([request.method, request.path, request.data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def claim(*, user: User, key: str, fingerprint: str, request_id: str = "") -> Claim | Answer:
    """Take the key, or find what was answered. Commits by itself, so that a second request sees it at once.

    Raises ProblemError if the key is under way or was used for something else.
    """
    now = timezone.now()
    try:
        with transaction.atomic():
            row = IdempotentRequest.objects.create(
                user=user,
                key=key,
                request_id=request_id,
                fingerprint=fingerprint,
                lease_until=now + LEASE,
                created_at=now,
            )
        return Claim(row.pk, row.fence)
    except IntegrityError:
        known = IdempotentRequest.objects.filter(user=user, key=key).first()
    if known is None:  # let go in this very moment
        raise ProblemError("idempotency-in-progress", retry_after=1)
    if known.fingerprint != fingerprint:
        raise ProblemError("idempotency-mismatch")
    if known.answered_at is not None:
        return Answer(known.status or 0, known.headers, known.body)
    if known.is_held(now):
        raise ProblemError("idempotency-in-progress", retry_after=1)
    # Its worker died. Of all who see that, one raises the fence.
    mine = IdempotentRequest.objects.filter(pk=known.pk, fence=known.fence, answered_at__isnull=True)
    if not mine.update(fence=known.fence + 1, lease_until=now + LEASE, request_id=request_id):
        raise ProblemError("idempotency-in-progress", retry_after=1)
    return Claim(known.pk, known.fence + 1)


def keep(claimed: Claim, answer: Answer) -> None:
    """Put the answer in the marker's place. Call it in the transaction of the work.

    Raises ProblemError, and so undoes the work, if the lease passed meanwhile and somebody else took over.
    """
    held = IdempotentRequest.objects.filter(pk=claimed.pk, fence=claimed.fence, answered_at__isnull=True)
    if not held.update(
        answered_at=timezone.now(), status=answer.status, headers=dict(answer.headers), body=answer.body
    ):
        raise ProblemError("idempotency-in-progress", retry_after=1)


def amend(*, user: User, key: str, body: str) -> None:
    """Keep a later body under the key: the one that was really sent, after a wait the caller asked for."""
    IdempotentRequest.objects.filter(user=user, key=key, answered_at__isnull=False).update(body=body)


def let_go(claimed: Claim) -> None:
    """Free a key whose work failed: nothing was done, so that it may be tried again at once."""
    IdempotentRequest.objects.filter(pk=claimed.pk, fence=claimed.fence, answered_at__isnull=True).delete()


def forget_old() -> int:
    """Delete a handful of what has been kept long enough: (how many). A little now and then, never much at once."""
    now = timezone.now()
    old = IdempotentRequest.objects.filter(Q(created_at__lt=now - KEPT_FOR), Q(lease_until__lt=now))
    ids = list(old.order_by("created_at").values_list("pk", flat=True)[:FORGOTTEN_AT_A_TIME])
    return IdempotentRequest.objects.filter(pk__in=ids).delete()[0] if ids else 0
