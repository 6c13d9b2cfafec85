"""`manage.py saga`, as operators use it: what it prints, what it changes, and what it exits with."""

from __future__ import annotations

import io
import json
import time
import uuid
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from django_q.models import OrmQ

from sagas import Saga, console
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.testing import run_to_end
from tests.sagas.test_attention import stuck_ahead, stuck_undo
from tests.sagas.toys import World, events_of, make_run, refuse

pytestmark = pytest.mark.django_db


def saga(*words: str) -> tuple[int, str, str]:
    """(exit code, what it says, what it complains of)."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("saga", *words, stdout=out, stderr=err)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    except SystemExit as stop:
        return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture
def three(world: World, trip: Saga) -> dict[str, SagaRun]:
    """One completed, one undone, one that waits for a person."""
    done = run_to_end(make_run(trip, key="T-1")).run
    world.plan("pay", refuse)
    undone = run_to_end(make_run(trip, key="T-2")).run
    return {"done": done, "undone": undone, "stuck": stuck_undo(world, trip, "T-3")}


class TestMistyping:
    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            (["lst"], "Did you mean list?"),
            (["list", "--state", "complete"], "Did you mean completed"),
            (["list", "--limt", "3"], "Did you mean --limit"),
            (["show", "T-1", "--jsn"], "Did you mean --json"),
            (["stats", "--since", "weak"], "Did you mean week?"),
        ],
    )
    def test_what_was_perhaps_meant_is_said(self, words: list[str], meant: str) -> None:
        assert meant in saga(*words)[2]

    def test_what_resembles_nothing_is_left_at_that(self) -> None:
        assert saga("xyz")[2].endswith("'import')")

    def test_names_with_colons_are_names(self) -> None:
        with pytest.raises(CommandError, match=r"Did you mean orders:read"):
            call_command("apikey", "create", "--user", "ada", "--name", "x", "--scope", "order:read")


class TestFinding:
    def test_list(self, three: dict[str, SagaRun]) -> None:
        code, out, _ = saga("list")

        lines = out.splitlines()
        assert code == 0
        assert lines[0].split() == ["KEY", "STATE", "SAGA", "AT", "CHANGED", "RUN"]
        assert [line.split()[:2] for line in lines[1:]] == [
            ["T-3", "needs_attention"],
            ["T-2", "compensated"],
            ["T-1", "completed"],
        ]
        assert lines[3].endswith(str(three["done"].pk))

    @pytest.mark.parametrize(
        ("words", "keys"),
        [
            (("--status", "compensated"), ["T-2"]),
            (("--error", "said_no"), ["T-3", "T-2"]),
            (("--key", "T-1"), ["T-1"]),
            (("--saga", "trip", "--limit", "1"), ["T-3"]),
            (("--step", "hold"), ["T-3"]),
            (("--since", "1h"), ["T-3", "T-2", "T-1"]),
        ],
    )
    def test_filters(self, three: dict[str, SagaRun], words: tuple[str, ...], keys: list[str]) -> None:
        _, out, _ = saga("list", *words, "--output", "json")

        assert [row["key"] for row in json.loads(out)] == keys

    def test_a_line_of_json_each(self, three: dict[str, SagaRun]) -> None:
        _, out, _ = saga("list", "--output", "jsonl")

        assert [json.loads(line)["status"] for line in out.splitlines()] == [
            "needs_attention",
            "compensated",
            "completed",
        ]

    def test_nothing_fits(self, three: dict[str, SagaRun]) -> None:
        assert saga("list", "--key", "NONE") == (0, "", "No run fits.\n")

    def test_count(self, three: dict[str, SagaRun]) -> None:
        _, out, _ = saga("count", "--output", "json", "--saga", "trip")

        counts = json.loads(out)
        assert {status: count for status, count in counts.items() if count} == {
            "completed": 1,
            "compensated": 1,
            "needs_attention": 1,
        }
        assert "needs_attention          1" in saga("count")[1]

    def test_a_saga_that_is_not_there(self, trip: Saga) -> None:
        code, _, err = saga("list", "--saga", "tripp")

        assert code == 4
        assert "There is no saga tripp. Did you mean trip?" in err

    @pytest.mark.parametrize("text", ["", "2", "2 h", "h", "-1h", "1y", "9999999d"])
    def test_what_is_no_time(self, text: str) -> None:
        code, _, err = saga("list", f"--since={text}")

        assert code == 1
        assert "is no stretch of time, like 90s, 15m, 2h or 3d." in err


class TestLooking:
    def test_show(self, three: dict[str, SagaRun]) -> None:
        code, out, _ = saga("show", "T-3")

        lines = out.splitlines()
        assert code == 0
        assert lines[:2] == ["T-3  Needs attention  trip version 1", str(three["stuck"].pk)]
        assert lines[4:6] == [f"trace {three['stuck'].trace_id}", ""]
        assert [line.split("  ")[0].strip() for line in lines[6:11]] == [
            "1 Hold", "↩ Undo hold", "2 Pay", "↩ Undo pay", "3 Tell",
        ]  # fmt: skip
        assert "Failed" in lines[7]
        assert lines[7].endswith("It says no.")
        assert lines[-1] == (
            "Possible now: abandon, retry hold --undo, resolve hold --undo, skip hold --undo"
        )  # fmt: skip
        assert "History" in saga("show", "T-3", "--events")[1]

    def test_show_as_json(self, three: dict[str, SagaRun]) -> None:
        _, out, _ = saga("show", str(three["done"].pk), "--json")

        told = json.loads(out)
        assert told["run"]["business_key"] == "T-1"
        assert [attempt["step"] for attempt in told["attempts"]] == ["hold", "pay", "tell"]

    @pytest.mark.parametrize("verb", ["show", "watch", "export", "graph"])
    @pytest.mark.parametrize("text", ["T-11", str(uuid.UUID(int=7))])
    def test_what_is_not_there(self, three: dict[str, SagaRun], verb: str, text: str) -> None:
        code, out, err = saga(verb, text)

        assert (code, out) == (4, "")
        assert "There is no " in err
        if text == "T-11" and verb != "graph":
            assert "Did you mean T-1" in err

    @pytest.mark.parametrize(("key", "code"), [("done", 0), ("undone", 3), ("stuck", 5)])
    def test_watch_exits_with_the_end(self, three: dict[str, SagaRun], key: str, code: int) -> None:
        assert saga("watch", three[key].business_key)[0] == code

    def test_watch_gives_up(self, trip: Saga) -> None:
        make_run(trip)

        code, out, err = saga("watch", "T-1", "--timeout", "0s")

        assert (code, "Pending: Stored and waiting for a worker." in out) == (6, True)
        assert err == "It is still pending; 0:00:00 are over.\n"

    def test_export_without_values(self, three: dict[str, SagaRun]) -> None:
        assert "12A" in saga("export", "T-1")[1]
        assert "12A" not in saga("export", "T-1", "--redact")[1]

    def test_graph_of_a_saga_and_of_a_run(self, three: dict[str, SagaRun]) -> None:
        assert saga("graph", "trip")[1].startswith("trip, version 1\n1. Hold")
        assert saga("graph", "T-2")[1].startswith("trip, version 1: T-2, undone\n")
        assert saga("graph", "trip", "--format", "mermaid")[1].startswith("flowchart LR")
        assert saga("graph", "trip", "--format", "svg")[1].startswith("<?xml")

    def test_stats(self, three: dict[str, SagaRun]) -> None:
        _, out, _ = saga("stats", "--json")

        told = json.loads(out)
        assert told["outcomes"] == {
            "completed": 1, "compensated": 1, "under_way": 0, "needs_attention": 1, "abandoned": 0,
        }  # fmt: skip
        assert told["causes"] == [{"saga": "trip", "title": "Pay", "code": "said_no", "runs": 2}]
        assert [(row["title"], row["tries"]) for row in told["steps"]][:2] == [("Hold", 3), ("Undo hold", 2)]
        assert "Last day: 3 runs began" in saga("stats")[1]


class TestHelping:
    def test_retry_whatever_failed(self, three: dict[str, SagaRun]) -> None:
        code, out, _ = saga("retry", "T-3", "--reason", "it is back")

        assert (code, out) == (0, "T-3: retry, now compensating\n")
        kind, actor, reason = events_of(three["stuck"])[-1]
        assert (kind, actor.startswith("command:"), reason) == ("retry_requested", True, "it is back")
        assert run_to_end(three["stuck"]).status == "compensated"

    def test_several_are_asked_for(self, three: dict[str, SagaRun], world: World, trip: Saga) -> None:
        ahead = stuck_ahead(world, trip, "T-4")
        before = RunEvent.objects.count()

        code, _, err = saga("retry", "T-3", "T-4", "--reason", "it is back")
        assert (code, err) == (2, "Several runs: say --yes, or --dry-run to see what would be done.")
        assert RunEvent.objects.count() == before
        assert saga("retry", "T-3", "T-4", "--reason", "it is back", "--yes")[0] == 0

        assert events_of(ahead)[-1][0] == "retry_requested"

    def test_a_dry_run_does_nothing(self, three: dict[str, SagaRun]) -> None:
        before = RunEvent.objects.count()

        code, out, _ = saga("cancel", "T-1", "--reason", "recalled", "--dry-run")

        assert (code, out) == (0, "Would cancel T-1: All 3 steps are done.\n")
        assert RunEvent.objects.count() == before

    def test_nothing_is_done_if_one_of_them_is_not_there(self, three: dict[str, SagaRun]) -> None:
        assert saga("retry", "T-3", "T-33", "--yes")[0] == 4
        assert events_of(three["stuck"])[-1][0] == "needs_attention"

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            (("skip", "T-3", "--step", "hold", "--undo", "--reason", "by hand"), "skipped"),
            (("resolve", "T-3", "--step", "hold", "--undo", "--reason", "by hand", "--evidence", "B-1"), "resolved"),
            (("abandon", "T-3", "--reason", "by hand"), "abandoned"),
        ],
    )
    def test_settled_by_hand(self, three: dict[str, SagaRun], words: tuple[str, ...], kind: str) -> None:
        assert saga(*words)[0] == 0
        assert events_of(three["stuck"])[-1][::2] == (kind, "by hand")

    def test_what_cannot_be_done_says_why_and_exits_with_1(self, three: dict[str, SagaRun]) -> None:
        code, _, err = saga("abandon", "T-1", "--reason", "tired")

        assert code == 1
        assert err.startswith("T-1: Cannot abandon while completed: only a run that needs attention")
        assert saga("retry", "T-1", "--reason", "it is back")[0] == 1
        assert saga("skip", "T-3", "--step", "nothing", "--reason", "x")[2].startswith("T-3: Cannot skip")

    def test_a_reason_is_needed(self, three: dict[str, SagaRun]) -> None:
        before = RunEvent.objects.count()

        for words in (("cancel", "T-1"), ("retry", "T-3"), ("retry", "T-3", "--reason", " ")):
            assert "--reason" in saga(*words)[2]
        assert saga("retry", "T-3")[::2] == (2, "Say --reason: it stays in the history, for whoever looks next.")
        assert RunEvent.objects.count() == before


class TestActingOnAQuery:
    @pytest.fixture
    def stuck(self, world: World, trip: Saga) -> list[SagaRun]:
        return [stuck_undo(world, trip, key) for key in ("T-1", "T-2", "T-3")]

    def test_all_that_fit_are_acted_on(self, stuck: list[SagaRun], trip: Saga) -> None:
        other = run_to_end(make_run(trip, key="T-9")).run

        code, out, err = saga("abandon", "--query", "status=needs_attention", "--reason", "bankrupt", "--yes")

        assert (code, err) == (0, "")
        assert sorted(out.splitlines()) == [f"T-{n}: abandon, now abandoned" for n in (1, 2, 3)]
        other.refresh_from_db()
        assert other.status == "completed"

    def test_a_dry_run_names_them_and_does_nothing(self, stuck: list[SagaRun]) -> None:
        before = RunEvent.objects.count()

        code, out, _ = saga("retry", "--query", "status=needs_attention since=1h", "--dry-run")

        assert (code, [line.split(":")[0] for line in sorted(out.splitlines())]) == (
            0,
            ["Would retry T-1", "Would retry T-2", "Would retry T-3"],
        )
        assert RunEvent.objects.count() == before

    def test_nobody_acts_on_a_query_unasked(self, stuck: list[SagaRun]) -> None:
        code, _, err = saga("retry", "--query", "state=needs_attention", "--reason", "it is back")

        assert (code, "--yes" in err) == (2, True)

    @pytest.mark.parametrize(
        ("words", "code", "complaint"),
        [
            (["retry"], 2, "Name runs, or say --query"),
            (["retry", "T-1", "--query", "saga=trip"], 2, "Name runs, or say --query"),
            (["retry", "--query", "status=completed step=nowhere", "--yes"], 4, "No run fits"),
            (["retry", "--query", "status=needs_atention"], 1, "Did you mean needs_attention?"),
            (["retry", "--query", "stat=x"], 1, "Did you mean state?"),
            (["retry", "--query", "saga=trp", "--yes"], 4, "Did you mean trip?"),
            (["retry", "--query", " "], 1, "nobody means all of history"),
            (["retry", "--query", "saga=trip saga=trip"], 1, "saga is given twice"),
            (["retry", "--query", "saga"], 1, "'saga' names no value"),
            (["retry", "T-1", "--rps", "0"], 1, "not above 0"),
        ],
    )
    def test_what_makes_no_sense_is_said(
        self, stuck: list[SagaRun], words: list[str], code: int, complaint: str
    ) -> None:
        before = RunEvent.objects.count()

        found, _, err = saga(*words)

        assert (found, complaint in err) == (code, True), err
        assert RunEvent.objects.count() == before

    def test_state_is_the_word_and_status_is_taken_too(self, stuck: list[SagaRun]) -> None:
        ways = (["--state"], ["--status"], ["--query=state"], ["--query=status"])
        asked = [[f"{way[0]}=needs_attention"] for way in ways]

        assert {saga("count", *words, "--output", "jsonl")[1] for words in asked} == {
            saga("count", "--output", "jsonl")[1]
        }
        assert "There is no state 'lost'" in saga("list", "--query", "state=lost")[2]

    def test_lists_take_the_same_query(self, stuck: list[SagaRun]) -> None:
        rows = json.loads(saga("list", "--query", "status=needs_attention key=T-2", "--output", "json")[1])

        assert [row["key"] for row in rows] == ["T-2"]

    def test_no_faster_than_asked(self, stuck: list[SagaRun]) -> None:
        began = time.monotonic()

        saga("abandon", "T-1", "T-2", "T-3", "--reason", "x", "--yes", "--rps", "20")

        assert time.monotonic() - began >= 0.1

    def test_compensate_is_cancel(self, world: World, trip: Saga) -> None:
        make_run(trip, key="T-1")

        assert saga("compensate", "T-1", "--reason", "recalled")[1] == "T-1: compensate, now pending\n"
        assert SagaRun.objects.get().cancel_reason == "recalled"


class TestRecovering:
    def test_a_dry_run_tells_what_is_due_and_rings_for_nothing(self, trip: Saga) -> None:
        make_run(trip, key="T-1")
        OrmQ.objects.all().delete()

        code, out, _ = saga("recover", "--dry-run")

        assert (code, out.splitlines()[0].startswith("T-1: pending, due "), out.splitlines()[1]) == (
            0, True, "1 run would be rung for.",
        )  # fmt: skip
        assert not OrmQ.objects.exists()

    def test_only_what_has_been_due_for_long(self, trip: Saga) -> None:
        run = make_run(trip, key="T-1")
        OrmQ.objects.all().delete()

        assert saga("recover", "--older-than", "5m")[1] == "Nothing has been due for so long.\n"
        assert not OrmQ.objects.exists()
        SagaRun.objects.filter(pk=run.pk).update(due_at=timezone.now() - timedelta(minutes=6))
        assert saga("recover", "--older-than", "5m")[1] == "1 run is due and held by nobody.\n"
        assert OrmQ.objects.count() == 1


class TestFiles:
    def test_a_run_is_begun_once_from_a_file(self, trip: Saga, tmp_path: Path) -> None:
        file = tmp_path / "input.json"
        file.write_text('{"seat": "1A"}')

        first = saga("start", "trip", str(file), "--key", "T-9")
        again = saga("start", "trip", str(file), "--key", "T-9")

        run = SagaRun.objects.get()
        assert first == again == (0, f"T-9: pending, {run.pk}\n", "")
        assert run.input == {"seat": "1A"}
        file.write_text('{"seat": "2B"}')
        code, _, err = saga("start", "trip", str(file), "--key", "T-9")
        assert (code, "was already started with another seat" in err) == (1, True)
        assert saga("start", "trip", str(file), "--key", "T-10", "--wait", "0s")[0] == 6

    @pytest.mark.parametrize(("text", "words"), [("[1]", "holds no JSON object"), ("{", "cannot be read as JSON")])
    def test_what_is_no_input(self, trip: Saga, tmp_path: Path, text: str, words: str) -> None:
        file = tmp_path / "input.json"
        file.write_text(text)

        code, _, err = saga("start", "trip", str(file), "--key", "T-9")

        assert (code, words in err) == (2, True)
        assert saga("start", "trip", str(tmp_path / "none"), "--key", "T-9")[0] == 2
        assert not SagaRun.objects.exists()

    def test_an_exported_run_is_the_same_elsewhere_and_nobody_takes_it_up(
        self, three: dict[str, SagaRun], trip: Saga, tmp_path: Path
    ) -> None:
        file = tmp_path / "run.json"
        live = make_run(trip, key="T-4")
        told = {key: saga("export", key)[1] for key in ("T-3", "T-4")}
        for key, run in (("T-3", three["stuck"]), ("T-4", live)):
            for model in (StepRecord, RunEvent):
                model.objects.filter(run=run).delete()
            run.delete()
            file.write_text(told[key])
            assert saga("import", str(file))[0] == 0

        before, again = json.loads(told["T-3"]), json.loads(saga("export", "T-3")[1])
        came = again["events"].pop()
        assert (came["kind"], came["actor"].startswith("command:")) == ("imported", True)
        for kind in ("attempts", "events"):
            assert [{**row, "id": 0} for row in again[kind]] == [{**row, "id": 0} for row in before[kind]]
        assert again["run"] == before["run"]
        assert SagaRun.objects.get(business_key="T-4").due_at is None
        assert saga("recover")[1] == "0 runs are due and held by nobody.\n"
        code, _, err = saga("import", str(file))
        assert (code, "is here already" in err) == (1, True)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": 9}, "This is of format 9; 1 is what is read here."),
            ({"run": {}}, "This is no export of a run: saga is missing in run."),
            ({"run": {"colour": "red"}}, "This is no export of a run: there is no 'colour' in run."),
            ({"run": None}, "This is no export of a run: it has no run as an object."),
            ({"attempts": [{"step": 7}]}, "This is no export of a run: direction is missing in attempts."),
            ({"attempts": 7}, "This is no export of a run: it has no list of attempts."),
            ({"events": [None]}, "This is no export of a run: it has no events as an object."),
            ({"run": {"status": "lost"}}, "The database refuses it"),
            ({"run": {"version": 9}}, "It is of 'trip' version 9, which is not here. There are: "),
            ({"run": {"saga": "tripp"}}, "It is of 'tripp' version 1, which is not here. There are: "),
            ({"run": {"input": 7}}, "run: input cannot be 7."),
            ({"run": {"saga": "x" * 101}}, "run: saga cannot be 'xxx"),
            ({"run": {"business_key": "a\0b"}}, "run: business_key cannot be 'a\\x00b'."),
            ({"run": {"business_key": "\ud800"}}, "run: business_key cannot be '\\ud800'."),
            ({"run": {"input": {"name": ["\ud800"]}}}, "run: input cannot be {'name': ['\\ud800']}."),
            ({"run": {"input": {"name": "a\0"}}}, "run: input cannot be {'name': 'a\\x00'}."),
            ({"run": {"created_at": "yesterday"}}, "run: created_at cannot be 'yesterday'."),
            ({"run": {"created_at": "2026-01-01T00:00:00"}}, "run: created_at cannot be"),
            ({"run": {"fence": 10**30}}, "The database refuses it"),
            ({"run": {"imported_at": None}}, "there is no 'imported_at' in run."),
        ],
    )
    def test_what_is_no_export(
        self, three: dict[str, SagaRun], tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        file = tmp_path / "run.json"
        told = json.loads(saga("export", "T-1")[1])
        if isinstance(part := change.get("run"), dict) and part and "colour" not in part:
            change = {"run": {**told["run"], "id": "01a20a86-0000-7000-8000-000000000000", **part}}
        file.write_text(json.dumps({**told, **change}))

        code, _, err = saga("import", str(file))

        assert (code, words in err) == (1, True), err
        assert SagaRun.objects.count() == 3


class TestHealth:
    def test_the_doctor_finds_nothing(self, three: dict[str, SagaRun]) -> None:
        SagaRun.objects.filter(status="needs_attention").update(updated_at=timezone.now())

        code, out, _ = saga("doctor")

        assert code == 0, out
        assert "✓ migrations: all applied" in out
        assert "! attention: 1 run waits for a person" in out
        assert "! workers: none is alive" in out
        assert "✓ cache: LocMemCache, each process has its own" in out
        assert "✓ clock: " in out
        assert "✓ providers: all are asked" in out

    def test_a_database_that_is_not_migrated_is_said_to_be_just_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It was told as one that does not answer, since a table that the next line looks into was not there yet."""
        plan = [(SimpleNamespace(app_label="sagas", name="0099_more"), False)]
        monkeypatch.setattr("sagas.console.MigrationExecutor.migration_plan", lambda *args: plan)

        code, out, _ = saga("doctor")

        assert (code, "✗ migrations: 1 are not applied\n    Run `manage.py migrate`.\n" in out) == (1, True)
        assert "workers" not in out

    def test_work_that_nobody_takes(self, trip: Saga) -> None:
        run = make_run(trip)
        SagaRun.objects.filter(pk=run.pk).update(due_at=timezone.now() - timedelta(minutes=1))

        code, out, _ = saga("doctor")

        assert code == 1
        assert "✗ workers: 1 run has been due for more than 30 s; none ever did" in out
        assert "Start `manage.py sagaworker`, or more of them." in out

    def test_a_definition_that_is_gone(self, trip: Saga) -> None:
        run = make_run(trip)
        SagaRun.objects.filter(pk=run.pk).update(version=9)

        assert saga("check")[0] == 1
        assert "trip version 9 is missing, and 1 live runs need it" in saga("check")[2]
        assert saga("doctor")[0] == 1

    def test_check_tells_of_every_definition(self, trip: Saga) -> None:
        code, out, _ = saga("check")

        assert code == 0
        assert "✓ trip version 1: 3 steps" in out
        assert "    tell has no look-up: after a lost answer it is sent again, same key" in out

    def test_recover(self, trip: Saga) -> None:
        make_run(trip)

        assert saga("recover")[1] == "1 run is due and held by nobody.\n"


@pytest.mark.pure
@pytest.mark.parametrize(("value", "text"), [(None, "–"), ("", "–"), ("a\nb", "a b"), (0.5, "0.500 s"), (3, "3")])
def test_cells(value: Any, text: str) -> None:
    assert console.cell(value, is_iso=False) == text
