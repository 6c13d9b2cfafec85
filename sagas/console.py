"""What `manage.py saga` finds and says, without the parsing of its options: runs found, told as text or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.checks import run_checks
from django.core.checks.messages import ERROR
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from sagas import heartbeats, queue, registry, selectors
from sagas.definition import Saga
from sagas.models import SagaRun
from sagas.presentation import OUTCOME_BADGES, STEP_BADGES, UNDO_BADGES, Badge, seconds_text
from sagas.selectors import AttemptView, RunView
from sagas.shell import counted, meant
from sagas.states import RunStatus

SPAN = re.compile(r"([0-9]{1,6})([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
CLOCK_APART = timedelta(seconds=5)
ALIKE_AMONG = 2000
"""Of the newest runs' keys, in which a mistyped one is looked for."""


class NotFound(LookupError):
    """There is nothing of that name. The message says what was perhaps meant."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's."""

    level: str
    """ok, warn or fail."""
    what: str
    words: str
    remedy: str = ""


def run_of(text: str) -> SagaRun:
    """The run with this id, or the newest run of this business key. Raises NotFound."""
    try:
        wanted = UUID(text)
    except ValueError:
        run = SagaRun.objects.filter(business_key=text).order_by("-id").first()
    else:
        run = SagaRun.objects.filter(pk=wanted).first()
    if run is None:
        newest = SagaRun.objects.order_by("-id").values_list("business_key", flat=True)[:ALIKE_AMONG]
        raise NotFound(f"There is no run {text}.{meant(text, newest)} `saga list` shows the newest.")
    return run


def saga_of(name: str) -> Saga:
    """The newest definition of that name. Raises NotFound."""
    names = sorted({known for known, _ in registry.names()})
    if name not in names:
        raise NotFound(f"There is no saga {name}.{meant(name, names)} There are: {', '.join(names)}.")
    return registry.newest(name)


def span(text: str) -> timedelta:
    """90s, 15m, 2h or 3d. Raises ValueError."""
    found = SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no stretch of time, like 90s, 15m, 2h or 3d.")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


def row_of(view: RunView) -> dict[str, Any]:
    """A run as a list tells it."""
    run = view.run
    return {
        "id": str(run.pk),
        "key": run.business_key,
        "saga": run.saga,
        "version": run.version,
        "status": run.status,
        "at": selectors.step_line(view),
        "error_code": run.failure_code,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
    }


def as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]], *, is_iso: bool) -> list[str]:
    """Lines with aligned columns, each (field, heading)."""
    table = [[heading for _, heading in columns]]
    table += [[cell(row[name], is_iso=is_iso) for name, _ in columns] for row in rows]
    widths = [max(len(line[n]) for line in table) for n in range(len(columns))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]


def cell(value: Any, *, is_iso: bool) -> str:
    """One value as people read it, on one line."""
    if isinstance(value, datetime):
        return moment(value, is_iso=is_iso)
    if isinstance(value, float):
        return f"{value:.3f} s"
    return "–" if value in (None, "") else " ".join(str(value).split())[:80]


def moment(at: datetime, *, is_iso: bool) -> str:
    """An instant: how long ago, or exactly."""
    if is_iso:
        return at.isoformat(timespec="seconds")
    left = (timezone.now() - at).total_seconds()
    return f"{seconds_text(left)} ago" if left >= 0 else f"in {seconds_text(left)}"


def as_json(value: Any, *, indent: int | None = 2) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)


def told(view: RunView, *, is_iso: bool, events: bool = False) -> list[str]:
    """A run with its steps, undos and attempts, line by line."""
    run = view.run
    lines = [f"{run.business_key}  {view.status_word}  {run.saga} version {run.version}", f"{run.pk}", view.sentence]
    when = f"started {moment(run.created_at, is_iso=is_iso)}"
    when += f", ended {moment(run.ended_at, is_iso=is_iso)}" if run.ended_at else ""
    when += f", read from a file {moment(run.imported_at, is_iso=is_iso)}" if run.imported_at else ""
    lines += [when, *([f"trace {run.trace_id}"] if run.trace_id else []), ""]
    titles = [step.title for step in view.steps] + [step.undo_title for step in view.steps]
    wide = max((len(title) for title in titles), default=0)
    for number, step in enumerate(view.steps, 1):
        lines.append(_place(f"{number}", step.title, wide, STEP_BADGES[step.state], step.attempts, step.note))
        lines += [_attempt(attempt, is_iso=is_iso) for attempt in step.attempts if len(step.attempts) > 1]
        if step.undo_state is not None:
            badge = UNDO_BADGES[step.undo_state]
            lines.append(_place("↩", step.undo_title, wide, badge, step.undo_attempts, step.undo_note))
            lines += [_attempt(attempt, is_iso=is_iso) for attempt in step.undo_attempts if len(step.undo_attempts) > 1]
    can = list(view.can) + [f"{act} {step.name}" for step in view.steps for act in step.can]
    can += [f"{act} {step.name} --undo" for step in view.steps for act in step.undo_can]
    if can:
        lines += ["", f"Possible now: {', '.join(can)}"]
    if events:
        lines += ["", "History"]
        for event in view.events:
            where = f" {event.step}" if event.step else ""
            why = f": {event.reason}" if event.reason else ""
            lines.append(f"  {moment(event.created_at, is_iso=is_iso)}  {event.kind}{where} by {event.actor}{why}")
    return lines


def doctor() -> list[Finding]:
    """Whether everything is there that runs need, each with a way out. What is not migrated is asked no further."""
    try:
        first = _database()
        if any(one.level == "fail" for one in first):
            return [*first, *_settings()]
        return [*first, *_settings(), *_definitions(), *_work()]
    except DatabaseError as error:
        remedy = "Start it, or mend DATABASE_URL."
        return [Finding(level="fail", what="database", words=f"gives no answer: {error}".strip(), remedy=remedy)]


def _database() -> list[Finding]:
    found = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    found.append(Finding(level="ok", what="database", words=f"{connection.vendor} answers"))
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if missing:
        words, remedy = f"{missing} are not applied", "Run `manage.py migrate`."
        found.append(Finding(level="fail", what="migrations", words=words, remedy=remedy))
    else:
        found.append(Finding(level="ok", what="migrations", words="all applied"))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            apart = abs(cursor.fetchone()[0] - timezone.now())
        is_off = apart > CLOCK_APART
        found.append(
            Finding(
                level="warn" if is_off else "ok",
                what="clock",
                words=f"{apart.total_seconds():.1f} s from the database's",
                remedy="Set both machines' clocks by NTP: leases and retries go by them." if is_off else "",
            )
        )
    else:
        found.append(Finding(level="ok", what="clock", words="the database goes by this machine's"))
    return found


def _settings() -> list[Finding]:
    found = [
        Finding(
            level="fail" if message.level >= ERROR else "warn",
            what=str(message.id),
            words=str(message.msg),
            remedy=str(message.hint or ""),
        )
        for message in run_checks()
        if message.level >= ERROR or str(message.id).startswith("sagas.")
    ]
    return found or [Finding(level="ok", what="settings", words="no check finds fault")]


def _definitions() -> list[Finding]:
    names = [f"{name} {version}" for name, version in registry.names()]
    if not names:
        remedy = "Register your sagas in an AppConfig.ready()."
        return [Finding(level="fail", what="definitions", words="there are none", remedy=remedy)]
    found = [Finding(level="ok", what="definitions", words=", ".join(names))]
    for name, version, count in selectors.missing_definitions():
        words = f"{count} live runs need {name} version {version}, which is not registered"
        remedy = "Register it again until its last run has ended."
        found.append(Finding(level="fail", what="definitions", words=words, remedy=remedy))
    return found


def _work() -> list[Finding]:
    now = timezone.now()
    overdue = selectors.overdue(now=now, longer_than=selectors.UNTAKEN_AFTER).count()
    seen = selectors.worker_seen_at()
    last = f"; one last began something {moment(seen, is_iso=False)}" if seen else "; none ever did"
    if overdue:
        late = selectors.UNTAKEN_AFTER.seconds
        words = counted(overdue, "run has", "runs have") + f" been due for more than {late} s{last}"
        remedy = "Start `manage.py sagaworker`, or more of them."
        found = [Finding(level="fail", what="workers", words=words, remedy=remedy)]
    else:
        found = [Finding(level="ok", what="workers", words=f"nothing is overdue{last}")]
    if not sum(heartbeats.alive(now).values()):
        remedy = "Start `manage.py sagaworker`."
        found.append(Finding(level="warn", what="workers", words="none is alive", remedy=remedy))
    waiting = selectors.counts()[RunStatus.NEEDS_ATTENTION.value]
    if waiting:
        remedy = f"See {getattr(settings, 'SITE_URL', '')}/runs/attention/ or `saga list --state needs_attention`."
        found.append(
            Finding(
                level="warn",
                what="attention",
                words=counted(waiting, "run waits", "runs wait") + " for a person",
                remedy=remedy,
            )
        )
    backlog = queue.backlog()
    if backlog is not None:
        found.append(Finding(level="warn" if backlog > 1000 else "ok", what="queue", words=f"{backlog} wake-ups"))
    return found


def _place(sign: str, title: str, wide: int, badge: Badge, attempts: Sequence[AttemptView], note: str) -> str:
    seconds = sum(attempt.seconds or 0 for attempt in attempts)
    tries = f"{len(attempts)} {'try' if len(attempts) == 1 else 'tries'}, {seconds:.2f} s" if attempts else ""
    line = f"{sign:>2} {title:<{wide}}  {badge.word:<12} {tries:<16}"
    return f"{line}  {note}".rstrip() if note else line.rstrip()


def _attempt(attempt: AttemptView, *, is_iso: bool) -> str:
    why = f" {attempt.error_code}: {attempt.error_message}" if attempt.error_code else ""
    who = f" {attempt.provider} {attempt.provider_id}".rstrip()
    word = OUTCOME_BADGES[attempt.outcome].word
    return f"     {attempt.number}. {moment(attempt.started_at, is_iso=is_iso)}  {word}{who}{why}"


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
