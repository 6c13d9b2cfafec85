"""Things that happen at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connections

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
