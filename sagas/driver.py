"""Drives many runs at a time: claims what is due, acts outside any transaction, commits what finished together."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.utils import timezone
from opentelemetry import context as contexts
from opentelemetry.context import Context

from sagas import journal, points, run_log, traces
from sagas.decide import Begin
from sagas.definition import StepContext, WaitFor
from sagas.exceptions import StepError, StepPostponed, StepRefused, StepUnavailable
from sagas.journal import Ended, Held
from sagas.models import SagaRun, StepRecord
from sagas.states import DONE, ENDED, Direction, Outcome, RunStatus
from sagas.threads import threads

log = logging.getLogger(__name__)
T = TypeVar("T")

AWAY = (OperationalError, InterfaceError)
"""Raised when the database is away, restarting or at its limits: the same write may well succeed later."""

TRUSTED_SECONDS = 1.0
"""How long after its last call a thread's database connection is taken to be there still."""

AS_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
"""json.dumps makes an encoder of its own at each call that asks for more than its defaults."""

NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL character in JSON, as opposed to a backslash that is followed by u0000. PostgreSQL stores none."""

ABSENT = Ended(
    outcome=Outcome.UNAVAILABLE,
    code="not_done",
    message="It did not happen: the look-up found nothing, and the tries are used up.",
    settled=True,
)


def new_worker_name() -> str:
    """Host, process and a random tail: two drives are never taken for one another."""
    return f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(kw_only=True)
class Limits:
    """How much and how long a drive may take; from settings unless a test says otherwise."""

    batch: int
    lease: timedelta
    linger: timedelta
    max_claims: int
    max_result_bytes: int = 64 * 1024
    poll: timedelta = timedelta(milliseconds=50)
    glance: timedelta = timedelta(milliseconds=20)
    """How often a drive that is at work looks for what came in meanwhile."""
    look: timedelta = timedelta(milliseconds=100)
    """How often an idle drive that stays for what is due soon looks for what came in meanwhile."""
    pause: timedelta = timedelta(seconds=1)
    """What it waits when the database gave no answer."""
    grace: timedelta = timedelta(seconds=15)
    """How long a stopping drive waits for what is under way."""

    @classmethod
    def from_settings(cls) -> Limits:
        return cls(
            batch=settings.SAGA_BATCH,
            lease=timedelta(seconds=settings.SAGA_LEASE),
            linger=timedelta(seconds=settings.SAGA_LINGER_SECONDS),
            max_claims=settings.SAGA_MAX_CLAIMS,
        )


class Driver:
    """One drive. `inline` runs plain functions one after another in the caller's own thread and connection."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        clock: Callable[[], datetime] = timezone.now,
        inline: bool = False,
    ) -> None:
        self.worker = new_worker_name()
        self.limits = limits or Limits.from_settings()
        self._clock = clock
        self._inline = inline
        self._held: dict[uuid.UUID, Held] = {}
        self._tasks: dict[asyncio.Task[Ended], tuple[Held, StepRecord]] = {}
        self._ended: list[tuple[Held, StepRecord, Ended]] = []
        """Ended and not recorded yet."""
        self._afresh = False
        """The last commit failed: what is in `_ended` was perhaps written, and perhaps not."""
        self._look_at = 0.0
        """When to look again for what is due, as long as there is something to do."""
        self._stop_at = math.inf
        self._stop: Callable[[], bool] = lambda: False
        self._places = asyncio.Semaphore(settings.SAGA_THREADS)
        self._is_traced = traces.is_on()

    async def drive(self, *, seconds: float, stop: Callable[[], bool] = lambda: False) -> int:
        """Take up due runs for `seconds` or until `stop`, finish what is under way, return how many were taken up."""
        self._stop_at, self._stop = _monotonic() + seconds, stop
        taken = 0
        try:
            while True:
                stopping = self._is_stopping()
                if stopping and _monotonic() >= self._stop_at + self.limits.grace.total_seconds():
                    return taken
                try:
                    if self._ended:
                        await self._commit()
                    if not stopping and (not self._tasks or _monotonic() >= self._look_at):
                        taken += await self._claim()
                    if not self._tasks and (stopping or not await self._wait_for_due()):
                        return taken
                    await self._step()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("The database gave no answer (%s); trying again in a moment.", error)
                    await asyncio.sleep(self.limits.pause.total_seconds())
        finally:
            await self._let_go()

    def _is_stopping(self) -> bool:
        now = _monotonic()
        if now < self._stop_at and self._stop():
            self._stop_at = now
        return now >= self._stop_at

    async def drive_run(self, run_id: uuid.UUID, *, patience: timedelta | None = None) -> SagaRun:
        """Drive this one run until it ends, needs a person, or waits longer than `patience` (None: for the world)."""
        try:
            while True:
                await self._claim(run_id)
                while self._tasks:
                    await self._step()
                run = await self._db(lambda: SagaRun.objects.get(pk=run_id))
                if RunStatus(run.status) in ENDED or run.status == RunStatus.NEEDS_ATTENTION.value:
                    return run
                wait = await self._db(partial(self._wait_of, run))
                if wait is None or (patience is not None and wait > patience):
                    return run
                await asyncio.sleep(max(wait.total_seconds(), 0.02))
        finally:
            await self._let_go()

    def _wait_of(self, run: SagaRun) -> timedelta | None:
        """How long until this run goes on by itself; None: only when the world says something."""
        now = self._clock()
        if run.lease_until is not None and run.lease_until >= now:
            return self.limits.look  # another worker has it: look again soon
        if run.due_at is None or journal.waits_for(run, now) in ("signal", "date"):
            return None
        return max(run.due_at - now, timedelta(0))

    async def _claim(self, run_id: uuid.UUID | None = None) -> int:
        room = self.limits.batch - len(self._held)
        if room <= 0 or any(held.is_suspect() for held in self._held.values()):
            return 0
        claimed = await self._db(
            lambda: journal.claim(
                worker=self.worker,
                now=self._clock(),
                lease=self.limits.lease,
                limit=room,
                max_claims=self.limits.max_claims,
                run_id=run_id,
                alone=not self._held,
            )
        )
        for held in claimed:
            self._begin(held)
        if len(claimed) < room:
            self._look_at = _monotonic() + self.limits.glance.total_seconds()
        return len(claimed)

    def _begin(self, held: Held) -> None:
        self._held[held.run.pk] = held
        for begin, record in held.begun:
            context = self._context(held, begin)
            task = asyncio.ensure_future(self._act(begin, context))
            self._tasks[task] = (held, record)
        held.begun = []

    async def _step(self) -> None:
        """Wait a moment for attempts to end, and commit all that did."""
        if not self._tasks:
            return
        poll = self.limits.poll.total_seconds()
        done, _ = await asyncio.wait(self._tasks, timeout=poll, return_when=asyncio.FIRST_COMPLETED)
        if done:
            # One turn of the loop: what ends in the same moment shares the commit.
            await asyncio.sleep(0)
            for task in [task for task in self._tasks if task.done()]:
                held, record = self._tasks.pop(task)
                self._ended.append((held, record, task.result()))
            await self._commit()
        await self._renew()

    async def _commit(self) -> None:
        """Record what has ended. If the database is away, it is kept and recorded when the database is back."""
        if not self._afresh:
            try:
                await self._record(self._ended)
            except AWAY:
                self._afresh = True
                raise
            except Exception:
                # One of them cannot be stored. Each by itself, so that it takes no other along.
                log.exception("%d outcomes could not be recorded together", len(self._ended))
                self._afresh = True
            else:
                self._ended = []
                return
        while self._ended:
            run_id = self._ended[0][0].run.pk
            try:
                await self._record([end for end in self._ended if end[0].run.pk == run_id])
            except AWAY:
                raise
            except Exception:
                # Its lease ends, its attempt counts as unknown, and after a few such claims a person is asked.
                about = run_log.of(self._ended[0][0].run)
                log.exception("The outcome of run %s cannot be recorded", run_id, extra=about)
                self._drop({run_id})
            self._ended = [end for end in self._ended if end[0].run.pk != run_id]
        self._afresh = False

    async def _record(self, ended: list[tuple[Held, StepRecord, Ended]]) -> None:
        touched = {held.run.pk for held, _, _ in ended}
        begin = not self._is_stopping()
        still = await self._db(
            lambda: journal.commit(
                ended,
                worker=self.worker,
                now=self._clock(),
                lease=self.limits.lease,
                begin=begin,
                afresh=self._afresh,
            )
        )
        lost = touched - {held.run.pk for held in still}
        if lost:
            log.warning("%d runs changed hands while they were driven; letting go.", len(lost))
            self._drop(lost)
        for held in still:
            if held.in_flight:
                self._begin(held)
            else:
                del self._held[held.run.pk]

    def _drop(self, run_ids: set[uuid.UUID]) -> None:
        for run_id in run_ids:
            self._held.pop(run_id, None)
        for task, (held, _) in list(self._tasks.items()):
            if held.run.pk in run_ids:
                task.cancel()
                del self._tasks[task]

    async def _renew(self) -> None:
        """Hold on to runs whose steps take longer than half a lease."""
        now = self._clock()
        half = self.limits.lease / 2
        old = [
            pk
            for pk, held in self._held.items()
            if held.run.lease_until is not None and held.run.lease_until - now < half
        ]
        if old:
            await self._db(lambda: journal.renew(worker=self.worker, run_ids=old, now=now, lease=self.limits.lease))
            for pk in old:
                self._held[pk].run.lease_until = now + self.limits.lease

    async def _wait_for_due(self) -> bool:
        """Stay while something is due soon; False: nothing is, and the drive may end."""
        due = await self._db(journal.next_due)
        now = self._clock()
        if due is None or due - now > self.limits.linger:
            return False
        look = self.limits.look.total_seconds()
        # Never less than a moment: what is due may be in somebody else's hands for as long as a commit takes.
        await asyncio.sleep(min(max((due - now).total_seconds(), 0.01), look, max(self._stop_at - _monotonic(), 0)))
        return True

    async def _let_go(self) -> None:
        """Give back what is not done; after a crash nothing of this runs, and the leases end by themselves."""
        run_ids = set(self._held)
        tasks = list(self._tasks)
        self._drop(run_ids)
        self._ended = []
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._leave_database()

    async def _leave_database(self) -> None:
        # The thread may be one that nobody else uses again, and an open connection keeps a database from going away.
        await sync_to_async(_close_idle, thread_sensitive=True)()

    async def _act(self, begin: Begin, context: StepContext) -> Ended:
        point = f"{begin.step.name}:{begin.direction.value}"
        # A plain function waits here for its thread: were it to wait in the pool's own queue, its timeout would
        # run out there, and what was never sent would count as unknown.
        traces.running.set(context)  # for this task alone, and until it ends
        async with self._places if self._wants_thread(begin) else nullcontext():
            points.reach(f"before_call:{point}")
            ended = await (self._drawn if self._is_traced else self._attempt)(begin, context)
            points.reach(f"after_call:{point}")
        return ended

    async def _drawn(self, begin: Begin, context: StepContext) -> Ended:
        with traces.attempting(context) as span:
            ended = await self._attempt(begin, context)
            traces.ended(span, outcome=ended.outcome.value, code=ended.code)
        return ended

    def _wants_thread(self, begin: Begin) -> bool:
        act = begin.step.compensation if begin.direction is Direction.COMPENSATION else begin.step.action
        return not self._inline and not inspect.iscoroutinefunction(act)

    async def _attempt(self, begin: Begin, context: StepContext) -> Ended:
        """Call, and say how it ended. Nothing that a step does comes out of here as an exception."""
        settled = False
        look_up = begin.step.looks_up(begin.direction)
        limit = asyncio.timeout(begin.step.timeout.total_seconds())
        try:
            async with limit:
                if begin.maybe_done and look_up is not None:
                    try:
                        found = await self._call(look_up, context)
                    except StepPostponed as error:
                        return _of_error(error, self._clock)
                    except Exception as error:  # whatever went wrong, the question stays open
                        return _unknown(error)
                    if found is not None:
                        return self._stored(found)
                    if begin.look_up_only:
                        return ABSENT
                    settled = True
                    context = replace(context, maybe_done=False)
                returned = await self._call(begin.step.act(begin.direction), context)
            if isinstance(returned, WaitFor):
                until = returned.until if returned.until is not None else self._clock() + returned.timeout
                return Ended(outcome=Outcome.WAITING, wait_signal=returned.signal, wait_until=until, settled=settled)
            return self._stored(returned, settled=settled)
        except StepError as error:
            return replace(_of_error(error, self._clock), settled=settled)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return replace(_unknown(error), settled=settled)  # the step cancelled itself
        except KeyboardInterrupt:  # meant for the process
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError) and limit.expired():
                seconds = begin.step.timeout.total_seconds()
                message = f"No answer within {seconds:g} s."
                return Ended(outcome=Outcome.UNKNOWN, code="timeout", message=message, settled=settled)
            log.exception("%s %s of run %s raised", begin.step.name, begin.direction.value, context.run_id)
            return replace(_unknown(error), settled=settled)

    def _stored(self, returned: object, *, settled: bool = False) -> Ended:
        """A success, if its result can be kept. If not, it may have happened all the same."""
        result = {} if returned is None else returned
        try:
            if not isinstance(result, Mapping):
                raise TypeError(f"it is {type(result).__name__}, not a mapping")
            text = AS_JSON.encode(dict(result))
            size = len(text.encode())
            if NUL.search(text):
                raise ValueError("it holds a NUL character")
        except (TypeError, ValueError, RecursionError) as error:
            message = f"The result cannot be stored as JSON: {error}"
            return Ended(outcome=Outcome.UNKNOWN, code="result_not_json", message=message, settled=settled)
        if size > self.limits.max_result_bytes:
            message = f"The result has {size} bytes; {self.limits.max_result_bytes} is the most that is kept."
            return Ended(outcome=Outcome.UNKNOWN, code="result_too_large", message=message, settled=settled)
        return Ended(outcome=Outcome.SUCCEEDED, result=json.loads(text), settled=settled)

    async def _call(self, function: Callable[[StepContext], Any], context: StepContext) -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(context)
        if self._inline:
            returned = await sync_to_async(function, thread_sensitive=True)(context)
        else:
            around = contexts.get_current() if self._is_traced else None
            returned = await threads().run(partial(_in_thread, function, context, around))
        return await returned if isinstance(returned, Awaitable) else returned

    async def _db(self, work: Callable[[], T]) -> T:
        """Journal work, in the caller's own thread where there is one: its connection is the transaction's."""

        def checked() -> T:
            try:
                return work()
            except (DatabaseError, InterfaceError):
                _close_idle()  # a broken one is thrown away, and the next try opens another
                raise

        return await sync_to_async(checked, thread_sensitive=True)()

    @staticmethod
    def _context(held: Held, begin: Begin) -> StepContext:
        results = {
            record.step: record.result or {}
            for record in held.records
            if record.direction == Direction.ACTION.value and record.outcome in DONE
        }
        return StepContext(
            run_id=str(held.run.pk),
            saga=held.run.saga,
            business_key=held.run.business_key,
            step=begin.step.name,
            direction=begin.direction,
            input=held.run.input,
            results=results,
            attempt=begin.number,
            maybe_done=begin.maybe_done,
            reason=held.run.failure_message,
            signal=begin.signal,
            traceparent=held.run.traceparent,
        )


def _monotonic() -> float:
    """Seconds on the loop's own clock, which goes on evenly whatever becomes of the time of day."""
    return asyncio.get_running_loop().time()


_thread = threading.local()


def _in_thread(function: Callable[[StepContext], Any], context: StepContext, around: Context | None) -> Any:
    # Asking the connection before each call whether it is there was one statement in thirteen.
    if time.monotonic() - getattr(_thread, "checked_at", -math.inf) > TRUSTED_SECONDS:
        _close_idle()
        _thread.checked_at = time.monotonic()
    try:
        with traces.Within(context, around):
            return function(context)
    finally:
        _close_idle(but_trust=True)


def _close_idle(*, but_trust: bool = False) -> None:
    """Close this thread's connections that are broken or too old, but none in whose transaction the caller is.

    With `but_trust` those are left alone that met no error, have no transaction open and are not too old.
    """
    for connection in connections.all(initialized_only=True):
        is_young = connection.close_at is None or time.monotonic() < connection.close_at
        if but_trust and is_young and connection.autocommit and not connection.errors_occurred:
            continue
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


def _of_error(error: StepError, clock: Callable[[], datetime]) -> Ended:
    if isinstance(error, StepPostponed):
        return Ended(
            outcome=Outcome.WAITING,
            code=error.code,
            message=_text(error),
            provider=error.provider,
            wait_until=clock() + (error.retry_after or timedelta(0)),
        )
    if isinstance(error, StepRefused):
        outcome = Outcome.REFUSED
    elif isinstance(error, StepUnavailable):
        outcome = Outcome.UNAVAILABLE
    else:
        outcome = Outcome.UNKNOWN
    return Ended(
        outcome=outcome,
        code=error.code,
        message=_text(error),
        provider=error.provider,
        provider_id=error.provider_id,
        retry_after=error.retry_after,
    )


def _unknown(error: BaseException) -> Ended:
    """Something broke midway: it may have happened."""
    if isinstance(error, StepError):
        return replace(_of_error(error, timezone.now), outcome=Outcome.UNKNOWN)
    return Ended(outcome=Outcome.UNKNOWN, code="exception", message=f"{type(error).__name__}: {_text(error)}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # it is a step's own, and may be of any kind
        return f"(it cannot be told: {type(broken).__name__})"
