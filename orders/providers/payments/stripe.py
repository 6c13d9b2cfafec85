"""Stripe, by its own SDK. Settings and what is proven: docs/providers/stripe.md.

A payment intent is made first, which takes no money, and its number is noted; then it is confirmed. Whatever answer is
lost after that, one look at the intent tells what became of it, and an intent can take its money once only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import stripe
from django.conf import settings

from orders.models import OutsideEffect
from orders.providers import effects
from orders.providers.base import BadSignature, Charge, Heard, Refund
from orders.providers.effects import Kind
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.http import shortened
from orders.providers.keys import as_uuid, return_address
from orders.providers.money import STRIPE, from_minor, to_minor
from orders.providers.options import ADDRESS, SECONDS, option, read
from orders.providers.sessions import Session, was_not_sent

T = TypeVar("T")
PROVIDER = "stripe"
SETTLED = {"succeeded": "completed", "requires_capture": "authorized"}
PENDING = frozenset({"processing", "requires_action"})


@dataclass(frozen=True, kw_only=True)
class StripeOptions:
    """What Stripe's adapter has to be told."""

    secret_key: str = option(
        "STRIPE_SECRET_KEY",
        secret=True,
        form=r"(sk|rk)_(test|live)_\w+",
        example="a key that begins with sk_ or rk_",
        toy=r"(sk|rk)_test_",
    )
    webhook_secret: str = option(
        "STRIPE_WEBHOOK_SECRET", "", secret=True, form=r"whsec_\w+", example="the endpoint's secret, whsec_…"
    )
    return_url: str = option(
        "STRIPE_RETURN_URL", "", form=ADDRESS, example="where customers go after 3-D Secure; empty for the shop's own"
    )
    url: str = option("STRIPE_URL", "https://api.stripe.com", form=ADDRESS, example="an address")
    seconds: str = option("STRIPE_TIMEOUT_SECONDS", "15", form=SECONDS, example="a number of seconds")


class StripeGateway:
    """A PaymentGateway that also captures, checks and sends webhooks."""

    Options = StripeOptions

    def __init__(self, options: StripeOptions | None = None) -> None:
        self._options = options or read(StripeOptions)
        # The SDK waits 80 s by itself; its own retries would hide from the engine what happened.
        self._session = Session(float(self._options.seconds))
        http = stripe.RequestsClient(timeout=float(self._options.seconds), session=self._session)
        self._client = stripe.StripeClient(
            self._options.secret_key,
            base_addresses={"api": self._options.url},
            http_client=http,
            max_network_retries=0,
        ).v1

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def charge(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Take `amount` from a payment method (pm_…). Raises Declined with Stripe's decline code."""
        return self._pay("charge", "automatic", amount, currency, method, key, order_id)

    def authorize(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Have `amount` set aside; Stripe keeps it for about a week."""
        return self._pay("authorize", "manual", amount, currency, method, key, order_id)

    def capture(self, *, charge_key: str, key: str) -> Charge:
        """Take what was set aside."""
        intent = self._intent("capture", self._noted("capture", charge_key))
        if intent.status == "requires_capture":
            intent = self._call(
                "capture",
                lambda: self._client.payment_intents.capture(intent.id, {}, {"idempotency_key": as_uuid(key)}),
            )
        if intent.status not in {"succeeded", "processing"}:
            raise Declined(
                f"The authorization is gone ({intent.status}).",
                provider=PROVIDER,
                operation="capture",
                code="authorization_gone",
                provider_id=intent.id,
            )
        return _charge(intent)

    def find_charge(self, *, key: str) -> Charge | None:
        """The charge made under this key; an intent that was never confirmed has taken nothing."""
        effect = effects.find(PROVIDER, key)
        if effect is None or not effect.remote_id:
            return None
        intent = self._intent("find_charge", effect)
        return _charge(intent) if intent.status in SETTLED or intent.status in PENDING else None

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        """Give back what was taken, or cancel what was not yet; None if nothing was taken, and then it never will."""
        known = effects.find(PROVIDER, key)
        if known is not None and known.remote_id:
            return self._refunded("refund", known)
        effect = effects.bar(PROVIDER, charge_key, Kind.CHARGE)
        if not effect.remote_id:
            return None
        intent = self._intent("refund", effect)
        if intent.status == "canceled":
            return None
        if intent.status != "succeeded":
            self._cancel(effect, intent)
            return None
        refund = effects.begin(PROVIDER, key, Kind.REFUND, "refund", charge=charge_key)
        if not effects.claim(refund):  # asked for before: idempotency keys are kept for a day, and then it would be two
            made = self._seen("refund", refund, intent.id)
            if made is not None:
                return _refund("refund", made)
        refund = effects.note(refund, intent=intent.id)
        try:
            made = self._retried(
                "refund",
                refund,
                lambda key: self._client.refunds.create(
                    {"payment_intent": intent.id, "metadata": {"key": refund.key}}, {"idempotency_key": key}
                ),
            )
        except Declined as error:
            made = self._seen("refund", refund, intent.id) if error.code == "charge_already_refunded" else None
            if made is None:
                raise
        effects.note(refund, remote_id=made.id)
        return _refund("refund", made)

    def find_refund(self, *, key: str) -> Refund | None:
        """The refund made under this key."""
        effect = effects.find(PROVIDER, key)
        if effect is None:
            return None
        if effect.remote_id:
            return self._refunded("find_refund", effect)
        made = self._seen("find_refund", effect, effect.facts["intent"]) if effect.facts.get("intent") else None
        return _refund("find_refund", made) if made is not None else None

    def come_back(self, params: Mapping[str, str]) -> str:
        """The customer is back from their bank's page: Stripe is asked what became of it."""
        effect = effects.find_remote(PROVIDER, params.get("payment_intent", ""))
        return effect.key if effect is not None else ""

    def check(self) -> str:
        """Lists one payment intent: it shows that the key is good, and of which mode."""
        listed = self._call("check", lambda: self._client.payment_intents.list({"limit": 1}), reads=True)
        mode = "live" if "_live_" in self._options.secret_key else "test"
        return f"{mode} mode, {'some' if listed.data else 'no'} payments so far"

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """One event. Raises BadSignature."""
        if not self._options.webhook_secret:
            raise BadSignature("STRIPE_WEBHOOK_SECRET is not set.")
        try:
            stripe.Webhook.construct_event(body, headers.get("stripe-signature", ""), self._options.webhook_secret)
            event = json.loads(body)
            thing = event["data"]["object"]
            # Charges and disputes are known here by their intent; some things have no number at all.
            about = thing.get("payment_intent") if thing.get("object") in {"charge", "dispute"} else thing.get("id")
            return [Heard(event_id=str(event["id"]), kind=str(event["type"]), about=str(about or ""))]
        except (ValueError, KeyError, TypeError, AttributeError, stripe.SignatureVerificationError) as error:
            raise BadSignature("This is no signed event of Stripe's.") from error

    def hear(self, event: Heard) -> str:
        """Nothing is taken from the event but what it is about: the intent itself is asked."""
        effect = effects.find_remote(PROVIDER, event.about)
        return effect.key if effect is not None else ""

    def _pay(
        self, operation: str, capture: str, amount: Decimal, currency: str, method: str, key: str, order_id: str
    ) -> Charge:
        asked: dict[str, Any] = {
            "amount": to_minor(amount, currency, STRIPE),
            "currency": currency.lower(),
            "payment_method": method,
            "capture_method": capture,
        }
        effect = effects.begin(PROVIDER, key, Kind.CHARGE, operation, **asked)
        if not effect.remote_id:
            wanted = {**asked, "payment_method_types": ["card"], "metadata": {"key": key, "order_id": order_id}}
            made = self._retried(
                operation,
                effect,
                lambda key: self._client.payment_intents.create(
                    wanted,  # type: ignore[arg-type]
                    {"idempotency_key": key},
                ),
                reads=True,  # an intent takes no money before it is confirmed
            )
            effect = effects.note(effect, remote_id=made.id, amount=made.amount)
        intent = self._intent(operation, effect)
        if intent.status == "requires_confirmation":
            if effects.is_barred(effect):
                raise _gone(operation, intent.id)
            where = self._options.return_url or (return_address(PROVIDER) if settings.HTTPS else "")
            confirm: dict[str, Any] = {"return_url": where} if where else {}
            intent = self._retried(
                operation,
                effect,
                lambda key: self._client.payment_intents.confirm(
                    intent.id,
                    confirm,  # type: ignore[arg-type]
                    {"idempotency_key": key},
                ),
                part="confirm",
            )
        if intent.status == "canceled":
            raise _gone(operation, intent.id)
        if intent.status not in SETTLED and intent.status not in PENDING:
            last = intent.last_payment_error
            raise Declined(
                shortened((last and last.message) or "The card was declined."),
                provider=PROVIDER,
                operation=operation,
                code=(last and (last.decline_code or last.code)) or "card_declined",
                provider_id=intent.id,
            )
        return _charge(intent)

    def _retried(
        self, operation: str, effect: OutsideEffect, ask: Callable[[str], T], *, part: str = "", reads: bool = False
    ) -> T:
        """One call with an idempotency key. Stripe answers a key that ended in a 500 with that 500 for a day, so the
        next try has another one: whoever calls this has looked first at what there is."""
        failed = int(effect.facts.get(f"failed {part}", 0))
        key = as_uuid(effect.key, f"{part}{failed or ''}")
        try:
            return self._call(operation, lambda: ask(key), reads=reads)
        except ProviderError as error:
            if error.code == "server_error":
                counted: dict[str, Any] = {f"failed {part}": failed + 1}
                effects.note(effect, **counted)
            raise

    def _seen(self, operation: str, effect: OutsideEffect, intent: str) -> Any | None:
        """A refund of this intent that is ours, or the whole of it by whomever: then nothing is left to give back."""
        listed = self._call(
            operation, lambda: self._client.refunds.list({"payment_intent": intent, "limit": 100}), reads=True
        )
        alive = [one for one in listed.data if one.status not in {"failed", "canceled"}]
        ours = [one for one in alive if one.metadata and one.metadata.to_dict().get("key") == effect.key]
        charge = effects.find_remote(PROVIDER, intent)
        whole = [one for one in alive if charge is not None and one.amount == charge.facts.get("amount")]
        made = next(iter(ours or whole), None)
        if made is not None:
            effects.note(effect, remote_id=made.id)
        return made

    def _cancel(self, effect: OutsideEffect, intent: Any) -> None:
        """Let go of what was not taken. What the bank is at just now can be neither cancelled nor refunded yet."""
        try:
            self._call("refund", lambda: self._client.payment_intents.cancel(intent.id))
        except Declined as error:
            raise effects.not_yet(
                effect, "refund", f"The payment can neither be cancelled nor refunded while it is {intent.status}."
            ) from error

    def _refunded(self, operation: str, effect: OutsideEffect) -> Refund:
        made = self._call(operation, lambda: self._client.refunds.retrieve(effect.remote_id), reads=True)
        return _refund(operation, made)

    def _noted(self, operation: str, key: str) -> OutsideEffect:
        effect = effects.find(PROVIDER, key)
        if effect is None or not effect.remote_id:
            raise Declined("Nothing was set aside.", provider=PROVIDER, operation=operation, code="no_authorization")
        return effect

    def _intent(self, operation: str, effect: OutsideEffect) -> Any:
        return self._call(operation, lambda: self._client.payment_intents.retrieve(effect.remote_id), reads=True)

    def _call(self, operation: str, ask: Callable[[], T], *, reads: bool = False) -> T:
        """One call of the SDK, its errors in our words. `reads`: whatever becomes of it, no money moves."""
        try:
            return ask()
        except stripe.StripeError as error:
            raise _outcome(operation, error, reads) from error


def _outcome(operation: str, error: stripe.StripeError, reads: bool) -> ProviderError:
    about: dict[str, Any] = {"provider": PROVIDER, "operation": operation}
    if isinstance(error, stripe.CardError):
        said = error.json_body["error"] if isinstance(error.json_body, dict) else {}
        intent = said.get("payment_intent") or {}
        return Declined(
            shortened(error.user_message or "The card was declined."),
            code=said.get("decline_code") or error.code or "card_declined",
            provider_id=str(intent.get("id") or ""),
            **about,
        )
    if isinstance(error, stripe.RateLimitError):
        return Unavailable("Stripe wants fewer calls (429).", code="too_many", **about)
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return Unavailable(f"Stripe does not accept our key ({error.http_status}).", code="credentials", **about)
    if isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError):
        if error.http_status == 409:  # another call holds the key or the intent just now, and nothing was done
            return Unavailable("Stripe is at this payment just now (409).", code="busy", **about)
        return Declined(shortened(error.user_message or str(error)), code=error.code or "rejected", **about)
    kind = Unavailable if reads or was_not_sent(error) else OutcomeUnknown
    code = "server_error" if (error.http_status or 0) >= 500 else ""
    return kind(
        f"Stripe gave no answer ({type(error).__name__}, {error.http_status or 'nothing'}).", code=code, **about
    )


def _charge(intent: Any) -> Charge:
    url = ""
    action = getattr(intent, "next_action", None)
    if intent.status == "requires_action" and action and getattr(action, "redirect_to_url", None):
        url = str(action.redirect_to_url.url)
    return Charge(
        transaction_id=intent.id,
        amount=from_minor(intent.amount, intent.currency, STRIPE),
        currency=intent.currency.upper(),
        status=SETTLED.get(intent.status, "pending"),  # type: ignore[arg-type]
        next_url=url,
    )


def _refund(operation: str, made: Any) -> Refund:
    if made.status in {"failed", "canceled"}:
        raise Declined(
            f"The refund {made.status}: {getattr(made, 'failure_reason', None) or 'no reason given'}.",
            provider=PROVIDER,
            operation=operation,
            code="refund_failed",
            provider_id=made.id,
        )
    return Refund(
        refund_id=made.id,
        amount=from_minor(made.amount, made.currency, STRIPE),
        status="completed" if made.status == "succeeded" else "pending",
    )


def _gone(operation: str, intent: str) -> Declined:
    return Declined(
        "This payment was called off before it came.",
        provider=PROVIDER,
        operation=operation,
        code="already_undone",
        provider_id=intent,
    )
