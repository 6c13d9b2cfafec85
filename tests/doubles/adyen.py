"""Plays Adyen: payments, modifications that are only received, and notifications that are signed."""

from __future__ import annotations

import copy
import json
from typing import Any

from Adyen.util import generate_notification_sig

from tests.doubles.descriptions import Description
from tests.doubles.server import Call, Double, Reply

KEY, HMAC_KEY = "adyen-key", "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
ACCOUNT = "ShopECOM"
CUSTOMER = "USER-456"
"""For whom the stored payment methods are kept."""


class AdyenDouble(Double):
    """The method is the stored payment method's id: declined, pending, 3ds; any other is authorised."""

    descriptions = (Description("adyen/checkout_v72.payments_modifications.json", "/v72"),)
    exempt = (r"POST /v72/paymentMethods",)

    def __init__(self) -> None:
        super().__init__()
        self.payments: dict[str, dict[str, Any]] = {}
        self.modifications: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, Reply] = {}

    @property
    def taken(self) -> int:
        """In cents, less what went back."""
        return sum(one["value"] for one in self.payments.values() if one["state"] == "Authorised")

    def answer(self, call: Call) -> Reply:
        if call.headers.get("x-api-key", call.headers.get("X-API-Key")) != KEY:
            return _no(401, "000", "HTTP Status Response - Unauthorized", "security")
        key = call.headers.get("Idempotency-Key", "")
        assert len(key) <= 64
        if key and key in self.keys:
            return self.keys[key]
        reply = self._act(call)
        if key and reply.status < 300:
            self.keys[key] = reply
        return reply

    def event(
        self, kind: str, psp: str, *, success: bool = True, original: str = "", reference: str = ""
    ) -> dict[str, Any]:
        """A signed item of a notification."""
        item: dict[str, Any] = {
            "pspReference": psp,
            "originalReference": original,
            "merchantAccountCode": ACCOUNT,
            "merchantReference": reference or self.payments.get(original or psp, {}).get("reference", ""),
            "amount": {"currency": "EUR", "value": 9999},
            "eventCode": kind,
            "success": "true" if success else "false",
            "eventDate": "2030-01-01T12:00:00+01:00",
        }
        signature = generate_notification_sig(copy.deepcopy(item), HMAC_KEY).decode()
        return {**item, "additionalData": {"hmacSignature": signature}}

    def settle(self, psp: str, *, success: bool = True) -> dict[str, Any]:
        """What was received has come to this: the notification of it."""
        with self.lock:
            made = self.modifications[psp]
            payment = self.payments.get(made["payment"])
            if payment is not None and success and made["kind"] in {"reversals", "cancels"}:
                payment["state"] = "undone"
            kind = {"reversals": "CANCEL_OR_REFUND", "captures": "CAPTURE", "cancels": "TECHNICAL_CANCEL"}[made["kind"]]
            return self.event(kind, psp, success=success, original=made["payment"])

    def _act(self, call: Call) -> Reply:
        parts = call.path.removeprefix("/v72/").split("/")
        if parts == ["paymentMethods"]:
            return Reply(said={"paymentMethods": [{"type": "scheme"}]})
        if parts != ["payments", "details"] and call.json["merchantAccount"] != ACCOUNT:
            return _no(403, "901", "Invalid Merchant Account", "security")
        assert "-" not in call.json.get("reference", "")  # a hyphen makes several references of it
        if parts == ["payments"]:
            return self._pay(call.json)
        if parts == ["payments", "details"]:
            return self._complete(call.json["details"]["redirectResult"])
        if parts == ["cancels"]:
            wanted = call.json["paymentReference"]
            known = next((psp for psp, one in self.payments.items() if one["reference"] == wanted), "")
            psp = self._receive("cancels", known)
            return Reply(
                status=201,
                said={
                    "merchantAccount": ACCOUNT,
                    "paymentReference": wanted,
                    "pspReference": psp,
                    "reference": call.json["reference"],
                    "status": "received",
                },
            )
        payment, kind = parts[1], parts[2]
        said = {
            "merchantAccount": ACCOUNT,
            "paymentPspReference": payment,
            "pspReference": self._receive(kind, payment),
            "reference": call.json.get("reference", ""),
            "status": "received",
        }
        if kind == "captures":
            said["amount"] = call.json["amount"]
        return Reply(status=201, said=said)

    def _receive(self, kind: str, payment: str) -> str:
        psp = f"M{len(self.modifications) + 1:015}"
        self.modifications[psp] = {"kind": kind, "payment": payment}
        return psp

    def _complete(self, brought: str) -> Reply:
        """`brought` is `<number>!ok` or `<number>!no`."""
        psp, _, word = brought.partition("!")
        one = self.payments[psp]
        if one["state"] == "RedirectShopper":
            one["state"] = "Authorised" if word == "ok" else "Refused"
        said = {"pspReference": psp, "resultCode": one["state"], "merchantReference": one["reference"]}
        return Reply(said=said)

    def _pay(self, asked: dict[str, Any]) -> Reply:
        method = asked["paymentMethod"].get("storedPaymentMethodId", "")
        if method and asked["shopperReference"] != CUSTOMER:
            return _no(422, "800", "Contract not found", "validation")
        result = {
            "declined": "Refused",
            "pending": "Pending",
            "3ds": "RedirectShopper",
            "native": "ChallengeShopper",
        }.get(method, "Authorised")
        psp = f"P{len(self.payments) + 1:015}"
        self.payments[psp] = {
            "state": result,
            "value": asked["amount"]["value"],
            "reference": asked["reference"],
        }
        said: dict[str, Any] = {"pspReference": psp, "resultCode": result, "merchantReference": asked["reference"]}
        if result == "Refused":
            said |= {"refusalReason": "Not enough balance", "refusalReasonCode": "12"}
        if result == "RedirectShopper":
            url = "https://checkoutshopper-test.adyen.test/3ds"
            del said["pspReference"]  # it comes once the customer is back
            said["action"] = {"type": "redirect", "url": url, "method": "GET", "paymentMethodType": "scheme"}
        return Reply(said=said)


def notification(*items: dict[str, Any]) -> bytes:
    made = {"live": "false", "notificationItems": [{"NotificationRequestItem": item} for item in items]}
    return json.dumps(made).encode()


def _no(status: int, code: str, words: str, kind: str) -> Reply:
    return Reply(status=status, said={"status": status, "errorCode": code, "message": words, "errorType": kind})
