"""A gateway with a durable ledger of its own: what it did survives a crash of ours and can be looked up.

Test cards, by token; any other is charged:
tok_declined, tok_insufficient_funds   refused
tok_lose_answer                        charged, and the first answer is lost
tok_gateway_down_once                  the gateway is away the first time
tok_refund_fails                       charged; the gateway is away for as many tries of the refund as an undo has,
                                       so that a person must ask for another
tok_refund_refused                     charged; the refund is refused
"""

from __future__ import annotations

import secrets
from decimal import Decimal

from django.conf import settings
from django.db import IntegrityError
from django.db.models import F

from orders.models import SandboxCharge, SandboxRefund
from orders.providers.base import Charge, Refund
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.ledger import added, first_times, own_commit

PROVIDER = "sandbox gateway"
DECLINED = {
    "tok_declined": ("card_declined", "The card was declined."),
    "tok_insufficient_funds": ("insufficient_funds", "The card was declined: insufficient funds."),
}


class SandboxGateway:
    """The default payment gateway."""

    def charge(
        self, *, amount: Decimal, currency: str, method: str, key: str, order_id: str, customer: str = ""
    ) -> Charge:
        """Take `amount`, once per key. Raises Declined (card_declined, key_reused, already_undone)."""
        if method in DECLINED:
            code, message = DECLINED[method]
            raise Declined(message, provider=PROVIDER, operation="charge", code=code)
        if method == "tok_gateway_down_once" and first_times(f"{PROVIDER}:{key}:down", 1):
            raise _away("charge")
        charge, is_new = _book(amount, currency, method, key, order_id)
        if charge.barred or charge.refunded:
            # Also one that was made: who comes with its key again would take its receipt for money that is here.
            raise Declined(
                "This charge was called off before it came." if charge.barred else "This charge was given back.",
                provider=PROVIDER,
                operation="charge",
                code="already_undone",
            )
        if (charge.amount, charge.currency) != (amount, currency):
            raise Declined(
                "This key was used for another amount.", provider=PROVIDER, operation="charge", code="key_reused"
            )
        if is_new and method == "tok_lose_answer":
            raise OutcomeUnknown(
                "The connection was cut before the gateway answered.", provider=PROVIDER, operation="charge"
            )
        return _charge(charge)

    def find_charge(self, *, key: str) -> Charge | None:
        """The charge made under this key."""
        charge = SandboxCharge.objects.filter(key=key, barred=False).first()
        return _charge(charge) if charge is not None else None

    def refund(self, *, charge_key: str, key: str) -> Refund | None:
        """Give the charge back, once per key. None if there was none; it is then barred for good."""
        known = SandboxRefund.objects.filter(key=key).first()
        if known is not None:
            return _refund(known)
        charge = _bar_or_find(charge_key)
        if charge.barred:
            return None
        if charge.method == "tok_refund_refused":
            raise Declined(
                "The refund was refused: the charge is disputed.",
                provider=PROVIDER,
                operation="refund",
                code="charge_disputed",
                provider_id=charge.transaction_id,
            )
        if charge.method == "tok_refund_fails" and first_times(
            f"{PROVIDER}:{key}:refund", settings.ORDER_PATIENT_ATTEMPTS
        ):
            raise _away("refund")
        return _give_back(charge, key)

    def find_refund(self, *, key: str) -> Refund | None:
        """The refund made under this key."""
        refund = SandboxRefund.objects.filter(key=key).first()
        return _refund(refund) if refund is not None else None


def _book(amount: Decimal, currency: str, method: str, key: str, order_id: str) -> tuple[SandboxCharge, bool]:
    """The charge of that key, and whether it is new. Of two at once one finds the other's."""
    charge = SandboxCharge(
        key=key,
        transaction_id=f"TXN-{secrets.token_hex(6).upper()}",
        order_id=order_id,
        amount=amount,
        currency=currency,
        method=method,
    )
    if added(charge):
        return charge, True
    return SandboxCharge.objects.get(key=key), False


def _bar_or_find(charge_key: str) -> SandboxCharge:
    """The charge of that key; if there is none, a row that turns it away should it still come."""
    charge = SandboxCharge(
        key=charge_key,
        transaction_id=f"TXN-{secrets.token_hex(6).upper()}",
        amount=Decimal(0),
        currency=settings.SHOP_CURRENCY,
        barred=True,
    )
    return charge if added(charge) else SandboxCharge.objects.get(key=charge_key)


def _give_back(charge: SandboxCharge, key: str) -> Refund:
    try:
        with own_commit():
            # Never more than was charged, also when two different refunds come at once.
            whole = SandboxCharge.objects.filter(pk=charge.pk, refunded=0)
            if not whole.update(refunded=F("amount")):
                raise Declined(
                    "This charge was refunded already, under another key.",
                    provider=PROVIDER,
                    operation="refund",
                    code="already_refunded",
                    provider_id=charge.transaction_id,
                )
            refund_id = f"RFN-{secrets.token_hex(6).upper()}"
            refund = SandboxRefund.objects.create(key=key, refund_id=refund_id, charge=charge, amount=charge.amount)
    except (IntegrityError, Declined):
        known = SandboxRefund.objects.filter(key=key).first()  # the same refund, asked for in the same moment
        if known is None:
            raise
        return _refund(known)
    return _refund(refund)


def _away(operation: str) -> ProviderError:
    return Unavailable("The gateway is away (503).", provider=PROVIDER, operation=operation)


def _charge(charge: SandboxCharge) -> Charge:
    return Charge(transaction_id=charge.transaction_id, amount=charge.amount, currency=charge.currency)


def _refund(refund: SandboxRefund) -> Refund:
    return Refund(refund_id=refund.refund_id, amount=refund.amount)
