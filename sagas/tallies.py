"""What attempts and events add up to, kept in rows: every process tells the same numbers, and none is lost with one.

    attempts, events ── read on from where the last reader stopped ──▶ Tally rows ──▶ the metrics page

Whoever asks for the metrics reads on. An attempt is counted once, after it has ended; so an attempt under way holds up
those that began after it, for a while.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from sagas import registry
from sagas.decide import Attempt, may_have_happened
from sagas.exceptions import DefinitionError, UnknownSaga
from sagas.models import RunEvent, StepRecord, Tally
from sagas.states import WORKER_LOST, Direction, Outcome, RunStatus

Place = tuple[tuple[str, str], ...]
"""Labels with their values."""


class Sums(defaultdict[tuple[str, str], float]):
    """By (name, labels)."""

    def __init__(self) -> None:
        super().__init__(float)


class Repeat(NamedTuple):
    """An attempt that went well, and not as the first of its key."""

    run: UUID
    saga: str
    version: int
    step: str
    direction: Direction
    number: int

    def looks_up(self) -> bool:
        """Whether it was to ask first what became of the tries before it."""
        try:
            return registry.get(self.saga, self.version).step(self.step).looks_up(self.direction) is not None
        except (UnknownSaga, DefinitionError):  # the definition is gone, or was changed since
            return False


PLACE = "_place"
SWEPT = "recovery_sweep_last_success_timestamp_seconds"
SWEPT_NOTED_EVERY = 10.0
AT_A_TIME = 20_000
ADDED_AT_A_TIME = 300
SECONDS = 1.0
"""That one reader goes on with each of the two at most."""
SETTLED = timedelta(seconds=5)
"""Rows this young may still be followed by one with a lower id, whose transaction takes longer."""
FORGOTTEN = timedelta(hours=1)
"""An attempt open for longer, while others began, is not waited for: what became of it is the next one's story."""
MOST_CODES = 100
OTHER = "other"
LONGEST_LABELS = 300
LONGEST_VALUE = 100
SHORT_VALUE = 38
"""Short enough for the five labels of an attempt, were each character of three of them escaped."""

ATTEMPT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RUN_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0)
FINISHED = frozenset(
    status.value
    for status in (RunStatus.COMPLETED, RunStatus.COMPENSATED, RunStatus.ABANDONED, RunStatus.NEEDS_ATTENTION)
)
WAYS = {Direction.ACTION.value: "do", Direction.COMPENSATION.value: "undo"}


def count_up() -> None:
    """Read on, for as long as there is something and SECONDS are not over. What is left, the next one reads."""
    for what, read in (("attempts", _attempts), ("events", _events)):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and _read_on(what, read):
            pass


def tallies() -> list[tuple[str, str, float]]:
    """(name, labels, value) of all, in the order in which they are told."""
    rows = Tally.objects.exclude(name=PLACE).order_by("name", "id")
    return list(rows.values_list("name", "labels", "value"))


def add(sums: Mapping[tuple[str, str], float]) -> None:
    """Add to the rows, whoever else adds at the same moment: in one statement for some hundred of them."""
    table = connection.ops.quote_name(Tally._meta.db_table)
    rows = [(name, labels, value) for (name, labels), value in sorted(sums.items(), key=_in_order)]
    with transaction.atomic(), connection.cursor() as cursor:
        for first in range(0, len(rows), ADDED_AT_A_TIME):
            some = rows[first : first + ADDED_AT_A_TIME]
            places = ", ".join(["(%s, %s, %s)"] * len(some))
            cursor.execute(
                f"INSERT INTO {table} (name, labels, value) VALUES {places} "  # noqa: S608  (our own table's name)
                f"ON CONFLICT (name, labels) DO UPDATE SET value = {table}.value + excluded.value",
                [value for row in some for value in row],
            )


def _in_order(item: tuple[tuple[str, str], float]) -> tuple[str, str, float]:
    """The same order everywhere, or two who add would wait for each other; buckets by their bounds."""
    (name, labels), _ = item
    place, bucket, bound = labels.rpartition('le="')
    return (name, place, float(bound.rstrip('"'))) if bucket else (name, labels, 0.0)


def note_sweep() -> None:
    """That a sweep has just gone well, to ten seconds."""
    now = time.time()
    row, _ = Tally.objects.get_or_create(name=SWEPT, labels="")
    if now - row.value > SWEPT_NOTED_EVERY:
        Tally.objects.filter(pk=row.pk).update(value=now)


def swept_at() -> datetime | None:
    """When a sweep last went well; None: none has."""
    noted = Tally.objects.filter(name=SWEPT, labels="").values_list("value", flat=True).first()
    return datetime.fromtimestamp(noted, UTC) if noted else None


def labelled(**labels: str) -> str:
    """Labels as Prometheus writes them, shortened to what a row holds."""
    whole = ",".join(f'{name}="{_escaped(text, LONGEST_VALUE)}"' for name, text in labels.items())
    if len(whole) <= LONGEST_LABELS:
        return whole
    return ",".join(f'{name}="{_escaped(text, SHORT_VALUE)}"' for name, text in labels.items())


def _read_on(what: str, read: Callable[[int, datetime], tuple[int, Sums]]) -> bool:
    """Count the next rows; whether there may be more. Only one at a time reads; others have nothing to wait for."""
    with transaction.atomic():
        Tally.objects.get_or_create(name=PLACE, labels=what)
        places = Tally.objects.filter(name=PLACE, labels=what)
        if connection.features.has_select_for_update:
            places = places.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)
        place = places.first()
        if place is None:
            return False
        before = int(place.value)
        last, sums = read(before, timezone.now())
        if last == before:
            return False
        _add(sums)
        Tally.objects.filter(pk=place.pk).update(value=last)
    return True


def _attempts(after: int, now: datetime) -> tuple[int, Sums]:
    """(the last attempt that was counted, what they add up to), of those with a higher id than `after`."""
    last, known = after, _codes()
    ends: Counter[tuple[str, str, str, str, str]] = Counter()
    took, waits = defaultdict[Place, list[float]](list), defaultdict[Place, list[float]](list)
    taken_over: set[tuple[UUID, str, datetime]] = set()
    repeats: list[Repeat] = []
    ours = StepRecord.objects.filter(run__imported_at__isnull=True)  # what came in files happened elsewhere
    rows = ours.filter(id__gt=after, started_at__lt=now - SETTLED).order_by("id")
    newest: datetime | None = None
    of_run = ("run_id", "run__saga", "run__version")
    own = ("id", "step", "direction", "number", "outcome", "settled", "error_code")
    times = ("started_at", "ended_at", "retry_at")
    for run, saga, version, *rest in rows.values_list(*of_run, *own, *times)[:AT_A_TIME]:
        pk, step, direction, number, outcome, settled, code, started, ended, retry = rest
        if ended is None:
            newest = newest or rows.reverse().values_list("started_at", flat=True)[0]
            if started > newest - FORGOTTEN:
                break
        last = pk
        if ended is None:
            continue
        if code == WORKER_LOST:
            taken_over.add((run, saga, ended))
        if outcome == Outcome.SUCCEEDED.value and number > 1 and not settled:
            repeats.append(Repeat(run, saga, version, step, Direction(direction), number))
        shown = code if code in known or len(known) < MOST_CODES else OTHER
        known.add(shown)
        place = (("saga", saga), ("step", step), ("direction", WAYS[direction]))
        ends[saga, step, WAYS[direction], outcome, shown] += 1
        took[place].append((ended - started).total_seconds())
        if retry is not None and outcome != Outcome.WAITING.value:
            waits[place].append((retry - ended).total_seconds())
    sums = Sums()
    for (saga, step, way, outcome, code), count in ends.items():
        labels = labelled(saga=saga, step=step, direction=way, outcome=outcome, error_code=code)
        sums["step_attempts_total", labels] += count
        if outcome == Outcome.UNKNOWN.value:
            sums["unknown_outcomes_total", labelled(saga=saga, step=step)] += count
    for _, saga, _ in taken_over:
        sums["recovered_runs_total", labelled(saga=saga)] += 1
    for repeat in _found_by_key(repeats):
        sums["duplicate_deliveries_total", labelled(saga=repeat.saga, step=repeat.step)] += 1
    observe(sums, "step_duration_seconds", took, ATTEMPT_BOUNDS)
    observe(sums, "step_retry_delay_seconds", waits, ATTEMPT_BOUNDS)
    return last, sums


def _found_by_key(repeats: Iterable[Repeat]) -> Iterator[Repeat]:
    """Those that did nothing anew: an earlier try may have had the effect, and the look-up found it.

    Without a look-up nobody can tell what the provider made of the same key sent twice, and nothing is claimed.
    """
    asked = [repeat for repeat in repeats if repeat.looks_up()]
    tries = defaultdict[tuple[UUID, str, str], list[Attempt]](list)
    rows = StepRecord.objects.filter(run__in={repeat.run for repeat in asked}).order_by("id") if asked else ()
    for row in rows:
        way = Direction(row.direction)
        outcome = Outcome(row.outcome) if row.outcome else None
        attempt = Attempt(
            step=row.step, direction=way, number=row.number, outcome=outcome,
            started_at=row.started_at, settled=row.settled,
        )  # fmt: skip
        tries[row.run_id, row.step, way].append(attempt)
    for repeat in asked:
        of_step = tries[repeat.run, repeat.step, repeat.direction]
        if may_have_happened([attempt for attempt in of_step if attempt.number < repeat.number]):
            yield repeat


def _events(after: int, now: datetime) -> tuple[int, Sums]:
    """(the last event that was counted, what they add up to), of those with a higher id than `after`."""
    sums, last = Sums(), after
    took = defaultdict[Place, list[float]](list)
    ours = RunEvent.objects.filter(run__imported_at__isnull=True)
    rows = ours.filter(id__gt=after, created_at__lt=now - SETTLED).order_by("id")
    columns = ("id", "kind", "created_at", "run__saga", "run__created_at", "run__failure_step")
    for pk, kind, at, saga, began, cause in rows.values_list(*columns)[:AT_A_TIME]:
        last = pk
        if kind == "started":
            sums["runs_started_total", labelled(saga=saga)] += 1
        elif kind == "turned_back":
            sums["compensations_total", labelled(saga=saga, cause_step=cause or "none")] += 1
        elif kind in FINISHED:
            sums["runs_finished_total", labelled(saga=saga, outcome=kind)] += 1
            took[("saga", saga), ("outcome", kind)].append((at - began).total_seconds())
    observe(sums, "run_duration_seconds", took, RUN_BOUNDS)
    return last, sums


def _codes() -> set[str]:
    """The error codes that have lines of their own already: a provider that makes one up for each call must not make
    as many lines."""
    found = set()
    for labels in Tally.objects.filter(name="step_attempts_total").values_list("labels", flat=True):
        found.add(labels.rpartition('error_code="')[2].removesuffix('"'))
    return found


def observe(sums: Sums, name: str, values: Mapping[Place, list[float]], bounds: Sequence[float]) -> None:
    """The values of a histogram. Each bucket counts what lies below its bound, as Prometheus has it."""
    for place, found in values.items():
        labels = dict(place)
        found.sort()
        for bound in bounds:
            sums[f"{name}_bucket", labelled(**labels, le=f"{bound:g}")] += bisect_right(found, bound)
        sums[f"{name}_bucket", labelled(**labels, le="+Inf")] += len(found)
        sums[f"{name}_sum", labelled(**labels)] += sum(found)
        sums[f"{name}_count", labelled(**labels)] += len(found)


def _add(sums: Sums) -> None:
    """Add to the rows; whoever calls is alone at it."""
    known = {(name, labels): value for name, labels, value in Tally.objects.values_list("name", "labels", "value")}
    Tally.objects.bulk_create(
        [
            Tally(name=name, labels=labels, value=known.get((name, labels), 0) + value)
            for (name, labels), value in sums.items()
        ],
        update_conflicts=True,
        unique_fields=["name", "labels"],
        update_fields=["value"],
    )


def _escaped(text: str, longest: int) -> str:
    """Cut before it is escaped: half of an escape would swallow the quote behind it."""
    return text[:longest].replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
