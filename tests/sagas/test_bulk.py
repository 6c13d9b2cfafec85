"""Many rows in one statement: each value comes back as it went, and a guarded write never misses in silence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from sagas import Saga
from sagas.bulk import insert_many, lock_many, update_many
from sagas.models import RunEvent, SagaRun, StepRecord, new_run_id
from tests.sagas.toys import make_run

pytestmark = pytest.mark.django_db

WHEN = datetime(2026, 11, 23, 9, 30, 0, 123456, tzinfo=UTC)
ODD = {"text": "é \\ \" ' %s {} NULL {a,b}", "deep": [1, 2.5, None, {"x": True}], "empty": {}}


def make_record(run: SagaRun, number: int, **changes: Any) -> StepRecord:
    fields: dict[str, Any] = {"step": "hold", "direction": "action", "key": "k", "started_at": WHEN, **changes}
    return StepRecord(run=run, number=number, **fields)


def test_inserted_rows_come_back_as_they_were(trip: Saga) -> None:
    run = make_run(trip)
    rows = [
        make_record(run, 1, result=ODD, outcome="succeeded", ended_at=WHEN, settled=True, fence=2**40, worker="a'b\\"),
        make_record(run, 2),
    ]

    insert_many(StepRecord, rows)

    stored = list(StepRecord.objects.filter(run=run).order_by("number"))
    assert [row.pk for row in stored] == [row.pk for row in rows]
    names = [field.attname for field in StepRecord._meta.concrete_fields]
    assert [[getattr(row, name) for name in names] for row in stored] == [
        [getattr(row, name) for name in names] for row in rows
    ]
    assert stored[1].result is None
    assert not rows[0]._state.adding


def test_updated_rows_come_back_as_they_were(trip: Saga) -> None:
    run, other = make_run(trip), make_run(trip, key="T-2")
    run.due_at, run.fresh_from, run.current_step, run.claims = None, ODD, "%s'", 7
    other.due_at = WHEN

    update_many(
        SagaRun, [run, other], ["due_at", "fresh_from", "current_step", "claims"], guard="fence", guarded=_fence
    )

    run, other = SagaRun.objects.get(pk=run.pk), SagaRun.objects.get(pk=other.pk)
    assert (run.due_at, run.fresh_from, run.current_step, run.claims) == (None, ODD, "%s'", 7)
    assert (other.due_at, other.fresh_from, other.current_step, other.claims) == (WHEN, {}, "", 0)


def test_locked_rows_are_told_as_they_are_stored(trip: Saga) -> None:
    runs = [make_run(trip, key=f"T-{number}") for number in range(3)]
    SagaRun.objects.filter(pk=runs[1].pk).update(cancel_requested_at=WHEN, cancel_reason="it's %s", fresh_from=ODD)
    gone = new_run_id()

    with transaction.atomic():
        rows = lock_many(
            SagaRun, [gone, runs[1].pk, runs[0].pk], ["fence", "cancel_requested_at", "cancel_reason", "fresh_from"]
        )

    assert rows == {runs[0].pk: [0, None, "", {}], runs[1].pk: [0, WHEN, "it's %s", ODD]}
    assert list(rows) == [runs[0].pk, runs[1].pk]  # in the keys' order, as all others lock them


def test_a_row_that_is_not_as_it_was_held_fails_the_whole_write(trip: Saga) -> None:
    """Both drivers count the rows of a batch in their own way; here they must agree."""
    rows = [make_run(trip), make_run(trip, key="T-2")]
    for row in rows:
        row.current_step = "hold"

    with pytest.raises(RuntimeError, match="1 of 2 rows of sagas_sagarun were there"), transaction.atomic():
        update_many(SagaRun, rows, ["current_step"], guard="fence", guarded=lambda row: 0 if row is rows[0] else 7)

    assert set(SagaRun.objects.values_list("current_step", flat=True)) == {""}


def test_nothing_to_write_asks_nothing(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        insert_many(RunEvent, [])
        update_many(SagaRun, [], ["due_at"], guard="fence", guarded=_fence)


def test_one_statement_for_any_number_of_rows(trip: Saga) -> None:
    """As many as a batch may hold. On SQLite an insert takes what fits into one statement's parameters."""
    runs = [make_run(trip, key=f"T-{n}") for n in range(300)]

    with CaptureQueriesContext(connection) as asked:
        insert_many(StepRecord, [make_record(run, 1) for run in runs])
        update_many(SagaRun, runs, ["due_at"], guard="fence", guarded=_fence)

    assert StepRecord.objects.count() == 300
    # Django 5.2 keeps to 999 parameters on SQLite, as old ones did; later ones ask it how many it takes.
    inserts = 6 if connection.features.max_query_params == 999 else 1
    assert len(asked) == inserts + 1


def _fence(run: SagaRun) -> int:
    return run.fence
