"""How far long work is: a bar on standard error, if somebody looks at it."""

from __future__ import annotations

import sys
import time

BETWEEN_LOOKS = 0.1
BAR = 30


class Progress:
    """A bar that fills up. Piped to a file or a program it is silent."""

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self.is_shown = sys.stderr.isatty()
        self.last = 0.0

    def show(self, done: int) -> None:
        now = time.monotonic()
        if not self.is_shown or now - self.last < BETWEEN_LOOKS:
            return
        self.last = now
        share = min(done / self.total, 1)
        bar = "#" * round(share * BAR)
        print(f"\r[{bar:<{BAR}}] {share:4.0%} {done:,} of {self.total:,}", end="", file=sys.stderr, flush=True)  # noqa: T201

    def clear(self) -> None:
        if self.is_shown:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)  # noqa: T201
