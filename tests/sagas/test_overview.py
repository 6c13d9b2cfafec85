"""The numbers of the overview page: counted over a stretch of time, each run once."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from sagas import Saga, charts, overview
from sagas.models import SagaRun, StepRecord, earliest_run_id
from sagas.overview import PERIODS, percentile
from sagas.states import ENDED, Direction, Outcome, RunStatus
from sagas.testing import FrozenClock, drive_once, run_to_end
from tests.sagas.toys import World, away, make_run

NOW = datetime(2026, 3, 10, 14, 30, 20, tzinfo=UTC)
numbers = st.lists(st.floats(0, 1e6), min_size=1)


def begun(at: datetime, status: RunStatus = RunStatus.COMPLETED, **fields: Any) -> SagaRun:
    """A run that began at `at` and stands so."""
    return SagaRun.objects.create(
        id=uuid.UUID(int=earliest_run_id(at).int + uuid.uuid4().int % 2**60),
        saga="trip",
        version=1,
        business_key=str(uuid.uuid4()),
        status=status.value,
        created_at=at,
        updated_at=at,
        ended_at=at if status in ENDED else None,
        attention_reason="Look." if status is RunStatus.NEEDS_ATTENTION else "",
        **fields,
    )


def tried(run: SagaRun, step: str, direction: Direction, outcome: Outcome | None, *, seconds: float = 0) -> None:
    """One more attempt, ended after that many seconds; without an outcome it is still going on."""
    StepRecord.objects.create(
        run=run,
        step=step,
        direction=direction.value,
        number=1 + StepRecord.objects.filter(run=run, step=step, direction=direction.value).count(),
        outcome=outcome.value if outcome else "",
        key="a key",
        started_at=run.created_at,
        ended_at=run.created_at + timedelta(seconds=seconds) if outcome else None,
    )


def counted(period: str) -> list[tuple[datetime, dict[str, int]]]:
    """The parts in which anything began, with what is not zero."""
    parts = overview.outcomes(PERIODS[period], NOW)
    return [(part.at, {end: n for end, n in part.counts.items() if n}) for part in parts if part.total]


@pytest.mark.django_db
class TestOutcomes:
    def test_each_run_is_counted_in_the_part_in_which_it_began(self) -> None:
        hour = NOW.replace(minute=0, second=0)
        begun(NOW)
        begun(hour)
        begun(hour - timedelta(microseconds=1000), RunStatus.COMPENSATED)
        begun(hour - timedelta(hours=23))
        begun(hour - timedelta(hours=23, microseconds=1000), RunStatus.COMPENSATED)  # a moment too old

        assert counted("day") == [
            (hour - timedelta(hours=23), {"completed": 1}),
            (hour - timedelta(hours=1), {"compensated": 1}),
            (hour, {"completed": 2}),
        ]

    def test_what_is_neither_ended_nor_in_need_of_a_person_is_under_way(self) -> None:
        for status in RunStatus:
            begun(NOW, status)

        assert counted("week") == [
            (
                datetime(2026, 3, 10, tzinfo=UTC),
                {"completed": 1, "compensated": 1, "under_way": 4, "needs_attention": 1, "abandoned": 1},
            )
        ]

    @pytest.mark.parametrize(
        ("name", "parts", "first"),
        [
            ("hour", 60, datetime(2026, 3, 10, 13, 31, tzinfo=UTC)),
            ("day", 24, datetime(2026, 3, 9, 15, tzinfo=UTC)),
            ("week", 7, datetime(2026, 3, 4, tzinfo=UTC)),
            ("month", 30, datetime(2026, 2, 9, tzinfo=UTC)),
        ],
    )
    def test_a_period_ends_with_the_part_that_now_lies_in(self, name: str, parts: int, first: datetime) -> None:
        starts = PERIODS[name].starts(NOW)

        assert (len(starts), starts[0]) == (parts, first)
        assert starts[-1] <= NOW < starts[-1] + PERIODS[name].part


@pytest.mark.django_db
class TestCauses:
    def test_the_most_frequent_comes_first_and_runs_that_went_forward_are_not_there(self, trip: Saga) -> None:
        for step, code, runs in (("pay", "declined", 1), ("hold", "sold_out", 2), ("", "cancelled", 1)):
            for _ in range(runs):
                begun(NOW, RunStatus.COMPENSATED, turned_back_at=NOW, failure_step=step, failure_code=code)
        begun(NOW)
        begun(NOW - timedelta(days=2), RunStatus.COMPENSATED, turned_back_at=NOW, failure_code="long ago")

        found = overview.causes(PERIODS["day"], NOW)

        assert [(cause.title, cause.code, cause.runs) for cause in found] == [
            ("Hold", "sold_out", 2),
            ("", "cancelled", 1),
            ("Pay", "declined", 1),
        ]


@pytest.mark.django_db
class TestWork:
    def test_steps_and_undos_are_told_apart_and_only_successes_are_timed(self, trip: Saga) -> None:
        run = begun(NOW, RunStatus.RETRYING)
        tried(run, "hold", Direction.ACTION, Outcome.UNAVAILABLE, seconds=60)
        tried(run, "hold", Direction.ACTION, Outcome.SUCCEEDED, seconds=3)
        tried(run, "pay", Direction.ACTION, Outcome.REFUSED, seconds=7)
        tried(run, "hold", Direction.COMPENSATION, Outcome.RESOLVED, seconds=0)
        tried(run, "tell", Direction.ACTION, None)

        found, is_sample = overview.work(PERIODS["day"], NOW)

        assert not is_sample
        assert [(one.title, one.direction, one.tries, one.succeeded, one.p50, one.p95) for one in found] == [
            ("Hold", "action", 2, 1, 3.0, 3.0),
            ("Undo hold", "compensation", 1, 1, None, None),
            ("Pay", "action", 1, 0, None, None),
        ]

    def test_a_long_history_is_looked_at_from_its_new_end(self, trip: Saga, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(overview, "SAMPLE", 2)
        run = run_to_end(make_run(trip)).run

        found, is_sample = overview.work(PERIODS["day"], run.created_at)

        assert is_sample
        assert [(one.title, one.tries) for one in found] == [("Pay", 1), ("Tell", 1)]
        assert overview.work(PERIODS["hour"], run.created_at + timedelta(hours=3)) == ([], False)


@pytest.mark.django_db
class TestWaiting:
    def test_who_needs_a_person_comes_first_then_the_oldest(self, world: World, trip: Saga) -> None:
        world.plan("pay", away)
        run = make_run(trip, key="T-retries")
        drive_once(run, clock=FrozenClock(run.created_at))
        make_run(trip, key="T-new")
        begun(NOW, RunStatus.NEEDS_ATTENTION, current_step="hold")
        begun(NOW)

        assert [(one.status_word, one.what, one.runs) for one in overview.waiting()] == [
            ("Needs attention", "a person: Hold", 1),
            ("Retrying", "the next try: Pay", 1),
            ("Pending", "a worker to begin", 1),
        ]


@pytest.mark.django_db
def test_the_queries_are_as_many_for_a_hundred_runs_as_for_one(trip: Saga) -> None:
    def asked() -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            period = PERIODS["day"]
            for look in (overview.outcomes, overview.causes, overview.work):
                look(period, NOW)
            overview.waiting()
        return len(queries)

    begun(NOW)
    alone = asked()
    for _ in range(100):
        begun(NOW, RunStatus.RETRYING)

    assert (alone, asked()) == (4, 4)


class TestCharts:
    def test_columns_stand_on_the_ground_side_by_side(self) -> None:
        rects, top = charts.columns([{"good": 1, "bad": 1}, {"good": 0, "bad": 5}], {"good": "g", "bad": "b"})

        assert top == 5
        assert [(rect.x, rect.y, rect.width, rect.height, rect.look) for rect in rects] == [
            (5.0, 80.0, 40.0, 20.0, "g"),
            (5.0, 60.0, 40.0, 20.0, "b"),
            (55.0, 0.0, 40.0, 100.0, "b"),
        ]

    def test_nothing_is_drawn_of_nothing(self) -> None:
        assert charts.columns([], {}) == ([], 1)
        assert charts.columns([{"good": 0}], {"good": "g"}) == ([], 1)

    @pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (2, 2), (3, 5), (10, 10), (11, 20), (4999, 5000)])
    def test_an_axis_ends_with_a_number_that_people_can_read(self, most: int, top: int) -> None:
        assert charts.nice_top(most) == top

    def test_bars_share_one_scale(self) -> None:
        assert charts.beside(["a", "b"], [1.0, None], [2.0, 4.0]) == [("a", [25.0, 50.0]), ("b", [0.0, 100.0])]
        assert charts.beside(["a"], [None]) == [("a", [0.0])]


class TestPercentile:
    @pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.95, 4.0), (0.25, 1.0), (1.0, 4.0)])
    def test_the_nearest_rank(self, share: float, expected: float) -> None:
        assert percentile([4.0, 1.0, 3.0, 2.0], share) == expected

    @given(numbers, st.floats(0.01, 1))
    def test_at_least_that_share_does_not_exceed_it(self, values: list[float], share: float) -> None:
        found = percentile(values, share)

        assert found in values
        assert sum(value <= found for value in values) >= share * len(values) - 1e-9

    def test_of_nothing_there_is_none(self) -> None:
        assert percentile([], 0.5) is None
