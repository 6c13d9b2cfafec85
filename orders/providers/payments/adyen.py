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
from orders.providers.http import CONNECT_SECONDS, NOT_JUDGED, shortened
from orders.providers.keys import as_hex, as_uuid, return_address
from orders.providers.money import ADYEN, from_minor, to_minor
from orders.providers.options import ADDRESS, SECONDS, option, read
from orders.providers.sessions import Session, was_not_sent

PROVIDER = "adyen"
SETTLED = frozenset({"Authorised"})
PENDING = frozenset(
    {"RedirectShopper", "ChallengeShopper", "IdentifyShopper", "PresentToShopper", "Pending", "Received"}
)
NATIVE = frozenset({"ChallengeShopper", "IdentifyShopper"})
"""What waits for something that only a page of the shop's own could do, unless an address comes along."""
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
    return_url: str = option(
        "ADYEN_RETURN_URL", "", form=ADDRESS, example="where customers go after 3-D Secure; empty for the shop's own"
    )
    url: str = option(
        "ADYEN_URL",
        "https://checkout-test.adyen.com/v72",
        form=ADDRESS,
        example="the address of the Checkout API, with your live prefix where it is live",
        toy=r"https?://[^/]*-test\.adyen",
    )
    seconds: str = option("ADYEN_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class AdyenGateway:
    """A PaymentGateway that also captures, checks and sends webhooks."""

    Options = AdyenOptions

    def __init__(self, options: AdyenOptions | None = None) -> None:
        self._options = options or read(AdyenOptions)
        client = Adyen.Adyen(xapikey=self._options.api_key, platform="test")
        self._session = Session(float(self._options.seconds))
        client.client._init_http_client()
        client.client.http_client.request = self._request  # by itself it makes a connection for each call
        checkout = client.checkout
        for service in (checkout.payments_api, checkout.modifications_api):
            service.baseUrl = self._options.url
        self._payments, self._modifications = checkout.payments_api, checkout.modifications_api

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def charge(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Take `amount` from a stored payment method. Raises Declined with Adyen's refusal reason."""
        return self._pay("charge", False, amount, currency, method, key, order_id, customer)

    def authorize(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Have `amount` set aside."""
        return self._pay("authorize", True, amount, currency, method, key, order_id, customer)

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
        if effect is None or not _stands(effect):
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
                said = self._ask("refund", self._modifications.cancel_authorised_payment, body, f"{key}#cancel")
            undo = effects.note(
                undo, remote_id=str(said["pspReference"]), amount=charge.facts["amount"], charge=charge_key
            )
        charge = effects.find(PROVIDER, charge_key) or charge
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
        if event.kind not in ENDS:
            return ""
        if undo is not None and undo.kind == Kind.REFUND:
            effects.note(undo, **{ENDS[event.kind]: facts["success"]})
            return undo.key
        charge = effects.find_remote(PROVIDER, facts["original"] or facts["psp"]) or effects.find_reference(
            PROVIDER, facts["reference"]
        )
        if charge is None or charge.kind != Kind.CHARGE:
            return ""
        number = facts["psp"] if event.kind == "AUTHORISATION" else ""
        note = {} if ENDS[event.kind] == "undone" else {ENDS[event.kind]: facts["success"]}
        charge = effects.note(charge, remote_id=charge.remote_id or number, **note)
        if event.kind == "AUTHORISATION" and facts["success"] == "true" and charge.is_barred:
            self._give_back_late(charge)
        return charge.key

    def come_back(self, params: Mapping[str, str]) -> str:
        """The customer is back from their bank's page: what they bring is handed to Adyen, which says what it means."""
        effect = effects.find_reference(PROVIDER, params.get("order", ""))
        brought = params.get("redirectResult", "")
        if effect is None or not brought or effect.is_barred or effect.facts.get("result") not in PENDING:
            return effect.key if effect is not None else ""
        said = self._ask(
            "charge",
            self._payments.payments_details,
            {"details": {"redirectResult": brought}},
            f"{effect.key}#{brought}",
        )
        if said.get("merchantReference") != effect.reference:
            return ""  # somebody brought another payment's
        self._note_result(effect, said)
        return effect.key

    def _give_back_late(self, charge: OutsideEffect) -> None:
        """Authorised after it had been undone, or while it was: an undo that came there first found nothing to undo."""
        body = {**self._account(), "reference": as_hex(f"{charge.key}#late")}
        call = self._modifications.refund_or_cancel_payment
        self._ask("refund", call, body, f"{charge.key}#late", charge.remote_id)

    def _pay(
        self,
        operation: str,
        manual: bool,
        amount: Decimal,
        currency: str,
        method: str,
        key: str,
        order_id: str,
        customer: str,
    ) -> Charge:
        money = {"currency": currency, "value": to_minor(amount, currency, ADYEN)}
        effect = effects.begin(PROVIDER, key, Kind.CHARGE, operation, manual=manual, **money)
        if "result" in effect.facts or "authorised" in effect.facts:
            return self._settled(effect)
        effects.note(effect, reference=as_hex(key), amount=money, manual=manual)
        is_first = effects.claim(effect)
        if effects.is_barred(effect):
            raise Declined(
                "This was undone before it came.", provider=PROVIDER, operation=operation, code="already_undone"
            )
        body: dict[str, Any] = {
            **self._account(),
            "amount": money,
            "reference": as_hex(key),
            "returnUrl": self._return_url(as_hex(key)),
            **_method(method, customer),
            "metadata": {"order": order_id[:80]},
            # Native 3-D Secure 2 is asked in a component of Adyen's on the shop's own checkout, and here is none.
            "authenticationData": {"threeDSRequestData": {"nativeThreeDS": "disabled"}},
            # Said for each payment: what the account does by itself is set by people, and may change.
            **({"additionalData": {"manualCapture": "true"}} if manual else {"captureDelayHours": 0}),
        }
        try:
            said = self._ask(operation, self._payments.payments, body, key)
        except (Declined, Unavailable):
            if is_first:  # nothing else is out: there is nothing to cancel
                effects.give_up(effect)
            raise
        effect = self._note_result(effect, said)
        if effect.remote_id and _stands(effect) and effects.is_barred(effect):
            self._give_back_late(effect)
        return self._settled(effect)

    def _return_url(self, reference: str) -> str:
        url = self._options.return_url or return_address(PROVIDER)
        return f"{url}{'&' if '?' in url else '?'}order={reference}"

    def _note_result(self, effect: OutsideEffect, said: Mapping[str, Any]) -> OutsideEffect:
        """A result, and the number, which a payment that waits for its customer has not got yet."""
        result = str(said.get("resultCode") or "")
        if not result:
            raise OutcomeUnknown("Adyen's answer has no result.", provider=PROVIDER, operation="charge")
        return effects.note(
            effect,
            remote_id=str(said.get("pspReference") or ""),
            result=result,
            refusal=str(said.get("refusalReason") or ""),
            next_url=str((said.get("action") or {}).get("url") or ""),
        )

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
        if facts.get("result") in NATIVE and not facts.get("next_url") and "authorised" not in facts:
            raise Declined(
                "Adyen wants native 3-D Secure 2, for which there is no checkout here.",
                provider=PROVIDER,
                operation="charge",
                code="native_3ds",
                provider_id=effect.remote_id,
            )
        if facts.get("result") in SETTLED or facts.get("authorised") == "true":
            return _charge(effect, status="authorized" if facts.get("manual") else "completed")
        return _charge(effect, status="pending")

    def _undone(self, operation: str, undo: OutsideEffect, charge: OutsideEffect | None) -> Refund:
        facts = undo.facts
        was_promised = charge is None or _was_authorised(charge)
        if (facts.get("undone") == "false" and was_promised) or facts.get("undo_failed"):
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
        except (requests.exceptions.RequestException, AdyenError, ValueError) as error:
            if was_not_sent(error):
                raise Unavailable("Adyen cannot be reached.", **about) from error
            raise OutcomeUnknown(f"Adyen was asked and gave no answer ({type(error).__name__}).", **about) from error
        if not isinstance(result.message, dict) or not result.message:
            # Not one of its answers, whoever gave it: to read a refusal out of it would be a guess about money.
            raise OutcomeUnknown("Adyen's answer cannot be read.", **about)
        return dict(result.message)

    def _request(
        self, method: str, url: str, *, headers: dict[str, str], json: Any = None, xapikey: str = "", **rest: Any
    ) -> tuple[str, Any, int, Mapping[str, str]]:
        """What the SDK sends by, in its words; it has no setting for a pool."""
        seconds = float(self._options.seconds)
        response = self._session.request(
            method,
            url,
            json=json,
            headers={**headers, "x-api-key": xapikey},
            timeout=(min(CONNECT_SECONDS, seconds), seconds),
        )
        return response.text, json, response.status_code, response.headers


def _outcome(error: AdyenAPIResponseError, about: dict[str, Any]) -> ProviderError:
    status = int(error.status_code or 0)
    code = str(error.error_code or f"http_{status}")
    if status == 429:
        return Unavailable("Adyen wants fewer calls (429).", code="too_many", **about)
    if not 400 <= status < 500 or status in NOT_JUDGED:
        return OutcomeUnknown(f"Adyen failed while it was at it ({status}).", code=code, **about)
    if code == "704":  # the same key is being worked on
        return Unavailable("Adyen is at this request just now.", code="busy", **about)
    return Declined(shortened(str(error.message or "Adyen refused.")), code=code, **about)


def _method(token: str, customer: str) -> dict[str, Any]:
    """A stored payment method's id, kept for this customer; `test_visa` is the test card, which only the test platform
    takes."""
    if token == "test_visa":  # noqa: S105  (a public test card's name)
        card = {
            "type": "scheme",
            "encryptedCardNumber": "test_4111111111111111",
            "encryptedExpiryMonth": "test_03",
            "encryptedExpiryYear": "test_2030",
            "encryptedSecurityCode": "test_737",
        }
        return {"paymentMethod": card, "shopperInteraction": "Ecommerce"}
    return {
        "paymentMethod": {"type": "scheme", "storedPaymentMethodId": token},
        # Adyen gives a stored method out only for whom it was stored.
        "shopperReference": customer.ljust(3, "-"),
        "shopperInteraction": "ContAuth",
        "recurringProcessingModel": "CardOnFile",
    }


def _stands(effect: OutsideEffect) -> bool:
    """Whether it was authorised or still may be."""
    facts = effect.facts
    if "authorised" in facts:
        return bool(facts["authorised"] == "true")
    return facts.get("result") in SETTLED | PENDING


def _was_taken(effect: OutsideEffect) -> bool:
    """Whether money has moved, as far as we ever heard."""
    facts = effect.facts
    return bool(_was_authorised(effect) and (not facts.get("manual") or facts.get("captured") == "true"))


def _was_authorised(effect: OutsideEffect) -> bool:
    """Whether money was promised at all."""
    return effect.facts.get("result") in SETTLED or effect.facts.get("authorised") == "true"


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
