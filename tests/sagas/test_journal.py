"""Runs and records as they are written: claimed, fenced, shared in one commit, and never edited afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sagas import Saga, journal, points, registry
from sagas.journal import Ended, Held
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.states import Direction, Outcome, RunStatus
from tests.races import Paused, together
from tests.sagas.toys import World, attempts_of, events_of, make_run, make_saga, make_step, registered

pytestmark = pytest.mark.django_db(transaction=True)

LEASE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
DONE = Ended(outcome=Outcome.SUCCEEDED, result={"reference": "R-1"})


def claim(worker: str = "w1", **changes: Any) -> list[Held]:
    fields = {"now": timezone.now(), "lease": LEASE, "limit": 10, "max_claims": 5, **changes}
    return journal.claim(worker=worker, **fields)


def commit(held: Held, ended: Ended = DONE, worker: str = "w1", **changes: Any) -> list[Held]:
    """Record the end of the attempt that the last write told `held` to begin."""
    ((_, record),) = held.begun
    return journal.commit([(held, record, ended)], worker=worker, **{"now": timezone.now(), "lease": LEASE, **changes})


def stored(run: SagaRun) -> SagaRun:
    return SagaRun.objects.get(pk=run.pk)


INDEX_CONDITIONS = {
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE tablename = 'sagas_sagarun'",
    "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'sagas_sagarun'",
}


class TestClaim:
    def test_it_takes_the_lease_raises_the_fence_and_writes_the_intent(self, trip: Saga) -> None:
        run = make_run(trip)
        now = timezone.now()

        (held,) = claim(now=now)

        row = stored(run)
        assert (row.lease_owner, row.lease_until, row.fence, row.claims) == ("w1", now + LEASE, 1, 1)
        assert (row.status, row.current_step) == (RunStatus.RUNNING, "hold")
        assert attempts_of(run) == [("hold", "action", 1, "")]
        record = StepRecord.objects.get(run=run)
        assert (record.key, record.worker, record.fence) == (f"{run.pk}:hold:action", "w1", 1)
        assert [begin.step.name for begin, _ in held.begun] == ["hold"]

    def test_a_held_run_is_not_taken_again_before_its_lease_has_passed(self, trip: Saga) -> None:
        run = make_run(trip)
        now = timezone.now()
        claim(now=now)

        assert claim("w2", now=now + LEASE) == []
        (taken,) = claim("w2", now=now + LEASE + SECOND)

        assert (taken.run.fence, stored(run).lease_owner) == (2, "w2")
        assert attempts_of(run) == [("hold", "action", 1, "unknown"), ("hold", "action", 2, "")]
        assert taken.begun[0][0].maybe_done is True
        lost = StepRecord.objects.get(run=run, number=1)
        assert (lost.error_code, lost.retry_at) == ("worker_lost", now + LEASE + SECOND)

    def test_the_longest_due_come_first_and_no_more_than_wanted(self, trip: Saga) -> None:
        runs = [make_run(trip, key=f"T-{n}") for n in range(3)]

        assert [held.run.pk for held in claim(limit=2)] == [runs[0].pk, runs[1].pk]

    def test_what_is_not_due_is_left_alone_without_a_write(self, trip: Saga) -> None:
        make_run(trip)

        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert claim(now=timezone.now() - timedelta(hours=1)) == []

        assert len(queries) == 1
        assert queries[0]["sql"].startswith("SELECT")

    def test_no_index_knows_what_a_claim_changes(self, trip: Saga) -> None:
        """PostgreSQL writes the rows in place then; on SQLite an index less is written."""
        make_run(trip)
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, SagaRun._meta.db_table)
            columns = {column for index in found.values() if index["index"] for column in index["columns"]}
            cursor.execute(INDEX_CONDITIONS[connection.vendor])
            conditions = " ".join(str(row) for row in cursor.fetchall())

        assert claim() != []

        assert columns & {"phase", "due_at", "business_key"} == {"phase", "due_at", "business_key"}
        assert columns & {"status", "fence", "claims", "lease_owner", "lease_until", "updated_at"} == set()
        assert "ended_at" in conditions
        assert "status" not in conditions
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_stat_get_xact_tuples_hot_updated('sagas_sagarun'::regclass)")
                assert cursor.fetchone() == (1,)

    @pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite writes whole pages, wherever a column stands")
    def test_what_ends_an_attempt_stands_behind_what_never_changes(self) -> None:
        """PostgreSQL logs a row's change from the first changed column to the last."""
        with connection.cursor() as cursor:
            columns = [
                column.name for column in connection.introspection.get_table_description(cursor, "sagas_steprecord")
            ]

        first = min(columns.index(name) for name in journal.RECORD_FIELDS)
        never = {"id", "step", "direction", "number", "key", "started_by", "worker", "fence", "started_at", "run_id"}
        assert set(columns[:first]) | {"run_id"} == never

    def test_two_claimers_at_once_never_get_the_same_run(self, trip: Saga) -> None:
        runs = {make_run(trip, key=f"T-{n}").pk for n in range(6)}

        taken = together(*[lambda name=f"w{n}": claim(name, limit=4) for n in range(3)])

        ids = [held.run.pk for part in taken for held in part]
        ids += [held.run.pk for held in claim("last")]  # what the others had under lock when they were asked
        assert sorted(ids) == sorted(runs)
        assert set(SagaRun.objects.values_list("fence", flat=True)) == {1}
        assert StepRecord.objects.count() == 6

    def test_a_run_whose_definition_is_gone_asks_for_a_person(self, trip: Saga) -> None:
        run = make_run(trip)
        registry.forget(trip)

        assert claim() == []

        row = stored(run)
        assert (row.status, row.due_at, row.lease_until) == (RunStatus.NEEDS_ATTENTION, None, None)
        assert row.attention_reason == "No definition trip version 1 is installed here."
        assert [event[0] for event in events_of(run)] == ["started", "needs_attention"]

    def test_one_run_that_cannot_be_decided_does_not_hold_up_the_others(self, world: World, trip: Saga) -> None:
        sick, well = make_run(trip, key="sick"), make_run(trip, key="well")
        now = timezone.now()
        SagaRun.objects.filter(pk=sick.pk).update(turned_back_at=now, fence=1)
        # The definition was changed under its feet: the step of this record is not in it any more.
        journal.record_by_hand(
            sick,
            step="fly",
            direction=Direction.ACTION,
            number=1,
            outcome=Outcome.SUCCEEDED,
            actor="engine",
            result={},
            now=now,
        )

        (held,) = claim()

        assert held.run.pk == well.pk
        assert (stored(sick).status, stored(sick).attention_reason) == (
            RunStatus.NEEDS_ATTENTION,
            "The next move cannot be told: Saga trip has no step fly; it has hold, pay, tell.",
        )


class TestSuspects:
    """A step that kills its worker: its run must end with a person, and take nobody along."""

    def test_after_a_few_claims_without_progress_a_person_is_asked(self, world: World) -> None:
        saga = make_saga([make_step(world, "hold", retry=replace(make_step(world, "x").retry, attempts=50))])
        with registered(saga):
            run, now = make_run(saga), timezone.now()
            for n in range(5):
                assert len(claim(now=now + 2 * n * LEASE, alone=True)) == 1

            assert claim(now=now + 10 * LEASE, alone=True) == []

        row = stored(run)
        assert (row.status, row.due_at, row.claims) == (RunStatus.NEEDS_ATTENTION, None, 6)
        assert row.attention_reason == "Taken up 5 times and nothing came of it: hold may be killing its workers."
        assert attempts_of(run) == [("hold", "action", n, "unknown") for n in range(1, 6)]

    def test_a_suspect_is_taken_alone_by_a_worker_that_holds_nothing(self, trip: Saga) -> None:
        killer, bystander = make_run(trip, key="killer"), make_run(trip, key="bystander")
        now = timezone.now()
        SagaRun.objects.filter(pk=killer.pk).update(claims=2)

        assert [held.run.pk for held in claim(now=now)] == [bystander.pk]
        (held,) = claim("w2", now=now, alone=True)

        assert held.run.pk == killer.pk
        assert held.is_suspect()

    def test_whoever_got_somewhere_is_no_suspect_any_more(self, trip: Saga) -> None:
        run = make_run(trip)
        SagaRun.objects.filter(pk=run.pk).update(claims=2)
        (held,) = claim(alone=True)

        commit(held)

        assert stored(run).claims == 0
        assert not held.is_suspect()


class TestCommit:
    def test_the_end_of_one_step_and_the_intent_of_the_next_are_one_write(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()

        assert commit(held) == [held]

        assert attempts_of(run) == [("hold", "action", 1, "succeeded"), ("pay", "action", 1, "")]
        first = StepRecord.objects.get(run=run, step="hold")
        assert (first.result, first.retry_at, first.error_code) == ({"reference": "R-1"}, None, "")
        assert stored(run).current_step == "pay"

    def test_the_last_step_ends_the_run_and_frees_it(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        for _ in range(3):
            commit(held)

        row = stored(run)
        assert (row.status, row.due_at, row.lease_owner, row.lease_until) == (RunStatus.COMPLETED, None, "", None)
        assert row.ended_at is not None
        assert held.begun == []
        assert [event[0] for event in events_of(run)] == ["started", "completed"]

    def test_a_worker_whose_run_was_taken_over_writes_nothing(self, trip: Saga) -> None:
        run = make_run(trip)
        now = timezone.now()
        (late,) = claim("late", now=now)
        (other,) = claim("other", now=now + LEASE + SECOND)
        before = SagaRun.objects.filter(pk=run.pk).values().get()

        assert commit(late, worker="late") == []

        assert SagaRun.objects.filter(pk=run.pk).values().get() == before
        assert attempts_of(run) == [("hold", "action", 1, "unknown"), ("hold", "action", 2, "")]
        assert commit(other, worker="other") == [other]

    def test_the_late_writer_of_a_batch_does_not_hold_up_the_others(self, trip: Saga) -> None:
        taken, kept = make_run(trip, key="taken"), make_run(trip, key="kept")
        batch = claim()
        SagaRun.objects.filter(pk=taken.pk).update(fence=9)

        still = journal.commit(
            [(held, held.begun[0][1], DONE) for held in batch], worker="w1", now=timezone.now(), lease=LEASE
        )

        assert [held.run.pk for held in still] == [kept.pk]
        assert attempts_of(taken) == [("hold", "action", 1, "")]

    def test_a_stopping_worker_begins_nothing_new_and_gives_the_run_back(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        now = timezone.now()

        (still,) = commit(held, now=now, begin=False)

        assert (still.begun, still.in_flight) == ([], set())
        row = stored(run)
        assert (row.status, row.due_at, row.lease_until, row.claims) == (RunStatus.RUNNING, now, None, 0)
        assert attempts_of(run) == [("hold", "action", 1, "succeeded")]
        assert [h.begun[0][0].step.name for h in claim("w2")] == ["pay"]

    def test_a_failed_attempt_says_why_and_when_the_next_is_due(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        now = timezone.now()
        failure = Ended(
            outcome=Outcome.UNAVAILABLE, code="away", message="Nobody there.", provider="world", provider_id="W-1"
        )

        commit(held, failure, now=now)

        row, record = stored(run), StepRecord.objects.get(run=run)
        assert (row.status, row.due_at, row.lease_until) == (RunStatus.RETRYING, now + SECOND, None)
        assert (record.error_code, record.error_message) == ("away", "Nobody there.")
        assert (record.provider, record.provider_id, record.retry_at) == ("world", "W-1", now + SECOND)

    def test_what_an_outside_system_says_can_always_be_stored(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        strange = "a\x00b\ud800" + "x" * 5000
        failure = Ended(
            outcome=Outcome.UNAVAILABLE,
            code=strange,
            message=strange,
            provider=strange,
            provider_id=strange,
            retry_after=timedelta.max,
        )
        now = timezone.now()

        commit(held, failure, now=now)

        record = StepRecord.objects.get(run=run)
        assert record.error_message == "ab?" + "x" * 1997
        assert [len(text) for text in (record.error_code, record.provider, record.provider_id)] == [100, 100, 200]
        assert record.retry_at == now + timedelta(days=1)

    def test_an_earlier_try_that_failed_midway_is_done_again_from_the_rows(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        ((_, record),) = held.begun

        def fall_over() -> None:
            with transaction.atomic():
                journal.commit([(held, record, DONE)], worker="w1", now=timezone.now(), lease=LEASE)
                raise DatabaseError("gone")

        with pytest.raises(DatabaseError):
            fall_over()
        again = journal.commit([(held, record, DONE)], worker="w1", now=timezone.now(), lease=LEASE, afresh=True)

        assert again == [held]
        assert attempts_of(run) == [("hold", "action", 1, "succeeded"), ("pay", "action", 1, "")]

    def test_an_earlier_try_that_was_written_after_all_is_not_written_twice(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        ((_, record),) = held.begun
        commit(held)

        again = journal.commit([(held, record, DONE)], worker="w1", now=timezone.now(), lease=LEASE, afresh=True)

        assert again == []
        assert attempts_of(run) == [("hold", "action", 1, "succeeded"), ("pay", "action", 1, "")]

    @pytest.mark.parametrize("many", [2, 20])
    def test_many_runs_share_a_fixed_number_of_statements(self, trip: Saga, many: int) -> None:
        for n in range(many):
            make_run(trip, key=f"T-{n}")

        with CaptureQueriesContext(connection) as claiming:
            batch = claim(limit=100)
        with CaptureQueriesContext(connection) as committing:
            still = journal.commit(
                [(held, held.begun[0][1], DONE) for held in batch], worker="w1", now=timezone.now(), lease=LEASE
            )

        assert len(still) == many
        assert statements(claiming) == ["SELECT", "BEGIN", "SELECT", "INSERT", "UPDATE", "COMMIT"]
        assert statements(committing) == ["BEGIN", "SELECT", "UPDATE", "INSERT", "UPDATE", "COMMIT"]


def statements(queries: CaptureQueriesContext) -> list[str]:
    """Their first words; a batch of one statement for many rows counts once."""
    return [query["sql"].removeprefix(f"{n} times: ").split()[0] for query in queries for n in [count_of(query)]]


def count_of(query: dict[str, str]) -> str:
    return query["sql"].split(" times: ")[0] if " times: " in query["sql"] else ""


class TestRenew:
    def test_a_lease_is_lengthened_by_its_owner_alone(self, trip: Saga) -> None:
        run = make_run(trip)
        now = timezone.now()
        claim(now=now)

        journal.renew(worker="w2", run_ids=[run.pk], now=now + SECOND, lease=LEASE)
        assert stored(run).lease_until == now + LEASE
        journal.renew(worker="w1", run_ids=[run.pk], now=now + SECOND, lease=LEASE)
        assert stored(run).lease_until == now + SECOND + LEASE

    def test_a_lease_that_has_passed_is_not_brought_back(self, trip: Saga) -> None:
        run = make_run(trip)
        now = timezone.now()
        claim(now=now)

        journal.renew(worker="w1", run_ids=[run.pk], now=now + LEASE + SECOND, lease=LEASE)

        assert stored(run).lease_until == now + LEASE


class TestCancelMeetsCompletion:
    """Forced to both orders by a pause inside one of the two transactions."""

    @pytest.fixture
    def last_step(self, trip: Saga) -> Iterator[tuple[SagaRun, Held]]:
        run = make_run(trip)
        (held,) = claim()
        commit(held)
        commit(held)
        yield run, held
        points.set_hook(None)

    def test_the_cancel_comes_first(self, last_step: tuple[SagaRun, Held]) -> None:
        from sagas.services import cancel

        run, held = last_step
        hold_on = Paused(lambda: None)
        points.set_hook(lambda point: hold_on() if point == "before_commit" else None)

        def cancel_meanwhile() -> RunStatus:
            hold_on.inside.wait(30)
            status = cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind").status
            hold_on.go_on()
            return RunStatus(status)

        _, told = together(lambda: commit(held), cancel_meanwhile)

        assert told is RunStatus.RUNNING
        row = stored(run)
        assert (row.status, row.failure_code) == (RunStatus.COMPENSATING, "cancelled")
        assert attempts_of(run)[-2:] == [("tell", "action", 1, "succeeded"), ("pay", "compensation", 1, "")]

    def test_the_completion_comes_first(self, last_step: tuple[SagaRun, Held]) -> None:
        from sagas.services import cancel

        run, held = last_step
        commit(held)
        assert stored(run).status == RunStatus.COMPLETED

        told = cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")

        row = stored(run)
        assert told.status == row.status == RunStatus.COMPENSATING
        assert (row.failure_code, row.ended_at) == ("cancelled", None)
        assert [begin.step.name for begin, _ in claim()[0].begun] == ["pay"]


NOW = timezone.now()


class TestWhatTheDatabaseRefuses:
    @pytest.mark.parametrize(
        ("constraint", "changes"),
        [
            # No unknown status is live or ended, so that two constraints refuse it; one of them speaks first.
            ("sagas_run_status_known|sagas_run_ended_has_end", {"status": "dancing"}),
            ("sagas_run_ended_is_at_rest", {"status": "completed", "ended_at": NOW, "due_at": NOW}),
            ("sagas_run_ended_has_end", {"status": "completed"}),
            ("sagas_run_ended_has_end", {"status": "running", "ended_at": NOW, "due_at": None}),
            ("sagas_run_lease_has_owner", {"lease_until": NOW}),
            ("sagas_run_lease_has_owner", {"lease_owner": "w1"}),
            ("sagas_run_attention_has_reason", {"status": "needs_attention"}),
        ],
    )
    def test_a_run_that_cannot_be(self, trip: Saga, constraint: str, changes: dict[str, Any]) -> None:
        run = make_run(trip)

        with pytest.raises(IntegrityError, match=constraint):
            SagaRun.objects.filter(pk=run.pk).update(**changes)

    @pytest.mark.parametrize(
        ("constraint", "changes"),
        [
            ("sagas_record_number_from_one", {"number": 0}),
            ("sagas_record_ended_has_outcome", {"outcome": "succeeded"}),
            ("sagas_record_ended_has_outcome", {"ended_at": NOW + LEASE}),
            ("sagas_record_ended_has_outcome", {"outcome": "fine", "ended_at": NOW + LEASE}),
            ("sagas_record_ends_after_start", {"outcome": "succeeded", "ended_at": NOW - LEASE}),
            ("sagas_record_direction_known", {"direction": "sideways"}),
        ],
    )
    def test_a_record_that_cannot_be(self, trip: Saga, constraint: str, changes: dict[str, Any]) -> None:
        run = make_run(trip)
        claim()

        with pytest.raises(IntegrityError, match=constraint):
            StepRecord.objects.filter(run=run).update(**changes)

    def test_two_live_runs_of_one_business_key(self, trip: Saga) -> None:
        run = make_run(trip)

        with pytest.raises(IntegrityError) as refused, transaction.atomic():
            SagaRun.objects.create(
                saga=run.saga, version=run.version, business_key="T-1", created_at=NOW, updated_at=NOW
            )

        # SQLite names the columns of a unique index, PostgreSQL the index.
        assert "sagas_one_live_run_per_key" in str(refused.value) or "sagas_sagarun.business_key" in str(refused.value)
        assert journal.open_run(saga=trip, business_key="T-1", input={}, actor="engine", now=timezone.now()) is None
        assert SagaRun.objects.count() == 1
        assert RunEvent.objects.count() == 1

    def test_the_same_attempt_twice(self, trip: Saga) -> None:
        run = make_run(trip)
        claim()

        with pytest.raises(IntegrityError):
            StepRecord.objects.create(run=run, step="hold", direction="action", number=1, started_at=NOW)

    def test_an_ended_attempt_is_never_edited(self, trip: Saga) -> None:
        run = make_run(trip)
        (held,) = claim()
        commit(held)
        rows = StepRecord.objects.filter(run=run, step="hold")

        with pytest.raises(IntegrityError, match="sagas_steprecord is history and is only added to"):
            rows.update(error_message="it was somebody else")

        assert rows.get().error_message == ""

    def test_an_event_is_never_edited(self, trip: Saga) -> None:
        run = make_run(trip)

        with pytest.raises(IntegrityError, match="sagas_runevent is history and is only added to"):
            RunEvent.objects.filter(run=run).update(actor="user:mallory")

        assert events_of(run) == [("started", "engine", "")]


def test_an_id_tells_when_its_run_was_made(trip: Saga) -> None:
    first, second = make_run(trip), make_run(trip, key="T-2")

    assert isinstance(first.pk, UUID)
    assert first.pk.version == 7
    assert abs((first.pk.int >> 80) / 1000 - first.created_at.timestamp()) < 5
    assert (first.pk.int >> 80) <= (second.pk.int >> 80)
