"""The order's four steps with actions that do nothing, that wait, or that are refused; every step durable."""

from __future__ import annotations

import asyncio
from typing import Any

from sagas import Kind, Saga, Step, StepContext, StepRefused

RESULTS: dict[str, dict[str, Any]] = {
    "reserve_inventory": {"reserved_items": [{"sku": "ITEM-001", "quantity": 2, "reservation_id": "RES-1"}]},
    "process_payment": {"transaction_id": "TXN-1", "amount": 99.99, "status": "completed"},
    "create_shipment": {"shipment_id": "SHIP-1", "tracking_number": "TRK-1", "estimated_delivery": "2024-01-15"},
    "send_confirmation_email": {"email_sent": True, "email_id": "EMAIL-1"},
}
WAIT_SECONDS = 0.05


async def act(ctx: StepContext) -> dict[str, Any]:
    """Returns what the order's step returns."""
    return RESULTS[ctx.step]


async def act_in_time(ctx: StepContext) -> dict[str, Any]:
    await asyncio.sleep(WAIT_SECONDS)
    return RESULTS[ctx.step]


async def act_unless_shipping(ctx: StepContext) -> dict[str, Any]:
    if ctx.step == "create_shipment":
        raise StepRefused("No delivery to this address.", code="address_refused")
    return RESULTS[ctx.step]


async def undo(ctx: StepContext) -> dict[str, Any]:
    return {"undone": ctx.step}


def _saga(name: str, action: Any) -> Saga:
    reserve, pay, ship, mail = RESULTS
    return Saga(
        name=name,
        version=1,
        steps=(
            Step(name=reserve, action=action, compensation=undo),
            Step(name=pay, action=action, compensation=undo),
            Step(name=ship, action=action, compensation=undo, kind=Kind.PIVOT),
            Step(name=mail, action=action, kind=Kind.RETRIABLE),
        ),
    )


SAGAS = {
    "nothing": _saga("bench_nothing", act),
    "waits": _saga("bench_waits", act_in_time),
    "refused": _saga("bench_refused", act_unless_shipping),
}
"""By what the actions do: nothing, wait 50 ms each, or nothing until the shipment is refused (two compensations)."""
