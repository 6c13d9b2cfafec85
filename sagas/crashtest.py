"""Workers that are killed, for real, at every edge of every step; and the proof that each run ends as it should.

    fork ──▶ a child drives the run, and is killed (SIGKILL) at the named point
    parent ──▶ lets the lease pass, drives the run to its end, and counts the effects

Call it on a database of its own: `manage.py saga crashtest` makes one and takes it away.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.utils import timezone

from sagas import points, queue, registry, services
from sagas.audit import audit_runs
from sagas.definition import Kind, Saga, Step, StepContext
from sagas.exceptions import StepRefused
from sagas.testing import FrozenClock, drive_once, run_to_end

EDGES = ("after_claim", "before_call", "after_call", "before_commit", "after_commit")
PER_STEP = frozenset({"before_call", "after_call"})
STEPS = ("reserve", "pay", "ship", "tell")
ENDS = ("completed", "compensated", "compensated")
"""Of a run that goes well, whose third step is refused, and that is cancelled when it has ended."""
STORIES = ("all well", "refused", "cancelled")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one run."""

    number: int
    story: str
    point: str
    was_killed: bool
    faults: tuple[str, ...]


def crash_runs(*, runs: int, seed: int) -> Iterator[Result]:
    """So many runs, each with one killed worker; every edge comes before any comes again."""
    chance = random.Random(seed)  # noqa: S311  (draws what to try, guards nothing)
    plan = [(story, point) for story in range(len(STORIES)) for point in _points(story)]
    with tempfile.TemporaryDirectory(prefix="saga-crash-") as folder, _errand(Path(folder)) as saga:
        for number in range(runs):
            if number % len(plan) == 0:
                chance.shuffle(plan)
            story, point = plan[number % len(plan)]
            yield _one(saga, Path(folder), number, story, point)


def edges() -> int:
    """How many runs it takes to try all of them once."""
    return sum(len(_points(story)) for story in range(len(STORIES)))


def _points(story: int) -> list[str]:
    """Where a worker can die in that story."""
    done = STEPS[:3] if story == 1 else STEPS
    undone = {0: (), 1: STEPS[:2], 2: STEPS}[story]
    places = [f"{step}:action" for step in done] + [f"{step}:compensation" for step in undone]
    found = [point for point in EDGES if point not in PER_STEP]
    return found + [f"{point}:{place}" for point in EDGES if point in PER_STEP for place in places]


def _one(saga: Saga, folder: Path, number: int, story: int, point: str) -> Result:
    key = f"CRASH-{number}"
    run = services.start(saga=saga, business_key=key, input={"refused": story == 1}, actor="crashtest", ring=False)
    clock = FrozenClock(timezone.now() + timedelta(seconds=1))
    if story == 2 and not point.endswith(":action"):
        # Dies on the way back: forward nothing goes wrong.
        run_to_end(run, clock=clock)
        services.cancel(run_id=run.pk, actor="crashtest", reason="a crash test")
        clock.advance(timedelta(minutes=1))
    was_killed = _killed_at(point, run, clock)
    clock.advance(timedelta(hours=1))  # its lease is over
    report = run_to_end(run, clock=clock)
    if story == 2 and report.status.value == "completed":
        services.cancel(run_id=run.pk, actor="crashtest", reason="a crash test")
        clock.advance(timedelta(minutes=1))
        report = run_to_end(run, clock=clock)
    done = STEPS[:2] if story == 1 else STEPS
    faults = []
    if report.status.value != ENDS[story]:
        faults.append(f"ended {report.status.value}, not {ENDS[story]}: {report.error or report.attention}")
    for step in STEPS:
        effects = _count(folder, f"{run.pk}:{step}:action")
        undone = _count(folder, f"{run.pk}:{step}:compensation")
        if effects != (1 if step in done else 0):
            faults.append(f"{step} happened {effects} times")
        if undone != (1 if story and step in done else 0):
            faults.append(f"{step} was undone {undone} times")
    known = {f"{run.pk}:{step}:{way}" for step in STEPS for way in ("action", "compensation")}
    faults += [f"another key was sent: {file.name}" for file in folder.glob(f"{run.pk}*") if file.name not in known]
    if not was_killed:
        faults.append("no worker was killed: the point was not reached")
    return Result(number=number, story=STORIES[story], point=point, was_killed=was_killed, faults=tuple(faults))


def audited() -> list[str]:
    """What the audit has against the histories that came of it."""
    return [str(finding) for finding in audit_runs()]


@contextmanager
def database_of_its_own() -> Iterator[None]:
    """An empty database beside the site's, as Django makes one for tests, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="saga-crash-db-") as folder:
        is_file = connection.vendor == "sqlite"
        name = str(Path(folder) / "crash.sqlite3") if is_file else f"saga_crashtest_{os.getpid()}"
        connection.settings_dict["TEST"]["NAME"] = name
        old = connection.settings_dict["NAME"]
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        try:
            with queue.unheard():  # or the site's own workers would be called to it, and find nothing
                yield
        finally:
            connection.creation.destroy_test_db(str(old), verbosity=0)


def _killed_at(point: str, run: Any, clock: FrozenClock) -> bool:
    """Have a child drive the run and be killed at the point; whether it was."""
    connections.close_all()  # what is open must not be shared with the child
    child = os.fork()
    if child == 0:
        try:
            points.set_hook(lambda reached: os.kill(os.getpid(), signal.SIGKILL) if reached == point else None)
            drive_once(run, clock=clock)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@contextmanager
def _errand(folder: Path) -> Iterator[Saga]:
    """A saga of four steps whose effects are lines in files, one file a key."""

    def act(ctx: StepContext) -> dict[str, Any]:
        if ctx.input["refused"] and ctx.key.endswith(":ship:action"):
            raise StepRefused("The carrier says no.", code="refused")
        return _effect(folder, ctx.key)

    def undo(ctx: StepContext) -> dict[str, Any]:
        # As a provider does: of what never happened there is nothing to take back.
        return _effect(folder, ctx.key) if _count(folder, ctx.action_key) else {}

    def look_up(ctx: StepContext) -> dict[str, Any] | None:
        return {"key": ctx.key} if _count(folder, ctx.key) else None

    steps = tuple(
        Step(name=name, action=act, compensation=undo, look_up=look_up, kind=kind)
        for name, kind in zip(STEPS, (Kind.COMPENSATABLE, Kind.COMPENSATABLE, Kind.PIVOT, Kind.RETRIABLE), strict=True)
    )
    saga = Saga(name="crashtest", version=1, steps=steps)
    registry.register(saga)
    try:
        yield saga
    finally:
        registry.forget(saga)


def _effect(folder: Path, key: str) -> dict[str, Any]:
    """The same key twice is one effect, as with any provider worth the name."""
    (folder / key).touch()
    return {"key": key}


def _count(folder: Path, key: str) -> int:
    return int((folder / key).exists())
