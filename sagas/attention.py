"""The inbox: runs that wait for a person, by what they wait for. A fixed number of queries, however many wait."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Max, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils.module_loading import import_string

from sagas import registry
from sagas.exceptions import UnknownSaga
from sagas.models import Assignment, RunEvent, SagaRun, StepRecord
from sagas.selectors import owner_of, runs_needing_attention
from sagas.states import DONE, Direction, Outcome, RunStatus

LATE_AFTER = timedelta(minutes=30)
OVERDUE_AFTER = timedelta(hours=2)
LOOKED_AT = 2000
"""The longest waiting of so many are looked at; should there ever be more, the page says so."""
ARRIVALS = 12
ARRIVALS_EACH = timedelta(hours=2)

Amounts = Mapping[str, Decimal]
"""Currency -> amount."""
AmountsOf = Callable[[Sequence[str]], Mapping[str, Amounts]]
"""Given business keys, the money that stands open for each: what settings.SAGA_AMOUNTS_AT_RISK names, by saga."""


class Cause(NamedTuple):
    """What runs wait for. Two of the same cause are one problem, and are helped by one remedy."""

    saga: str
    step: str
    direction: str
    error: str
    """The code of the last attempt; empty where no attempt of this step and direction failed."""
    provider: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """One run that waits."""

    run: SagaRun
    cause: Cause
    since: datetime
    """When it came to need a person, this time."""
    tries: int
    outcome: str
    message: str
    owner: str
    snoozed_until: datetime | None
    """None also where the time has passed, or it has come back since."""
    amounts: Amounts


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of the same cause, the longest waiting first."""

    cause: Cause
    title: str
    """Of the step, or of its undo."""
    items: Sequence[Item]
    snoozed: int
    """How many more rest."""
    amounts: Amounts
    advice: str
    arrivals: Sequence[int]
    """How many came in each two hours of the last day, the newest last."""

    @property
    def since(self) -> datetime:
        return self.items[0].since

    @property
    def newest(self) -> datetime:
        return self.items[-1].since

    @property
    def message(self) -> str:
        return self.items[-1].message


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Everything that waits and does not rest."""

    groups: Sequence[Group]
    count: int
    snoozed: int
    amounts: Amounts
    oldest: datetime | None
    is_cut: bool
    """More wait than were looked at."""


def inbox(now: datetime, *, owner: str = "", resting: bool = False) -> Inbox:
    """What waits for a person, the group with the longest waiting run first.

    With `owner`, theirs alone. With `resting`, what was put off is shown too.
    """
    items = waiting_items(now)
    mine = [item for item in items if not owner or item.owner == owner]
    shown = [item for item in mine if resting or item.snoozed_until is None]
    by_cause: dict[Cause, list[Item]] = defaultdict(list)
    for item in shown:
        by_cause[item.cause].append(item)
    resting_by_cause = Counter(item.cause for item in mine if item.snoozed_until is not None and not resting)
    groups = [_group(cause, found, resting_by_cause[cause], now) for cause, found in by_cause.items()]
    return Inbox(
        groups=groups,
        count=len(shown),
        snoozed=len(mine) - len(shown),
        amounts=added_up(item.amounts for item in shown),
        oldest=shown[0].since if shown else None,
        is_cut=len(items) == LOOKED_AT,
    )


def version(now: datetime, *, owner: str = "", resting: bool = False) -> tuple[object, ...]:
    """What changes when what `inbox` shows does, but for the times, which go on by themselves. One query."""
    rows = _waiting().values_list(
        *("pk", "updated_at", "fence", "began", "assignment__owner"),
        *("assignment__snoozed_until", "assignment__snoozed_since"),
    )
    told = []
    for pk, changed, fence, began, by, until, put_off in rows[:LOOKED_AT]:
        if not owner or by == owner:
            rests = _rests_until(Assignment(snoozed_until=until, snoozed_since=put_off), began, now)
            told.append((pk, changed, fence, by, rests, lateness(began, now)))
    return owner, resting, *told


def waiting_items(now: datetime, *, cause: Cause | None = None) -> list[Item]:
    """Every run that waits for a person, the longest waiting first; with `cause`, those of that cause."""
    runs = list(_waiting().select_related("assignment")[:LOOKED_AT])
    last = _last_attempts([run.pk for run in runs])
    amounts = _amounts(runs)
    items = []
    for run in runs:
        way = Direction.COMPENSATION if run.turned_back_at is not None else Direction.ACTION
        attempt = last.get((run.pk, run.current_step, way.value))
        failed = attempt is not None and attempt.outcome not in DONE
        found = Cause(
            saga=run.saga,
            step=run.current_step,
            direction=way.value,
            error=attempt.error_code if attempt is not None and failed else "",
            provider=attempt.provider if attempt is not None and failed else "",
        )
        if cause is not None and found != cause:
            continue
        began: datetime = run.began  # type: ignore[attr-defined]  # from _waiting
        items.append(
            Item(
                run=run,
                cause=found,
                since=began,
                tries=attempt.number if attempt is not None else 0,
                outcome=attempt.outcome if attempt is not None and failed else "",
                message=run.attention_reason,
                owner=owner_of(run),
                snoozed_until=_rests_until(_assignment(run), began, now),
                amounts=amounts.get((run.saga, run.business_key), {}),
            )
        )
    return sorted(items, key=lambda item: item.since)


def title_of(cause: Cause, version: int) -> str:
    """The step's name, or its undo's, as people read it."""
    try:
        saga = registry.get(cause.saga, version)
    except UnknownSaga:
        return f"{cause.saga} version {version}, which is not installed"
    for step in saga.steps:
        if step.name == cause.step:
            return step.display if cause.direction == Direction.ACTION.value else step.compensation_display
    return cause.step or "The run as a whole"


def added_up(amounts: Iterable[Amounts]) -> Amounts:
    """By currency."""
    total: dict[str, Decimal] = defaultdict(Decimal)
    for one in amounts:
        for currency, amount in one.items():
            total[currency] += amount
    return {currency: amount for currency, amount in sorted(total.items()) if amount}


def lateness(since: datetime, now: datetime) -> str:
    """ "", "late" or "overdue"."""
    if now - since >= OVERDUE_AFTER:
        return "overdue"
    return "late" if now - since >= LATE_AFTER else ""


def _group(cause: Cause, items: Sequence[Item], snoozed: int, now: datetime) -> Group:
    arrivals = [0] * ARRIVALS
    for item in items:
        age = int((now - item.since) / ARRIVALS_EACH)
        if 0 <= age < ARRIVALS:
            arrivals[ARRIVALS - 1 - age] += 1
    return Group(
        cause=cause,
        title=title_of(cause, items[0].run.version),
        items=items,
        snoozed=snoozed,
        amounts=added_up(item.amounts for item in items),
        advice=_advice(items[-1]),
        arrivals=arrivals,
    )


def _advice(item: Item) -> str:
    """What helps most often, in words."""
    who = item.cause.provider or "the other side"
    undo = item.cause.direction == Direction.COMPENSATION.value
    if item.outcome == Outcome.UNKNOWN.value:
        return (
            f"Ask {who} by the attempt's key whether it happened. If it did, settle by hand with the reference; "
            "if not, retry: the same key makes sure that it happens once."
        )
    if item.outcome == Outcome.UNAVAILABLE.value:
        return f"{who[0].upper()}{who[1:]} could not be reached. See whether it is back, then retry."
    if item.outcome == Outcome.REFUSED.value and undo:
        return f"{who[0].upper()}{who[1:]} refuses to undo it. Undo it there by hand, then settle with the reference."
    if item.outcome == Outcome.REFUSED.value:
        return f"Mend what {who} objects to, then retry; or skip it if the order can do without."
    return "Nothing failed, and yet it does not go on: read the reason, mend that, then retry."


def waits_since(ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When each came to need a person, for the last time."""
    rows = RunEvent.objects.filter(run__in=ids, kind=RunStatus.NEEDS_ATTENTION.value).order_by()
    return dict(rows.values_list("run_id").annotate(at=Max("created_at")))


def _waiting() -> QuerySet[SagaRun]:
    """The runs, each with when it came to need a person, for the last time."""
    came = RunEvent.objects.filter(run=OuterRef("pk"), kind=RunStatus.NEEDS_ATTENTION.value).order_by("-id")
    return runs_needing_attention().annotate(began=Coalesce(Subquery(came.values("created_at")[:1]), "created_at"))


def _last_attempts(ids: Sequence[UUID]) -> dict[tuple[UUID, str, str], StepRecord]:
    """By run, step and direction."""
    wanted = ("run_id", "step", "direction", "number", "outcome", "error_code", "provider")
    rows = StepRecord.objects.filter(run__in=ids).order_by("id").only(*wanted)
    return {(row.run_id, row.step, row.direction): row for row in rows}


def _amounts(runs: Iterable[SagaRun]) -> dict[tuple[str, str], Amounts]:
    """By saga and business key."""
    keys: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        keys[run.saga].append(run.business_key)
    found = {}
    for saga, path in getattr(settings, "SAGA_AMOUNTS_AT_RISK", {}).items():
        if keys[saga]:
            amounts_of: AmountsOf = import_string(path)
            found.update({(saga, key): amounts for key, amounts in amounts_of(keys[saga]).items()})
    return found


def _assignment(run: SagaRun) -> Assignment:
    try:
        return run.assignment
    except ObjectDoesNotExist:
        return Assignment(run=run)


def _rests_until(assignment: Assignment, since: datetime, now: datetime) -> datetime | None:
    """Until when it was put off. A run that came back since was put off for another reason."""
    until = assignment.snoozed_until
    return until if until is not None and until > now and assignment.snoozed_since == since else None
