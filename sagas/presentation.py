"""How states, times and attempts are put before people: words, signs and bars. No queries, no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sagas.selectors import AttemptView, RunView, StepView
from sagas.states import DONE, Direction, ItemState, Outcome, RunStatus, StepState, UndoState

BY_HAND = frozenset({Outcome.SKIPPED.value, Outcome.RESOLVED.value})
MOST_TRIES = 50
"""Of one step or undo, shown at a time: a run that has retried for days must not freeze the page."""


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A state as a word with the look that goes with it; the look only helps."""

    word: str
    look: str
    """One of done, busy, wait, undone, failed, care, none."""


RUN_LOOKS = {
    RunStatus.PENDING: "none",
    RunStatus.RUNNING: "busy",
    RunStatus.RETRYING: "wait",
    RunStatus.COMPENSATING: "wait",
    RunStatus.COMPLETED: "done",
    RunStatus.COMPENSATED: "undone",
    RunStatus.NEEDS_ATTENTION: "care",
    RunStatus.ABANDONED: "none",
}
STEP_BADGES = {
    StepState.NOT_REACHED: Badge(word="Not reached", look="none"),
    StepState.RUNNING: Badge(word="Running", look="busy"),
    StepState.RETRYING: Badge(word="Retrying", look="wait"),
    StepState.WAITING: Badge(word="Waiting", look="wait"),
    StepState.DONE: Badge(word="Done", look="done"),
    StepState.SKIPPED: Badge(word="Skipped", look="none"),
    StepState.FAILED: Badge(word="Failed", look="failed"),
    StepState.UNKNOWN: Badge(word="Unknown", look="care"),
}
UNDO_BADGES = {
    UndoState.NOT_NEEDED: Badge(word="Not needed", look="none"),
    UndoState.WAITING: Badge(word="Waiting", look="none"),
    UndoState.RUNNING: Badge(word="Running", look="busy"),
    UndoState.RETRYING: Badge(word="Retrying", look="wait"),
    UndoState.UNDONE: Badge(word="Undone", look="undone"),
    UndoState.SKIPPED: Badge(word="Skipped", look="none"),
    UndoState.FAILED: Badge(word="Failed", look="care"),
}
OUTCOME_BADGES = {
    "": Badge(word="Under way", look="busy"),
    Outcome.SUCCEEDED.value: Badge(word="Done", look="done"),
    Outcome.REFUSED.value: Badge(word="Refused", look="failed"),
    Outcome.UNAVAILABLE.value: Badge(word="Unavailable", look="wait"),
    Outcome.UNKNOWN.value: Badge(word="No answer", look="wait"),
    Outcome.WAITING.value: Badge(word="Waiting", look="wait"),
    Outcome.SKIPPED.value: Badge(word="Skipped", look="none"),
    Outcome.RESOLVED.value: Badge(word="Settled by hand", look="done"),
}
ITEM_BADGES = {
    ItemState.PENDING: Badge(word="Pending", look="none"),
    ItemState.DONE: Badge(word="Done", look="done"),
    ItemState.REFUSED: Badge(word="Refused", look="failed"),
    ItemState.FAILED: Badge(word="Failed", look="care"),
}
EVENT_WORDS = {
    "started": "Started",
    "turned_back": "Turned back",
    "completed": "Completed",
    "compensated": "Everything that was done is undone",
    "needs_attention": "Needs attention",
    "cancel_requested": "Cancellation asked for",
    "retry_requested": "Another try asked for",
    "skipped": "Skipped",
    "resolved": "Settled by hand",
    "abandoned": "Given up",
    "signal": "Signal",
    "assigned": "Taken on",
    "released": "Given back",
    "snoozed": "Put off",
    "woken": "No longer put off",
    "imported": "Read from a file",
}

ACT_EVENTS = {
    "cancel": "cancel_requested",
    "retry": "retry_requested",
    "skip": "skipped",
    "resolve": "resolved",
    "abandon": "abandoned",
}
"""Act -> the kind of event that it leaves."""


def run_badge(view: RunView) -> Badge:
    return Badge(word=view.status_word, look=RUN_LOOKS[RunStatus(view.run.status)])


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of time, in percent of the run's own axis."""

    left: float
    width: float
    look: str
    """work, fail, idle or undo."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One direction of a step: what stands in one half of its row."""

    step: str
    direction: str
    title: str
    badge: Badge
    why: str
    attempts: Sequence[AttemptView]
    """The newest MOST_TRIES of them."""
    tries: int
    earlier: int
    """How many tries are left out."""
    proofs: Sequence[Proof]
    allowed: int
    retry_at: datetime | None
    bars: Sequence[Bar]
    bars_text: str
    facts: Sequence[tuple[str, str]]
    can: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """That what was sent under a key many times was done once at most: the answer to "were they charged twice?"."""

    key: str
    sent: int
    end: str
    """In words."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A step with its undo."""

    number: int
    forward: Cell
    undo: Cell | None


def ladder(view: RunView, now: datetime) -> list[Row]:
    """The steps of a run, each beside its undo, on one axis of time."""
    axis = _axis(view, now)
    return [_row(number, step, axis, now) for number, step in enumerate(view.steps, 1)]


def _axis(view: RunView, now: datetime) -> tuple[datetime, timedelta]:
    """(a run's start, the time to the end of its last attempt)."""
    every = [attempt for step in view.steps for attempt in (*step.attempts, *step.undo_attempts)]
    start = view.run.created_at
    end = max([a.ended_at or now for a in every], default=now)
    return start, max(end - start, timedelta(milliseconds=1))


def _row(number: int, step: StepView, axis: tuple[datetime, timedelta], now: datetime) -> Row:
    forward = Cell(
        step=step.name,
        direction="action",
        title=step.title,
        badge=STEP_BADGES[step.state],
        why=step.note,
        attempts=step.attempts[-MOST_TRIES:],
        tries=len(step.attempts),
        earlier=max(len(step.attempts) - MOST_TRIES, 0),
        proofs=_proofs(step.attempts),
        allowed=step.attempts_allowed,
        retry_at=step.retry_at,
        bars=_bars(step.attempts, axis, now, "work"),
        bars_text=_bars_text(step.attempts, axis),
        facts=_facts(step.result),
        can=step.can,
    )
    if step.undo_state is None:
        return Row(number=number, forward=forward, undo=None)
    undo = Cell(
        step=step.name,
        direction="compensation",
        title=step.undo_title,
        badge=UNDO_BADGES[step.undo_state],
        why=step.undo_note,
        attempts=step.undo_attempts[-MOST_TRIES:],
        tries=len(step.undo_attempts),
        earlier=max(len(step.undo_attempts) - MOST_TRIES, 0),
        proofs=_proofs(step.undo_attempts),
        allowed=step.undo_attempts_allowed,
        retry_at=step.undo_retry_at,
        bars=_bars(step.undo_attempts, axis, now, "undo"),
        bars_text=_bars_text(step.undo_attempts, axis),
        facts=_facts(step.undo_result),
        can=step.undo_can,
    )
    return Row(number=number, forward=forward, undo=undo)


def _proofs(attempts: Sequence[AttemptView]) -> list[Proof]:
    keys = dict.fromkeys(attempt.key for attempt in attempts if attempt.key)
    return [
        Proof(
            key=key,
            sent=sum(one.key == key and one.outcome not in BY_HAND for one in attempts),
            end=_end_of([one.outcome for one in attempts if one.key == key]),
        )
        for key in keys
    ]


def _end_of(outcomes: Sequence[str]) -> str:
    if Outcome.SUCCEEDED.value in outcomes:
        return "done once"
    if Outcome.RESOLVED.value in outcomes:
        return "settled by hand"
    return "not known to be done" if Outcome.UNKNOWN.value in outcomes or "" in outcomes else "not done"


def _bars(attempts: Sequence[AttemptView], axis: tuple[datetime, timedelta], now: datetime, good: str) -> list[Bar]:
    bars: list[Bar] = []
    last: datetime | None = None
    for attempt in attempts:
        if last is not None and attempt.started_at > last:
            bars.append(_bar(last, attempt.started_at, axis, "idle"))
        last = attempt.ended_at or now
        bars.append(_bar(attempt.started_at, last, axis, good if _went_well(attempt) else "fail"))
    return bars


def _went_well(attempt: AttemptView) -> bool:
    return attempt.outcome in ("", Outcome.SUCCEEDED.value, Outcome.RESOLVED.value, Outcome.WAITING.value)


def _bar(begin: datetime, end: datetime, axis: tuple[datetime, timedelta], look: str) -> Bar:
    start, length = axis
    left = min(max((begin - start) / length * 100, 0), 99)
    width = min(max((end - begin) / length * 100, 1), 100 - left)
    return Bar(left=round(left, 2), width=round(width, 2), look=look)


def _bars_text(attempts: Sequence[AttemptView], axis: tuple[datetime, timedelta]) -> str:
    if not attempts:
        return ""
    begin = (attempts[0].started_at - axis[0]).total_seconds()
    end = attempts[-1].ended_at
    until = f" to {(end - axis[0]).total_seconds():.2f}" if end else " and still going"
    return f"{len(attempts)} tries, from {begin:.2f}{until} seconds after the start"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One attempt of a run, drawn on the run's axis after what it waited for."""

    step: str
    title: str
    attempt: AttemptView
    bars: Sequence[Bar]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Where a run's time went. All in seconds; tries under way at once count once."""

    stretches: Sequence[Stretch]
    queued: float
    """From its start to its first attempt, or to now."""
    worked: float
    waited: float
    """Between attempts: for the next try, a signal, a date or a worker."""


def timeline(view: RunView, now: datetime) -> Timeline:
    """Every attempt in the order they began, with the waits before it drawn apart from its work."""
    tries = [(step.name, step.title, attempt) for step in view.steps for attempt in step.attempts]
    tries += [(step.name, step.undo_title, attempt) for step in view.steps for attempt in step.undo_attempts]
    tries.sort(key=lambda one: one[2].started_at)
    axis = _axis(view, now)
    first = tries[0][2].started_at if tries else now
    stretches = []
    until = view.run.created_at
    worked = 0.0
    for name, title, attempt in tries:
        end = attempt.ended_at or now
        bars = [_bar(until, attempt.started_at, axis, "idle")] if attempt.started_at > until else []
        look = "undo" if attempt.direction == Direction.COMPENSATION.value else "work"
        bars.append(_bar(attempt.started_at, end, axis, look if _went_well(attempt) else "fail"))
        stretches.append(Stretch(step=name, title=title, attempt=attempt, bars=bars))
        worked += max((end - max(attempt.started_at, until)).total_seconds(), 0)
        until = max(until, end)
    queued = max((first - view.run.created_at).total_seconds(), 0)
    whole = max((until - view.run.created_at).total_seconds(), 0)
    return Timeline(stretches=stretches, queued=queued, worked=worked, waited=max(whole - queued - worked, 0))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an attempt that succeeded added to what the next ones are given."""

    title: str
    known: Sequence[str]
    """The steps whose results it could read."""
    added: Mapping[str, object]


def changes(view: RunView) -> list[Change]:
    """A run's context, from attempt to attempt: what each was given, and what it left."""
    tries = [(step.title, step.name, attempt) for step in view.steps for attempt in step.attempts]
    tries += [(step.undo_title, step.name, attempt) for step in view.steps for attempt in step.undo_attempts]
    known: list[str] = []
    found = []
    for title, name, attempt in sorted(tries, key=lambda one: one[2].ended_at or one[2].started_at):
        if attempt.outcome not in DONE:
            continue
        found.append(Change(title=title, known=tuple(known), added=attempt.result or {}))
        if attempt.direction == Direction.ACTION.value:
            known.append(name)
    return found


def _facts(result: object) -> list[tuple[str, str]]:
    """A result's plain values, for showing; lists and the like are in the attempt's details."""
    if not isinstance(result, dict):
        return []
    facts: list[tuple[str, str]] = []
    for name, value in result.items():
        if isinstance(value, str | int | float) and value not in ("", None) and not isinstance(value, bool):
            facts.append((name.replace("_", " "), str(value)))
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    facts.append((str(item.get("sku", name)), " ".join(str(v) for k, v in item.items() if k != "sku")))
    return facts


def amount_text(amount: Decimal, currency: str) -> str:
    """As people read it: "1,240.00 EUR"."""
    return f"{amount:,} {currency}"


def seconds_text(seconds: float) -> str:
    """As people say it: "12 s", "4 min", "2 h 10 min", "3 days"."""
    whole = int(abs(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} days" if days > 1 else "1 day"
