"""What happened to runs in a stretch of time, counted by the database: a fixed number of queries, however many runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

from django.db.models import BooleanField, Count, ExpressionWrapper, Min, Q, QuerySet
from django.db.models.functions import TruncDay, TruncHour, TruncMinute

from sagas import registry
from sagas.models import SagaRun, StepRecord, earliest_run_id
from sagas.selectors import STATUS_WORDS
from sagas.states import DONE, LIVE, Direction, Outcome, RunStatus

SAMPLE = 20_000
"""How many of the newest attempts the durations are taken from: sorting a month of them would take too long."""

MOST_CAUSES = 12


@dataclass(frozen=True, kw_only=True)
class Period:
    """A stretch of time up to now, in equal parts."""

    name: str
    words: str
    part: timedelta
    parts: int
    truncate: type[TruncMinute] | type[TruncHour] | type[TruncDay]

    @property
    def length(self) -> timedelta:
        return self.part * self.parts

    def starts(self, now: datetime) -> list[datetime]:
        """The beginnings of its parts, oldest first; `now` lies in the last one."""
        last = now.astimezone(UTC).replace(second=0, microsecond=0)
        if self.part >= timedelta(hours=1):
            last = last.replace(minute=0)
        if self.part >= timedelta(days=1):
            last = last.replace(hour=0)
        return [last - self.part * n for n in range(self.parts - 1, -1, -1)]


PERIODS = {
    period.name: period
    for period in (
        Period(name="hour", words="Last hour", part=timedelta(minutes=1), parts=60, truncate=TruncMinute),
        Period(name="day", words="Last day", part=timedelta(hours=1), parts=24, truncate=TruncHour),
        Period(name="week", words="Last week", part=timedelta(days=1), parts=7, truncate=TruncDay),
        Period(name="month", words="Last 30 days", part=timedelta(days=1), parts=30, truncate=TruncDay),
    )
}

ENDS = ("completed", "compensated", "under_way", "needs_attention", "abandoned")
"""How runs are told apart over time; what is not ended and needs nobody is under way."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The runs that began in one part of the period, by how they stand now."""

    at: datetime
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class Work:
    """The ended attempts of one step or undo. Seconds are those of attempts that succeeded; None: none did."""

    saga: str
    step: str
    direction: str
    title: str
    tries: int
    succeeded: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why runs turned back."""

    saga: str
    title: str
    code: str
    runs: int


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Runs that are under way at the same place."""

    status: str
    status_word: str
    what: str
    runs: int
    since: datetime
    """When the oldest of them began."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All of it: what page, API and command tell."""

    period: Period
    parts: Sequence[Part]
    work: Sequence[Work]
    is_sample: bool
    """Only the newest SAMPLE attempts were looked at."""
    causes: Sequence[Cause]
    waiting: Sequence[Waiting]

    @property
    def totals(self) -> dict[str, int]:
        """The runs that began in the period, by how they stand now."""
        return {end: sum(part.counts[end] for part in self.parts) for end in ENDS}


def overview_of(period: Period, now: datetime) -> Overview:
    """How runs went in the period, and what waits now. Four queries."""
    done, is_sample = work(period, now)
    return Overview(
        period=period,
        parts=outcomes(period, now),
        work=done,
        is_sample=is_sample,
        causes=causes(period, now),
        waiting=waiting(),
    )


def outcomes(period: Period, now: datetime) -> list[Part]:
    """The runs that began in the period, part by part."""
    starts = period.starts(now)
    found: dict[datetime, Counter[str]] = defaultdict(Counter)
    rows = (
        _begun_since(starts[0])
        .annotate(at=period.truncate("created_at", tzinfo=UTC))
        .order_by()
        .values_list("at", "status")
        .annotate(count=Count("id"))
    )
    for at, status, count in rows:
        found[at][status if status in ENDS else "under_way"] += count
    return [Part(at=at, counts={end: found[at][end] for end in ENDS}) for at in starts]


def causes(period: Period, now: datetime) -> list[Cause]:
    """Why runs of the period turned back, the most frequent first."""
    rows = (
        _begun_since(period.starts(now)[0])
        .filter(turned_back_at__isnull=False)
        .order_by()
        .values_list("saga", "failure_step", "failure_code")
        .annotate(count=Count("id"))
        .order_by("-count", "saga", "failure_step", "failure_code")[:MOST_CAUSES]
    )
    titles = step_titles()
    return [
        Cause(saga=saga, title=titles.get((saga, step, "action"), step), code=code, runs=count)
        for saga, step, code, count in rows
    ]


def work(period: Period, now: datetime) -> tuple[list[Work], bool]:
    """(how the steps and undos of the period went, whether only its newest SAMPLE attempts were looked at)."""
    first = period.starts(now)[0]
    # The newest by id, and only then by time, which has no index: in a quiet hour of a long history the database
    # would look through all of it.
    newest = list(
        StepRecord.objects.filter(ended_at__isnull=False)
        .order_by("-id")
        .values_list("run__saga", "step", "direction", "outcome", "started_at", "ended_at")[:SAMPLE]
    )
    tries: Counter[tuple[str, str, str]] = Counter()
    succeeded: Counter[tuple[str, str, str]] = Counter()
    seconds: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for saga, step, direction, outcome, began, ended in newest:
        if began < first:
            continue
        place = (saga, step, direction)
        tries[place] += 1
        succeeded[place] += outcome in DONE
        if outcome == Outcome.SUCCEEDED.value and ended is not None:
            seconds[place].append((ended - began).total_seconds())
    titles = step_titles()
    order = {place: n for n, place in enumerate(titles)}
    found = [
        Work(
            saga=place[0],
            step=place[1],
            direction=place[2],
            title=titles.get(place, place[1]),
            tries=count,
            succeeded=succeeded[place],
            p50=percentile(seconds[place], 0.5),
            p95=percentile(seconds[place], 0.95),
        )
        for place, count in tries.items()
    ]
    found.sort(key=lambda one: (order.get((one.saga, one.step, one.direction), len(order)), one.saga, one.step))
    return found, sum(tries.values()) == SAMPLE  # else they reach back to before the period


def waiting() -> list[Waiting]:
    """What runs under way are waiting for, at this moment: those that need a person first."""
    rows = (
        SagaRun.objects.in_states(*LIVE)
        .filter(imported_at__isnull=True)
        .annotate(is_back=ExpressionWrapper(Q(turned_back_at__isnull=False), BooleanField()))
        .order_by()
        .values_list("saga", "status", "current_step", "is_back")
        .annotate(count=Count("id"), since=Min("created_at"))
        .order_by("since")
    )
    titles = step_titles()
    found = []
    for saga, status, step, is_back, count, since in rows:
        direction = Direction.COMPENSATION if is_back else Direction.ACTION
        title = titles.get((saga, step, direction.value), step.replace("_", " "))
        found.append(
            Waiting(
                status=status,
                status_word=STATUS_WORDS[RunStatus(status)],
                what=_what(RunStatus(status), title),
                runs=count,
                since=since,
            )
        )
    return sorted(found, key=lambda one: (one.status != RunStatus.NEEDS_ATTENTION.value, one.since))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of `values` that at least `share` of them do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(ceil(len(values) * share) - 1, 0)]


def _begun_since(at: datetime) -> QuerySet[SagaRun]:
    # Ids grow with time, so the primary key finds them; created_at by itself has no index.
    return SagaRun.objects.filter(pk__gte=earliest_run_id(at), created_at__gte=at)


def step_titles() -> dict[tuple[str, str, str], str]:
    """(saga, step, direction) -> display name, of the newest definitions, in the order of the steps."""
    titles: dict[tuple[str, str, str], str] = {}
    for name in sorted({name for name, _ in registry.names()}):
        for step in registry.newest(name).steps:
            titles[name, step.name, Direction.ACTION.value] = step.display
            titles[name, step.name, Direction.COMPENSATION.value] = step.compensation_display
    return titles


def _what(status: RunStatus, title: str) -> str:
    if status is RunStatus.PENDING:
        return "a worker to begin"
    if status is RunStatus.NEEDS_ATTENTION:
        return f"a person: {title}" if title else "a person"
    if status is RunStatus.RETRYING:
        return f"the next try: {title}"
    return title or "the next step"
