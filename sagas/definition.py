"""What a saga is: a name, a version and steps, each with its undo. Checked when built: a wrong one never runs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from sagas.exceptions import DefinitionError
from sagas.retry import RetryPolicy
from sagas.states import Direction

LONGEST_NAME = 100
"""What the database keeps of a name."""
LONGEST_WAIT = timedelta(days=3650)

Result = Mapping[str, Any]
"""What an action or a compensation returns: anything JSON can hold, as a mapping."""


@dataclass(frozen=True, kw_only=True)
class WaitFor:
    """Returned by an action instead of a result: end this attempt and wait for the world.

    With `signal`: until that signal has come or `timeout` has passed, which refuses the step.
    Without: until the date `until`. Either way the action is called again afterwards, with `ctx.signal` set.
    """

    signal: str = ""
    timeout: timedelta = timedelta(days=1)
    until: datetime | None = None

    def __post_init__(self) -> None:
        if bool(self.signal) == (self.until is not None):
            raise DefinitionError("WaitFor takes either a signal's name or a date in `until`.")
        if len(self.signal) > LONGEST_NAME:
            raise DefinitionError(f"WaitFor: a signal's name has {LONGEST_NAME} characters at the most.")
        if self.until is not None and self.until.tzinfo is None:
            raise DefinitionError(f"WaitFor: the date {self.until} has no time zone.")
        if self.timeout > LONGEST_WAIT:
            raise DefinitionError(f"WaitFor: the timeout {self.timeout} is longer than {LONGEST_WAIT.days} days.")


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What an action or a compensation is given."""

    run_id: str
    saga: str
    business_key: str
    step: str
    direction: Direction
    input: Mapping[str, Any]
    """What the run was started with."""
    results: Mapping[str, Mapping[str, Any]]
    """Earlier steps' results by step name; a compensation also finds its own action's result there, if it left one."""
    attempt: int
    """Which try this is, from 1."""
    maybe_done: bool
    """An earlier attempt of the same has an unknown outcome: it may have happened already."""
    reason: str = ""
    """Why the run turned back; empty on the way forward."""
    signal: Mapping[str, Any] | None = None
    """The payload of the signal that this step waited for."""
    traceparent: str = ""
    """Where in which trace the run was asked for, as W3C Trace Context writes it; empty: nobody knows."""

    @property
    def key(self) -> str:
        """The key of this step and direction, the same for every attempt: send it along."""
        return step_key(self.run_id, self.step, self.direction)

    @property
    def action_key(self) -> str:
        """The key the action used; an undo finds what was done by it."""
        return step_key(self.run_id, self.step, Direction.ACTION)


def step_key(run_id: str, step: str, direction: Direction) -> str:
    """`<run>:<step>:<direction>`. Never from the attempt: sending twice must be the same as sending once."""
    return f"{run_id}:{step}:{direction.value}"


Act = Callable[[StepContext], Result | WaitFor | Awaitable[Result | WaitFor | None] | None]
LookUp = Callable[[StepContext], Result | Awaitable[Result | None] | None]
ReceiptId = Callable[[Mapping[str, Any]], str]


class Kind(StrEnum):
    """What a step's failure means for the run."""

    COMPENSATABLE = "compensatable"  # may be undone; its failure turns the run back
    PIVOT = "pivot"  # the last step whose failure turns the run back
    RETRIABLE = "retriable"  # after the pivot: tried until done, then a person is asked


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step and its undo."""

    name: str
    action: Act
    compensation: Act | None = None
    kind: Kind = Kind.COMPENSATABLE
    title: str = ""
    """As people read it; made from the name when empty."""
    compensation_title: str = ""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    compensation_retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(attempts=8))
    timeout: timedelta = timedelta(seconds=30)
    """After this an attempt's outcome is unknown."""
    look_up: LookUp | None = None
    """Asks the other side by key whether the action happened: its result, or None for "certainly not".

    Without one, an unknown attempt is sent again with the same key.
    """
    compensation_look_up: LookUp | None = None
    receipt_id: ReceiptId | None = None
    """Finds in a result the other side's own id of what was done: pages and API tell it with the attempt."""
    compensation_receipt_id: ReceiptId | None = None
    after: tuple[str, ...] | None = None
    """The steps this one comes after; None: the one written before it. () starts with the run."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DefinitionError(f"Step name {self.name!r} is not an identifier, like reserve_inventory.")
        if len(self.name) > LONGEST_NAME:
            raise DefinitionError(f"Step name {self.name} has more than {LONGEST_NAME} characters.")
        if self.kind is Kind.COMPENSATABLE and self.compensation is None:
            raise DefinitionError(
                f"Step {self.name} is compensatable and has no compensation. Give it one, or another kind."
            )
        if self.timeout <= timedelta(0):
            raise DefinitionError(f"Step {self.name}: the timeout {self.timeout} is not a time to wait.")

    @property
    def display(self) -> str:
        return self.title or self.name.replace("_", " ").capitalize()

    @property
    def compensation_display(self) -> str:
        if self.compensation_title or self.compensation is None:
            return self.compensation_title
        name = str(getattr(self.compensation, "__name__", ""))
        # A partial has no name, and a lambda's says nothing.
        return name.replace("_", " ").capitalize() if name.isidentifier() else f"Undo of {self.display}"

    def act(self, direction: Direction) -> Act:
        """The callable of this direction."""
        act = self.action if direction is Direction.ACTION else self.compensation
        if act is None:
            raise DefinitionError(f"Step {self.name} has no compensation.")
        return act

    def policy(self, direction: Direction) -> RetryPolicy:
        return self.retry if direction is Direction.ACTION else self.compensation_retry

    def looks_up(self, direction: Direction) -> LookUp | None:
        return self.look_up if direction is Direction.ACTION else self.compensation_look_up

    def id_in(self, result: Mapping[str, Any] | None, direction: Direction) -> str:
        """The other side's own id in a result of this direction; empty where there is none. A result may be older than
        the definition, and of another shape."""
        receipt_id = self.receipt_id if direction is Direction.ACTION else self.compensation_receipt_id
        if receipt_id is None or not result:
            return ""
        try:
            found: object = receipt_id(result)
        except (LookupError, TypeError, AttributeError):
            return ""
        return found if isinstance(found, str) else ""


Refusal = Callable[[Mapping[str, Any], Mapping[str, Mapping[str, Any]], Mapping[str, Mapping[str, Any]]], str]
"""Given the run's input, results and signals, why it can no longer be cancelled; an empty string: it can.

Asked for every row of a list, so that it must know by these alone, without a query of its own.
"""


@dataclass(frozen=True, kw_only=True)
class Saga:
    """A definition. Two of the same name differ in version; a run goes on under the one it began with."""

    name: str
    version: int
    steps: tuple[Step, ...]
    deadline: timedelta | None = None
    """How long a run may take until its pivot is done; later it turns back."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Input that a run gets when its starter says nothing else."""
    refuse_cancel: Refusal | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= LONGEST_NAME:
            raise DefinitionError(f"A saga's name has 1 to {LONGEST_NAME} characters; this is {self.name!r}.")
        if self.version < 1:
            raise DefinitionError(f"Saga {self.name}: the version is {self.version}; versions begin with 1.")
        if not self.steps:
            raise DefinitionError(f"Saga {self.name} has no steps.")
        self._check_names()
        self._check_kinds()
        for key, value in self.defaults.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise DefinitionError(
                    f"Saga {self.name}: the default {key}={value!r} cannot be stored as JSON."
                ) from error

    def _check_names(self) -> None:
        seen: set[str] = set()
        for step in self.steps:
            if step.name in seen:
                raise DefinitionError(f"Saga {self.name} has two steps named {step.name}.")
            for earlier in step.after or ():
                if earlier not in seen:
                    raise DefinitionError(
                        f"Saga {self.name}: {step.name} comes after {earlier}, which is not a step written before it."
                    )
            seen.add(step.name)

    def _check_kinds(self) -> None:
        pivots = [step.name for step in self.steps if step.kind is Kind.PIVOT]
        if len(pivots) > 1:
            raise DefinitionError(f"Saga {self.name} has {len(pivots)} pivots: {', '.join(pivots)}. One is the most.")
        for step in self.steps:
            before = self.all_before(step.name)
            if step.kind is Kind.RETRIABLE:
                continue
            for earlier in before:
                if self.step(earlier).kind is not Kind.COMPENSATABLE:
                    raise DefinitionError(
                        f"Saga {self.name}: {step.name} is {step.kind.value} and comes after {earlier}, "
                        f"which is {self.step(earlier).kind.value}. After that point steps are retriable."
                    )
        for name in pivots:
            beside = [
                step.name
                for step in self.steps
                if step.kind is Kind.COMPENSATABLE and step.name not in self.all_before(name)
            ]
            if beside:
                raise DefinitionError(
                    f"Saga {self.name}: the pivot {name} must come after every compensatable step; "
                    f"it does not come after {', '.join(beside)}."
                )

    def step(self, name: str) -> Step:
        """The step of that name. Raises DefinitionError."""
        for step in self.steps:
            if step.name == name:
                return step
        raise DefinitionError(
            f"Saga {self.name} has no step {name}; it has {', '.join(step.name for step in self.steps)}."
        )

    def before(self, name: str) -> tuple[str, ...]:
        """The steps that must be done before this one may start."""
        if name not in self._before:
            self.step(name)  # raises, and says which there are
        return self._before[name]

    @cached_property
    def _before(self) -> Mapping[str, tuple[str, ...]]:
        names = [step.name for step in self.steps]
        written = [(), *((name,) for name in names[:-1])]
        return {
            step.name: earlier if step.after is None else step.after
            for step, earlier in zip(self.steps, written, strict=True)
        }

    def all_before(self, name: str) -> frozenset[str]:
        """Everything before this step, near and far."""
        found: set[str] = set()
        waiting = list(self.before(name))
        while waiting:
            earlier = waiting.pop()
            if earlier not in found:
                found.add(earlier)
                waiting.extend(self.before(earlier))
        return frozenset(found)
