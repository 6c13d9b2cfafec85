"""Restate's side of the order: what hypercorn serves. ENDS names the file that gets a letter for each order's end."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import restate
from restate.exceptions import TerminalError

from benchmarks.peers.order import RESULTS, STEPS, UNDOES, WAIT_SECONDS

ends = os.open(os.environ["ENDS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
order = restate.Service("Order")


@order.handler()
async def run(ctx: restate.Context, kind: str) -> str:
    """Each step is journaled by ctx.run; a refusal is terminal, and what was done is undone in reverse."""
    try:
        for step in STEPS:
            await ctx.run_typed(step, act, step=step, kind=kind)
    except TerminalError:
        for step in UNDOES:
            await ctx.run_typed(f"undo_{step}", undo, step=step)
        os.write(ends, b"u")
        return "compensated"
    os.write(ends, b"c")
    return "completed"


async def act(step: str, kind: str) -> dict[str, Any]:
    if kind == "waits":
        await asyncio.sleep(WAIT_SECONDS)
    if kind == "refused" and step == "create_shipment":
        raise TerminalError("No delivery to this address.")
    return RESULTS[step]


async def undo(step: str) -> dict[str, Any]:
    return {"undone": step}


app = restate.app([order])
