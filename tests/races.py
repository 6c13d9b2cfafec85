"""Things that happen at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction

from sagas import points

WAIT_SECONDS = 30


def together(*acts: Callable[[], Any]) -> list[Any]:
    """Each act in a thread and with a connection of its own, let go together; what each returned or raised."""
    gate = threading.Barrier(len(acts))
    ends: list[Any] = [None] * len(acts)

    def run(position: int, act: Callable[[], Any]) -> None:
        try:
            gate.wait(WAIT_SECONDS)
            ends[position] = act()
        except Exception as error:
            ends[position] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive(), "They wait for one another for ever."
    return ends


class Paused:
    """Wraps an act so that it stops inside, until `go_on()`: `inside` is set once it is there."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act
        self.inside = threading.Event()
        self.gone_on = threading.Event()

    def __call__(self) -> Any:
        self.inside.set()
        assert self.gone_on.wait(WAIT_SECONDS)
        return self.act()

    def go_on(self) -> None:
        self.gone_on.set()


@contextmanager
def stopped_at(point: str, *, pass_by: int = 0) -> Iterator[Paused]:
    """Whoever reaches `point` (sagas/points.py) first stops there until `go_on()`; it is passed `pass_by` times before
    that, and by everybody afterwards."""
    paused = Paused(lambda: None)
    lock, seen = threading.Lock(), 0

    def hook(reached: str) -> None:
        nonlocal seen
        if reached != point:
            return
        with lock:
            seen += 1
            is_mine = seen == pass_by + 1
        if is_mine:
            paused()

    points.set_hook(hook)
    try:
        yield paused
    finally:
        points.set_hook(None)
        paused.go_on()


def during(first: Callable[[], Any], point: str, then: Callable[[], Any], *, pass_by: int = 0) -> tuple[Any, Any]:
    """`first` runs until it reaches `point`; there `then` happens, from its beginning to its end; `first` goes on.

    What each returned, or `then` raised.
    """
    with stopped_at(point, pass_by=pass_by) as paused:

        def follow() -> Any:
            try:
                assert paused.inside.wait(WAIT_SECONDS), f"{point} was not reached."
                return then()
            finally:
                paused.go_on()

        ended, followed = together(first, follow)
    if isinstance(ended, Exception):
        raise ended
    return ended, followed


def overlapping(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """`first` does its work and does not commit yet; `second` sets out; `first` commits.

    What each returned, or `second` raised.
    """
    paused = Paused(lambda: None)

    def uncommitted() -> Any:
        with transaction.atomic():
            end = first()
            paused()
        return end

    (ended, followed), _ = meet(uncommitted, second, paused)
    if isinstance(ended, Exception):
        raise ended
    return ended, followed


def meet(first: Callable[[], Any], second: Callable[[], Any], paused: Paused) -> tuple[tuple[Any, Any], bool]:
    """`first` stops at `paused`, `second` sets out, `first` goes on. What each returned or raised, and whether `second`
    had to wait for `first`."""
    setting_out, arrived = threading.Event(), threading.Event()
    early: list[bool] = []

    def follow() -> Any:
        assert paused.inside.wait(WAIT_SECONDS)
        setting_out.set()
        try:
            return second()
        finally:
            arrived.set()

    def hold_the_gate() -> None:
        assert setting_out.wait(WAIT_SECONDS)
        # Long enough for it to arrive, were nothing in its way.
        early.append(arrived.wait(0.2))
        paused.go_on()

    ended, followed, _ = together(first, follow, hold_the_gate)
    return (ended, followed), early == [False]
