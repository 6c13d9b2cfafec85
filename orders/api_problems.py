"""The problems the API can answer with, one entry a code. Each has a page of its own, at the address in its `type`."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from django.conf import settings
from django.urls import reverse


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of problem, told for whoever meets it."""

    code: str
    status: HTTPStatus
    title: str
    cause: str
    remedy: str
    retryable: bool = False
    """The same request, sent again later, may succeed."""

    @property
    def type(self) -> str:
        """Where it is explained. From the site's own address, so that it is the same under every name."""
        return settings.SITE_URL + reverse("api-problem", kwargs={"slug": self.code})


PROBLEMS = {
    problem.code: problem
    for problem in [
        Problem(
            code="validation-error",
            status=HTTPStatus.BAD_REQUEST,
            title="Something in the request is not as it should be",
            cause="A member of the body, a parameter or a header is missing, unknown, of another type or out of range. "
            "Nothing was stored.",
            remedy="`errors` names every place and what is wrong with it. Mend them and send it again; the same "
            "Idempotency-Key may be used, since a faulty request is not kept under it.",
        ),
        Problem(
            code="malformed-json",
            status=HTTPStatus.BAD_REQUEST,
            title="The body is not JSON",
            cause="The body could not be read as one JSON object in UTF-8: a syntax error, a member given twice, NaN, "
            "a number beyond all measure, or nesting too deep.",
            remedy='Send what a JSON library writes. Amounts are safest as text: "99.99".',
        ),
        Problem(
            code="bad-request",
            status=HTTPStatus.BAD_REQUEST,
            title="The request makes no sense",
            cause="The request itself is damaged or looks like an attack; no operation was reached.",
            remedy="Compare it with the examples in the documentation.",
        ),
        Problem(
            code="idempotency-key-missing",
            status=HTTPStatus.BAD_REQUEST,
            title="This operation needs an Idempotency-Key",
            cause="Without a key we could not tell a second try from a second order.",
            remedy="Make up a key per order, a UUID for example, send it as `Idempotency-Key`, and send the same one "
            "when you try again.",
        ),
        Problem(
            code="malformed-cursor",
            status=HTTPStatus.BAD_REQUEST,
            title="The cursor is not one of ours",
            cause="`cursor` was changed on its way, or is of another list.",
            remedy="Follow `next` and `previous` as they are, or begin again without a cursor.",
        ),
        Problem(
            code="unauthenticated",
            status=HTTPStatus.UNAUTHORIZED,
            title="Who is calling?",
            cause="There was no API key and no session, or the key is unknown, revoked or expired, or its user is "
            "inactive.",
            remedy="Send `Authorization: Bearer osk_…` with a live key.",
        ),
        Problem(
            code="scope-missing",
            status=HTTPStatus.FORBIDDEN,
            title="The key may not do this",
            cause="The API key is valid and lacks the scope that this operation needs.",
            remedy="Use a key with the scope named in `detail`.",
        ),
        Problem(
            code="forbidden",
            status=HTTPStatus.FORBIDDEN,
            title="You may not do this",
            cause="The caller's role does not allow it, or a request by session came without its CSRF token.",
            remedy="Ask somebody whose role allows it. From a page, send the token as `X-CSRFToken`.",
        ),
        Problem(
            code="not-found",
            status=HTTPStatus.NOT_FOUND,
            title="There is no such thing here",
            cause="The address is wrong, or what it names does not exist or is not yours: we do not tell which.",
            remedy="Check the address and the key it was asked with.",
        ),
        Problem(
            code="method-not-allowed",
            status=HTTPStatus.METHOD_NOT_ALLOWED,
            title="Not with this method",
            cause="The address exists and does not know this method.",
            remedy="`Allow` lists the methods it knows.",
        ),
        Problem(
            code="not-acceptable",
            status=HTTPStatus.NOT_ACCEPTABLE,
            title="We cannot answer in that format",
            cause="`Accept` names formats that this operation does not have.",
            remedy="Accept application/json.",
        ),
        Problem(
            code="state-conflict",
            status=HTTPStatus.CONFLICT,
            title="Not in the state it is in",
            cause="What was asked makes no sense in the current state; nothing was changed.",
            remedy="`state` says how it stands and `possible` what can be done instead.",
        ),
        Problem(
            code="order-conflict",
            status=HTTPStatus.CONFLICT,
            title="The order number belongs to another order",
            cause="An order of this number was placed before, with other contents or by somebody else.",
            remedy="Use a new number, or none: then we make one. `errors` names what differs.",
        ),
        Problem(
            code="idempotency-in-progress",
            status=HTTPStatus.CONFLICT,
            title="The first request with this key is still under way",
            cause="Two requests with the same Idempotency-Key overlap.",
            remedy="Wait as long as `Retry-After` says and send it again: you get the first one's answer.",
            retryable=True,
        ),
        Problem(
            code="length-required",
            status=HTTPStatus.LENGTH_REQUIRED,
            title="How long is the body?",
            cause="The body came in chunks, without a Content-Length.",
            remedy="Send it in one piece, with its length.",
        ),
        Problem(
            code="version-mismatch",
            status=HTTPStatus.PRECONDITION_FAILED,
            title="It has changed since you looked",
            cause="`If-Match` holds another ETag than what is there now has. Nothing was changed.",
            remedy="Look at it again, and send the request with the new ETag if it still makes sense.",
        ),
        Problem(
            code="version-required",
            status=HTTPStatus.PRECONDITION_REQUIRED,
            title="Which version did you look at?",
            cause="Somebody else may have changed meanwhile what you are about to change or to act on.",
            remedy="Send the `ETag` of what you looked at as `If-Match`, or `*` to act on it however it is now.",
        ),
        Problem(
            code="selection-changed",
            status=HTTPStatus.CONFLICT,
            title="Other runs are meant now than in the dry run",
            cause="The `token` of a dry run stands for exactly the runs it counted, and since then others fit.",
            remedy="Do the dry run again, look at what it says, and send its token.",
        ),
        Problem(
            code="payload-too-large",
            status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            title="The body is too large",
            cause=f"A body has at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE:,} bytes.",
            remedy="Split it. An order of a hundred lines is a tenth of that.",
        ),
        Problem(
            code="unsupported-media-type",
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            title="We cannot read that format",
            cause="Bodies are JSON in UTF-8.",
            remedy="Send `Content-Type: application/json`.",
        ),
        Problem(
            code="idempotency-mismatch",
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
            title="This Idempotency-Key was used for something else",
            cause="The key was sent before with another body or to another address.",
            remedy="Use a new key for a new request, and the old one only to repeat the old request.",
        ),
        Problem(
            code="rate-limited",
            status=HTTPStatus.TOO_MANY_REQUESTS,
            title="Too often",
            cause="This caller has asked, or has placed orders, as often as it may in a while, or its address has sent "
            "too many keys that are none. Nothing was stored.",
            remedy="Wait as long as `Retry-After` says and send it again, with the same Idempotency-Key.",
            retryable=True,
        ),
        Problem(
            code="internal",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
            title="A mistake of ours",
            cause="Something failed that should not have. It has been logged under `request_id`.",
            remedy="Try again with the same Idempotency-Key: if it was done after all, you get its answer.",
            retryable=True,
        ),
        Problem(
            code="overloaded",
            status=HTTPStatus.SERVICE_UNAVAILABLE,
            title="Not now",
            cause="The database is away or too busy.",
            remedy="Try again after `Retry-After`, with the same Idempotency-Key.",
            retryable=True,
        ),
    ]
}
