"""One seed's story: sagas, runs, workers, people, and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from unittest import mock

from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections, transaction
from django.utils import timezone

from sagas import ActRefused, Kind, RetryPolicy, Saga, Step, journal, registry, services, step_key
from sagas.audit import audit_runs
from sagas.driver import Driver, Limits
from sagas.models import SagaRun
from sagas.states import ENDED, Direction, RunStatus
from tests.simulation.loop import play
from tests.simulation.world import Trace, World

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
TROUBLE_SECONDS = 90.0
"""After this nothing goes wrong any more, and everything must come to its end."""
QUIET_SECONDS = 20_000.0
"""More than all backoffs, waits and timeouts together."""
SWEEP_SECONDS = 7.0
TABLES = ("sagas_runevent", "sagas_signal", "sagas_steprecord", "sagas_sagarun", "django_q_ormq")


class Killed(BaseException):
    """The worker is dead: nothing of it reaches the database any more."""


class Worker(Driver):
    """A driver whose process may die, stall, or find the database away, at each of its dealings with it."""

    def __init__(self, story: Story, name: str) -> None:
        super().__init__(
            limits=Limits(
                batch=10,
                lease=LEASE,
                linger=timedelta(seconds=3),
                max_claims=20,
                poll=timedelta(seconds=0.5),
                glance=timedelta(seconds=0.5),
                look=timedelta(seconds=1),
                grace=timedelta(seconds=5),
            ),
            clock=story.clock,
        )
        self.worker = name
        self.story = story
        self.is_dead = False

    async def _db(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        await self.meet_trouble()
        fault = self.story.chance(("database away", 0.02), ("commit failed", 0.02), ("commit unheard", 0.02))
        if fault == "database away":
            raise OperationalError("the database is away")
        if fault == "commit failed":
            with transaction.atomic():
                work()
                raise OperationalError("the commit failed")
        done = work()
        if fault == "commit unheard":
            raise OperationalError("the connection broke before the database answered")
        await self.meet_trouble()
        return done

    async def _leave_database(self) -> None:
        """There is one connection for all, and it stays."""

    def die(self, driving: asyncio.Future[int]) -> None:
        """At whatever it is waiting for."""
        if not driving.done():
            self.story.trace(f"  {self.worker} is killed while it waits")
            self.is_dead = True
            driving.cancel()

    async def meet_trouble(self) -> None:
        """Die, or stand still for as long as it takes others to believe that we died."""
        if self.is_dead:
            raise Killed
        trouble = self.story.chance(("killed", 0.01), ("stalled", 0.01))
        if trouble == "killed":
            self.story.trace(f"  {self.worker} is killed")
            self.is_dead = True
            raise Killed
        if trouble == "stalled":
            seconds = self.story.dice.uniform(0.5, 3) * LEASE.total_seconds()
            self.story.trace(f"  {self.worker} stalls for {seconds:.1f} s")
            await asyncio.sleep(seconds)


class Story:
    """All that one seed decides."""

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.connection = connections[DEFAULT_DB_ALIAS]
        self._tell = trace
        self.loop_time: Callable[[], float] = lambda: 0.0
        self.world = World(self.dice, self.trace)
        self.counts: Counter[str] = Counter()
        self.workers: list[Worker] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failures: list[Exception] = []

    def trace(self, line: str) -> None:
        if self._tell is not None:
            self._tell(f"{self.loop_time():9.3f} {line}")

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.loop_time())

    def nanoseconds(self) -> int:
        return int(self.clock().timestamp() * 1e9)

    def chance(self, *dangers: tuple[str, float]) -> str:
        """Which of the dangers strikes, if any."""
        if self.world.is_kind:
            return ""
        drawn = self.dice.random()
        for name, share in dangers:
            if drawn < share:
                self.counts[name] += 1
                return name
            drawn -= share
        return ""

    # What is played -------------------------------------------------------------------------------

    def make_saga(self) -> Saga:
        dice = self.dice
        count = dice.randint(1, 5)
        pivot = dice.randrange(count) if dice.random() < 0.7 else None
        side_by_side = dice.random() < 0.3
        steps = []
        for number in range(count):
            kind = Kind.COMPENSATABLE
            if pivot is not None and number >= pivot:
                kind = Kind.PIVOT if number == pivot else Kind.RETRIABLE
            undo = kind is Kind.COMPENSATABLE or dice.random() < 0.6
            name = f"s{number}"
            after: tuple[str, ...] | None = None
            if side_by_side and kind is Kind.COMPENSATABLE:
                after = tuple(f"s{n}" for n in range(number) if dice.random() < 0.4)
            elif side_by_side:
                after = tuple(f"s{n}" for n in range(number))
            if dice.random() < 0.1:
                self.world.waits.add(name)
            steps.append(
                Step(
                    name=name,
                    kind=kind,
                    action=self.world.act,
                    compensation=self.world.act if undo else None,
                    compensation_title=f"undo of {name}" if undo else "",
                    retry=self.make_policy(),
                    compensation_retry=self.make_policy(),
                    timeout=timedelta(seconds=5),
                    look_up=self.world.look_up if dice.random() < 0.6 else None,
                    compensation_look_up=self.world.look_up if undo and dice.random() < 0.4 else None,
                    after=after,
                )
            )
        deadline = timedelta(seconds=dice.uniform(5, 120)) if dice.random() < 0.2 else None
        return Saga(name="played", version=1, steps=tuple(steps), deadline=deadline)

    def make_policy(self) -> RetryPolicy:
        return RetryPolicy(attempts=self.dice.randint(1, 5), first=timedelta(seconds=self.dice.choice([0.1, 1, 5])))

    async def play(self) -> None:
        """From the first order to the moment when everything is quiet."""
        # Each task would open a connection of its own, and leave it open; from here they inherit this one.
        connections[DEFAULT_DB_ALIAS] = self.connection
        loop = asyncio.get_running_loop()
        self.loop_time = loop.time
        self.saga = self.make_saga()
        registry.register(self.saga)
        try:
            people = [asyncio.ensure_future(self.customer(f"T-{n}")) for n in range(self.dice.randint(1, 3))]
            people.append(asyncio.ensure_future(self.operator()))
            sweeping = asyncio.ensure_future(self.sweep())
            await asyncio.sleep(TROUBLE_SECONDS)
            self.world.is_kind = True
            self.trace("nothing goes wrong from here on")
            await asyncio.gather(*people)
            while not self.is_quiet():
                if loop.time() > QUIET_SECONDS:
                    raise AssertionError(f"It does not come to an end: {self.live()}")
                await asyncio.sleep(5)
            sweeping.cancel()
            while self.tasks:
                await asyncio.wait(self.tasks)
            self.check()
        finally:
            registry.forget(self.saga)

    # Who plays ------------------------------------------------------------------------------------

    async def customer(self, key: str) -> None:
        await asyncio.sleep(self.dice.uniform(0, 10))
        run = services.start(saga=self.saga, business_key=key, input={}, ring=False)
        self.trace(f"{key} is placed as {run.pk}")
        for _ in range(self.dice.choices((1, 0, 2), (85, 10, 5))[0]):  # once, lost, doubled
            self.wake()
        for name in sorted(self.world.waits):
            if self.dice.random() < 0.8:
                await asyncio.sleep(self.dice.uniform(0, 30))
                services.signal(run_id=run.pk, name=name, payload={}, actor="world")
                self.wake()
        if self.dice.random() < 0.25:
            await asyncio.sleep(self.dice.uniform(0, 40))
            with suppress(ActRefused):
                services.cancel(run_id=run.pk, actor="customer", reason="changed my mind")
                self.trace(f"{key} is cancelled")
                self.counts["cancelled"] += 1
                self.wake()

    async def operator(self) -> None:
        """Has what needs a person tried again, now and then."""
        for _ in range(self.dice.randint(0, 3)):
            await asyncio.sleep(self.dice.uniform(10, 40))
            for run in SagaRun.objects.filter(status=RunStatus.NEEDS_ATTENTION.value).order_by("pk"):
                step, way = self.dice.choice(self.saga.steps).name, self.dice.choice(list(Direction))
                with suppress(ActRefused):
                    services.retry(run_id=run.pk, step=step, direction=way, actor="operator", reason="try again")
                    self.trace(f"operator has {step} ({way}) tried again")
                    self.counts["retried by a person"] += 1
                    self.wake()

    async def sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if journal.due(self.clock()).exists():
                self.wake()

    def wake(self) -> None:
        """A wake-up: some worker process takes it, if not too many are at work."""
        if len(self.tasks) < 3:
            task = asyncio.ensure_future(self.drive(Worker(self, f"w{len(self.workers)}")))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def drive(self, worker: Worker) -> None:
        self.workers.append(worker)
        await asyncio.sleep(self.dice.uniform(0, 0.5))
        self.trace(f"  {worker.worker} drives")
        driving = asyncio.ensure_future(worker.drive(seconds=20))
        if self.chance(("killed", 0.15)):
            asyncio.get_running_loop().call_later(self.dice.uniform(0, 20), worker.die, driving)
        try:
            await driving
        except (Killed, asyncio.CancelledError):
            return
        except Exception as error:  # told at the end: a task that nobody waits for would keep it to itself
            self.failures.append(error)
        self.trace(f"  {worker.worker} is done")

    # What must hold -------------------------------------------------------------------------------

    def live(self) -> list[SagaRun]:
        at_rest = {*ENDED, RunStatus.NEEDS_ATTENTION}
        return [run for run in SagaRun.objects.order_by("business_key") if run.status not in at_rest]

    def is_quiet(self) -> bool:
        return not any(self.world.under_way.values()) and not self.live()

    def check(self) -> None:
        if self.failures:
            raise self.failures[0]
        findings = [str(finding) for finding in audit_runs(now=self.clock())]
        if findings:
            raise AssertionError("\n".join(findings))
        assert len(self.world.done) == len(set(self.world.done))
        for run in SagaRun.objects.order_by("business_key"):
            self.check_run(run)

    def check_run(self, run: SagaRun) -> None:
        """The world agrees with what the run says of it."""
        self.counts[run.status] += 1
        standing = []
        for step in self.saga.steps:
            key = step_key(str(run.pk), step.name, Direction.ACTION)
            undo = step_key(str(run.pk), step.name, Direction.COMPENSATION)
            if undo in self.world.done and key not in self.world.done:
                raise AssertionError(f"{run.business_key}: {step.name} was undone and never done.")
            if key in self.world.done and undo not in self.world.done:
                standing.append(step)
        every = [step.name for step in self.saga.steps]
        if run.status == RunStatus.COMPLETED and [step.name for step in standing] != every:
            raise AssertionError(f"{run.business_key} is completed, and only {standing} stand.")
        left = [step for step in standing if step.compensation is not None]
        if run.status == RunStatus.COMPENSATED and left:
            raise AssertionError(f"{run.business_key} is undone, but for {[step.name for step in left]}.")
        if run.status == RunStatus.NEEDS_ATTENTION and run.turned_back_at is not None:
            silent = [s.name for s in left if s.compensation_display not in run.attention_reason]
            if silent:
                raise AssertionError(f"{run.business_key} says {run.attention_reason!r}, and nothing of {silent}.")


def tell(seed: int, trace: Trace | None = None) -> Story:
    """Play a seed, on an empty database. Raises AssertionError if a promise is broken."""
    story = Story(seed, trace)
    random.seed(seed)  # the backoffs' jitter
    with (
        mock.patch.object(timezone, "now", story.clock),
        mock.patch.dict(os.environ, {"DJANGO_ALLOW_ASYNC_UNSAFE": "true"}),
        # A run's id is made of these two, and rows are taken up in the order of their ids.
        mock.patch("time.time_ns", story.nanoseconds),
        mock.patch("os.urandom", story.dice.randbytes),
    ):
        logging.disable()  # what goes wrong here goes wrong on purpose, thousands of times
        try:
            play(story.play(), story.dice)
        finally:
            logging.disable(logging.NOTSET)
            with connection.cursor() as cursor:
                for table in TABLES:
                    cursor.execute(f"DELETE FROM {table}")  # noqa: S608  (our own tables)
    return story
