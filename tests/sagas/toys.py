"""A toy world for the engine's tests: an outside system that keeps a ledger, and sagas of steps that use it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sagas import Kind, RetryPolicy, Saga, Step, StepContext, StepRefused, StepUnavailable, StepUnknown, registry
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.services import start
from sagas.states import Direction

SECOND = timedelta(seconds=1)
PATIENT = RetryPolicy(attempts=3, first=SECOND, factor=2, jitter=False)
Plan = Callable[[StepContext], Any]


class World:
    """An outside system. What it was asked for it does once per key; how it answers can be planned call by call."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        """What happened, in order: "hold", "undo hold". Twice in here is a fault of the engine or of a step."""
        self.calls: list[str] = []
        """Every call that came in: "hold", "look hold", "undo hold"."""
        self.contexts: list[StepContext] = []
        self.results: dict[str, dict[str, Any]] = {}
        self._plans: dict[str, list[Plan]] = defaultdict(list)
        self._lock = threading.Lock()

    def plan(self, what: str, *plans: Plan) -> None:
        """Answer the next calls of `what` ("hold", "undo hold", "look hold") so; after them as usual."""
        self._plans[what].extend(plans)

    def act(self, ctx: StepContext) -> Any:
        """The action and the compensation of every toy step."""
        name = name_of(ctx)
        with self._lock:
            self.calls.append(name)
            self.contexts.append(ctx)
            plan = self._plans[name].pop(0) if self._plans[name] else self.do
        return plan(ctx)

    async def act_async(self, ctx: StepContext) -> Any:
        return self.act(ctx)

    def look_up(self, ctx: StepContext) -> Mapping[str, Any] | None:
        name = f"look {name_of(ctx)}"
        self.calls.append(name)
        if self._plans[name]:
            found: Mapping[str, Any] | None = self._plans[name].pop(0)(ctx)
            return found
        return self.results.get(ctx.key)

    def do(self, ctx: StepContext) -> dict[str, Any]:
        """Do it, unless it was done under this key; an undo of what never happened does nothing."""
        with self._lock:
            if ctx.key not in self.results:
                self.results[ctx.key] = {"reference": f"{ctx.step}-{len(self.results) + 1}"}
                if ctx.direction is Direction.ACTION or ctx.action_key in self.results:
                    self.effects.append(name_of(ctx))
            return self.results[ctx.key]

    def lose(self, ctx: StepContext) -> Any:
        """Do it, and lose the answer."""
        self.do(ctx)
        raise StepUnknown("The line broke.", code="line_broke", provider="world")


def name_of(ctx: StepContext) -> str:
    return ctx.step if ctx.direction is Direction.ACTION else f"undo {ctx.step}"


def refuse(ctx: StepContext) -> Any:
    raise StepRefused("It says no.", code="said_no", provider="world", provider_id="W-7")


def away(ctx: StepContext) -> Any:
    raise StepUnavailable("Nobody is there.", code="away", provider="world")


def vanish(ctx: StepContext) -> Any:
    """Not done, and nobody can tell."""
    raise StepUnknown("The line broke.", code="line_broke", provider="world")


def cannot_tell(ctx: StepContext) -> Any:
    raise StepUnavailable("The books are closed.", code="books_closed")


def fast(**changes: Any) -> RetryPolicy:
    return RetryPolicy(**{"attempts": 3, "first": SECOND, "jitter": False, **changes})


def make_step(world: World, name: str, **changes: Any) -> Step:
    """A compensatable step that acts on `world`, tried three times, 1 s and 2 s apart."""
    fields: dict[str, Any] = {
        "action": world.act,
        "compensation": world.act,
        "compensation_title": f"Undo {name}",
        "retry": PATIENT,
        "compensation_retry": PATIENT,
        **changes,
    }
    if fields.get("kind") is Kind.RETRIABLE and "compensation" not in changes:
        fields |= {"compensation": None, "compensation_title": ""}
    return Step(name=name, **fields)


def make_saga(steps: Iterable[Step], *, name: str = "trip", **changes: Any) -> Saga:
    return Saga(**{"name": name, "version": 1, "steps": tuple(steps), **changes})


def make_trip(world: World, **changes: Any) -> Saga:
    """Hold, then pay, the pivot, then tell, which is retriable."""
    return make_saga(
        (
            make_step(world, "hold", look_up=world.look_up),
            make_step(world, "pay", kind=Kind.PIVOT, look_up=world.look_up),
            make_step(world, "tell", kind=Kind.RETRIABLE),
        ),
        **changes,
    )


@contextmanager
def registered(*sagas: Saga) -> Iterator[None]:
    """Make definitions known for as long as a test wants them."""
    for saga in sagas:
        registry.register(saga)
    try:
        yield
    finally:
        for saga in sagas:
            registry.forget(saga)


def make_run(saga: Saga, *, key: str = "T-1", **changes: Any) -> SagaRun:
    """A run that waits for its first worker; nobody is rung for."""
    return start(saga=saga, business_key=key, **{"input": {"seat": "12A"}, "ring": False, **changes})


def attempts_of(run: SagaRun) -> list[tuple[str, str, int, str]]:
    """(step, direction, number, outcome), in the order they began."""
    rows = StepRecord.objects.filter(run=run).order_by("id")
    return list(rows.values_list("step", "direction", "number", "outcome"))


def events_of(run: SagaRun) -> list[tuple[str, str, str]]:
    """(kind, actor, reason), oldest first."""
    return list(RunEvent.objects.filter(run=run).order_by("id").values_list("kind", "actor", "reason"))
