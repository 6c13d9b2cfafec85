"""A run played again in a test: its definition as it is now, every step and undo answering as it did then."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sagas import registry
from sagas.definition import Saga, Step, StepContext
from sagas.exceptions import StepRefused, StepUnavailable, StepUnknown
from sagas.retry import RetryPolicy
from sagas.selectors import AttemptView, RunView
from sagas.states import Direction, Outcome
from sagas.testing import RunReport, run_inline

Told = tuple[str, str, str, str]
"""(step, direction, outcome, error code) of one attempt."""
Scripts = dict[tuple[str, str], deque[tuple[str, str]]]
ERRORS = {
    Outcome.REFUSED.value: StepRefused,
    Outcome.UNAVAILABLE.value: StepUnavailable,
    Outcome.UNKNOWN.value: StepUnknown,
}
PLAYED = frozenset({Outcome.SUCCEEDED.value, *ERRORS})
"""Outcomes that a step gives by itself; what people or the world outside did is not in a test's hands."""


def replay(name: str, version: int, told: Sequence[Told]) -> RunReport:
    """Run the definition of that name and version to its end, its attempts ending as told, in their order.

    Nothing outside is asked. Raises UnknownSaga.
    """
    saga = registry.get(name, version)
    scripts: Scripts = defaultdict(deque)
    for step, direction, outcome, code in told:
        scripts[step, direction].append((outcome, code))
    steps = tuple(_scripted(step, scripts) for step in saga.steps)
    twin = Saga(name=f"replay of {name}"[:100], version=version, steps=steps)
    registry.register(twin)
    try:
        return run_inline(twin, key="REPLAY")
    finally:
        registry.forget(twin)


def test_case(view: RunView) -> str:
    """A test that plays the run again, as text; empty where people or the world outside had a part in it."""
    placed = []
    for place, step in enumerate(view.steps):
        placed += [((one.started_at, 0, place, one.number), step.name, one) for one in step.attempts]
        # Of what began in the same moment the later step's undo comes first.
        placed += [((one.started_at, 1, -place, one.number), step.name, one) for one in step.undo_attempts]
    told = [_told(name, attempt) for _, name, attempt in sorted(placed, key=lambda one: one[0])]
    by_hand = [event for event in view.events if event.actor != "engine" and event.kind not in ("started", "imported")]
    if not told or by_hand or any(outcome not in PLAYED for _, _, outcome, _ in told):
        return ""
    rows = "\n".join(f"    {one!r}," for one in told)
    name = re.sub(r"\W+", "_", view.run.business_key.lower()).strip("_") or "a_run"
    return TEST.format(
        key=view.run.business_key.replace('"', "'").replace("\\", "/"),
        saga=view.run.saga,
        version=view.run.version,
        status=view.run.status,
        rows=rows,
        name=name,
    )


TEST = '''"""The run {key}, as it happened: {saga} {version}, {status}."""

import pytest

from sagas.replay import replay

TOLD = [
{rows}
]


@pytest.mark.django_db(transaction=True)
def test_{name}_ends_as_it_did():
    report = replay("{saga}", {version}, TOLD)

    assert (report.status, [(step, way, outcome) for step, way, _, outcome in report.attempts]) == (
        "{status}",
        [one[:3] for one in TOLD],
    )
'''


def _told(step: str, attempt: AttemptView) -> Told:
    return (step, attempt.direction, attempt.outcome, attempt.error_code)


def _scripted(step: Step, scripts: Scripts) -> Step:
    do, undo = scripts[step.name, Direction.ACTION.value], scripts[step.name, Direction.COMPENSATION.value]
    return replace(
        step,
        retry=_budget(step.retry, do),
        compensation_retry=_budget(step.compensation_retry, undo),
        action=_act(do),
        compensation=_act(undo) if step.compensation is not None else None,
        look_up=_look_up(do) if step.look_up is not None else None,
        compensation_look_up=_look_up(undo) if step.compensation_look_up is not None else None,
    )


def _budget(policy: RetryPolicy, script: deque[tuple[str, str]]) -> RetryPolicy:
    """As many tries as there were where it ran: how many a step has may be a setting of that place."""
    if not script:
        return policy
    has_failed = script[-1][0] != Outcome.SUCCEEDED.value
    return replace(policy, attempts=len(script) if has_failed else max(policy.attempts, len(script)))


def _act(script: deque[tuple[str, str]]) -> Any:
    def act(ctx: StepContext) -> dict[str, Any]:
        outcome, code = script.popleft() if script else (Outcome.REFUSED.value, "not_in_the_script")
        error = ERRORS.get(outcome)
        if error is not None:
            raise error(f"As it was: {outcome}.", code=code)
        return {}

    return act


def _look_up(script: deque[tuple[str, str]]) -> Any:
    """Found if it was done by that attempt; otherwise certainly nothing, and the attempt is made."""

    def look_up(ctx: StepContext) -> dict[str, Any] | None:
        if script and script[0][0] == Outcome.SUCCEEDED.value:
            script.popleft()
            return {}
        return None

    return look_up
