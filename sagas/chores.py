"""Work besides runs that workers do: each is a function the queue calls, and a look whether there is any."""

from __future__ import annotations

from collections.abc import Callable, Iterator

_chores: dict[str, Callable[[], bool]] = {}


def register(what: str, *, waits: Callable[[], bool]) -> None:
    """Have `what`, the dotted path of a function, called whenever `waits` says that there is something to do.

    Looked for each second by sagaworker. `waits` is one cheap query; the function ends by itself within 20 s, and
    may be called twice at once.
    """
    _chores[what] = waits


def waiting() -> Iterator[str]:
    """Those that have something to do."""
    for what, waits in list(_chores.items()):
        if waits():
            yield what
