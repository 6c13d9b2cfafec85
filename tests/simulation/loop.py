"""An event loop whose time goes by only when nobody has anything to do, and whose order of play is a matter of dice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any


class Deadlock(AssertionError):
    """Everybody waits, and nothing will ever wake anybody."""


class _NoSelector:
    """Nothing comes from outside: a wait is over at once, and its time has passed."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("Nobody has anything left to do, and the story is not over.")
        self.loop.now += timeout
        return []

    def close(self) -> None:
        pass


class SimulatedLoop(asyncio.BaseEventLoop):
    """Virtual seconds from 0. What is ready at the same moment goes in an order of the dice."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.now = 0.0
        self._dice = dice
        self._clock_resolution = 1e-6
        self._selector = _NoSelector(self)

    def time(self) -> float:
        return self.now

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        if len(ready) > 1:
            shuffled = list(ready)
            self._dice.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]


def play(story: Coroutine[Any, Any, None], dice: random.Random) -> None:
    """Run `story` to its end in a loop of its own."""
    loop = SimulatedLoop(dice)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(story)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
