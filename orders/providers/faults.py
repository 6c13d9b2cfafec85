"""Wraps any provider and makes it fail as planned: say no, be away, be slow, do it and lose the answer, or stay silent.

Plans are rows, so that a test or the demo can plan a failure that happens in a worker process.

    plan("payments", "charge", "lose_answer", times=1, match="ORD-7")
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db.models import F

from orders.models import FaultPlan
from orders.providers.base import Carrier, InventoryService, Mailer, PaymentGateway
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable

Kind = FaultPlan.Kind
INTERFACES: dict[str, type] = {
    "inventory": InventoryService,
    "payments": PaymentGateway,
    "shipping": Carrier,
    "mail": Mailer,
}


def plan(
    provider: str,
    operation: str,
    kind: FaultPlan.Kind | str,
    *,
    times: int = 1,
    match: str = "",
    code: str = "",
    seconds: float = 0,
) -> FaultPlan:
    """Have the next `times` calls of provider.operation fail, of those whose arguments' text holds `match`.

    `code` is what a refusal says, `seconds` how long a slow call takes longer. Raises ValueError for a provider, an
    operation or a kind that there is not: such a plan would never come true, and the test would prove nothing.
    """
    if operation.startswith("_") or not hasattr(INTERFACES.get(provider), operation):
        raise ValueError(f"There is no {provider}.{operation} that could fail.")
    return FaultPlan.objects.create(
        provider=provider,
        operation=operation,
        kind=Kind(kind),
        remaining=times,
        match=match,
        code=code,
        seconds=seconds,
    )


def clear() -> None:
    """Every provider is well again."""
    FaultPlan.objects.filter(remaining__gt=0).update(remaining=0)


class Faulty:
    """A provider whose calls fail while a plan says so."""

    def __init__(self, kind: str, provider: Any, *, wait: Callable[[float], None] = time.sleep) -> None:
        self._kind = kind
        self._provider = provider
        self._wait = wait

    def __getattr__(self, operation: str) -> Any:
        wrapped: Callable[..., Any] = getattr(self._provider, operation)

        def call(*args: Any, **kwargs: Any) -> Any:
            fault = self._next_fault(operation, repr((args, kwargs)))
            if fault is None:
                return wrapped(*args, **kwargs)
            return self._fail(fault, operation, lambda: wrapped(*args, **kwargs))

        return call

    def _next_fault(self, operation: str, text: str) -> FaultPlan | None:
        plans = FaultPlan.objects.filter(provider=self._kind, operation=operation, remaining__gt=0).order_by("id")
        for fault in plans:
            if fault.match not in text:
                continue
            # Two workers may read the same last failure: the guarded write gives it to one of them.
            taken = FaultPlan.objects.filter(pk=fault.pk, remaining__gt=0)
            if taken.update(remaining=F("remaining") - 1, fired=F("fired") + 1):
                return fault
        return None

    def _fail(self, fault: FaultPlan, operation: str, happen: Callable[[], Any]) -> Any:
        about: dict[str, Any] = {"provider": self._kind, "operation": operation, "code": fault.code}
        if fault.kind == Kind.REFUSE:
            raise Declined("Said no, as planned.", **about)
        if fault.kind == Kind.UNAVAILABLE:
            raise Unavailable("Is away, as planned.", **about)
        if fault.kind == Kind.SLOW:
            self._wait(fault.seconds)
            return happen()
        if fault.kind == Kind.LOSE_ANSWER:
            with suppress(ProviderError):  # whatever the answer was, also a no, it is the one that is lost
                happen()
            raise OutcomeUnknown("Did it, and the answer was lost, as planned.", **about)
        raise OutcomeUnknown("Gave no answer, as planned; nothing was done.", **about)
