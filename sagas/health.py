"""What the health page says: one line for each thing that has to work, since when it does not, and whom it hits."""

from __future__ import annotations

import os
import platform
import socket
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

from sagas import heartbeats, queue, selectors, tallies
from sagas.attention import OVERDUE_AFTER, lateness, waits_since
from sagas.models import SagaRun, StepRecord
from sagas.overview import step_titles
from sagas.states import DONE, Outcome

OK, WARNING, FAILING = "ok", "warning", "failing"
BEHIND_AFTER = timedelta(seconds=30)
STALLED_AFTER = timedelta(seconds=10)
"""Sooner than sagaworker restarts the cluster: what it mends is to be seen here first."""
LATELY = timedelta(minutes=5)
AMONG = 5_000
"""Of so many of the newest attempts it is told how they went."""
FEW = 5
"""Fewer tries than that say nothing."""
WELL, BADLY = 0.9, 0.5
"""Shares of tries that get through: below the first is a warning, below the second failing."""
WAITING_ON_TRIES = ("retrying", "compensating", "needs_attention")
HIT = 10
"""Of the runs that are hit so many are named."""
MANY_WAKE_UPS = 1000
MOST_SKEW = timedelta(seconds=1)
STARTED = timezone.now()
"""When this process read this module, which a web process does as it starts."""
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
        _web(now),
        _database(now),
        _migrations(),
        of_the_cache(),
        _work(now),
        _queue(now),
        _workers(now),
        _sweep(now),
        _attention(now),
        _definitions(),
        *_tries(now),
    ]
    return [*found, *of_the_site(now), _version()]


def of_the_site(now: datetime) -> list[Line]:
    """What the site says beside the engine: of its providers, say."""
    found: list[Line] = []
    for path in getattr(settings, "SAGA_HEALTH_LINES", ()):
        told: Lines = import_string(path)
        found += told(now)
    return found


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


def _web(now: datetime) -> Line:
    """That this is read says that it answers; which process does, and since when, tells one that is restarted often."""
    text = f"answers: process {os.getpid()} on {socket.gethostname()}, for {int((now - STARTED).total_seconds())} s"
    return Line(name="web", title="Web", state=OK, text=text)


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


def of_the_cache() -> Line:
    """Whether it keeps what it is given, and whose it is."""
    key = f"health-{uuid.uuid4().hex}"
    kind = str(settings.CACHES["default"]["BACKEND"]).rpartition(".")[2]
    try:
        cache.set(key, "here", 5)
        is_there = cache.get(key) == "here"
        cache.delete(key)
    except Exception as error:  # each cache has errors of its own
        return Line(name="cache", title="Cache", state=FAILING, text=f"{kind}: {error}"[:200])
    whose = ", each process has its own" if kind == "LocMemCache" else ""
    return Line(name="cache", title="Cache", state=OK if is_there else FAILING, text=f"{kind}{whose}")


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
    text += f", the oldest for {max(int((now - oldest).total_seconds()), 0)} s" if oldest is not None else ""
    is_late = oldest is not None and now - oldest > BEHIND_AFTER
    if is_late or backlog >= MANY_WAKE_UPS:
        return Line(name="queue", title="Queue", state=WARNING, text=text, since=oldest)
    return Line(name="queue", title="Queue", state=OK, text=text)


def _workers(now: datetime) -> Line:
    count = sum(heartbeats.alive(now).values())
    if not count:
        seen = max(heartbeats.last_seen().values(), default=None)
        ago = f"the last one was seen {int((now - seen).total_seconds())} s ago" if seen else "none was seen lately"
        text = f"none is alive; {ago}. Start `manage.py sagaworker`"
        return Line(name="workers", title="Workers", state=FAILING, text=text, since=seen)
    began = selectors.worker_seen_at()
    last = f"the last attempt began {int((now - began).total_seconds())} s ago" if began else "nothing was begun yet"
    return Line(name="workers", title="Workers", state=OK, text=f"{count} alive; {last}")


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
    swept = tallies.swept_at()
    last = f"; the last one {int((now - swept).total_seconds())} s ago" if swept is not None else "; none yet"
    return Line(name="sweep", title="Recovery sweep", state=OK, text=f"runs each minute{last}")


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


def _tries(now: datetime) -> list[Line]:
    """How the tries of the last minutes went: all of them, and each step or undo of which too few got through."""
    got: Counter[tuple[str, str, str]] = Counter()
    tried: Counter[tuple[str, str, str]] = Counter()
    first: dict[tuple[str, str, str], datetime] = {}
    asked: dict[tuple[str, str, str], str] = {}
    newest = StepRecord.objects.order_by("-id").values_list(
        "run__saga", "step", "direction", "provider", "outcome", "ended_at"
    )
    for saga, step, direction, provider, outcome, ended in newest[:AMONG]:
        if ended is None or now - ended > LATELY or outcome == Outcome.REFUSED.value:
            continue  # a no is an answer
        place = (saga, step, direction)
        tried[place] += 1
        if outcome in DONE or outcome == Outcome.WAITING.value:
            got[place] += 1
        else:
            first[place] = ended  # the newest come first, so the earliest stays
            asked[place] = provider
    whole = f"{sum(got.values())} of {sum(tried.values())} in the last 5 minutes got through"
    found = [Line(name="providers", title="Tries", state=OK, text=whole if tried else "none in the last 5 minutes")]
    titles = step_titles()
    for place, count in sorted(tried.items()):
        share = got[place] / count
        if count < FEW or share >= WELL:
            continue
        saga, step, _ = place
        waiting = SagaRun.objects.in_states(*WAITING_ON_TRIES).filter(saga=saga, current_step=step).order_by("-id")
        text = f"{got[place]} of {count} in the last 5 minutes got through"
        text += f"; {asked[place]} fails" if asked[place] else ""
        state = WARNING if share >= BADLY else FAILING
        title = titles.get(place, step)
        found.append(Line(name="providers", title=title, state=state, text=text, since=first[place], **hits(waiting)))
    return found


def _version() -> Line:
    try:
        ours = version("orders")
    except PackageNotFoundError:
        ours = "from a working copy"
    text = f"{ours}, Django {django.__version__}, Python {platform.python_version()}"
    return Line(name="version", title="Version", state=OK, text=text)
