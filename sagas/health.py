"""What the health page says: one line for each thing that has to work, since when it does not, and whom it hits."""

from __future__ import annotations

import platform
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import django
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

from sagas import queue, selectors
from sagas.attention import OVERDUE_AFTER, lateness, waits_since
from sagas.models import SagaRun, StepRecord
from sagas.states import DONE

OK, WARNING, FAILING = "ok", "warning", "failing"
BEHIND_AFTER = timedelta(seconds=30)
STALLED_AFTER = timedelta(seconds=10)
"""Sooner than sagaworker restarts the cluster: what it mends is to be seen here first."""
SEEN_WITHIN = timedelta(hours=1)
LATELY = timedelta(minutes=5)
AMONG = 5_000
"""Of so many of the newest attempts it is told who made them, and how they went."""
FEW = 5
"""Fewer attempts than that say nothing of a provider."""
HIT = 10
"""Of the runs that are hit so many are named."""
MANY_WAKE_UPS = 1000
MOST_SKEW = timedelta(seconds=1)
SWEEP_LATE = timedelta(minutes=3)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that has to work."""

    name: str
    """Also where its runbook stands."""
    title: str
    state: str
    text: str
    since: datetime | None = None
    hit: list[SagaRun] = field(default_factory=list)
    """Some of the runs that wait because of it."""
    hit_count: int = 0


Lines = Callable[[datetime], Iterable[Line]]
"""What a site has to say beside that: settings.SAGA_HEALTH_LINES names functions."""


def lines(now: datetime) -> list[Line]:
    """Every line, the engine's first."""
    found = [
        _database(now),
        _migrations(),
        _cache(),
        _work(now),
        _queue(now),
        _workers(now),
        _sweep(now),
        _attention(now),
        _definitions(),
        *_providers(now),
    ]
    for path in getattr(settings, "SAGA_HEALTH_LINES", ()):
        told: Lines = import_string(path)
        found += told(now)
    return [*found, _version()]


def as_json(found: Iterable[Line], now: datetime) -> dict[str, Any]:
    """The same for programs: the worst state first."""
    told = [
        {
            "name": line.name,
            "state": line.state,
            "text": line.text,
            "since": line.since.isoformat() if line.since else None,
            "hit": line.hit_count,
            "hit_keys": [run.business_key for run in line.hit],
        }
        for line in found
    ]
    states = [line["state"] for line in told]
    worst = next((state for state in (FAILING, WARNING) if state in states), OK)
    return {"state": worst, "at": now.isoformat(), "lines": told}


def hits(runs: QuerySet[SagaRun]) -> dict[str, Any]:
    """The fields of a line that say which runs are hit."""
    return {"hit": list(runs[:HIT]), "hit_count": runs.order_by().count()}


def _database(now: datetime) -> Line:
    skew = timedelta(0)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            there = cursor.fetchone()[0]
        skew = abs(timezone.now().astimezone(UTC) - there)
    apart = f"its clock and ours are {skew.total_seconds():.1f} s apart"
    state, text = (WARNING, f"answers, but {apart}") if skew > MOST_SKEW else (OK, "answers")
    return Line(name="database", title="Database", state=state, text=f"{connection.vendor} {text}")


def _migrations() -> Line:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    names = ", ".join(f"{one.app_label}.{one.name}" for one, _ in missing)
    text = f"not applied: {names}" if missing else "all applied"
    return Line(name="migrations", title="Migrations", state=FAILING if missing else OK, text=text)


def _cache() -> Line:
    key = f"health-{uuid.uuid4().hex}"
    kind = settings.CACHES["default"]["BACKEND"].rpartition(".")[2]
    try:
        cache.set(key, "here", 5)
        is_there = cache.get(key) == "here"
        cache.delete(key)
    except Exception as error:  # each cache has errors of its own
        return Line(name="cache", title="Cache", state=FAILING, text=f"{kind}: {error}"[:200])
    return Line(name="cache", title="Cache", state=OK if is_there else FAILING, text=kind)


def _work(now: datetime) -> Line:
    stalled = queue.stalled(longer_than=STALLED_AFTER)
    limit = STALLED_AFTER if stalled else BEHIND_AFTER
    waiting = selectors.overdue(now=now, longer_than=limit).order_by("due_at")
    oldest = waiting.first()
    title = "Work is being taken"
    if oldest is None or oldest.due_at is None:
        return Line(name="work", title=title, state=OK, text=f"no run has been due for more than {limit.seconds} s")
    since = max(oldest.due_at, oldest.lease_until or oldest.due_at)
    hit = hits(waiting)
    count = hit["hit_count"]
    what = f"{count} run{' has' if count == 1 else 's have'} been due for more than {limit.seconds} s"
    what += f", the longest for {int((now - since).total_seconds())} s"
    if stalled:
        text = f"Nobody takes work: {what}. `manage.py sagaworker` restarts a stalled cluster; is it running?"
        return Line(name="work", title=title, state=FAILING, text=text, since=since, **hit)
    text = f"Workers take work and are behind: {what}."
    return Line(name="work", title=title, state=WARNING, text=text, since=since, **hit)


def _queue(now: datetime) -> Line:
    backlog, oldest = queue.backlog(), queue.oldest_wake_up()
    if backlog is None:
        return Line(name="queue", title="Queue", state=OK, text="another broker, not asked")
    text = f"{backlog} wake-up{'' if backlog == 1 else 's'}"
    is_late = oldest is not None and now - oldest > BEHIND_AFTER
    if is_late or backlog >= MANY_WAKE_UPS:
        return Line(name="queue", title="Queue", state=WARNING, text=text, since=oldest)
    return Line(name="queue", title="Queue", state=OK, text=text)


def _workers(now: datetime) -> Line:
    newest = StepRecord.objects.exclude(worker="").order_by("-id")[:AMONG]
    seen: dict[str, datetime] = {}
    for worker, began in newest.values_list("worker", "started_at"):
        seen.setdefault(worker, began)
    lately = [worker for worker, began in seen.items() if now - began <= SEEN_WITHIN]
    last = max(seen.values(), default=None)
    if last is None:
        return Line(name="workers", title="Workers", state=OK, text="none has begun anything yet")
    number = f"{len(lately)} worker{'' if len(lately) == 1 else 's'} in the last hour"
    text = f"{number}; the last one began something {int((now - last).total_seconds())} s ago"
    return Line(name="workers", title="Workers", state=OK, text=text)


def _sweep(now: datetime) -> Line:
    due = queue.sweep_due_at()
    if due is None:
        return Line(
            name="sweep",
            title="Recovery sweep",
            state=WARNING,
            text="not scheduled; `manage.py sagaworker` plans it when it starts",
        )
    if now - due > SWEEP_LATE:
        text = "its scheduler does not run; a cluster does that, `manage.py sagaworker` or `qcluster`"
        return Line(name="sweep", title="Recovery sweep", state=WARNING, text=text, since=due)
    return Line(name="sweep", title="Recovery sweep", state=OK, text=f"runs each minute, next at {due:%H:%M:%S} UTC")


def _attention(now: datetime) -> Line:
    waiting = selectors.runs_needing_attention()
    hit = hits(waiting)
    count = hit["hit_count"]
    title = "Needs attention"
    if not count:
        return Line(name="attention", title=title, state=OK, text="no run waits for a person")
    oldest = waiting[0]
    since = waits_since([oldest.pk]).get(oldest.pk, oldest.updated_at)
    text = f"{count} run{' waits' if count == 1 else 's wait'} for a person"
    is_late = lateness(since, now) == "overdue"
    text += f", the longest for more than {OVERDUE_AFTER.seconds // 3600} h" if is_late else ""
    return Line(name="attention", title=title, state=FAILING if is_late else WARNING, text=text, since=since, **hit)


def _definitions() -> Line:
    missing = selectors.missing_definitions()
    if not missing:
        return Line(name="definitions", title="Definitions", state=OK, text="those of all runs under way are here")
    text = "; ".join(f"{name} version {number}: {count} runs" for name, number, count in missing)
    hit = hits(SagaRun.objects.filter(saga=missing[0][0], version=missing[0][1], ended_at__isnull=True))
    return Line(name="definitions", title="Definitions", state=FAILING, text=f"not installed: {text}", **hit)


def _providers(now: datetime) -> list[Line]:
    """How the tries of the last minutes went, provider by provider: of those that ended, and were not refused."""
    done: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    first: dict[str, datetime] = {}
    newest = StepRecord.objects.exclude(provider="").order_by("-id").only("provider", "outcome", "ended_at")[:AMONG]
    for record in newest:
        if record.ended_at is None or now - record.ended_at > LATELY or record.outcome == "refused":
            continue
        tried[record.provider] += 1
        if record.outcome in DONE:
            done[record.provider] += 1
        else:
            first[record.provider] = record.ended_at  # the newest come first, so the earliest stays
    found = []
    for name, count in sorted(tried.items()):
        share = done[name] / count
        state = OK if count < FEW or share >= 0.9 else WARNING if share >= 0.5 else FAILING
        text = f"{done[name]} of {count} tries in the last 5 minutes got through"
        late = SagaRun.objects.filter(records__provider=name, status__in=["retrying", "compensating"])
        hit = hits(late.distinct().order_by("-id")) if state != OK else {}
        since = first.get(name) if state != OK else None
        found.append(Line(name="providers", title=name.capitalize(), state=state, text=text, since=since, **hit))
    return found


def _version() -> Line:
    try:
        ours = version("orders")
    except PackageNotFoundError:
        ours = "from a working copy"
    text = f"{ours}, Django {django.__version__}, Python {platform.python_version()}"
    return Line(name="version", title="Version", state=OK, text=text)
