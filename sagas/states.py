"""The states of runs, steps, undos and attempts, and the moves a run may make."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands, as stored."""

    PENDING = "pending"  # stored, never claimed
    RUNNING = "running"  # going forward, or waiting for a signal
    RETRYING = "retrying"  # going forward, the last attempt failed, the next one has a time
    COMPENSATING = "compensating"  # turned back: undoing what was done
    COMPLETED = "completed"  # every step done
    COMPENSATED = "compensated"  # everything that was done is undone: an ordinary end, not an error
    NEEDS_ATTENTION = "needs_attention"  # waits for a person
    ABANDONED = "abandoned"  # given up by a person, with a reason; says what stays undone


RUN_MOVES: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.RETRYING,
            RunStatus.COMPENSATING,
            RunStatus.COMPLETED,
            RunStatus.COMPENSATED,
            RunStatus.NEEDS_ATTENTION,
            RunStatus.ABANDONED,
        }
    ),
    RunStatus.RUNNING: frozenset(
        {
            RunStatus.RETRYING,
            RunStatus.COMPENSATING,
            RunStatus.COMPLETED,
            RunStatus.COMPENSATED,
            RunStatus.NEEDS_ATTENTION,
            RunStatus.ABANDONED,
        }
    ),
    RunStatus.RETRYING: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.COMPENSATING,
            RunStatus.COMPLETED,
            RunStatus.COMPENSATED,
            RunStatus.NEEDS_ATTENTION,
            RunStatus.ABANDONED,
        }
    ),
    RunStatus.COMPENSATING: frozenset({RunStatus.COMPENSATED, RunStatus.NEEDS_ATTENTION, RunStatus.ABANDONED}),
    # A finished run may still be cancelled while its definition allows it: then all is undone.
    RunStatus.COMPLETED: frozenset({RunStatus.COMPENSATING}),
    RunStatus.NEEDS_ATTENTION: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.RETRYING,
            RunStatus.COMPENSATING,
            RunStatus.COMPLETED,
            RunStatus.COMPENSATED,
            RunStatus.ABANDONED,
        }
    ),
    RunStatus.COMPENSATED: frozenset(),
    RunStatus.ABANDONED: frozenset(),
}

FORWARD = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.RETRYING})
"""Going through its steps; a run passes from one of these to another with every claim and every failed try."""
ENDED = frozenset({RunStatus.COMPLETED, RunStatus.COMPENSATED, RunStatus.ABANDONED})
"""Nothing more happens by itself."""
LIVE = frozenset(RunStatus) - ENDED
"""At most one of these per business key."""


class Direction(StrEnum):
    """Which way an attempt goes."""

    ACTION = "action"
    COMPENSATION = "compensation"


class Outcome(StrEnum):
    """How an attempt ended. The first four are the engine's; the rest are said of it by the world or a person."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"  # a business no
    UNAVAILABLE = "unavailable"  # did not happen, and may be sent again
    UNKNOWN = "unknown"  # may have happened
    WAITING = "waiting"  # the attempt ended by waiting for a signal or a date
    SKIPPED = "skipped"  # a person said: go on without it
    RESOLVED = "resolved"  # a person said: it is done, and here is the evidence


WORKER_LOST = "worker_lost"
"""The error code of an attempt whose worker was gone before its end was recorded: another took the run over."""

DONE = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED, Outcome.RESOLVED})
"""The step, or its undo, needs nothing more."""


class StepState(StrEnum):
    """A step as people see it."""

    NOT_REACHED = "not_reached"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"  # for a signal or a date
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"  # sent, answer lost


class UndoState(StrEnum):
    """An undo as people see it."""

    NOT_NEEDED = "not_needed"
    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"
    UNDONE = "undone"
    SKIPPED = "skipped"
    FAILED = "failed"


class BulkState(StrEnum):
    """Where an act on many runs stands."""

    OPEN = "open"
    STOPPED = "stopped"  # by a person, with runs left; may be resumed
    ENDED = "ended"


class ItemState(StrEnum):
    """What came of such an act on one run."""

    PENDING = "pending"
    DONE = "done"
    REFUSED = "refused"  # the run's state did not allow it
    FAILED = "failed"  # something broke; nothing was changed
