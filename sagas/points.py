"""Named points that a test may stop at: where a crash is worth trying. Does nothing unless a test set a hook."""

from __future__ import annotations

from collections.abc import Callable

POINTS = (
    "before_claim",
    "after_claim",
    "before_call",
    "after_call",
    "before_commit",
    "after_commit",
)

_hook: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Say that `point` was reached: "before_commit", or "before_call:<step>:<direction>"."""
    if _hook is not None:
        _hook(point)


def set_hook(hook: Callable[[str], None] | None) -> None:
    """Call `hook` at every point from now on; None takes it away."""
    global _hook
    _hook = hook
