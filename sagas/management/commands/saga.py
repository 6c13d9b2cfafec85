"""Runs from a terminal: find them, look at them, watch one, help one on. What it says comes from sagas.console."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db.models import Count, QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string
from opentelemetry.trace import SpanKind

from sagas import (
    console,
    crashtest,
    graph,
    health,
    operations,
    overview,
    pruning,
    queue,
    registry,
    selection,
    selectors,
    services,
    traces,
)
from sagas.console import NotFound
from sagas.exceptions import ActRefused, DuplicateRun, InvalidExport, InvalidInput
from sagas.export import exported, imported
from sagas.models import SagaRun
from sagas.progress import Progress
from sagas.shell import ShellCommand, counted
from sagas.states import Direction, RunStatus

NOT_FOUND = 4
ENDS = {
    RunStatus.COMPLETED.value: 0,
    RunStatus.COMPENSATED.value: 3,
    RunStatus.NEEDS_ATTENTION.value: 5,
    RunStatus.ABANDONED.value: 7,
}
TIMED_OUT = 6
LOOK_EVERY = 0.5
SHOWN = 50
COLUMNS = (
    ("key", "KEY"), ("status", "STATE"), ("saga", "SAGA"), ("at", "AT"), ("updated_at", "CHANGED"), ("id", "RUN"),
)  # fmt: skip
STEP_ACTS = ("retry", "skip", "resolve")
SIGNS = {"ok": "✓", "warn": "!", "fail": "✗"}


class Command(ShellCommand):
    help = "Find runs, look at them and help them on. `saga VERB --help` says more of each verb."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        found = verbs.add_parser("list", help="runs, newest first")
        _filters(found)
        found.add_argument("--limit", type=_positive, default=20)
        _output(found)
        count = verbs.add_parser("count", help="runs by state")
        _filters(count)
        _output(count)
        shown = verbs.add_parser("show", help="one run: steps, undos, attempts; exit 4: there is none")
        shown.add_argument("run", help="its id, or its business key")
        shown.add_argument("--events", action="store_true", help="with its history")
        shown.add_argument("--json", action="store_true")
        shown.add_argument("--time", choices=("relative", "iso"), default="relative")
        watched = verbs.add_parser(
            "watch", help="until it ends: exit 0 completed, 3 undone, 5 needs a person, 7 given up, 6 time is up"
        )
        watched.add_argument("run")
        watched.add_argument("--timeout", type=_span, default=timedelta(minutes=10), help="90s, 15m, 2h (10m)")
        for act, words in (
            ("retry", "try a step or an undo again now"),
            ("skip", "go on without a step or an undo"),
            ("resolve", "say that it was done outside"),
            ("cancel", "have everything undone"),
            ("compensate", "the same"),
            ("abandon", "give runs up that need a person"),
        ):
            self._add_act(verbs.add_parser(act, help=words), act)
        drawn = verbs.add_parser("graph", help="a saga's steps and undos, or a run of it, as a picture")
        drawn.add_argument("name", help="a saga's name, or a run's id or business key")
        drawn.add_argument("--format", choices=("text", "mermaid", "svg"), default="text")
        stats = verbs.add_parser("stats", help="how runs went, how long steps took, why runs turned back")
        stats.add_argument("--since", choices=tuple(overview.PERIODS), default="day")
        stats.add_argument("--json", action="store_true")
        verbs.add_parser("check", help="every definition; exit 1 if live runs lack theirs")
        verbs.add_parser("doctor", help="is all there that runs need? exit 1 if not")
        recover = verbs.add_parser("recover", help="ring for what is due and held by nobody")
        recover.add_argument("--older-than", type=_span, help="only if something has been due for so long")
        recover.add_argument("--dry-run", action="store_true", help="say what is due, and ring for nothing")
        crashed = verbs.add_parser(
            "crashtest", help="kill a worker at every edge of every step, in a database of its own"
        )
        crashed.add_argument("--runs", type=_positive, default=crashtest.edges(), help="each with one killed worker")
        crashed.add_argument("--seed", type=int, default=1, help="draws their order")
        pruned = verbs.add_parser("prune", help="take the attempts and events of old runs away; the runs stay")
        pruned.add_argument("--older-than", type=_span, required=True, help="ended so long ago: 90d; at least 31d")
        pruned.add_argument("--archive", type=Path, help="a file that gets each run's export as a line first")
        pruned.add_argument("--delete", action="store_true", help="for good, without an archive")
        pruned.add_argument("--keep-failed", action="store_true", help="only completed runs")
        pruned.add_argument(
            "--even-undoable",
            action="store_true",
            help="also completed runs that could still be undone, and then cannot: orders whose parcel never left",
        )
        pruned.add_argument("--batch", type=_positive, default=500, help="runs in one transaction (500)")
        pruned.add_argument("--dry-run", action="store_true", help="say how many, and do nothing")
        export = verbs.add_parser("export", help="a run with all that is recorded of it, as JSON")
        export.add_argument("run")
        export.add_argument("--redact", action="store_true", help="without the values of what went in and out")

        start = verbs.add_parser("start", help="begin a run of a saga with an input from a file")
        others = "".join(f", or {name}" for name in sorted(_starters()))
        start.add_argument("name", help=f"of the saga{others}")
        start.add_argument("file", help="a JSON object; - reads it from standard input")
        start.add_argument("--key", default="", help="the business key: twice is one run")
        start.add_argument(
            "--traceparent", default="", help="the trace it is asked for in, as W3C Trace Context writes it"
        )
        start.add_argument("--wait", type=_span, help="until it ends, at most so long; exits as watch does")
        imported = verbs.add_parser("import", help="store an exported run, to be looked at: no worker takes it up")
        imported.add_argument("file", help="what export wrote; - reads it from standard input")

    def _add_act(self, parser: argparse.ArgumentParser, act: str) -> None:
        parser.add_argument("runs", nargs="*", metavar="RUN", help="ids or business keys")
        parser.add_argument(
            "--query", type=_query, help="the runs for which this holds: 'state=needs_attention step=pay'"
        )
        parser.add_argument("--rps", type=_rate, default=0.0, help="so many runs a second at the most")
        parser.add_argument("--reason", required=act != "retry", default="", help="stays in the history")
        if act in STEP_ACTS:
            parser.add_argument("--step", required=act != "retry", default="", help="without it: whatever failed")
            parser.add_argument("--undo", action="store_true", help="the step's compensation")
        if act == "resolve":
            parser.add_argument("--evidence", required=True, help="a reference that somebody else can check")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--yes", action="store_true", help="do not ask before acting on several runs")

    def handle(self, *args: Any, **options: Any) -> None:
        verbs: dict[str, Callable[[dict[str, Any]], None]] = {
            "list": self._list,
            "count": self._count,
            "show": self._show,
            "watch": self._watch,
            "graph": self._graph,
            "stats": self._stats,
            "check": self._check,
            "doctor": self._doctor,
            "recover": self._recover,
            "crashtest": self._crashtest,
            "prune": self._prune,
            "export": self._export,
            "start": self._begin,
            "import": self._import,
        }
        try:
            verbs.get(options["verb"], self._act)(options)
        except NotFound as error:
            raise CommandError(str(error), returncode=NOT_FOUND) from error

    def _list(self, options: dict[str, Any]) -> None:
        runs = list(_found(options)[: options["limit"]])
        views = selectors.views_for(runs)
        rows = [console.row_of(views[run.pk]) for run in runs]
        if options["output"] == "json":
            self.stdout.write(console.as_json(rows))
        elif options["output"] == "jsonl":
            for row in rows:
                self.stdout.write(console.as_json(row, indent=None))
        elif rows:
            self._lines(console.as_table(rows, COLUMNS, is_iso=options["time"] == "iso"))
        else:
            self.stderr.write("No run fits.")

    def _count(self, options: dict[str, Any]) -> None:
        found = dict(_found(options).order_by().values_list("status").annotate(count=Count("id")))
        counts = {status.value: found.get(status.value, 0) for status in RunStatus}
        if options["output"] == "text":
            self._lines([f"{status:<16} {count:>9,}" for status, count in counts.items()])
        else:
            self.stdout.write(console.as_json(counts, indent=2 if options["output"] == "json" else None))

    def _show(self, options: dict[str, Any]) -> None:
        run = console.run_of(options["run"])
        if options["json"]:
            self.stdout.write(console.as_json(exported(run.pk)))
            return
        view = selectors.run_view(run.pk)
        self._lines(console.told(view, is_iso=options["time"] == "iso", events=options["events"]))

    def _watch(self, options: dict[str, Any]) -> NoReturn:
        run = console.run_of(options["run"])
        until = time.monotonic() + options["timeout"].total_seconds()
        last = ""
        while True:
            view = selectors.run_view(run.pk)
            line = f"{view.status_word}: {view.sentence}"
            if line != last:
                self.stdout.write(f"{timezone.now():%H:%M:%S}  {line}")
                self.stdout.flush()
                last = line
            if view.run.status in ENDS:
                sys.exit(ENDS[view.run.status])
            if time.monotonic() >= until:
                self.stderr.write(f"It is still {view.run.status}; {options['timeout']} are over.")
                sys.exit(TIMED_OUT)
            time.sleep(LOOK_EVERY)

    def _act(self, options: dict[str, Any]) -> None:
        act = options["verb"]
        runs = self._meant(options)
        if options["dry_run"]:
            for run in runs:
                self._lines([f"Would {act} {run.business_key}: {selectors.run_view(run.pk).sentence}"])
            return
        if not options["reason"].strip():
            raise CommandError("Say --reason: it stays in the history, for whoever looks next.", returncode=2)
        if (len(runs) > 1 or options["query"]) and not options["yes"]:
            self._confirm(f"{act} {len(runs)} runs?")
        refused = 0
        bar, began = Progress(len(runs)), time.monotonic()
        for done, run in enumerate(runs):
            if options["rps"]:
                time.sleep(max(began + done / options["rps"] - time.monotonic(), 0))
            if len(runs) > 1:
                bar.clear()
            try:
                self._do(act, run, options)
            except ActRefused as error:
                refused += 1
                self.stderr.write(f"{run.business_key}: {error}")
            else:
                run.refresh_from_db()
                self.stdout.write(f"{run.business_key}: {act}, now {run.status}")
            if len(runs) > 1:
                bar.show(done + 1)
        bar.clear()
        if refused:
            sys.exit(1)

    def _meant(self, options: dict[str, Any]) -> list[SagaRun]:
        """The runs that are meant, all of them, before anything is done to one."""
        if bool(options["runs"]) == bool(options["query"]):
            raise CommandError("Name runs, or say --query which are meant.", returncode=2)
        if not options["query"]:
            return [console.run_of(text) for text in options["runs"]]
        found = list(selection.chosen(options["query"])[: operations.MOST + 1])
        if not found:
            raise NotFound("No run fits the query.")
        if len(found) > operations.MOST:
            raise CommandError(f"More than {operations.MOST} runs fit. Narrow the query.", returncode=2)
        return found

    def _do(self, act: str, run: SagaRun, options: dict[str, Any]) -> None:
        said = {"run_id": run.pk, "actor": f"command:{getpass.getuser()}", "reason": options["reason"]}
        if act in ("cancel", "compensate"):
            services.cancel(**said)
        elif act == "abandon":
            services.abandon(**said)
        elif act == "retry" and not options["step"]:
            self._retry_what_failed(run, said)
        else:
            way = Direction.COMPENSATION if options["undo"] else Direction.ACTION
            place = {"step": options["step"], "direction": way}
            if act == "retry":
                services.retry(**said, **place)
            elif act == "skip":
                services.skip(**said, **place)
            else:
                services.resolve(**said, **place, evidence=options["evidence"])

    def _retry_what_failed(self, run: SagaRun, said: dict[str, Any]) -> None:
        places = selectors.retriable(selectors.run_view(run.pk))
        if not places:
            raise ActRefused("retry", run.status, "nothing of it has failed or waits for another try")
        for step, direction in places:
            services.retry(**said, step=step, direction=direction)

    def _graph(self, options: dict[str, Any]) -> None:
        view = None
        try:
            saga = console.saga_of(options["name"])
        except NotFound as unknown:
            try:
                view = selectors.run_view(console.run_of(options["name"]).pk)
            except NotFound:
                raise unknown from None
            if view.definition is None:
                run = view.run
                raise NotFound(f"{run.saga} version {run.version} is not registered here.") from None
            saga = view.definition
        draw = {"text": graph.as_text, "mermaid": graph.as_mermaid, "svg": graph.as_svg}[options["format"]]
        self.stdout.write(draw(saga, view))

    def _stats(self, options: dict[str, Any]) -> None:
        now, period = timezone.now(), overview.PERIODS[options["since"]]
        seen = overview.overview_of(period, now)
        totals, steps = seen.totals, [vars(one) for one in seen.work]
        causes, waiting = [vars(one) for one in seen.causes], [vars(one) for one in seen.waiting]
        if options["json"]:
            told = {
                "since": options["since"],
                "outcomes": totals,
                "steps": steps,
                "steps_are_of_the_newest": overview.SAMPLE if seen.is_sample else None,
                "causes": causes,
                "waiting": waiting,
            }
            self.stdout.write(console.as_json(told))
            return
        self._lines([f"{period.words}: {counted(sum(totals.values()), 'run', 'runs')} began", ""])
        self._lines([f"{end.replace('_', ' '):<16} {count:>9,}" for end, count in totals.items()])
        self._part("Steps and undos", steps, ("title", "tries", "succeeded", "p50", "p95"))
        self._part("Why runs turned back", causes, ("title", "code", "runs"))
        self._part("What waits now", waiting, ("what", "runs", "since"))

    def _part(self, title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
        if rows:
            self._lines(["", title, *console.as_table(rows, [(name, name) for name in columns], is_iso=False)])

    def _check(self, options: dict[str, Any]) -> None:
        for name, version in registry.names():
            saga = registry.get(name, version)
            steps = f"{len(saga.steps)} step{'s' if len(saga.steps) > 1 else ''}"
            self.stdout.write(f"{SIGNS['ok']} {name} version {version}: {steps}")
            for step in saga.steps:
                if step.look_up is None:
                    self.stdout.write(f"    {step.name} has no look-up: after a lost answer it is sent again, same key")
        missing = selectors.missing_definitions()
        for name, version, count in missing:
            self.stderr.write(f"{SIGNS['fail']} {name} version {version} is missing, and {count} live runs need it")
        if missing:
            sys.exit(1)

    def _doctor(self, options: dict[str, Any]) -> None:
        findings = console.doctor()
        if not any(one.level == "fail" and one.what in ("database", "migrations") for one in findings):
            findings += _beside(timezone.now())
        for one in findings:
            self.stdout.write(f"{SIGNS[one.level]} {one.what}: {one.words}")
            if one.remedy:
                self.stdout.write(f"    {one.remedy}")
        if any(one.level == "fail" for one in findings):
            sys.exit(1)

    def _recover(self, options: dict[str, Any]) -> None:
        longer_than = options["older_than"] or timedelta(0)
        late = selectors.overdue(now=timezone.now(), longer_than=longer_than)
        if options["dry_run"]:
            for run in late.order_by("due_at")[:SHOWN]:
                since = console.moment(run.due_at, is_iso=False) if run.due_at else ""
                self.stdout.write(f"{run.business_key}: {run.status}, due {since}")
            self.stdout.write(counted(late.count(), "run", "runs") + " would be rung for.")
        elif options["older_than"] and not late.exists():
            self.stdout.write("Nothing has been due for so long.")
        else:
            self.stdout.write(counted(queue.ring_for_due(), "run is", "runs are") + " due and held by nobody.")

    def _prune(self, options: dict[str, Any]) -> None:
        now, archive = timezone.now(), options["archive"]
        if options["older_than"] < pruning.LEAST:
            raise CommandError(
                f"--older-than is at least {pruning.LEAST.days}d: the overview needs a month.", returncode=2
            )
        keep = (RunStatus.COMPENSATED,) if options["keep_failed"] else ()
        runs = pruning.prunable(before=now - options["older_than"], keep=keep)
        even_undoable = options["even_undoable"]
        if options["dry_run"]:
            count = sum(1 for run in runs.iterator() if even_undoable or not pruning.has_way_back(run))
            self.stdout.write(counted(count, "run would lose its", "runs would lose their") + " history.")
            return
        count = runs.count()
        if bool(archive) == options["delete"]:
            raise CommandError("Say --archive FILE, or --delete if nobody will ask again.", returncode=2)
        bar, done = Progress(count), 0
        try:
            with open(archive, "a", encoding="utf-8", opener=_for_us_alone) if archive else nullcontext() as file:
                batches = pruning.prune(
                    runs, now=now, batch=options["batch"], archive=file, even_undoable=even_undoable
                )
                for gone in batches:
                    done += gone
                    bar.show(done)
        except OSError as error:
            raise CommandError(f"{archive} cannot be written: {error}. {done} runs are done.", returncode=2) from error
        finally:
            bar.clear()
        self.stdout.write(
            counted(done, "run has lost its", "runs have lost their")
            + " history"
            + (f"; it is in {archive}." if archive else ".")
        )

    def _crashtest(self, options: dict[str, Any]) -> None:
        bar, faulty, killed = Progress(options["runs"]), 0, 0
        with crashtest.database_of_its_own():
            for one in crashtest.crash_runs(runs=options["runs"], seed=options["seed"]):
                killed += one.was_killed
                if one.faults:
                    faulty += 1
                    bar.clear()
                    self.stderr.write(f"Run {one.number}, {one.story}, killed at {one.point}: {'; '.join(one.faults)}")
                bar.show(one.number + 1)
            findings = crashtest.audited()
        bar.clear()
        for finding in findings:
            self.stderr.write(finding)
        self.stdout.write(f"{killed} workers were killed in {options['runs']} runs with seed {options['seed']}.")
        if faulty or findings:
            self.stdout.write(f"{faulty} runs did not end as they should; the audit has {len(findings)} findings.")
            sys.exit(1)
        self.stdout.write(
            "Each run ended all done or all undone, every effect happened once, and the audit finds nothing."
        )

    def _export(self, options: dict[str, Any]) -> None:
        run = console.run_of(options["run"])
        self.stdout.write(console.as_json(exported(run.pk, is_redacted=options["redact"])))

    def _begin(self, options: dict[str, Any]) -> None:
        try:
            with traces.serving("saga start", traceparent=options["traceparent"], kind=SpanKind.INTERNAL):
                run = self._started(options)
        except (DuplicateRun, InvalidInput) as error:
            raise CommandError(str(error), returncode=1) from error
        self.stdout.write(f"{run.business_key}: {run.status}, {run.pk}")
        if options["wait"] is not None:
            self._watch({"run": str(run.pk), "timeout": options["wait"]})

    def _started(self, options: dict[str, Any]) -> SagaRun:
        starter, actor = _starters().get(options["name"]), f"command:{getpass.getuser()}"
        if starter:
            given = _json(options["file"])
            return SagaRun.objects.get(pk=import_string(starter)(given, key=options["key"], actor=actor))
        saga, given = console.saga_of(options["name"]), _json(options["file"])
        if not options["key"]:
            raise CommandError("Say --key: the business key, under which twice is one run.", returncode=2)
        return services.start(saga=saga, business_key=options["key"], input=given, actor=actor)

    def _import(self, options: dict[str, Any]) -> None:
        try:
            run = imported(_json(options["file"]), actor=f"command:{getpass.getuser()}")
        except InvalidExport as error:
            raise CommandError(str(error), returncode=1) from error
        self.stdout.write(f"{run.business_key}: {run.status}, {run.pk}")

    def _lines(self, lines: list[str]) -> None:
        for line in lines:
            self.stdout.write(line)

    def _confirm(self, question: str) -> None:
        if not sys.stdin.isatty():
            raise CommandError("Several runs: say --yes, or --dry-run to see what would be done.", returncode=2)
        self.stdout.write(f"{question} [y/N] ", ending="")
        self.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done.", returncode=1)


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--saga", default="")
    parser.add_argument(
        "--state", "--status", dest="status", choices=[status.value for status in RunStatus], default=""
    )
    parser.add_argument("--step", default="", help="the step it is at")
    parser.add_argument("--key", default="", help="the business key")
    parser.add_argument("--error", default="", help="the code of an attempt, or of why it turned back")
    parser.add_argument("--since", type=_span, default=None, help="began in the last 90s, 15m, 2h, 3d")
    parser.add_argument("--query", type=_query, help="the same in one: 'state=retrying since=2h'")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", choices=("text", "json", "jsonl"), default="text")
    parser.add_argument("--time", choices=("relative", "iso"), default="relative")


def _found(options: dict[str, Any]) -> QuerySet[SagaRun]:
    return selection.chosen({**options, **(options["query"] or {})})


def _beside(now: datetime) -> list[console.Finding]:
    """What the health page says of the cache, and the site of its providers, as the doctor says it."""
    levels = {health.OK: "ok", health.WARNING: "warn", health.FAILING: "fail"}
    remedies = {"cache": "Start it, or mend CACHE_URL."}
    elsewhere = f"See {getattr(settings, 'SITE_URL', '')}/health/ for its runbook."
    return [
        console.Finding(
            level=levels[line.state],
            what=line.name,
            words=line.text,
            remedy="" if line.state == health.OK else remedies.get(line.name, elsewhere),
        )
        for line in (health.of_the_cache(), *health.of_the_site(now))
    ]


def _starters() -> dict[str, str]:
    """By name, functions that begin a run of something more than a run, an order say: SAGA_STARTERS."""
    return dict(getattr(settings, "SAGA_STARTERS", {}))


def _json(path: str) -> dict[str, Any]:
    """The JSON object in a file. Raises CommandError."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read as JSON: {error}", returncode=2) from error
    if not isinstance(value, dict):
        raise CommandError(f"{path} holds no JSON object.", returncode=2)
    return value


def _for_us_alone(path: str, flags: int) -> int:
    """Opens an archive: it holds what runs were given, names and addresses too."""
    return os.open(path, flags, mode=0o600)


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to 10000.")
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1000.")
    return number


def _query(text: str) -> dict[str, Any]:
    try:
        return selection.parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _span(text: str) -> timedelta:
    try:
        return console.span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
