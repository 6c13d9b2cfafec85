"""An errand of two steps. The outside world is a folder, named by the run's input: one file per key and effect."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from sagas import Kind, RetryPolicy, Saga, Step, StepContext


def fetch(ctx: StepContext) -> dict[str, str]:
    """Have the effect; then do as the input says: be slow until the gate is open, or kill the worker."""
    world = Path(ctx.input["world"])
    have_effect(world, ctx)
    if ctx.input.get("kills"):
        os.kill(os.getpid(), signal.SIGKILL)
    while ctx.input.get("gate") and not (world / "gate").exists():
        time.sleep(0.05)
    return {"fetched": ctx.business_key}


def find_fetched(ctx: StepContext) -> dict[str, str] | None:
    found = (Path(ctx.input["world"]) / ctx.key).exists()
    return {"fetched": ctx.business_key} if found and not ctx.input.get("kills") else None


def bring_back(ctx: StepContext) -> None:
    (Path(ctx.input["world"]) / ctx.action_key).unlink(missing_ok=True)


def deliver(ctx: StepContext) -> None:
    have_effect(Path(ctx.input["world"]), ctx)


def have_effect(world: Path, ctx: StepContext) -> None:
    """The same key twice is one effect: the file is there, and its second line would show a second call."""
    with (world / ctx.key).open("a") as file:
        file.write(f"{ctx.attempt}\n")


ERRAND = Saga(
    name="errand",
    version=1,
    steps=(
        Step(
            name="fetch",
            action=fetch,
            compensation=bring_back,
            look_up=find_fetched,
            retry=RetryPolicy(attempts=20, first=timedelta(0)),
            timeout=timedelta(minutes=2),
        ),
        Step(name="deliver", action=deliver, kind=Kind.RETRIABLE),
    ),
)
