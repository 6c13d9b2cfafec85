"""Plays Stripe: payment intents, refunds, idempotency keys and signed webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from typing import Any
from urllib.parse import parse_qsl

from tests.doubles.descriptions import Description
from tests.doubles.server import Call, Double, Reply

SPEC = Description("stripe/openapi.payment_intents_refunds.json")
KEY, WEBHOOK_SECRET = "sk_test_double", "whsec_double"
DECLINED = {"pm_declined": "generic_decline", "pm_insufficient": "insufficient_funds"}
FORM = "application/x-www-form-urlencoded"


class StripeDouble(Double):
    """Statuses move as Stripe's do: `settle` plays the customer and their bank."""

    def __init__(self) -> None:
        super().__init__()
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, tuple[str, Reply]] = {}
        self.slow_refunds = False

    @property
    def taken(self) -> int:
        """In cents, less what went back."""
        taken = sum(int(one["amount"]) for one in self.intents.values() if one["status"] == "succeeded")
        return taken - sum(int(one["amount"]) for one in self.refunds.values() if one["status"] != "failed")

    def check(self, call: Call, address: str, reply: Reply | None = None) -> list[str]:
        """Its bodies are forms with brackets, which openapi-core cannot read: they are held against the schema."""
        if reply is not None or call.method != "POST":
            return []
        self.compared += 1
        path = re.sub(r"/(pi|re)_\w+", lambda found: "/{intent}" if found[1] == "pi" else "/{refund}", call.path)
        return [f"{call.path}: {one}" for one in SPEC.schema_faults(path, "post", FORM, typed(form_of(call)))]

    def answer(self, call: Call) -> Reply:
        if call.headers.get("Authorization") != f"Bearer {KEY}":
            return _error(401, "invalid_request_error", "Invalid API Key provided.")
        key = call.headers.get("Idempotency-Key", "")
        digest = hashlib.sha256(call.path.encode() + call.body).hexdigest()
        if call.method == "POST" and key in self.keys:
            known, reply = self.keys[key]
            if known != digest:
                return _error(400, "idempotency_error", "Keys for idempotent requests can only be used for the same.")
            return reply
        reply = self._act(call)
        if call.method == "POST" and key:
            self.keys[key] = (digest, reply)
        return reply

    def said_when_ill(self, status: int) -> Any:
        return {"error": {"type": "api_error", "message": "Something is wrong."}}

    def settle(self, intent: str, status: str = "succeeded") -> None:
        """What was under way has come to this."""
        with self.lock:
            self.intents[intent]["status"] = status

    def signed(
        self, kind: str, thing: str, event_id: str = "evt_1", secret: str = WEBHOOK_SECRET
    ) -> tuple[bytes, dict[str, str]]:
        """(body, headers) of a webhook about an intent or a refund."""
        made = self.intents.get(thing) or self.refunds[thing]
        body = json.dumps({"id": event_id, "object": "event", "type": kind, "data": {"object": made}}).encode()
        now = int(time.time())
        mac = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
        return body, {"stripe-signature": f"t={now},v1={mac}"}

    def _act(self, call: Call) -> Reply:
        parts = call.path.strip("/").split("/")[1:]
        form = nested(form_of(call))
        if parts[0] == "refunds":
            return self._refund(call, form, parts[1] if len(parts) > 1 else "")
        if len(parts) == 1 and call.method == "GET":
            return Reply(
                said={"object": "list", "data": list(self.intents.values())[:1], "has_more": False, "url": "/"}
            )
        if len(parts) == 1:
            return self._create(form)
        intent = self.intents.get(parts[1])
        if intent is None:
            return _error(404, "invalid_request_error", "No such payment_intent", code="resource_missing")
        act = parts[2] if len(parts) > 2 else "get"
        return getattr(self, f"_{act}")(intent)  # type: ignore[no-any-return]

    def _create(self, form: dict[str, Any]) -> Reply:
        number = f"pi_{len(self.intents) + 1:06}"
        self.intents[number] = {
            "id": number,
            "object": "payment_intent",
            "amount": int(form["amount"]),
            "currency": form["currency"],
            "capture_method": form.get("capture_method", "automatic"),
            "payment_method": form["payment_method"],
            "metadata": form.get("metadata", {}),
            "status": "requires_confirmation",
            "last_payment_error": None,
            "next_action": None,
        }
        return Reply(said=self.intents[number])

    def _get(self, intent: dict[str, Any]) -> Reply:
        return Reply(said=intent)

    def _confirm(self, intent: dict[str, Any]) -> Reply:
        if intent["status"] != "requires_confirmation":
            return _unexpected(intent)
        method = intent["payment_method"]
        if method in DECLINED:
            error = {"type": "card_error", "code": "card_declined", "decline_code": DECLINED[method]}
            error["message"] = "Your card was declined."
            intent["status"], intent["last_payment_error"] = "requires_payment_method", error
            return Reply(status=402, said={"error": {**error, "payment_intent": intent}})
        if method == "pm_3ds":
            intent["status"] = "requires_action"
            url = "https://hooks.stripe.test/3ds"
            intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"url": url}}
        elif method == "pm_slow":
            intent["status"] = "processing"
        else:
            intent["status"] = "requires_capture" if intent["capture_method"] == "manual" else "succeeded"
        return Reply(said=intent)

    def _capture(self, intent: dict[str, Any]) -> Reply:
        if intent["status"] != "requires_capture":
            return _unexpected(intent)
        intent["status"] = "succeeded"
        return Reply(said=intent)

    def _cancel(self, intent: dict[str, Any]) -> Reply:
        if intent["status"] in {"succeeded", "canceled", "processing"}:
            return _unexpected(intent)
        intent["status"] = "canceled"
        return Reply(said=intent)

    def _refund(self, call: Call, form: dict[str, Any], number: str) -> Reply:
        if call.method == "GET" and not number:
            rows = [one for one in self.refunds.values() if one["payment_intent"] == call.query["payment_intent"]]
            return Reply(said={"object": "list", "data": rows, "has_more": False, "url": "/"})
        if call.method == "GET":
            known = self.refunds.get(number)
            return Reply(said=known) if known else _error(404, "invalid_request_error", "No such refund")
        intent = self.intents[form["payment_intent"]]
        if any(one["payment_intent"] == intent["id"] for one in self.refunds.values()):
            return _error(
                400, "invalid_request_error", "Charge has already been refunded.", code="charge_already_refunded"
            )
        made = {
            "id": f"re_{len(self.refunds) + 1:06}",
            "object": "refund",
            "amount": intent["amount"],
            "currency": intent["currency"],
            "payment_intent": intent["id"],
            "metadata": form.get("metadata", {}),
            "status": "pending" if self.slow_refunds else "succeeded",
        }
        self.refunds[made["id"]] = made
        return Reply(said=made)


def form_of(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.body.decode(), keep_blank_values=True))


def nested(form: dict[str, str]) -> dict[str, Any]:
    """a[b]=c and a[0]=c as they are meant."""
    made: dict[str, Any] = {}
    for name, value in form.items():
        parts = re.findall(r"[^\[\]]+", name)
        place = made
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return made


def typed(form: dict[str, str]) -> Any:
    """The form as its schema wants it: whole numbers, yes and no, and lists."""

    def cast(thing: Any) -> Any:
        if isinstance(thing, dict):
            if thing and all(name.isdigit() for name in thing):
                return [cast(one) for _, one in sorted(thing.items())]
            return {name: cast(one) if name != "metadata" else one for name, one in thing.items()}
        if thing in {"true", "false"}:
            return thing == "true"
        return int(thing) if re.fullmatch(r"-?\d+", thing) else thing

    return cast(nested(form))


def _error(status: int, kind: str, message: str, code: str = "") -> Reply:
    return Reply(status=status, said={"error": {"type": kind, "message": message, **({"code": code} if code else {})}})


def _unexpected(intent: dict[str, Any]) -> Reply:
    words = f"This PaymentIntent could not be changed because it has a status of {intent['status']}."
    return _error(400, "invalid_request_error", words, code="payment_intent_unexpected_state")
