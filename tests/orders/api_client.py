"""A caller of the API, as programs are: JSON in and out, with a key."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.test import Client

from orders.api_keys import create_key
from orders.api_problems import PROBLEMS
from orders.models import ApiKey, IdempotentRequest, Order, Scope, User
from sagas.models import SagaRun

ORDERS = "/api/v1/orders"

PROBLEM_MEMBERS = {
    "type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "errors",
}  # fmt: skip


def order_body(**changes: Any) -> dict[str, Any]:
    """The README's order as the API takes it; None leaves a member out."""
    body = {
        "order_id": "ORD-123",
        "user_id": "USER-456",
        "items": [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 1}],
        "total_amount": {"amount": "99.99", "currency": "EUR"},
        "email": "ada@example.com",
        "shipping_address": {
            "name": "Ada Pereira",
            "line1": "Torstraße 1",
            "city": "Berlin",
            "postcode": "10115",
            "country": "DE",
        },
        "payment": {"token": "tok_visa"},
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


class Caller:
    """Calls with one key. `post` makes up an Idempotency-Key unless it is given one, and acts on whatever is there."""

    def __init__(self, token: str = "", key: ApiKey | None = None) -> None:
        self.client = Client()
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.key = key

    def get(self, path: str, query: dict[str, Any] | None = None, **headers: str) -> Any:
        return self.client.get(path, query, headers=self.named(headers))

    def post(self, path: str, body: Any, **headers: str) -> Any:
        given = {"Idempotency_Key": str(uuid.uuid4()), "If_Match": "*", **headers}
        content = body if isinstance(body, str | bytes) else json.dumps(body, separators=(",", ":"))
        kind = given.pop("content_type", "application/json")
        return self.client.post(path, content, content_type=kind, headers=self.named(given))

    def named(self, headers: dict[str, str]) -> dict[str, str]:
        """Headers by Python names: Idempotency_Key, If_None_Match. An empty one is not sent."""
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        return {**self.headers, **given}


def make_caller(user: User, *scopes: Scope, name: str = "") -> Caller:
    """A caller with a new key of `user`, for everything unless scopes are named."""
    key, token = create_key(user=user, name=name or f"{user.username}'s key", scopes=scopes or tuple(Scope))
    return Caller(token, key)


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem in an answer, checked to be whole."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    body: dict[str, Any] = response.json()
    assert body.keys() >= PROBLEM_MEMBERS
    assert (body["status"], body["code"], body["title"]) == (status, code, PROBLEMS[code].title)
    assert body["type"] == f"http://testserver/api/v1/problems/{code}"
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert response.headers["Cache-Control"] == "no-store"
    return body


def faults(response: Any) -> list[tuple[str, str]]:
    """What a 400 complains of: (pointer, code)."""
    return [(item["pointer"], item["code"]) for item in problem(response, 400, "validation-error")["errors"]]


def nothing_is_stored() -> bool:
    return not (Order.objects.exists() or SagaRun.objects.exists() or IdempotentRequest.objects.exists())
