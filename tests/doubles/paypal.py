"""Plays PayPal: tokens, orders, captures, authorizations, refunds and the check of webhooks."""

from __future__ import annotations

import json
from typing import Any

from tests.doubles.descriptions import Description
from tests.doubles.server import Call, Double, Reply

DECLINED = "DECLINED1"
"""An approved order whose means of payment will be declined."""
VERIFY = "/v1/notifications/verify-webhook-signature"
TIME = "2030-01-01T12:00:00Z"


class PayPalDouble(Double):
    """`approve` plays the customer; `slow` makes captures and refunds pend until `settle`."""

    descriptions = (
        Description("paypal/checkout_orders_v2.json"),
        Description("paypal/payments_payment_v2.json"),
        Description("paypal/notifications_webhooks_v1.json"),
    )
    exempt = (r"POST /v1/oauth2/token",)
    checks_answers = False  # a pattern in the orders' description is no regular expression

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, Reply] = {}
        self.slow = False
        self.tokens = 0

    @property
    def taken(self) -> int:
        """In cents, less what went back."""
        total = 0
        for order in self.orders.values():
            made = order["purchase_units"][0].get("payments", {})
            total += sum(_cents(one) for one in made.get("captures", []) if one["status"] in {"COMPLETED", "REFUNDED"})
            total -= sum(_cents(one) for one in made.get("refunds", []) if one["status"] != "FAILED")
        return total

    def approved(self, value: str = "99.99", currency: str = "EUR", number: str = "", intent: str = "CAPTURE") -> str:
        """An order that the customer approved at the checkout: its id."""
        made = self._order(intent, [{"amount": {"currency_code": currency, "value": value}}], number)
        made["status"] = "APPROVED"
        return str(made["id"])

    def approve(self, number: str) -> None:
        with self.lock:
            self.orders[number]["status"] = "APPROVED"

    def settle(self, status: str = "COMPLETED") -> None:
        """What pends has come to this."""
        with self.lock:
            for order in self.orders.values():
                for kind in ("captures", "refunds"):
                    for one in order["purchase_units"][0].get("payments", {}).get(kind, []):
                        if one["status"] == "PENDING":
                            one["status"] = status

    def signed(self, kind: str, order: str, event_id: str = "WH-1") -> tuple[bytes, dict[str, str]]:
        body = json.dumps(
            {
                "id": event_id,
                "event_type": kind,
                "resource": {"id": "X", "supplementary_data": {"related_ids": {"order_id": order}}},
            }
        ).encode()
        headers = {
            "paypal-auth-algo": "SHA256withRSA",
            "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-1",
            "paypal-transmission-id": "69cd13f0-d67a-11e5-baa3-778b53f4ae55",
            "paypal-transmission-sig": "good",
            "paypal-transmission-time": TIME,
        }
        return body, headers

    def check(self, call: Call, address: str, reply: Reply | None = None) -> list[str]:
        """An event is read-only to its description also where it is sent back to be verified: held by schema alone."""
        if call.path == VERIFY and reply is None:
            return self.descriptions[2].schema_faults(VERIFY, "post", "application/json", call.json)
        return super().check(call, address, reply)

    def answer(self, call: Call) -> Reply:
        if call.path == "/v1/oauth2/token":
            good = call.headers.get("Authorization") == "Basic aWQ6c2VjcmV0"  # id:secret
            self.tokens += good
            token = {"access_token": f"token-{self.tokens}", "expires_in": 32400}
            return Reply(said=token) if good else Reply(status=401, said={"error": "invalid_client"})
        number = call.headers.get("Authorization", "").removeprefix("Bearer token-")
        if not number.isdigit() or not 0 < int(number) <= self.tokens:
            return Reply(status=401, said={"name": "AUTHENTICATION_FAILURE", "message": "Authentication failed"})
        key = call.headers.get("PayPal-Request-Id", "")
        if call.method == "POST" and key and key in self.keys:
            return self.keys[key]
        reply = self._act(call)
        if call.method == "POST" and key and reply.status < 300:
            self.keys[key] = reply
        return reply

    def _act(self, call: Call) -> Reply:
        parts = call.path.strip("/").split("/")[1:]
        if parts[0] == "notifications":
            good = call.json["transmission_sig"] == "good" and call.json["webhook_id"] == "WEBHOOK1"
            return Reply(said={"verification_status": "SUCCESS" if good else "FAILURE"})
        if parts[:2] == ["checkout", "orders"]:
            if len(parts) == 2:
                made = self._order(call.json["intent"], call.json["purchase_units"], "")
                if "token" in call.json.get("payment_source", {}):
                    made["status"] = "APPROVED"
                return Reply(status=201, said=made)
            order = self.orders.get(parts[2])
            if order is None:
                return _no(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "Specified resource ID does not exist.")
            return Reply(said=order) if len(parts) == 3 else self._take(order, parts[3])
        return self._payment(call, parts[1], parts[2], parts[3] if len(parts) > 3 else "")

    def _order(self, intent: str, units: list[dict[str, Any]], number: str) -> dict[str, Any]:
        number = number or f"ORDER{len(self.orders) + 1:05}"
        self.orders[number] = {
            "id": number,
            "intent": intent,
            "status": "CREATED",
            "purchase_units": [dict(units[0])],
            "links": [{"rel": "approve", "href": f"https://paypal.test/approve/{number}", "method": "GET"}],
        }
        return self.orders[number]

    def _take(self, order: dict[str, Any], verb: str) -> Reply:
        unit = order["purchase_units"][0]
        if order["status"] == "COMPLETED":
            return _no(422, "UNPROCESSABLE_ENTITY", f"ORDER_ALREADY_{verb.upper()}D", "Order already captured.")
        if order["status"] != "APPROVED":
            return _no(422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED", "Payer has not yet approved the Order.")
        if order["id"] == DECLINED:
            return _no(422, "UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED", "The instrument was declined.")
        order["status"] = "COMPLETED"
        if verb == "authorize":
            unit["payments"] = {"authorizations": [self._made("A", order, unit["amount"], "CREATED")]}
        else:
            status = "PENDING" if self.slow else "COMPLETED"
            unit["payments"] = {"captures": [self._made("C", order, unit["amount"], status)]}
        return Reply(status=201, said=order)

    def _payment(self, call: Call, kind: str, number: str, verb: str) -> Reply:
        order = next((one for one in self.orders.values() if number[:-2] == one["id"]), None)
        if order is None:
            return _no(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "Specified resource ID does not exist.")
        made = order["purchase_units"][0]["payments"]
        one = next(thing for thing in made[kind] if thing["id"] == number)
        if call.method == "GET":
            return Reply(said=one)
        if verb == "void":
            if one["status"] == "VOIDED":
                return _no(
                    422, "UNPROCESSABLE_ENTITY", "PREVIOUSLY_VOIDED", "Authorization has been previously voided."
                )
            one["status"] = "VOIDED"
            return Reply(status=204)
        if verb == "capture":
            one["status"] = "CAPTURED"
            made["captures"] = [self._made("C", order, one["amount"], "COMPLETED")]
            return Reply(status=201, said=made["captures"][0])
        if one["status"] == "REFUNDED":
            return _no(422, "UNPROCESSABLE_ENTITY", "CAPTURE_FULLY_REFUNDED", "The capture has already been refunded.")
        one["status"] = "REFUNDED"
        refund = self._made("R", order, one["amount"], "PENDING" if self.slow else "COMPLETED")
        made.setdefault("refunds", []).append(refund)
        return Reply(status=201, said=refund)

    def _made(self, kind: str, order: dict[str, Any], amount: dict[str, str], status: str) -> dict[str, Any]:
        return {"id": f"{order['id']}{kind}1", "status": status, "amount": dict(amount)}


def _cents(one: dict[str, Any]) -> int:
    return round(float(one["amount"]["value"]) * 100)


def _no(status: int, name: str, issue: str, words: str) -> Reply:
    details = [{"issue": issue, "description": words}]
    return Reply(status=status, said={"name": name, "message": words, "details": details, "debug_id": "1"})
