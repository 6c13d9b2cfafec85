"""Whether what is stored of runs can have happened: each history held against the engine's own promises.

Written from the promises, not from the code that keeps them: `decide` and `journal` are what is audited here. Reads
in pages and keeps nothing, so that it may be let loose on any number of runs, also while workers are at them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from sagas import registry
from sagas.definition import Saga, step_key
from sagas.exceptions import UnknownSaga
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.states import DONE, ENDED, Direction, Outcome, RunStatus

PAGE = 500
STALE_AFTER = timedelta(minutes=5)
BY_HAND = {Outcome.SKIPPED.value, Outcome.RESOLVED.value}
ENGINE = "engine"
FORWARD = {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.RETRYING}
EXPLAINING = ("abandoned", "retry_requested", "skipped", "resolved")
"""The events of people without which a history may not be what it is."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that cannot be, or must not stay."""

    code: str
    """What kind of thing: `undo_out_of_order`. Stable, for programs."""
    subject: str
    """What it is about: `run ORD-123 (0190…)`."""
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.message} [{self.code}]"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What others need to know of a run to audit what it did to them."""

    run_id: UUID
    status: str
    fence: int
    business_key: str
    has_turned_back: bool
    by_hand: frozenset[str]
    """Steps of which a person settled something: what they left is explained by their event."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


def audit_runs(
    *,
    now: datetime | None = None,
    stale_after: timedelta = STALE_AFTER,
    seen: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Every run there is, oldest first. `seen` is told of each page how many runs it had."""
    last: UUID | None = None
    while True:
        newer = SagaRun.objects.filter(pk__gt=last) if last else SagaRun.objects.all()
        runs = list(newer.order_by("pk")[:PAGE])
        if not runs:
            return
        last = runs[-1].pk
        # Of pruned ones there is nothing left to hold against; those from files are others' affair.
        whole = [run for run in runs if run.pruned_at is None and run.imported_at is None]
        yield from _audit_page(whole, now or timezone.now(), stale_after)
        seen(len(runs))


def facts_of(run_ids: Iterable[UUID]) -> dict[UUID, RunFacts]:
    """What the shop's audit needs to know of these runs, in two queries."""
    ids = list(run_ids)
    by_hand: dict[UUID, set[str]] = defaultdict(set)
    settled = StepRecord.objects.filter(run__in=ids, outcome__in=BY_HAND).values_list("run_id", "step")
    for run_id, step in settled:
        by_hand[run_id].add(step)
    rows = SagaRun.objects.filter(pk__in=ids).values_list("pk", "status", "fence", "business_key", "turned_back_at")
    return {
        pk: RunFacts(
            run_id=pk,
            status=status,
            fence=fence,
            business_key=key,
            has_turned_back=turned is not None,
            by_hand=frozenset(by_hand[pk]),
        )
        for pk, status, fence, key, turned in rows
    }


@dataclass(kw_only=True)
class _Story:
    """A run with all that is stored of it."""

    run: SagaRun
    saga: Saga | None
    records: list[StepRecord] = field(default_factory=list)
    events: list[RunEvent] = field(default_factory=list)

    def of(self, step: str, direction: Direction) -> list[StepRecord]:
        return [r for r in self.records if r.step == step and r.direction == direction.value]

    def has_event(self, kind: str, step: str, direction: str) -> bool:
        return any((event.kind, event.step, event.direction) == (kind, step, direction) for event in self.events)


def _audit_page(runs: list[SagaRun], now: datetime, stale_after: timedelta) -> Iterator[Finding]:
    # A run may move on between the reading of its row and that of its records: what looks wrong is read once more,
    # and counts only if nothing has moved since.
    suspects = {story.run.pk: story for story in _stories(runs) if list(_faults(story, now, stale_after))}
    again = {run.pk: run for run in SagaRun.objects.filter(pk__in=list(suspects))}
    for story in _stories(list(again.values())):
        faults = list(_faults(story, now, stale_after))
        fresh = SagaRun.objects.filter(pk=story.run.pk, fence=story.run.fence, updated_at=story.run.updated_at)
        if faults and fresh.exists():
            for code, message in faults:
                yield Finding(code=code, subject=f"run {story.run.business_key} ({story.run.pk})", message=message)


def _stories(runs: list[SagaRun]) -> Iterator[_Story]:
    ids = [run.pk for run in runs]
    records: Mapping[UUID, list[StepRecord]] = defaultdict(list)
    events: Mapping[UUID, list[RunEvent]] = defaultdict(list)
    if ids:
        # A result may be large, and none is looked at.
        for record in StepRecord.objects.filter(run__in=ids).defer("result").order_by("id"):
            records[record.run_id].append(record)
        for event in RunEvent.objects.filter(run__in=ids, kind__in=EXPLAINING).order_by("id"):
            events[event.run_id].append(event)
    for run in runs:
        yield _Story(run=run, saga=_definition(run), records=records[run.pk], events=events[run.pk])


def _definition(run: SagaRun) -> Saga | None:
    try:
        return registry.get(run.saga, run.version)
    except UnknownSaga:
        return None


def _faults(story: _Story, now: datetime, stale_after: timedelta) -> Iterator[tuple[str, str]]:
    yield from _of_the_lease(story.run, now, stale_after)
    yield from _of_the_attempts(story)
    if story.saga is None:
        if story.run.status not in {*ENDED, RunStatus.NEEDS_ATTENTION}:
            yield "no_definition", f"No definition {story.run.saga} version {story.run.version} is installed here."
        return
    unknown = {r.step for r in story.records} - {step.name for step in story.saga.steps}
    if unknown:
        yield "unknown_step", f"It has attempts of {', '.join(sorted(unknown))}, which its definition does not have."
        return
    yield from _of_the_way_forward(story, story.saga)
    yield from _of_the_way_back(story, story.saga)
    yield from _of_the_end(story, story.saga)


def _of_the_lease(run: SagaRun, now: datetime, stale_after: timedelta) -> Iterator[tuple[str, str]]:
    long_ago = now - stale_after
    if run.status in ENDED:
        if run.due_at is not None or run.lease_until is not None or run.lease_owner:
            yield "ended_but_held", "It has ended, and is still due or held."
        return
    if run.lease_until is not None and run.lease_until < long_ago:
        yield "lease_ended_long_ago", f"{run.lease_owner} held it until {run.lease_until:%F %T}, and nobody took over."
    elif run.lease_until is None and run.due_at is not None and run.due_at < long_ago:
        yield "nobody_takes_it", f"It has been due since {run.due_at:%F %T}, and nobody takes it."
    if run.due_at is None and run.lease_until is None and run.status != RunStatus.NEEDS_ATTENTION:
        yield "asleep_for_ever", f"It is {run.status}, and neither due at any time nor held by anybody."
    if run.status == RunStatus.NEEDS_ATTENTION and not run.attention_reason:
        yield "attention_without_reason", "It needs attention and does not say why."
    going_back = run.status == RunStatus.COMPENSATING
    if (going_back and run.turned_back_at is None) or (run.status in FORWARD and run.turned_back_at is not None):
        yield "another_way", f"It is {run.status}, and has {'not ' if going_back else ''}turned back."


def _of_the_attempts(story: _Story) -> Iterator[tuple[str, str]]:
    groups: dict[tuple[str, str], list[StepRecord]] = defaultdict(list)
    for record in story.records:
        groups[record.step, record.direction].append(record)
    if groups and story.run.status == RunStatus.PENDING:
        yield "pending_and_begun", "It is said to be waiting for its first worker, and has attempts."
    for (step, direction), tries in groups.items():
        name = f"{step} ({direction})"
        if [r.number for r in tries] != list(range(1, len(tries) + 1)):
            yield "attempts_not_numbered", f"{name} has attempts {', '.join(str(r.number) for r in tries)}."
        if any(not r.outcome for r in tries[:-1]):
            yield "two_attempts_at_once", f"{name} was begun again before its attempt had ended."
        if any(r.outcome in DONE for r in tries[:-1]):
            yield "attempt_after_success", f"{name} was begun again after it was done."
        if story.run.status in ENDED and not tries[-1].outcome:
            yield "attempt_left_open", f"{name} was never ended, and the run has."
        elif story.run.lease_until is None and not tries[-1].outcome:
            yield "attempt_of_nobody", f"{name} is said to be under way, and no lease holds the run."
        refused = next((n for n, r in enumerate(tries) if r.outcome == Outcome.REFUSED.value), None)
        again = refused is not None and any(r.started_by == ENGINE for r in tries[refused + 1 :])
        if again and not story.has_event("retry_requested", step, direction):
            yield "attempt_after_refusal", f"{name} was begun again after a no, and nobody asked for it."
        for outcome in sorted({r.outcome for r in tries} & BY_HAND):
            if not story.has_event(outcome, step, direction):
                yield "settled_by_nobody", f"{name} is {outcome}, and no event says by whom."
        wanted = step_key(str(story.run.pk), step, Direction(direction))
        if any(r.key != wanted for r in tries):
            yield "another_key", f"{name} was not always sent under {wanted}."
        if any(r.ended_at is not None and r.ended_at < r.started_at for r in tries):
            yield "ended_before_begun", f"{name} ended before it began."


def _of_the_way_forward(story: _Story, saga: Saga) -> Iterator[tuple[str, str]]:
    done_at = {r.step: r.pk for r in reversed(story.records) if _is_action(r) and r.outcome in DONE}
    first_undo = min((r.pk for r in story.records if not _is_action(r)), default=None)
    for record in story.records:
        if not _is_action(record):
            continue
        early = [name for name in saga.before(record.step) if done_at.get(name, record.pk) >= record.pk]
        if early:
            yield "begun_too_early", f"{record.step} was begun before {', '.join(early)} was done."
        if first_undo is not None and record.pk > first_undo and record.started_by == ENGINE:
            yield "action_after_undo", f"{record.step} was begun after the undoing had."


def _of_the_way_back(story: _Story, saga: Saga) -> Iterator[tuple[str, str]]:
    undos = [r for r in story.records if not _is_action(r)]
    if not undos:
        return
    # A person may settle an undo between a cancellation and the worker that notes it.
    if story.run.turned_back_at is None and any(undo.started_by == ENGINE for undo in undos):
        yield "undone_without_turning_back", "Something was undone, and the run never turned back."
    begun = list(dict.fromkeys(r.step for r in story.records if _is_action(r)))
    open_actions = [r.step for r in story.records if _is_action(r) and not r.outcome]
    if open_actions:
        yield "undo_beside_action", f"Something was undone while {', '.join(open_actions)} was under way."
    for position, undo in enumerate(undos):
        if undo.step not in begun:
            yield "undone_what_never_began", f"{undo.step} was undone and had never begun."
            continue
        if saga.step(undo.step).compensation is None:
            yield "undone_without_undo", f"{undo.step} was undone, and has no undo."
        elif not _left_something([r for r in story.of(undo.step, Direction.ACTION) if r.pk < undo.pk]):
            yield "undone_what_left_nothing", f"{undo.step} was undone, and had left nothing to undo."
        before = undos[:position]
        if any(other.step != undo.step and not other.outcome for other in before):
            yield "two_undos_at_once", f"The undo of {undo.step} was begun while another was under way."
        if undo.started_by != ENGINE:
            continue
        waiting = [
            name
            for name in begun[begun.index(undo.step) + 1 :]
            if saga.step(name).compensation is not None
            and _left_something(story.of(name, Direction.ACTION))
            and not any(other.step == name for other in before)
        ]
        if waiting:
            yield "undo_out_of_order", f"{undo.step} was undone before {', '.join(waiting)}, which began later."
        passed = _passed_over(story, undo, begun)
        if passed:
            yield "undo_out_of_order", f"{undo.step} was tried again after {passed} was undone, which began earlier."


def _passed_over(story: _Story, undo: StepRecord, begun: list[str]) -> str:
    """The older step whose undo came between two tries of this one. Only a person asks again for what had failed for
    good, or a signal that comes after its wait was over."""
    earlier = [r for r in story.of(undo.step, Direction.COMPENSATION) if r.pk < undo.pk]
    if not earlier or earlier[-1].outcome == Outcome.WAITING.value:
        return ""
    if story.has_event("retry_requested", undo.step, Direction.COMPENSATION.value):
        return ""
    older = begun[: begun.index(undo.step)]
    between = (r.step for r in story.records if not _is_action(r) and earlier[-1].pk < r.pk < undo.pk)
    return next((step for step in between if step in older), "")


def _of_the_end(story: _Story, saga: Saga) -> Iterator[tuple[str, str]]:
    run = story.run
    done = {r.step for r in story.records if _is_action(r) and r.outcome in DONE}
    undone = {r.step for r in story.records if not _is_action(r) and r.outcome in DONE}
    if run.status == RunStatus.COMPLETED:
        missing = [step.name for step in saga.steps if step.name not in done]
        if missing:
            yield "completed_with_steps_missing", f"It is completed, and {', '.join(missing)} was not done."
        if undone or run.turned_back_at is not None:
            yield "completed_and_undone", "It is completed, and turned back."
    left = [
        step.name
        for step in saga.steps
        if step.compensation is not None
        and step.name not in undone
        and _left_something(story.of(step.name, Direction.ACTION))
    ]
    if run.status == RunStatus.COMPENSATED:
        if left:
            yield "something_left", f"All is said to be undone, and {', '.join(left)} is not."
        if run.turned_back_at is None or not run.failure_code:
            yield "turned_back_without_cause", "It was undone, and nothing says why."
    if run.status == RunStatus.ABANDONED:
        said = [event for event in story.events if event.kind == "abandoned" and event.reason]
        if not said:
            yield "abandoned_without_reason", "It was abandoned, and nobody said why."
        elif unsaid := sorted(set(left) - set(said[-1].data.get("left_undone", []))):
            yield "abandoned_and_not_said", f"It was abandoned, and nobody was told that {', '.join(unsaid)} stands."


def _is_action(record: StepRecord) -> bool:
    return record.direction == Direction.ACTION.value


def _left_something(tries: list[StepRecord]) -> bool:
    """Whether there is, or may be, something to undo: done, waiting, or sent without an answer. A clear no takes it all
    back; that nothing was found does not, since it may come late. What was postponed was never sent."""
    effects = {"", *(o.value for o in (Outcome.SUCCEEDED, Outcome.RESOLVED, Outcome.WAITING, Outcome.UNKNOWN))}
    tries = [record for record in tries if not (record.outcome == Outcome.WAITING.value and record.error_code)]
    refusals = [n for n, record in enumerate(tries) if record.outcome == Outcome.REFUSED.value]
    return any(record.outcome in effects for record in (tries[refusals[-1] + 1 :] if refusals else tries))
