"""The world outside: it does what it is asked for once per key, and is as bad at answering as the dice will have it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sagas import StepContext, StepRefused, StepUnavailable, StepUnknown, WaitFor
from sagas.states import Direction

Trace = Callable[[str], None]

FATES = ("well", "refused", "away", "lost", "silent", "slow")
MOODS = ((60, 4, 12, 8, 8, 8), (90, 1, 3, 2, 2, 2), (40, 2, 20, 14, 12, 12), (96, 4, 0, 0, 0, 0))
LONGEST = 12.0
"""Seconds that a slow request or answer may take; a step's timeout is shorter."""


class World:
    """A ledger by key. A request that was sent goes on by itself: who sent it may be dead when it arrives."""

    def __init__(self, dice: random.Random, trace: Trace) -> None:
        self.dice = dice
        self.trace = trace
        self.is_kind = False
        """No more faults."""
        self.mood = dice.choice(MOODS)
        self.done: list[str] = []
        """Keys whose effect came about, in that order."""
        self.barred: set[str] = set()
        """Keys whose undo came first: they are turned away."""
        self.refused: set[str] = set()
        """Keys that were told no, and are told no for ever."""
        self.waits: set[str] = set()
        """Steps that wait for a signal of their name."""
        self.under_way: dict[str, set[asyncio.Future[str]]] = defaultdict(set)
        self.counts: Counter[str] = Counter()

    async def act(self, ctx: StepContext) -> Any:
        """The action and the compensation of every step."""
        if ctx.step in self.waits and ctx.signal is None and ctx.direction is Direction.ACTION:
            self.trace(f"    {ctx.key}: waits for a signal")
            return WaitFor(signal=ctx.step, timeout=timedelta(seconds=self.dice.uniform(30, 120)))
        fate = self._fate()
        self.trace(f"    {ctx.key}: {fate} (try {ctx.attempt})")
        slow = LONGEST if fate == "slow" else 1.0
        request, answer = self.dice.uniform(0, slow), self.dice.uniform(0, slow)
        if fate in ("away", "silent"):
            await asyncio.sleep(request)
            raise StepUnavailable("Nobody is there.") if fate == "away" else StepUnknown("The line broke.")
        if fate == "refused" and ctx.key not in self.done:
            self.refused.add(ctx.key)
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[str] = loop.create_future()
        self.under_way[ctx.key].add(arrival)
        loop.call_later(request, self._arrive, ctx, arrival)
        said = await asyncio.shield(arrival)
        await asyncio.sleep(answer)
        if fate == "lost" or said == "dropped":
            raise StepUnknown("The answer was lost.")
        if said == "no":
            raise StepRefused("It says no.", code="said_no")
        return {"reference": ctx.key}

    async def look_up(self, ctx: StepContext) -> Any:
        """What is known under the key. A no is meant: nothing that is still under way will be taken in after it."""
        fate = self._fate()
        await asyncio.sleep(self.dice.uniform(0, LONGEST if fate == "slow" else 1.0))
        if fate in ("away", "lost", "silent"):
            raise StepUnavailable("The books are closed.")
        found = ctx.key in self.done
        self.trace(f"    {ctx.key}: looked up, {'found' if found else 'not found'}")
        if found:
            return {"reference": ctx.key}
        for arrival in self.under_way.pop(ctx.key, set()):
            arrival.set_result("dropped")
        return None

    def _fate(self) -> str:
        fate = "well" if self.is_kind else self.dice.choices(FATES, self.mood)[0]
        self.counts[fate] += 1
        return fate

    def _arrive(self, ctx: StepContext, arrival: asyncio.Future[str]) -> None:
        if arrival.done():
            return
        self.under_way[ctx.key].discard(arrival)
        arrival.set_result(self._answer(ctx))

    def _answer(self, ctx: StepContext) -> str:
        if ctx.key in self.refused or ctx.key in self.barred:
            return "no"
        if ctx.direction is Direction.COMPENSATION and ctx.action_key not in self.done:
            self.trace(f"    {ctx.key}: nothing to undo, and barred from now on")
            self.barred.add(ctx.action_key)
        elif ctx.key not in self.done:
            self.trace(f"    {ctx.key}: DONE")
            self.done.append(ctx.key)
        return "yes"
