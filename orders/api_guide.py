"""What the API's front page shows: five minutes from a key to a checked webhook. Tests do all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt

from orders.api_errors import problem_answer
from orders.api_problems import PROBLEMS
from orders.models import Scope
from orders.webhooks.outbox import TYPES
from sagas.states import RunStatus

STATES = {
    RunStatus.PENDING: "stored, and no worker has looked at it yet",
    RunStatus.RUNNING: "under way",
    RunStatus.RETRYING: "under way; the last try failed, and the next has a time",
    RunStatus.COMPENSATING: "turned back: what was done is being undone",
    RunStatus.COMPLETED: "every step is done; may be cancelled until the parcel is handed over",
    RunStatus.COMPENSATED: "everything that was done is undone",
    RunStatus.NEEDS_ATTENTION: "waits for a person",
    RunStatus.ABANDONED: "given up by a person, with a reason",
}


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One thing to do."""

    title: str
    words: str
    line: str
    answer: str
    """The status line, and what is worth looking at."""


ORDER = (
    '{"order_id": "GUIDE-1", "items": [{"sku": "ITEM-001", "quantity": 1}], "email": "you@example.com", '
    '"shipping_address": {"name": "You", "line1": "Torstraße 1", "city": "Berlin", "postcode": "10115", '
    '"country": "DE"}, "payment": {"token": "tok_declined"}}'
)
LESSONS = (
    Lesson(
        title="Place an order that will fail",
        words="Its card is declined. Idempotency-Key makes a second try safe: sent again, it is the same order and the "
        "same answer. Prefer waits, up to five seconds, for the order's end.",
        line='curl -i "$API/orders" -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" '
        f"""-H "Idempotency-Key: guide-1" -H "Prefer: wait=5" -d '{ORDER}'""",
        answer="202",
    ),
    Lesson(
        title="Watch it being undone",
        words="That is no error of the request but an ordinary end: failure says at which step and why, and each step "
        "has its undo beside it. The stock that was reserved is free again.",
        line='curl -i "$API/orders/GUIDE-1" -H "Authorization: Bearer $KEY"',
        answer="200",
    ),
    Lesson(
        title="See what happened, in its order",
        words="As a list here; as it happens at /stream, where the server speaks ASGI; and as webhooks.",
        line='curl -i "$API/orders/GUIDE-1/events" -H "Authorization: Bearer $KEY"',
        answer="200",
    ),
    Lesson(
        title="Be told of it",
        words="The answer has a secret, this once. Keep it: with it you check that a message is ours.",
        line='curl -i "$API/webhook-endpoints" -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" '
        """-d '{"url": "'$HOOKS'", "events": ["order.completed", "order.compensated"]}'""",
        answer="201",
    ),
)

VERIFY = '''\
import base64, hashlib, hmac, time

def is_ours(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Whether a message is from the shop, whole, and not older than five minutes."""
    stamp = headers["webhook-timestamp"]
    if abs(time.time() - int(stamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(wanted, one) for one in headers["webhook-signature"].split())
'''
CLIENTS = (
    ("Python", "openapi-python-client generate --url $API/schema"),
    ("TypeScript", "npx openapi-typescript $API/schema --output schema.d.ts"),
)


def looked_at(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A page that is only looked at. Any other method is answered as everywhere below /api/v1/, by a problem."""

    @csrf_exempt  # there is nothing to protect, and Django's page about it would come before the problem
    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request)
        refused = problem_answer(request, PROBLEMS["method-not-allowed"])
        refused.headers["Allow"] = "GET, HEAD"
        return refused

    return answer


@looked_at
@cache_control(public=True, max_age=300)
def guide(request: HttpRequest) -> HttpResponse:
    """The API's front page: the same for everybody."""
    told = {
        "lessons": LESSONS,
        "verify": VERIFY,
        "clients": CLIENTS,
        "states": [(state.value, words) for state, words in STATES.items()],
        "problems": sorted(PROBLEMS.values(), key=lambda problem: (problem.status, problem.code)),
        "scopes": list(Scope),
        "types": TYPES,
        "address": request.build_absolute_uri("/api/v1"),
    }
    return render(request, "orders/api_guide.html", told)


@looked_at
@cache_control(public=True, max_age=300)
def problem_list(request: HttpRequest) -> HttpResponse:
    """Every problem that the API answers with."""
    problems = sorted(PROBLEMS.values(), key=lambda problem: (problem.status, problem.code))
    return render(request, "orders/api_problems.html", {"problems": problems})
