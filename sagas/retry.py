"""When to try again. Pure: given the number of failures and the time, it names the next moment or says no."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from sagas.exceptions import DefinitionError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, how far apart and for how long an action or a compensation is tried.

    The delay after the n-th failure is drawn from 0 to min(cap, first * factor ** (n - 1)): full jitter, so that
    runs which failed together do not come back together.
    """

    attempts: int = 5
    """How many tries in all; 1 means never again."""
    first: timedelta = timedelta(seconds=1)
    """The longest delay after the first failure."""
    factor: float = 2.0
    """What the longest delay grows by with each further failure."""
    cap: timedelta = timedelta(minutes=5)
    """No delay is longer than this."""
    jitter: bool = True
    """Draw from the whole range; False takes the longest delay, for tests that need to know it."""
    deadline: timedelta | None = None
    """No new try later than this after the first one began."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise DefinitionError(f"RetryPolicy.attempts is {self.attempts}; it takes at least 1.")
        if self.factor < 1:
            raise DefinitionError(f"RetryPolicy.factor is {self.factor}; it takes at least 1.")
        if self.first < timedelta(0) or self.cap < timedelta(0):
            raise DefinitionError("RetryPolicy.first and .cap cannot be negative.")

    def delay_after(self, failures: int, *, draw: float) -> timedelta:
        """The wait after the `failures`-th failure in a row; `draw` in [0, 1) is the jitter's share."""
        longest = min(self.cap, self.first)
        for _ in range(failures - 1):
            if longest >= self.cap:
                break
            # In plain seconds, since a timedelta of 2.0 ** 60 seconds does not exist.
            longest = timedelta(seconds=min(self.cap.total_seconds(), longest.total_seconds() * self.factor))
        return longest * draw if self.jitter else longest


def full_jitter() -> float:
    """A draw for `delay_after`. Not a secret: it only spreads load."""
    return random.random()  # noqa: S311
