"""`manage.py saga prune`: old histories go, runs stay, and nothing that was done can be done or undone by mistake."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from sagas import Saga, pruning
from sagas.audit import audit_runs
from sagas.exceptions import ActRefused
from sagas.export import exported
from sagas.models import RunEvent, SagaRun, Signal, StepRecord, earliest_run_id
from sagas.selectors import run_view
from sagas.services import abandon, cancel, skip, start
from sagas.testing import run_to_end
from tests.sagas.test_attention import stuck_undo
from tests.sagas.test_console import saga
from tests.sagas.toys import World, make_run, make_saga, make_step, refuse, registered

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(days=100)


def aged(run: SagaRun) -> SagaRun:
    """As if it had begun and ended a hundred days ago, its id included."""
    early = earliest_run_id(timezone.now() - LONG_AGO)
    old = SagaRun.objects.get(pk=run.pk)
    new_id = type(old.pk)(int=early.int | (old.pk.int & ((1 << 80) - 1)))
    values = {f.attname: getattr(old, f.attname) for f in SagaRun._meta.concrete_fields if f.attname != "id"}
    # A live run of the same key may be there only once; an ended one is no hindrance.
    moved = SagaRun.objects.create(
        **{
            **values,
            "id": new_id,
            "created_at": old.created_at - LONG_AGO,
            "ended_at": (old.ended_at or timezone.now()) - LONG_AGO,
        }
    )
    rows: Any
    for rows in (StepRecord.objects.filter(run=old), RunEvent.objects.filter(run=old), Signal.objects.filter(run=old)):
        found = list(rows)
        rows.delete()
        for row in found:
            row.run = moved
        rows.model._default_manager.bulk_create(found)
    old.delete()
    return moved


@pytest.fixture
def done(world: World, trip: Saga) -> SagaRun:
    return aged(run_to_end(make_run(trip, key="T-1")).run)


def histories() -> tuple[int, int]:
    return StepRecord.objects.count(), RunEvent.objects.count()


def test_an_old_run_gives_its_history_to_a_file_and_stays(done: SagaRun, trip: Saga, tmp_path: Path) -> None:
    make_run(trip, key="T-2")
    whole = json.loads(json.dumps(exported(done.pk), default=str))
    file = tmp_path / "old.jsonl"

    code, out, _ = saga("prune", "--older-than", "90d", "--archive", str(file))

    assert (code, out) == (0, f"1 run has lost its history; it is in {file}.\n")
    assert [json.loads(line) for line in file.read_text().splitlines()] == [whole]
    assert (StepRecord.objects.count(), RunEvent.objects.filter(run=done).count()) == (0, 0)
    done.refresh_from_db()
    assert (done.status, done.pruned_at is not None) == ("completed", True)
    view = run_view(done.pk)
    assert (view.steps, view.can) == ([], ())
    assert view.sentence == f"Completed; its history was archived on {done.pruned_at:%Y-%m-%d}."
    assert list(audit_runs()) == []


def test_its_key_is_still_taken(done: SagaRun, trip: Saga) -> None:
    saga("prune", "--older-than", "90d", "--delete")

    again = start(saga=trip, business_key="T-1", input=done.input, ring=False)

    assert (again.pk, SagaRun.objects.count()) == (done.pk, 1)


def test_it_cannot_be_undone_any_more_and_says_why(done: SagaRun) -> None:
    saga("prune", "--older-than", "90d", "--delete")

    with pytest.raises(ActRefused, match="its history was archived on"):
        cancel(run_id=done.pk, actor="user:you", reason="too late")
    done.refresh_from_db()
    assert (done.status, done.cancel_requested_at) == ("completed", None)


def test_what_is_young_live_or_was_settled_by_hand_stays_whole(world: World, trip: Saga) -> None:
    run_to_end(make_run(trip, key="young"))
    stuck = stuck_undo(world, trip, "stuck")
    by_hand = stuck_undo(world, trip, "by hand")
    skip(run_id=by_hand.pk, step="hold", direction="compensation", actor="user:you", reason="x")
    aged(run_to_end(by_hand).run)
    given_up = stuck_undo(world, trip, "given up")
    abandon(run_id=given_up.pk, actor="user:you", reason="paid back in cash")
    aged(given_up)
    before = histories()

    assert saga("prune", "--older-than", "31d", "--delete")[1] == "0 runs have lost their history.\n"
    assert histories() == before
    assert SagaRun.objects.get(pk=stuck.pk).status == "needs_attention"


def test_failed_ones_are_kept_on_request(world: World, trip: Saga, done: SagaRun) -> None:
    world.plan("pay", refuse)
    undone = aged(run_to_end(make_run(trip, key="T-2")).run)

    assert saga("prune", "--older-than", "90d", "--keep-failed", "--delete")[1] == "1 run has lost its history.\n"
    assert StepRecord.objects.filter(run=undone).exists()
    assert not StepRecord.objects.filter(run=done).exists()


def test_it_goes_in_batches_and_on_from_where_it_stopped(world: World, trip: Saga) -> None:
    for number in range(5):
        aged(run_to_end(make_run(trip, key=f"T-{number}")).run)
    runs, now = pruning.prunable(before=timezone.now() - timedelta(days=90)), timezone.now()

    first = next(pruning.prune(runs, now=now, batch=2, archive=None))
    rest = list(pruning.prune(runs, now=now, batch=2, archive=None))

    assert (first, rest) == (2, [2, 1])
    assert histories() == (0, 0)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--older-than", "30d", "--delete"], 2, "at least 31d"),
        (["--older-than", "90d"], 2, "--archive FILE, or --delete"),
        (["--older-than", "90d", "--archive", "/nowhere/x", "--delete"], 2, "--archive FILE, or --delete"),
        (["--older-than", "90d", "--archive", "/nowhere/x"], 2, "/nowhere/x cannot be written"),
        (["--older-than", "90d", "--dry-run"], 0, "1 run would lose its history."),
    ],
)
def test_what_is_not_meant_deletes_nothing(done: SagaRun, words: list[str], code: int, told: str) -> None:
    before = histories()

    found, out, err = saga("prune", *words)

    assert (found, told in out + err) == (code, True), out + err
    assert histories() == before


def test_a_run_that_may_still_be_undone_keeps_its_history_unless_that_is_said(world: World, tmp_path: Path) -> None:
    def until_fetched(given: Any, results: Any, signals: Any) -> str:
        return "it was fetched" if "fetched" in signals else ""

    saga_of_parcels = make_saga([make_step(world, "book")], name="parcels", refuse_cancel=until_fetched)
    with registered(saga_of_parcels):
        waits, left = (aged(run_to_end(make_run(saga_of_parcels, key=key)).run) for key in ("T-1", "T-2"))
        Signal.objects.create(run=left, name="fetched", payload={}, actor="user:gina", received_at=timezone.now())
        file = tmp_path / "old.jsonl"
        would = saga("prune", "--older-than", "90d", "--dry-run")[1]

        code, _, _ = saga("prune", "--older-than", "90d", "--archive", str(file))

        assert (would, code) == ("1 run would lose its history.\n", 0)
        pruned = SagaRun.objects.filter(pruned_at__isnull=False)
        assert list(pruned) == [left]
        assert StepRecord.objects.filter(run=waits).count() == 1
        assert cancel(run_id=waits.pk, actor="user:gina", reason="never fetched").status == "compensating"

        other = aged(run_to_end(make_run(saga_of_parcels, key="T-3")).run)
        assert saga("prune", "--older-than", "90d", "--delete", "--even-undoable")[0] == 0
        assert set(pruned.all()) == {left, other}


def test_an_archive_is_for_its_owner_alone(done: SagaRun, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"

    saga("prune", "--older-than", "90d", "--archive", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
