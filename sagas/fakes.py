"""An outside system for tests, in memory: it fails, refuses, loses its answer when told to, and remembers its calls."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sagas.exceptions import StepRefused, StepUnavailable, StepUnknown

Answer = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that came in, whatever became of it."""

    what: str
    key: str


class FakeProvider:
    """Does each thing once per key. Use it in actions as `provider.call("charge", ctx.key, {"id": "CH-1"})`."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.calls: list[Call] = []
        self.done: dict[tuple[str, str], Answer] = {}
        """By (what, key): effects, each once."""
        self._plans: dict[str, deque[Callable[[], Exception]]] = defaultdict(deque)
        self._lost: Counter[str] = Counter()

    def fail(self, what: str, *, times: int = 1) -> None:
        """Be away for the next calls of `what`: nothing happens, and it may be tried again."""
        self._plan(what, times, lambda: StepUnavailable(f"{self.name} is away.", code="away", provider=self.name))

    def refuse(self, what: str, *, code: str = "refused", times: int = 1) -> None:
        """Say no to the next calls of `what`."""
        self._plan(what, times, lambda: StepRefused(f"{self.name} says no.", code=code, provider=self.name))

    def lose_answer(self, what: str, *, times: int = 1) -> None:
        """Do the next `what`, and let its answer be lost."""
        self._lost[what] += times

    def call(self, what: str, key: str, answer: Answer | None = None) -> Answer:
        """Do `what`, once for each key, and answer as the first time. Raises what was planned."""
        self.calls.append(Call(what=what, key=key))
        if self._plans[what]:
            raise self._plans[what].popleft()()
        given = self.done.setdefault((what, key), dict(answer or {"id": f"{what}-{len(self.done) + 1}"}))
        if self._lost[what]:
            self._lost[what] -= 1
            raise StepUnknown(f"The answer of {self.name} was lost.", code="lost", provider=self.name)
        return given

    def find(self, what: str, key: str) -> Answer | None:
        """What was done under this key, or None for certainly nothing."""
        return self.done.get((what, key))

    def assert_called_once(self, what: str, *, key: str = "") -> None:
        """Exactly one call of `what` came in, with this key if one is given."""
        keys = [call.key for call in self.calls if call.what == what]
        if len(keys) != 1 or (key and keys != [key]):
            raise AssertionError(
                f"{what} was called {len(keys)} times, with {keys}; once was expected, with {key or 'any'}."
            )

    def assert_done_once(self, what: str) -> None:
        """`what` took effect exactly once, however often it was called."""
        count = sum(done == what for done, _ in self.done)
        if count != 1:
            raise AssertionError(f"{what} took effect {count} times, not once.")

    def assert_not_called(self, what: str) -> None:
        """No call of `what` came in."""
        keys = [call.key for call in self.calls if call.what == what]
        if keys:
            raise AssertionError(f"{what} was called, with {keys}; no call was expected.")

    def _plan(self, what: str, times: int, error: Callable[[], Exception]) -> None:
        self._plans[what].extend([error] * times)
