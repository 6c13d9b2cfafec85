"""What the OpenAPI document says of what is no operation of the framework's.

An order's stream, what providers send, and what we send ourselves: webhooks. Source: OpenAPI 3.1, "webhooks".
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from orders.webhooks.outbox import TEST, TYPES

Data = dict[str, Any]
Place = tuple[str, str]
"""(path, method)"""

TEXT: Data = {"type": "string"}
WHEN = {
    "order.created": "An order was placed",
    "order.completed": "Every step of an order is done",
    "order.compensating": "An order is being undone",
    "order.compensated": "Everything that was done of an order is undone",
    "order.needs_attention": "An order waits for one of our people",
    "order.step.completed": "A step of an order is done",
    "order.step.failed": "A step turned an order back",
    "refund.completed": "The money went back",
    "refund.failed": "The money could not go back, and a person takes care of it",
    TEST: "A message to try an endpoint with",
}

MESSAGE: Data = {
    "type": "object",
    "description": "What happened to an order: ids, the state at that moment, and where to look.",
    "properties": {
        "type": {"$ref": "#/components/schemas/WebhookEventType"},
        "timestamp": {"type": "string", "format": "date-time", "description": "When it happened."},
        "data": {
            "type": "object",
            "properties": {
                "order_id": {"type": "string", "examples": ["ORD-123"]},
                "state": {"$ref": "#/components/schemas/RunState"},
                "step": {"type": ["string", "null"], "description": "With `order.step.…`: its name."},
                "sequence": {"type": "integer", "description": "Grows with time: what has a lower one is older."},
                "url": {"type": "string", "format": "uri", "description": "The order, to be looked at now."},
            },
            "required": ["order_id", "state", "step", "sequence", "url"],
        },
    },
    "required": ["type", "timestamp", "data"],
}
TEST_MESSAGE: Data = {
    "type": "object",
    "description": "It tells of nothing.",
    "properties": {
        "type": {"const": TEST},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": {"type": "object"},
    },
    "required": ["type", "timestamp", "data"],
}
SIGNED = [
    {"in": "header", "name": name, "required": True, "description": words, "schema": TEXT}
    for name, words in (
        ("webhook-id", "The same for every try: what came before is no news."),
        ("webhook-timestamp", "Of this try, in seconds since 1970. Refuse what is older than five minutes."),
        ("webhook-signature", "`v1,` and an HMAC-SHA256 in base64; during a rotation two, parted by a space."),
    )
]

STREAM: Data = {
    "operationId": "stream_order_events",
    "summary": "What happens to an order, as it happens",
    "description": "All events there are, or those after `Last-Event-ID`, then each within a second of its happening, "
    "then `event: end`. Each has its `sequence` as `id` and an `OrderEvent` as `data`. Only servers that "
    "speak ASGI have it; others answer 406.",
    "tags": ["Orders"],
    "security": [{"apiKey": ["orders:read"]}, {"cookieAuth": []}],
    "parameters": [
        {
            "in": "path",
            "name": "order_id",
            "required": True,
            "description": "The order's number.",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,40}$", "examples": ["ORD-123"]},
        },
        {
            "in": "header",
            "name": "Last-Event-ID",
            "description": "The last `id` that was read: go on after it.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
    ],
    "responses": {
        "200": {
            "description": "Events, until the order is at its end or ten minutes are over.",
            "content": {
                "text/event-stream": {
                    "schema": TEXT,
                    "example": 'id: 17\nevent: completed\ndata: {"sequence":17,"kind":"completed",…}\n\n',
                }
            },
        }
    },
}
CALLBACK: Data = {
    "operationId": "receive_provider_callback",
    "summary": "What a provider sends",
    "description": "For providers, not for clients: the same as `/webhooks/{provider}`, for shops that let nothing but "
    "the API through. The body is the provider's own, and so are its headers and signature.",
    "tags": ["Providers"],
    "security": [{}],
    "parameters": [
        {
            "in": "path",
            "name": "provider",
            "required": True,
            "description": "As the settings name it.",
            "schema": {"type": "string", "examples": ["stripe"]},
        }
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
    "responses": {
        "200": {
            "description": "It is stored, also when it comes again.",
            "content": {"text/plain": {"schema": TEXT, "example": "[accepted]"}},
        }
    },
}
ALWAYS = {
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.UNAUTHORIZED,
}
OPERATIONS: dict[Place, tuple[Data, set[HTTPStatus]]] = {
    ("/api/v1/orders/{order_id}/stream", "get"): (
        STREAM,
        ALWAYS | {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_ACCEPTABLE},
    ),
    ("/api/v1/provider-callbacks/{provider}", "post"): (CALLBACK, ALWAYS | {HTTPStatus.REQUEST_ENTITY_TOO_LARGE}),
}
"""With the problems that each may answer with."""


def webhooks() -> Data:
    """What we send, by type."""
    return {one: {"post": _sent(one)} for one in (*TYPES, TEST)}


def _sent(type_: str) -> Data:
    message: Data = {"$ref": "#/components/schemas/WebhookMessage", "properties": {"type": {"const": type_}}}
    schema = TEST_MESSAGE if type_ == TEST else message
    return {
        "operationId": f"on_{type_.replace('.', '_')}",
        "summary": WHEN[type_],
        "tags": ["Webhooks"],
        "security": [{}],
        "parameters": SIGNED,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "2XX": {"description": "It is yours. Answer within 15 seconds, and do the work afterwards."},
            "410": {"description": "You want no more: the endpoint is switched off."},
            "default": {"description": "It is sent again, for three days."},
        },
    }
