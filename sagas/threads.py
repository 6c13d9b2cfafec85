"""Threads for plain functions, kept so that their database connections are kept too.

A function that never returns takes its thread along. That thread is given up: another takes its place, and since all
are daemons, none keeps the process from ending. A pool of concurrent.futures would fill up, and wait for them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Threads:
    """As many threads as there are calls at a time; the caller sees to it that those are not too many."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.stuck = 0
        """Threads that were given up and have not come back."""
        self._idle: list[_Thread] = []
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises. Cancelled, it is left to itself, and its thread given up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            thread = _Thread(self)
        thread.is_given_up = False
        thread.jobs.put((function, loop, future))
        try:
            return await future
        except asyncio.CancelledError:
            with self._lock:
                if thread not in self._idle:
                    thread.is_given_up = True
                    self.stuck += 1
            raise

    def take_back(self, thread: _Thread) -> None:
        """It is done with its job, sooner or later."""
        with self._lock:
            if thread.is_given_up:
                thread.is_given_up = False
                self.stuck -= 1
            self._idle.append(thread)


class _Thread(threading.Thread):
    def __init__(self, pool: Threads) -> None:
        super().__init__(name="saga-act", daemon=True)
        self.pool = pool
        self.is_given_up = False
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            function, loop, future = self.jobs.get()
            returned: Any = None
            error: BaseException | None = None
            try:
                returned = function()
            except (StopIteration, GeneratorExit) as end:  # these two would end whoever awaits the future
                error = RuntimeError(f"It raised {end!r}.")
            except BaseException as raised:
                error = raised
            self.pool.take_back(self)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_tell, future, returned, error)
            del function, future, returned, error  # or they live until the next job


def _tell(future: asyncio.Future[Any], returned: Any, error: BaseException | None) -> None:
    if future.done():  # given up
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(returned)


_threads: Threads | None = None


def threads() -> Threads:
    """This process's own; a forked one begins with none."""
    global _threads
    if _threads is None or _threads.process != os.getpid():
        _threads = Threads()
    return _threads
