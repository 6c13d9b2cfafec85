"""How the engine stands, as Prometheus reads it: counters from the tallies, gauges from the rows at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min
from django.utils import timezone

from sagas import counting, heartbeats, journal, queue
from sagas.models import SagaRun
from sagas.states import LIVE
from sagas.tallies import SWEPT, count_up, labelled, tallies

PREFIX = "order_saga_"
HELP = {
    "compensations_total": "Runs that turned back, by the step that was the cause.",
    "duplicate_deliveries_total": "Effects that were there already when they were asked for again: found by their key.",
    "oldest_run_age_seconds": "How long ago the oldest run in a state began.",
    "queue_depth": "Wake-ups that lie in the ORM broker.",
    "queue_oldest_age_seconds": "How long the oldest wake-up has lain in the ORM broker, free to be taken; 0: none.",
    "due_oldest_age_seconds": "How long the run has been due that nobody has taken for longest; 0: none is.",
    "due_runs": "Runs that are due and held by nobody.",
    "recovered_runs_total": "Times that a run was taken over from a worker that died or lost its lease.",
    "run_duration_seconds": "From a run's start to its end, or to where it needs a person.",
    "runs_finished_total": "Runs that came to an end, or need a person.",
    "runs_in_state": "Runs that are not at an end.",
    "runs_started_total": "Runs that began.",
    "step_attempts_total": "Attempts that ended, of actions (do) and compensations (undo).",
    "step_duration_seconds": "How long attempts took.",
    "step_retry_delay_seconds": "How long it was until the next try.",
    "unknown_outcomes_total": "Attempts whose answer was lost.",
    "worker_heartbeat_age_seconds": "How long ago a worker was last seen.",
    "workers_alive": "Workers that have just been seen.",
    SWEPT: "When somebody last looked for runs that nobody was told of.",
}
PARTS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One number."""

    name: str
    value: float
    labels: str = ""
    kind: str = "gauge"
    help: str = ""


def engine_samples(now: datetime | None = None, *, help_of: Mapping[str, str] = HELP) -> Iterator[Sample]:
    """Everything that the engine has to tell, and what the site counted itself, of which `help_of` tells the meaning.

    A fixed number of queries, none over what has ended.
    """
    at = now or timezone.now()
    counting.write_down()
    count_up()
    for name, labels, value in tallies():
        family = _family(name)
        kind = "gauge" if name == SWEPT else "counter" if family == name else "histogram"
        yield Sample(name=name, labels=labels, value=value, kind=kind, help=help_of.get(family, ""))
    live = SagaRun.objects.in_states(*LIVE).filter(imported_at__isnull=True).order_by()
    found = list(live.values_list("saga", "status").annotate(count=Count("id"), oldest=Min("created_at")))
    for saga, status, count, _ in found:
        yield _gauge("runs_in_state", count, saga=saga, state=status)
    for saga, status, _, oldest in found:
        yield _gauge("oldest_run_age_seconds", (at - oldest).total_seconds(), saga=saga, state=status)
    due = journal.due(at).order_by().aggregate(count=Count("id"), oldest=Min("due_at"))
    yield _gauge("due_runs", due["count"])
    yield _gauge("due_oldest_age_seconds", (at - due["oldest"]).total_seconds() if due["oldest"] else 0)
    backlog = queue.backlog()
    if backlog is not None:
        yield _gauge("queue_depth", backlog)
        since = queue.oldest_wake_up()
        yield _gauge("queue_oldest_age_seconds", max((at - since).total_seconds(), 0) if since else 0)
    alive = heartbeats.alive(at)
    for cluster in sorted({queue.CLUSTER, *alive}):
        yield _gauge("workers_alive", alive.get(cluster, 0), cluster=cluster)
    for cluster, seen in sorted(heartbeats.last_seen().items()):
        yield _gauge("worker_heartbeat_age_seconds", (at - seen).total_seconds(), cluster=cluster)


def as_text(samples: Iterable[Sample]) -> str:
    """The samples in Prometheus's text format, each family with its help and type."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(_family(sample.name), []).append(sample)
    lines: list[str] = []
    for family, members in families.items():
        if members[0].help:
            lines.append(f"# HELP {PREFIX}{family} {members[0].help}")
        lines.append(f"# TYPE {PREFIX}{family} {members[0].kind}")
        lines += [f"{PREFIX}{one.name}{_braced(one.labels)} {one.value:.10g}" for one in members]
    return "\n".join(lines) + "\n"


def gauge(name: str, value: float, help_text: str, labels: Mapping[str, str] | None = None) -> Sample:
    """A gauge of the site's own."""
    return Sample(name=name, value=value, labels=labelled(**(labels or {})), help=help_text)


def _gauge(name: str, value: float, **labels: str) -> Sample:
    return Sample(name=name, value=value, labels=labelled(**labels), help=HELP[name])


def _family(name: str) -> str:
    for part in PARTS:
        if name.endswith(f"_seconds{part}"):
            return name.removesuffix(part)
    return name


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
