"""What a process counts that is in no row: kept for a few seconds, then added to the tallies that all share.

    count(), observe() ── in memory ──▶ write_down(), one statement that adds ──▶ Tally rows ──▶ the metrics page

Workers write down at the end of a task, web servers after an answer, and whoever is asked for the metrics before they
are told. What a process had not written down when it was killed is lost: a few seconds of it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from sagas import tallies

Place = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and labels with their values."""
Bounds = tuple[float, ...]

log = logging.getLogger(__name__)

_lock = threading.Lock()
_counts: Counter[Place] = Counter()
_durations: defaultdict[tuple[Place, Bounds], list[float]] = defaultdict(list)
_unwritten = tallies.Sums()
"""What the database did not take."""
_written_at = time.monotonic()


def count(name: str, **labels: str) -> None:
    """One more. The values of labels are of few kinds: each combination is a row."""
    with _lock:
        _counts[name, tuple(labels.items())] += 1


def observe(name: str, seconds: float, bounds: Bounds, **labels: str) -> None:
    """One more duration of a histogram."""
    with _lock:
        _durations[(name, tuple(labels.items())), bounds].append(seconds)


def write_down_when_due(**_: Any) -> None:
    """Write down what was counted, every few seconds at most. A receiver of Django's request_finished, too."""
    if time.monotonic() - _written_at >= settings.SAGA_COUNTS_KEPT:
        write_down()


def write_down() -> None:
    """Add to the tallies what was counted. A database that does not take it gets it next time."""
    global _written_at
    # A request is counted in microseconds; what it is in rows is worked out here, once for many.
    with _lock:
        kept, counts, durations = dict(_unwritten), dict(_counts), dict(_durations)
        _clear()
        _written_at = time.monotonic()
    taken = _in_rows(kept, counts, durations)
    if not taken:
        return
    try:
        tallies.add(taken)
    except (DatabaseError, InterfaceError) as error:
        log.warning("What was counted cannot be written down now, and is kept: %s", error)
        with _lock:
            for key, value in taken.items():
                _unwritten[key] += value


def _in_rows(
    kept: Mapping[tuple[str, str], float],
    counts: Mapping[Place, int],
    durations: Mapping[tuple[Place, Bounds], list[float]],
) -> tallies.Sums:
    sums = tallies.Sums()
    sums.update(kept)
    for (name, labels), value in counts.items():
        sums[name, tallies.labelled(**dict(labels))] += value
    for ((name, labels), bounds), seconds in durations.items():
        tallies.observe(sums, name, {labels: seconds}, bounds)
    return sums


def _clear() -> None:
    for kept in (_unwritten, _counts, _durations):
        kept.clear()


def forget() -> None:
    """Begin at nothing: a forked process must not count once more what the one before it counted. Tests, too."""
    global _lock
    _lock = threading.Lock()  # another thread may have held it when we were forked
    _clear()


os.register_at_fork(after_in_child=forget)
