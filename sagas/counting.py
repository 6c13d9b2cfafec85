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
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from sagas import tallies

log = logging.getLogger(__name__)

_lock = threading.Lock()
_sums = tallies.Sums()
_written_at = time.monotonic()


def count(name: str, **labels: str) -> None:
    """One more. The values of labels are of few kinds: each combination is a row."""
    place = tallies.labelled(**labels)
    with _lock:
        _sums[name, place] += 1


def observe(name: str, seconds: float, bounds: Sequence[float], **labels: str) -> None:
    """One more duration of a histogram."""
    with _lock:
        tallies.observe(_sums, name, {tuple(labels.items()): [seconds]}, bounds)


def write_down_when_due(**_: Any) -> None:
    """Write down what was counted, every few seconds at most. A receiver of Django's request_finished, too."""
    if time.monotonic() - _written_at >= settings.SAGA_COUNTS_KEPT:
        write_down()


def write_down() -> None:
    """Add to the tallies what was counted. A database that does not take it gets it next time."""
    global _written_at
    with _lock:
        taken = dict(_sums)
        _sums.clear()
        _written_at = time.monotonic()
    try:
        tallies.add(taken)
    except (DatabaseError, InterfaceError) as error:
        log.warning("What was counted cannot be written down now, and is kept: %s", error)
        with _lock:
            for key, value in taken.items():
                _sums[key] += value


def forget() -> None:
    """Begin at nothing: a forked process must not count once more what the one before it counted. Tests, too."""
    global _lock
    _lock = threading.Lock()  # another thread may have held it when we were forked
    _sums.clear()


os.register_at_fork(after_in_child=forget)
