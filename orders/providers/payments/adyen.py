"""Adyen, Checkout v72, by its own SDK. Settings and what is proven: docs/providers/adyen.md.

There is no look-up of a payment: a lost answer is had by sending the same key again, which Adyen answers as the first
time. Cancelling and refunding are answered with "received" only; what became of them is told by webhooks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import Adyen
import requests
from Adyen.exceptions import AdyenAPIAuthenticationError, AdyenAPIInvalidPermission, AdyenAPIResponseError, AdyenError
from Adyen.util import is_valid_hmac_notification

from orders.models import OutsideEffect
from orders.providers import effects
from orders.providers.base import BadSignature, Charge, Heard, Refund
from orders.providers.effects import Kind
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.http import shortened
from orders.providers.keys import as_hex, as_uuid
from orders.providers.money import ADYEN, from_minor, to_minor
from orders.providers.options import ADDRESS, SECONDS, option, read

PROVIDER = "adyen"
SETTLED = frozenset({"Authorised"})
PENDING = frozenset(
    {"RedirectShopper", "ChallengeShopper", "IdentifyShopper", "PresentToShopper", "Pending", "Received"}
)
ENDS = {
    "AUTHORISATION": "authorised",
    "CAPTURE": "captured",
    "CAPTURE_FAILED": "capture_failed",
    "CANCELLATION": "undone",
    "REFUND": "undone",
    "CANCEL_OR_REFUND": "undone",
    "TECHNICAL_CANCEL": "undone",
    "REFUND_FAILED": "undo_failed",
    "REFUNDED_REVERSED": "undo_failed",
}
"""What each kind of event settles."""


@dataclass(frozen=True, kw_only=True)
class AdyenOptions:
    """What Adyen's adapter has to be told."""

    api_key: str = option("ADYEN_API_KEY", secret=True, example="the key of a web service user")
    merchant_account: str = option("ADYEN_MERCHANT_ACCOUNT", example="the name of the merchant account")
    hmac_key: str = option("ADYEN_HMAC_KEY", "", secret=True, form=r"[0-9A-Fa-f]{64}", example="64 hexadecimal digits")
    return_url: str = option("ADYEN_RETURN_URL", form=ADDRESS, example="where customers go after 3-D Secure")
    capture: str = option("ADYEN_CAPTURE", "automatic", form=r"automatic|manual", example="automatic or manual")
    url: str = option(
        "ADYEN_URL",
        "https://checkout-test.adyen.com/v72",
        form=ADDRESS,
        example="the address of the Checkout API, with your live prefix where it is live",
    )
    seconds: str = option("ADYEN_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class AdyenGateway:
    """A PaymentGateway that also captures, checks and sends webhooks."""

    Options = AdyenOptions

    def __init__(self, options: AdyenOptions | None = None) -> None:
        self._options = options or read(AdyenOptions)
        client = Adyen.Adyen(xapikey=self._options.api_key, platform="test")
        client.http_timeout = float(self._options.seconds)
        client.client.http_timeout = float(self._options.seconds)
        checkout = client.checkout
        for service in (checkout.payments_api, checkout.modifications_api):
            service.baseUrl = self._options.url
        self._payments, self._modifications = checkout.payments_api, checkout.modifications_api

    def charge(self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str) -> Charge:
        """Take `amount` from a stored payment method. Raises Declined with Adyen's refusal reason."""
        return self._pay("charge", False, amount, currency, method, key, order_id)

    def authorize(self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str) -> Charge:
        """Have `amount` set aside."""
        return self._pay("authorize", True, amount, currency, method, key, order_id)

    def capture(self, *, charge_key: str, key: str) -> Charge:
        """Take what was set aside; done once the CAPTURE event has come."""
        effect = effects.find(PROVIDER, charge_key)
        if effect is None or not effect.remote_id:
            raise Declined("Nothing was set aside.", provider=PROVIDER, operation="capture", code="no_authorization")
        if "captured" not in effect.facts:
            body = {**self._account(), "amount": effect.facts["amount"], "reference": as_hex(key)}
            if not effect.facts.get("capture_asked"):
                self._ask("capture", self._modifications.capture_authorised_payment, body, key, effect.remote_id)
                effect = effects.note(effect, capture_asked=True)
            return _charge(effect, status="pending")
        if effect.facts["captured"] != "true" or effect.facts.get("capture_failed"):
            raise Declined(
                "The capture failed.",
                provider=PROVIDER,
                operation="capture",
                code="capture_failed",
                provider_id=effect.remote_id,
            )
        return _charge(effect, status="completed")

    def find_charge(self, *, key: str) -> Charge | None:
        """The charge as far as answers and events have told; None: send the key again, which is what Adyen wants."""
        effect = effects.find(PROVIDER, key)
        if effect is None or not effect.remote_id or not _stands(effect):
            return None
        return self._settled(effect)

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        """Cancel or refund, whichever the payment's state calls for: Adyen decides. Pending until its event comes."""
        charge = effects.bar(PROVIDER, charge_key, Kind.CHARGE)
        if not charge.asks and not charge.remote_id:
            return None  # never asked for
        if charge.remote_id and not _stands(charge):
            return None  # refused
        undo = effects.begin(PROVIDER, key, Kind.REFUND, "refund", charge=charge_key)
        if not undo.remote_id:
            reference = as_hex(key)
            if charge.remote_id:
                said = self._ask(
                    "refund",
                    self._modifications.refund_or_cancel_payment,
                    {**self._account(), "reference": reference},
                    key,
                    charge.remote_id,
                )
            else:  # its number never came: by our own reference
                body = {**self._account(), "reference": reference, "paymentReference": as_hex(charge_key)}
                said = self._ask("refund", self._modifications.cancel_authorised_payment, body, key)
            undo = effects.note(
                undo, remote_id=str(said["pspReference"]), amount=charge.facts["amount"], charge=charge_key
            )
        refund = self._undone("refund", undo, charge)
        # Cancelled before it was taken, or there was nothing to cancel: either way nothing goes back.
        return None if refund.status == "completed" and not _was_taken(charge) else refund

    def find_refund(self, *, key: str) -> Refund | None:
        """The undo made under this key, as far as answers and events have told."""
        undo = effects.find(PROVIDER, key)
        if undo is None or not undo.remote_id:
            return None
        charge = effects.find(PROVIDER, undo.facts.get("charge", ""))
        refund = self._undone("find_refund", undo, charge)
        return None if refund.status == "completed" and (charge is None or not _was_taken(charge)) else refund

    def check(self) -> str:
        """Asks which payment methods there are: it shows that key and merchant account belong together."""
        said = self._ask("check", self._payments.payment_methods, self._account(), "")
        return f"{len(said.get('paymentMethods', []))} payment methods for {self._options.merchant_account}"

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """The items of a notification. Raises BadSignature if one of them is not signed as it should be."""
        if not self._options.hmac_key:
            raise BadSignature("ADYEN_HMAC_KEY is not set.")
        heard = []
        try:
            items = [one["NotificationRequestItem"] for one in json.loads(body)["notificationItems"]]
            for item in items:
                # The SDK takes the signature out of what it is given, and says None where there is none.
                if is_valid_hmac_notification(json.loads(json.dumps(item)), self._options.hmac_key) is not True:
                    raise BadSignature("The HMAC signature does not fit.")
                heard.append(_heard(item))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadSignature("This is no notification of Adyen's.") from error
        return heard

    def hear(self, event: Heard) -> str:
        """The event is the truth here, since nothing can be asked: what it settles is noted, whichever comes first."""
        facts = event.facts
        undo = effects.find_remote(PROVIDER, facts["psp"])
        if undo is not None and undo.kind == Kind.REFUND:
            effects.note(undo, **{ENDS[event.kind]: facts["success"]})
            return undo.key
        charge = effects.find_remote(PROVIDER, facts["original"] or facts["psp"]) or effects.find_reference(
            PROVIDER, facts["reference"]
        )
        if charge is None or event.kind not in ENDS:
            return ""
        number = facts["psp"] if event.kind == "AUTHORISATION" else ""
        note = {} if ENDS[event.kind] == "undone" else {ENDS[event.kind]: facts["success"]}
        effects.note(charge, remote_id=charge.remote_id or number, **note)
        return charge.key

    def _pay(
        self, operation: str, manual: bool, amount: Decimal, currency: str, method: str, key: str, order_id: str
    ) -> Charge:
        money = {"currency": currency, "value": to_minor(amount, currency, ADYEN)}
        effect = effects.begin(PROVIDER, key, Kind.CHARGE, operation, manual=manual, **money)
        if effect.remote_id and ("result" in effect.facts or "authorised" in effect.facts):
            return self._settled(effect)
        effects.note(effect, reference=as_hex(key), amount=money, manual=manual)
        effects.claim(effect)
        if effects.is_barred(effect):
            raise Declined(
                "This was undone before it came.", provider=PROVIDER, operation=operation, code="already_undone"
            )
        body: dict[str, Any] = {
            **self._account(),
            "amount": money,
            "reference": as_hex(key),
            "returnUrl": self._options.return_url,
            "paymentMethod": _method(method),
            "shopperReference": as_hex(order_id),
            "metadata": {"order": order_id[:80]},
        }
        if manual or self._options.capture == "manual":
            body["additionalData"] = {"manualCapture": "true"}
        said = self._ask(operation, self._payments.payments, body, key)
        action = said.get("action") or {}
        effect = effects.note(
            effect,
            remote_id=str(said.get("pspReference") or ""),
            result=str(said.get("resultCode") or ""),
            refusal=str(said.get("refusalReason") or ""),
            next_url=str(action.get("url") or ""),
        )
        return self._settled(effect)

    def _settled(self, effect: OutsideEffect) -> Charge:
        """What is known of it. Raises Declined for a refusal, which comes with status 200."""
        facts = effect.facts
        if not _stands(effect):
            raise Declined(
                shortened(facts.get("refusal") or "The payment was refused."),
                provider=PROVIDER,
                operation="charge",
                code=(facts.get("refusal") or "refused").lower().replace(" ", "_")[:100],
                provider_id=effect.remote_id,
            )
        if facts.get("result") in SETTLED or facts.get("authorised") == "true":
            return _charge(effect, status="authorized" if facts.get("manual") else "completed")
        return _charge(effect, status="pending")

    def _undone(self, operation: str, undo: OutsideEffect, charge: OutsideEffect | None) -> Refund:
        facts = undo.facts
        if (facts.get("undone") == "false" and (charge is None or charge.remote_id)) or facts.get("undo_failed"):
            raise Declined(
                "Adyen could not give the money back.",
                provider=PROVIDER,
                operation=operation,
                code="refund_failed",
                provider_id=undo.remote_id,
            )
        money = facts["amount"]
        return Refund(
            refund_id=undo.remote_id,
            amount=from_minor(money["value"], money["currency"], ADYEN),
            status="completed" if "undone" in facts else "pending",
        )

    def _account(self) -> dict[str, str]:
        return {"merchantAccount": self._options.merchant_account}

    def _ask(self, operation: str, call: Any, body: dict[str, Any], key: str, *path: str) -> dict[str, Any]:
        """One call of the SDK, its errors in our words."""
        about: dict[str, Any] = {"provider": PROVIDER, "operation": operation}
        keyed = {"idempotency_key": as_uuid(key)} if key else {}
        try:
            result = call(body, *path, **keyed)
        except (AdyenAPIAuthenticationError, AdyenAPIInvalidPermission) as error:
            raise Unavailable("Adyen does not accept our key.", code="credentials", **about) from error
        except AdyenAPIResponseError as error:
            raise _outcome(error, about) from error
        except (requests.exceptions.ConnectTimeout, requests.exceptions.ConnectionError) as error:
            if _was_sent(error):
                raise OutcomeUnknown("Adyen was asked and gave no answer.", **about) from error
            raise Unavailable("Adyen cannot be reached.", **about) from error
        except (requests.exceptions.RequestException, AdyenError, ValueError) as error:
            raise OutcomeUnknown(f"Adyen was asked and gave no answer ({type(error).__name__}).", **about) from error
        if not isinstance(result.message, dict) or not result.message:
            # Not one of its answers, whoever gave it: to read a refusal out of it would be a guess about money.
            raise OutcomeUnknown("Adyen's answer cannot be read.", **about)
        return dict(result.message)


def _outcome(error: AdyenAPIResponseError, about: dict[str, Any]) -> ProviderError:
    status = int(error.status_code or 0)
    code = str(error.error_code or f"http_{status}")
    if status == 429:
        return Unavailable("Adyen wants fewer calls (429).", code="too_many", **about)
    if status >= 500 or not status:
        return OutcomeUnknown(f"Adyen failed while it was at it ({status}).", code=code, **about)
    if code == "704":  # the same key is being worked on
        return Unavailable("Adyen is at this request just now.", code="busy", **about)
    return Declined(shortened(str(error.message or "Adyen refused.")), code=code, **about)


def _was_sent(error: requests.exceptions.RequestException) -> bool:
    """A connection that was made and then broke has carried the request."""
    return "NewConnectionError" not in repr(error) and not isinstance(error, requests.exceptions.ConnectTimeout)


def _method(token: str) -> dict[str, str]:
    """A stored payment method's id; `test_visa` is the test card, which only the test platform takes."""
    if token == "test_visa":  # noqa: S105  (a public test card's name)
        return {
            "type": "scheme",
            "encryptedCardNumber": "test_4111111111111111",
            "encryptedExpiryMonth": "test_03",
            "encryptedExpiryYear": "test_2030",
            "encryptedSecurityCode": "test_737",
        }
    return {"type": "scheme", "storedPaymentMethodId": token}


def _stands(effect: OutsideEffect) -> bool:
    """Whether it was authorised or still may be."""
    facts = effect.facts
    if "authorised" in facts:
        return bool(facts["authorised"] == "true")
    return facts.get("result") in SETTLED | PENDING


def _was_taken(effect: OutsideEffect) -> bool:
    """Whether money has moved, as far as we ever heard."""
    facts = effect.facts
    authorised = facts.get("result") in SETTLED or facts.get("authorised") == "true"
    return bool(authorised and (not facts.get("manual") or facts.get("captured") == "true"))


def _charge(effect: OutsideEffect, *, status: Any) -> Charge:
    money = effect.facts["amount"]
    return Charge(
        transaction_id=effect.remote_id,
        amount=from_minor(money["value"], money["currency"], ADYEN),
        currency=money["currency"],
        status=status,
        next_url=effect.facts.get("next_url", "") if status == "pending" else "",
    )


def _heard(item: Mapping[str, Any]) -> Heard:
    kind, psp = str(item["eventCode"]), str(item["pspReference"])
    return Heard(
        event_id=f"{psp}:{kind}:{item['success']}",
        kind=kind,
        about=str(item.get("originalReference") or psp),
        facts={
            "psp": psp,
            "original": str(item.get("originalReference") or ""),
            "reference": str(item.get("merchantReference") or ""),
            "success": str(item["success"]).lower(),
        },
    )
