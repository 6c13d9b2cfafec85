"""Reading: runs as people see them. A fixed number of queries, however many runs or attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from sagas import journal, registry
from sagas.acts import Acts, possible_acts
from sagas.decide import History, Progress, Stand, left_something, progress
from sagas.definition import Saga, Step
from sagas.exceptions import UnknownSaga
from sagas.journal import Held
from sagas.models import RunEvent, SagaRun, Signal, StepRecord, earliest_run_id
from sagas.states import DONE, ENDED, LIVE, Direction, Outcome, RunStatus, StepState, UndoState

NEIGHBOURS_WITHIN = timedelta(hours=1)
NEIGHBOURS_AMONG = 50_000
"""Attempts."""

STATUS_WORDS = {
    RunStatus.PENDING: "Pending",
    RunStatus.RUNNING: "Running",
    RunStatus.RETRYING: "Retrying",
    RunStatus.COMPENSATING: "Undoing",
    RunStatus.COMPLETED: "Completed",
    RunStatus.COMPENSATED: "Undone",
    RunStatus.NEEDS_ATTENTION: "Needs attention",
    RunStatus.ABANDONED: "Abandoned",
}


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """One attempt."""

    number: int
    direction: str
    outcome: str
    """Empty: begun and not ended."""
    started_at: datetime
    ended_at: datetime | None
    key: str
    error_code: str
    error_message: str
    provider: str
    provider_id: str
    retry_at: datetime | None
    started_by: str
    worker: str
    result: Mapping[str, Any] | None

    @property
    def seconds(self) -> float | None:
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else None


@dataclass(frozen=True, kw_only=True)
class StepView:
    """A step and its undo, side by side."""

    name: str
    title: str
    kind: str
    state: StepState
    attempts: list[AttemptView]
    attempts_allowed: int
    result: Mapping[str, Any] | None
    retry_at: datetime | None
    note: str
    can: tuple[str, ...]
    undo_title: str
    undo_state: UndoState | None
    """None: the step has no undo."""
    undo_attempts: list[AttemptView]
    undo_attempts_allowed: int
    undo_result: Mapping[str, Any] | None
    undo_retry_at: datetime | None
    undo_note: str
    undo_can: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as people see it."""

    run: SagaRun
    definition: Saga | None
    steps: list[StepView]
    events: list[RunEvent] = field(default_factory=list)
    can: tuple[str, ...] = ()
    cancel_refusal: str = ""
    sentence: str = ""
    status_word: str = ""


def run_view(run_id: UUID | str) -> RunView:
    """One run with its events, oldest first. Raises SagaRun.DoesNotExist."""
    run = SagaRun.objects.select_related("assignment").get(pk=run_id)
    view = views_for([run])[run.pk]
    view.events.extend(RunEvent.objects.filter(run=run).order_by("id"))
    return view


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """A run as a row of a list tells it."""

    run: SagaRun
    status_word: str
    step_line: str


TOLD_BY_THE_ROW = frozenset({RunStatus.COMPLETED, RunStatus.COMPENSATED, RunStatus.NEEDS_ATTENTION})
"""Of these a list says what the run's own row says: nobody has to look at their attempts."""


def lines_for(runs: Iterable[SagaRun]) -> dict[UUID, RunLine]:
    """Many runs as a list tells them, which are mostly over: attempts are read of the others alone."""
    rows = list(runs)
    views = views_for((run for run in rows if run.status not in TOLD_BY_THE_ROW), with_acts=False)
    found = {}
    for run in rows:
        view = views.get(run.pk) or RunView(
            run=run, definition=None, steps=[], status_word=STATUS_WORDS[RunStatus(run.status)]
        )
        found[run.pk] = RunLine(run=run, status_word=view.status_word, step_line=step_line(view))
    return found


def views_for(runs: Iterable[SagaRun], *, with_acts: bool = True) -> dict[UUID, RunView]:
    """Many runs in two queries, without their events. A list that offers no acts does not ask what may be done."""
    rows = list(runs)
    ids = [run.pk for run in rows]
    records: dict[UUID, list[StepRecord]] = defaultdict(list)
    signals: dict[UUID, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    begun = [run.pk for run in rows if run.fence]  # one that nobody has held yet has none
    if begun:
        for record in StepRecord.objects.filter(run__in=begun).order_by("id"):
            records[record.run_id].append(record)
    # Signals decide what a waiting step does next, and what may be done; of runs that do neither nobody asks them.
    if ids and (with_acts or any(r.outcome == Outcome.WAITING.value for one in records.values() for r in one)):
        for run_id, name, payload in Signal.objects.filter(run__in=ids).values_list("run_id", "name", "payload"):
            signals[run_id][name] = payload
    now = timezone.now()
    return {
        run.pk: _view(
            Held(run=run, saga=_definition(run), records=records[run.pk], signals=signals[run.pk]), now, with_acts
        )
        for run in rows
    }


def owner_of(run: SagaRun) -> str:
    """Who looks after it; nobody is an empty text."""
    try:
        return run.assignment.owner
    except ObjectDoesNotExist:
        return ""


def find_run(*, saga: str, business_key: str) -> SagaRun | None:
    """The newest run of that business key."""
    return SagaRun.objects.filter(saga=saga, business_key=business_key).order_by("-created_at").first()


def waiting_signal(run_id: UUID | str, prefix: str) -> str:
    """The signal that a live run waits for at this moment, if its name begins so; empty: it waits for none such."""
    run = SagaRun.objects.filter(pk=run_id).first()
    if run is None or RunStatus(run.status) in ENDED:
        return ""
    held = journal.load(run)
    latest = {(record.step, record.direction): record for record in held.records}
    for record in latest.values():
        waits = record.outcome == Outcome.WAITING.value and record.wait_signal not in held.signals
        if waits and record.wait_signal.startswith(prefix):
            return str(record.wait_signal)
    return ""


def runs_needing_attention() -> QuerySet[SagaRun]:
    """Runs that wait for a person, the longest waiting first."""
    return SagaRun.objects.in_states(RunStatus.NEEDS_ATTENTION).filter(imported_at__isnull=True).order_by("updated_at")


def newest_runs(
    *, status: str = "", saga: str = "", key: str = "", error: str = "", since: datetime | None = None, before: str = ""
) -> QuerySet[SagaRun]:
    """Runs for which all of what is given holds, newest first.

    `key` is a business key, `error` the code of an attempt of theirs or of why they turned back, `since` the earliest
    moment they began, `before` the id of the run that the page before ended with.
    """
    runs = SagaRun.objects.in_states(status) if status else SagaRun.objects.all()
    exact = {"saga": saga, "business_key": key}
    runs = runs.filter(**{name: value for name, value in exact.items() if value})
    runs = runs.order_by("-id")  # ids grow with time
    if since is not None:
        runs = runs.filter(pk__gte=earliest_run_id(since))
    if error:
        tried = StepRecord.objects.filter(run=OuterRef("pk"), error_code=error)
        runs = runs.filter(Q(failure_code=error) | Exists(tried))
    try:
        edge = UUID(before) if before else None
    except ValueError:
        edge = None
    return runs.filter(pk__lt=edge) if edge is not None else runs


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """How many other runs had the error that this one had last."""

    error: str
    title: str
    """Of the step or undo that had it."""
    runs: int
    since: datetime


def neighbours(view: RunView, now: datetime) -> Neighbours | None:
    """Other runs whose same step, the same way, ended with the same error in the last hour; None without an error.

    Looks at the newest attempts only: a million old ones must not make a page slow.
    """
    failed = [
        (attempt.started_at, step, attempt)
        for step in view.steps
        for attempt in (*step.attempts, *step.undo_attempts)
        if attempt.error_code
    ]
    if not failed:
        return None
    _, step, last = max(failed, key=lambda one: one[0])
    newest = StepRecord.objects.order_by("-id").values_list("id", flat=True).first() or 0
    since = now - NEIGHBOURS_WITHIN
    found = (
        StepRecord.objects.filter(id__gt=newest - NEIGHBOURS_AMONG, started_at__gte=since)
        .filter(step=step.name, direction=last.direction, error_code=last.error_code, run__saga=view.run.saga)
        .exclude(run=view.run)
        .aggregate(runs=Count("run", distinct=True))
    )
    title = step.title if last.direction == Direction.ACTION.value else step.undo_title
    return Neighbours(error=last.error_code, title=title, runs=found["runs"], since=since)


def retriable(view: RunView) -> list[tuple[str, str]]:
    """(step, direction) of everything in the run that may be tried again now."""
    found = [(step.name, Direction.ACTION.value) for step in view.steps if "retry" in step.can]
    return found + [(step.name, Direction.COMPENSATION.value) for step in view.steps if "retry" in step.undo_can]


def counts() -> dict[str, int]:
    """Runs by status; a status nobody is in counts 0."""
    ended = SagaRun.objects.order_by().filter(phase__in=sorted(ENDED)).values_list("phase").annotate(count=Count("id"))
    live = SagaRun.objects.in_states(*LIVE).order_by().values_list("status").annotate(count=Count("id"))
    found = dict(ended.union(live, all=True))  # of what has ended, of which there may be millions, the index alone
    return {status.value: found.get(status.value, 0) for status in RunStatus}


UNTAKEN_AFTER = timedelta(seconds=30)
"""Work that has been due for so long is told on every page, by /readyz and by the doctor."""


def overdue(*, now: datetime, longer_than: timedelta) -> QuerySet[SagaRun]:
    """Runs due longer than that and held by nobody: nobody answers the bell."""
    return SagaRun.objects.filter(due_at__lte=now - longer_than).exclude(lease_until__gte=now - longer_than)


def worker_seen_at() -> datetime | None:
    """When a worker last began an attempt."""
    return StepRecord.objects.exclude(worker="").order_by("-id").values_list("started_at", flat=True).first()


def missing_definitions() -> list[tuple[str, int, int]]:
    """(name, version, live runs) of definitions that live runs need and nobody registered."""
    live = SagaRun.objects.in_states(*LIVE).order_by().values_list("saga", "version").annotate(count=Count("id"))
    known = set(registry.names())
    return [(name, version, count) for name, version, count in live if (name, version) not in known]


def step_line(view: RunView) -> str:
    """What a row of a list says of where the run is: "Refund payment, try 3 of 8"."""
    run = view.run
    if run.status == RunStatus.NEEDS_ATTENTION.value:
        return run.attention_reason
    if run.status == RunStatus.COMPENSATED.value:
        return run.failure_message
    for step in view.steps:
        if step.name != run.current_step:
            continue
        if run.status == RunStatus.COMPENSATING.value:
            return _line(step.undo_title, len(step.undo_attempts), step.undo_attempts_allowed)
        return _line(step.title, len(step.attempts), step.attempts_allowed)
    return ""


def _line(title: str, tries: int, allowed: int) -> str:
    return f"{title}, try {tries} of {allowed}" if tries > 1 else title


def _definition(run: SagaRun) -> Saga | None:
    try:
        return registry.get(run.saga, run.version)
    except UnknownSaga:
        return None


def _view(held: Held, now: datetime, with_acts: bool) -> RunView:
    run = held.run
    status = RunStatus(run.status)
    acts = possible_acts(held, now) if with_acts else Acts()
    # Of a run whose history was taken away, no step can be told apart from one that was never reached.
    told = held.saga.steps if held.saga and run.pruned_at is None else ()
    # Whoever holds the run has its open attempts under way; only when the lease has ended are they unknown.
    leased = run.lease_until is not None and run.lease_until >= now
    held.in_flight = {(r.step, Direction(r.direction)) for r in held.records if leased and not r.outcome}
    history = held.history()
    steps = [_step_view(held, history, step, acts, now) for step in told]
    view = RunView(
        run=run,
        definition=held.saga,
        steps=steps,
        can=acts.run,
        cancel_refusal=acts.cancel_refusal,
        status_word=_status_word(status, steps),
    )
    object.__setattr__(view, "sentence", _sentence(view, status))
    return view


def _status_word(status: RunStatus, steps: list[StepView]) -> str:
    if status is RunStatus.COMPENSATING and any(step.undo_state is UndoState.RETRYING for step in steps):
        return "Undoing, retrying"
    if status is RunStatus.RUNNING and any(step.state is StepState.WAITING for step in steps):
        return "Waiting"
    return STATUS_WORDS[status]


def _step_view(held: Held, history: History, step: Step, acts: Acts, now: datetime) -> StepView:
    forward = progress(_saga(held), history, step, Direction.ACTION, now)
    undo = progress(_saga(held), history, step, Direction.COMPENSATION, now)
    tries = [r for r in held.records if r.step == step.name and r.direction == Direction.ACTION.value]
    undos = [r for r in held.records if r.step == step.name and r.direction == Direction.COMPENSATION.value]
    back = held.run.turned_back_at is not None
    undo_state, undo_note = _undo_state(history, step, undo, undos, back=back)
    return StepView(
        name=step.name,
        title=step.display,
        kind=step.kind.value,
        state=_state(forward, tries, back=back),
        attempts=[_attempt_view(r, step) for r in tries],
        attempts_allowed=step.retry.attempts,
        result=next((r.result for r in reversed(tries) if r.outcome in DONE), None),
        retry_at=None if back else forward.until,
        note=_note(forward, tries),
        can=acts.of(step.name, Direction.ACTION),
        undo_title=step.compensation_display,
        undo_state=undo_state if step.compensation is not None else None,
        undo_attempts=[_attempt_view(r, step) for r in undos],
        undo_attempts_allowed=step.compensation_retry.attempts,
        undo_result=next((r.result for r in reversed(undos) if r.outcome in DONE), None),
        undo_retry_at=undo.until,
        undo_note=undo_note,
        undo_can=acts.of(step.name, Direction.COMPENSATION),
    )


def _saga(held: Held) -> Saga:
    if held.saga is None:
        raise UnknownSaga(held.run.saga, held.run.version)
    return held.saga


def _state(stand: Progress, tries: list[StepRecord], *, back: bool) -> StepState:
    if stand.stand is Stand.DONE:
        return StepState.SKIPPED if tries[-1].outcome == Outcome.SKIPPED.value else StepState.DONE
    if stand.stand is Stand.NOT_STARTED:
        return StepState.NOT_REACHED
    if stand.stand is Stand.IN_FLIGHT:
        return StepState.RETRYING if stand.failures else StepState.RUNNING
    if stand.maybe_done and (back or stand.stand is Stand.FAILED):
        return StepState.UNKNOWN
    if stand.stand is Stand.FAILED or back:
        return StepState.FAILED
    if stand.failures:
        return StepState.RETRYING
    return StepState.WAITING if tries[-1].outcome == Outcome.WAITING.value else StepState.RUNNING


def _undo_state(
    history: History, step: Step, stand: Progress, undos: list[StepRecord], *, back: bool
) -> tuple[UndoState, str]:
    if stand.stand is Stand.DONE:
        skipped = undos[-1].outcome == Outcome.SKIPPED.value
        return (UndoState.SKIPPED, "left as it is, by a person") if skipped else (UndoState.UNDONE, "")
    if not left_something(history, step.name):
        begun = any(a.step == step.name for a in history.attempts)
        return UndoState.NOT_NEEDED, "nothing was done" if begun else "never reached"
    if not back:
        return UndoState.NOT_NEEDED, "the step stands"
    if stand.stand is Stand.FAILED:
        return UndoState.FAILED, stand.message
    if stand.stand is Stand.IN_FLIGHT:
        return (UndoState.RETRYING if stand.failures else UndoState.RUNNING), ""
    if stand.failures:
        return UndoState.RETRYING, undos[-1].error_message
    return UndoState.WAITING, "waits its turn"


def _note(stand: Progress, tries: list[StepRecord]) -> str:
    if not tries or stand.stand is Stand.DONE:
        return ""
    last = tries[-1]
    if last.outcome == Outcome.WAITING.value:
        return f"waits for {last.wait_signal}" if last.wait_signal else "waits for a date"
    if not last.outcome and len(tries) > 1:
        last = tries[-2]
    return last.error_message or stand.message


def _attempt_view(record: StepRecord, step: Step) -> AttemptView:
    return AttemptView(
        number=record.number,
        direction=record.direction,
        outcome=record.outcome,
        started_at=record.started_at,
        ended_at=record.ended_at,
        key=record.key,
        error_code=record.error_code,
        error_message=record.error_message,
        provider=record.provider,
        provider_id=record.provider_id or step.id_in(record.result, Direction(record.direction)),
        retry_at=record.retry_at,
        started_by=record.started_by,
        worker=record.worker,
        result=record.result,
    )


def _sentence(view: RunView, status: RunStatus) -> str:
    run = view.run
    done = [step.title for step in view.steps if step.state is StepState.DONE]
    why = run.failure_message.rstrip(".")
    if run.pruned_at is not None:
        return f"{STATUS_WORDS[status]}; its history was archived on {run.pruned_at:%Y-%m-%d}."
    if view.definition is None and status in (RunStatus.COMPLETED, RunStatus.COMPENSATED):
        word = STATUS_WORDS[status]
        return f"{word}; its steps are not known here, since {run.saga} version {run.version} is not registered."
    if status is RunStatus.PENDING:
        return "Stored and waiting for a worker."
    if status is RunStatus.COMPLETED:
        return f"All {len(view.steps)} steps are done."
    if status is RunStatus.ABANDONED:
        return "Given up by a person; the history says what stays undone."
    if status is RunStatus.NEEDS_ATTENTION:
        return f"A person is needed. {run.attention_reason.rstrip('.')}."
    current = next((step for step in view.steps if step.name == run.current_step), None)
    if status is RunStatus.COMPENSATED:
        undone = [step.undo_title for step in reversed(view.steps) if step.undo_state is UndoState.UNDONE]
        what = f"Undone: {', '.join(undone).lower()}" if undone else "Nothing had to be undone"
        return f"{why}. {what}."
    if status is RunStatus.COMPENSATING:
        now = f"Now: {current.undo_title.lower()}" if current else "Everything is being undone"
        if current is not None and current.undo_state is UndoState.RETRYING:
            now += f", try {len(current.undo_attempts)} of {current.undo_attempts_allowed} failed"
        return f"{why}. {now}."
    if current is None:
        return "Under way."
    if current.state is StepState.RETRYING:
        return f"{current.title} is being tried again: {current.note.rstrip('.')}."
    if current.state is StepState.WAITING:
        return f"{current.title} {current.note}."
    before = f"{', '.join(done)} done. " if done else ""
    return f"{before}{current.title} is under way."


__all__ = [
    "STATUS_WORDS",
    "UNTAKEN_AFTER",
    "AttemptView",
    "RunLine",
    "RunEvent",
    "RunView",
    "SagaRun",
    "StepView",
    "counts",
    "find_run",
    "missing_definitions",
    "overdue",
    "owner_of",
    "retriable",
    "lines_for",
    "run_view",
    "runs_needing_attention",
    "step_line",
    "views_for",
    "worker_seen_at",
]
