"""PayPal, Orders v2 and Payments v2, over HTTP. Settings and what is proven: docs/providers/paypal.md.

`method` says how the customer pays: the id of an order that they approved at the checkout; `vault:<id>` for a means of
payment kept at PayPal; or `paypal`, to have an order made here that they approve afterwards, while the step waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from django.utils import timezone

from orders.models import OutsideEffect
from orders.money import quantize
from orders.providers import effects
from orders.providers.base import BadSignature, Charge, Heard, Refund
from orders.providers.effects import Kind
from orders.providers.errors import NOT_SEEN, Declined, OutcomeUnknown, Unavailable
from orders.providers.http import Answer, ClientCredentials, Http, fetch_token, number_of
from orders.providers.keys import as_uuid, return_address
from orders.providers.money import to_paypal
from orders.providers.options import ADDRESS, SECONDS, option, read

PROVIDER = "paypal"
WHOLE = {"Prefer": "return=representation"}
NEW, VAULT = "paypal", "vault:"
ORDER_ID = re.compile(r"[A-Z0-9]{1,36}")
NOT_APPROVED = frozenset({"ORDER_NOT_APPROVED", "PAYER_ACTION_REQUIRED"})
DONE_BEFORE = frozenset({"ORDER_ALREADY_CAPTURED", "ORDER_ALREADY_AUTHORIZED", "DUPLICATE_INVOICE_ID"})
REFUNDED_BEFORE = frozenset({"CAPTURE_FULLY_REFUNDED"})
AT_IT = frozenset({"PREVIOUS_REQUEST_IN_PROGRESS"})
TAKEN = frozenset({"COMPLETED", "REFUNDED", "PARTIALLY_REFUNDED"})
NOT_TAKEN = frozenset({"DECLINED", "FAILED", "DENIED", "VOIDED", "EXPIRED"})
KEPT = timedelta(hours=5)
"""Orders' request ids are good for six hours; what is sent after that may be a second order."""
CERTIFICATES = ".paypal.com"
SIGNATURE_HEADERS = {
    "auth_algo": "paypal-auth-algo",
    "cert_url": "paypal-cert-url",
    "transmission_id": "paypal-transmission-id",
    "transmission_sig": "paypal-transmission-sig",
    "transmission_time": "paypal-transmission-time",
}


@dataclass(frozen=True, kw_only=True)
class PayPalOptions:
    """What PayPal's adapter has to be told."""

    client_id: str = option("PAYPAL_CLIENT_ID", example="the app's client id")
    client_secret: str = option("PAYPAL_CLIENT_SECRET", secret=True, example="the app's secret")
    webhook_id: str = option("PAYPAL_WEBHOOK_ID", "", example="the id of the webhook in the developer dashboard")
    return_url: str = option(
        "PAYPAL_RETURN_URL", "", form=ADDRESS, example="where customers go after approving; empty for the shop's own"
    )
    url: str = option(
        "PAYPAL_URL", "https://api-m.paypal.com", form=ADDRESS, example="an address", toy=r"https?://[^/]*sandbox"
    )
    seconds: str = option("PAYPAL_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class PayPalGateway:
    """A PaymentGateway that also captures, checks and sends webhooks."""

    Options = PayPalOptions

    def __init__(self, options: PayPalOptions | None = None) -> None:
        self._options = options or read(PayPalOptions)
        seconds = float(self._options.seconds)
        basic = (self._options.client_id, self._options.client_secret)
        tokens = Http(PROVIDER, self._options.url, seconds=seconds, auth=basic)
        self._fetch: Callable[[], tuple[str, float]] = lambda: fetch_token(
            tokens, "/v1/oauth2/token", {"grant_type": "client_credentials"}
        )
        self._http = Http(PROVIDER, self._options.url, seconds=seconds, auth=ClientCredentials(self._fetch))

    def charge(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Capture an approved order. Raises Declined with PayPal's issue, like INSTRUMENT_DECLINED."""
        return self._pay("charge", "CAPTURE", amount, currency, method, key, order_id)

    def authorize(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Have an approved order's amount set aside; PayPal keeps it for 29 days, and honours it for 3."""
        return self._pay("authorize", "AUTHORIZE", amount, currency, method, key, order_id)

    def capture(self, *, charge_key: str, key: str) -> Charge:
        """Take what was set aside."""
        effect = effects.find(PROVIDER, charge_key)
        order = self._order("capture", effect) if effect is not None and effect.remote_id else {}
        if not _captures(order):
            authorization = _only(_payments(order, "authorizations"))
            if effect is not None and authorization.get("status") == "PENDING":
                raise effects.not_yet(effect, "capture", "PayPal is still looking at the authorization.")
            if authorization.get("status") not in {"CREATED", "PARTIALLY_CAPTURED"}:
                raise self._http.declined("capture", "The authorization is gone.", "authorization_gone")
            answer = self._http.ask(
                "capture",
                "POST",
                f"/v2/payments/authorizations/{_part(authorization['id'])}/capture",
                json={"final_capture": True},
                headers={"PayPal-Request-Id": as_uuid(key), **WHOLE},
            )
            self._judge("capture", answer)
            order = self._order("capture", effect)
        return self._charge("capture", order)

    def find_charge(self, *, key: str) -> Charge | None:
        """The charge made under this key: pending as long as nobody has approved it, None when it is approved and was
        not taken yet."""
        effect = effects.find(PROVIDER, key)
        if effect is None:
            return None
        if not effect.remote_id:
            self._not_lost("find_charge", effect, since=KEPT)
            return None
        order = self._order("find_charge", effect)
        if order.get("status") in {"APPROVED", "VOIDED"}:
            return None
        try:
            return self._charge("find_charge", order)
        except Declined:
            return None

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        """Give back what was captured, or void what was set aside; None if nothing was taken."""
        known = effects.find(PROVIDER, key)
        if known is not None and known.remote_id:
            return self._refunded("refund", known)
        effect = effects.bar(PROVIDER, charge_key, Kind.CHARGE)
        if not effect.remote_id:
            self._not_lost("refund", effect)
            return None  # an order of which no number came back was never approved by anybody
        order = self._order("refund", effect)
        authorization = _only(_payments(order, "authorizations"))
        taken = _captures(order)
        if not taken:
            if authorization.get("status") in {"CREATED", "PENDING", "PARTIALLY_CAPTURED"}:
                self._void(authorization["id"], key)
            return None
        capture = _only(taken)
        if capture["status"] == "PENDING":
            raise effects.not_yet(effect, "refund", "The payment is pending, and cannot be given back yet.")
        if capture["status"] in {"DECLINED", "FAILED"}:
            return None
        effect = effects.begin(PROVIDER, key, Kind.REFUND, "refund", charge=charge_key)
        answer = self._http.ask(
            "refund",
            "POST",
            f"/v2/payments/captures/{_part(capture['id'])}/refund",
            json={"custom_id": as_uuid(key)},
            headers={"PayPal-Request-Id": as_uuid(key), **WHOLE},
        )
        if not answer.is_good and _issue(answer) in REFUNDED_BEFORE:
            made = _only(_payments(self._order("refund", effects.bar(PROVIDER, charge_key, Kind.CHARGE)), "refunds"))
            if not made:
                raise self._http.declined("refund", "This charge was refunded already.", "already_refunded")
        else:
            self._judge("refund", answer)
            made = answer.said
        effects.note(effect, remote_id=number_of(made, "id"))
        return self._refund("refund", made)

    def find_refund(self, *, key: str) -> Refund | None:
        """The refund made under this key."""
        effect = effects.find(PROVIDER, key)
        return self._refunded("find_refund", effect) if effect is not None and effect.remote_id else None

    def come_back(self, params: Mapping[str, str]) -> str:
        """The customer is back from PayPal: it is asked what became of the order."""
        effect = effects.find_remote(PROVIDER, params.get("token", ""))
        return effect.key if effect is not None else ""

    def check(self) -> str:
        """Fetches a token: it shows that id and secret belong together."""
        self._fetch()
        return "sandbox credentials are good" if "sandbox" in self._options.url else "credentials are good"

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """One event, its signature checked by PayPal itself. Raises BadSignature."""
        try:
            event = json.loads(body)
            about = event["resource"]
            proof = {name: headers[header] for name, header in SIGNATURE_HEADERS.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise BadSignature("This is no signed event of PayPal's.") from error
        if not self._options.webhook_id:
            raise BadSignature("PAYPAL_WEBHOOK_ID is not set.")
        where = urlsplit(proof["cert_url"])
        if where.scheme != "https" or not (where.hostname or "").endswith(CERTIFICATES):
            raise BadSignature("The certificate is not PayPal's.")
        told = json.dumps({**proof, "webhook_id": self._options.webhook_id})
        answer = self._http.ask(
            "read_webhook",
            "POST",
            "/v1/notifications/verify-webhook-signature",
            # To the letter as it came: written anew, its checksum would be another one.
            content=told[:-1].encode() + b', "webhook_event": ' + body + b"}",
            headers={"Content-Type": "application/json"},
            reads=True,
        )
        if answer.said.get("verification_status") != "SUCCESS":
            raise BadSignature("PayPal says that it did not sign this.")
        try:
            related = (about.get("supplementary_data") or {}).get("related_ids") or {}
            return [
                Heard(
                    event_id=str(event["id"]),
                    kind=str(event["event_type"]),
                    about=str(about.get("id") or ""),
                    facts={"order": str(related.get("order_id") or "")},
                )
            ]
        except (KeyError, AttributeError) as error:
            raise BadSignature("This is no event of PayPal's.") from error

    def hear(self, event: Heard) -> str:
        """Nothing is taken from the event but what it is about, a refund or an order: PayPal is asked."""
        effect = effects.find_remote(PROVIDER, event.about) or effects.find_remote(
            PROVIDER, event.facts.get("order", "")
        )
        return effect.key if effect is not None else ""

    def _pay(
        self, operation: str, intent: str, amount: Decimal, currency: str, method: str, key: str, order_id: str
    ) -> Charge:
        value = to_paypal(amount, currency)
        effect = effects.begin(PROVIDER, key, Kind.CHARGE, operation, intent=intent, value=value, currency=currency)
        is_ours = method == NEW or method.startswith(VAULT)
        if not effect.remote_id and is_ours:
            self._not_lost(operation, effect, since=KEPT)
            if effects.is_barred(effect):
                raise self._http.declined(operation, "This was undone before it came.", "already_undone")
            if method.startswith(VAULT) and not effect.facts.get("may_take"):
                effect = effects.note(effect, may_take=timezone.now().isoformat())
            remote = self._make_order(operation, intent, value, currency, method, key, order_id)
            effect = effects.note(effect, remote_id=remote)
        elif not effect.remote_id:
            if not ORDER_ID.fullmatch(method):
                raise self._http.declined(operation, "This is no order of PayPal's.", "order_not_found")
            effect = effects.take_number(effect, method, operation)
        order = self._order(operation, effect)
        if not is_ours and order.get("status") == "COMPLETED":
            effect.refresh_from_db()  # another worker may have asked since, which it writes down before it does
            if not effect.facts.get("asked"):
                # Taken before we ever asked: by somebody else, for something else.
                raise self._http.declined(
                    operation, "This payment was taken before.", "number_taken", provider_id=effect.remote_id
                )
        if order.get("status") == "APPROVED":
            effect = effects.note(effect, asked=True)
            self._check_amount(operation, order, value, currency)
            if effects.is_barred(effect):
                raise self._http.declined(operation, "This was undone before it came.", "already_undone")
            verb = "capture" if intent == "CAPTURE" else "authorize"
            answer = self._http.ask(
                operation,
                "POST",
                f"/v2/checkout/orders/{_part(effect.remote_id)}/{verb}",
                json={},
                headers={"PayPal-Request-Id": as_uuid(key, verb), **WHOLE},
            )
            if not answer.is_good and _issue(answer) not in DONE_BEFORE | NOT_APPROVED:
                self._judge(operation, answer)
            order = self._order(operation, effect)
        return self._charge(operation, order)

    def _make_order(
        self, operation: str, intent: str, value: str, currency: str, method: str, key: str, order_id: str
    ) -> str:
        body: dict[str, Any] = {
            "intent": intent,
            "purchase_units": [
                {
                    "amount": {"currency_code": currency, "value": value},
                    "custom_id": as_uuid(key),
                    "invoice_id": as_uuid(key),
                    "description": f"Order {order_id}"[:127],
                }
            ],
        }
        if method.startswith(VAULT):
            body["payment_source"] = {"token": {"id": method.removeprefix(VAULT), "type": "BILLING_AGREEMENT"}}
        else:
            where = self._options.return_url or return_address(PROVIDER)
            context = {"return_url": where, "cancel_url": where}
            body["payment_source"] = {"paypal": {"experience_context": context}}
        headers = {"PayPal-Request-Id": as_uuid(key, "order"), **WHOLE}
        try:
            answer = self._http.ask(operation, "POST", "/v2/checkout/orders", json=body, headers=headers)
            self._judge(operation, answer)
        except (Declined, Unavailable):
            self._forget(key)
            raise
        return number_of(answer.said, "id")

    def _forget(self, key: str) -> None:
        """Nothing came of the order that was asked for."""
        effect = effects.find(PROVIDER, key)
        if effect is not None and effect.facts.get("may_take"):
            effects.note(effect, may_take="")

    def _not_lost(self, operation: str, effect: OutsideEffect, *, since: timedelta = timedelta(0)) -> None:
        """Raise OutcomeUnknown for an order that may have taken money and whose number never came: orders cannot be
        looked for by our reference."""
        asked = effect.facts.get("may_take")
        if asked and timezone.now() - datetime.fromisoformat(asked) >= since:
            raise OutcomeUnknown(
                f"An order on a stored means of payment was sent and its answer was lost. Look in PayPal for the "
                f"invoice {as_uuid(effect.key)}.",
                provider=PROVIDER,
                operation=operation,
                code=NOT_SEEN,
            )

    def _check_amount(self, operation: str, order: Mapping[str, Any], value: str, currency: str) -> None:
        asked = order["purchase_units"][0]["amount"]
        if (Decimal(asked["value"]), asked["currency_code"]) != (Decimal(value), currency):
            raise self._http.declined(
                operation,
                f"The customer approved {asked['value']} {asked['currency_code']}, not {value} {currency}.",
                "amount_mismatch",
                provider_id=str(order["id"]),
            )

    def _order(self, operation: str, effect: OutsideEffect | None) -> dict[str, Any]:
        remote = effect.remote_id if effect is not None else ""
        answer = self._http.ask(operation, "GET", f"/v2/checkout/orders/{_part(remote)}")
        if answer.status == httpx.codes.NOT_FOUND:
            raise self._http.declined(operation, "PayPal knows no such order.", "order_not_found", provider_id=remote)
        self._judge(operation, answer)
        return dict(answer.said)

    def _void(self, authorization: str, key: str) -> None:
        answer = self._http.ask(
            "refund",
            "POST",
            f"/v2/payments/authorizations/{_part(authorization)}/void",
            headers={"PayPal-Request-Id": as_uuid(key)},
        )
        if not answer.is_good and _issue(answer) != "PREVIOUSLY_VOIDED":
            self._judge("refund", answer)

    def _refunded(self, operation: str, effect: OutsideEffect) -> Refund:
        answer = self._http.ask(operation, "GET", f"/v2/payments/refunds/{_part(effect.remote_id)}")
        self._judge(operation, answer)
        return self._refund(operation, answer.said)

    def _judge(self, operation: str, answer: Answer) -> None:
        """Raise what a failed answer means."""
        if answer.is_good:
            return
        issue = _issue(answer)
        if issue in AT_IT:
            raise self._http.away(operation, "PayPal is at this request just now.", "busy")
        detail: dict[str, Any] = next(iter(answer.said.get("details") or []), {})
        words = detail.get("description") or answer.said.get("message") or f"PayPal refused ({answer.status})."
        raise self._http.declined(operation, words, issue or f"http_{answer.status}")

    def _charge(self, operation: str, order: Mapping[str, Any]) -> Charge:
        """What the order has come to. Raises Declined for a capture that was declined."""
        unit = order["purchase_units"][0]
        currency = str(unit["amount"]["currency_code"])
        made = _only(_captures(order)) or _only(_payments(order, "authorizations"))
        if not made:
            links = {link["rel"]: link["href"] for link in order.get("links", [])}
            return Charge(
                transaction_id=str(order["id"]),
                amount=_amount(unit["amount"]),
                currency=currency,
                status="pending",
                next_url=links.get("payer-action") or links.get("approve", ""),
            )
        status = str(made["status"])
        if status in NOT_TAKEN:
            reason = (made.get("status_details") or {}).get("reason", "")
            raise self._http.declined(
                operation, "The payment was declined.", reason or "declined", provider_id=str(made["id"])
            )
        is_capture = bool(_captures(order))
        settled = status in TAKEN if is_capture else status in {"CREATED", "CAPTURED", "PARTIALLY_CAPTURED"}
        return Charge(
            transaction_id=str(made["id"]),
            amount=_amount(made.get("amount") or unit["amount"]),
            currency=currency,
            status=("completed" if is_capture else "authorized") if settled else "pending",
        )

    def _refund(self, operation: str, made: Mapping[str, Any]) -> Refund:
        if made["status"] in {"CANCELLED", "FAILED"}:
            raise self._http.declined(
                operation, f"The refund is {made['status'].lower()}.", "refund_failed", provider_id=str(made["id"])
            )
        return Refund(
            refund_id=str(made["id"]),
            amount=_amount(made["amount"]),
            status="completed" if made["status"] == "COMPLETED" else "pending",
        )


def _part(number: str) -> str:
    """A number as part of an address: customers bring some of them."""
    return quote(number, safe="").replace(".", "%2E")


def _issue(answer: Answer) -> str:
    """PayPal's short name of what is wrong."""
    detail: dict[str, Any] = next(iter(answer.said.get("details") or []), {})
    return str(detail.get("issue") or answer.said.get("name") or "")


def _payments(order: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    units = order.get("purchase_units") or [{}]
    return list((units[0].get("payments") or {}).get(kind) or [])


def _captures(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _payments(order, "captures")


def _only(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last of them: an earlier one was declined. {} for none."""
    return rows[-1] if rows else {}


def _amount(money: Mapping[str, str]) -> Decimal:
    return quantize(Decimal(money["value"]), money["currency_code"])
