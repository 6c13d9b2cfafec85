"""The inbox: which runs are one problem, since when, what hangs on them, who looks after them and what may rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from sagas import ActRefused, Saga, services
from sagas.attention import LATE_AFTER, OVERDUE_AFTER, Cause, Item, inbox, lateness, version, waiting_items
from sagas.models import Assignment, SagaRun
from sagas.testing import FrozenClock, run_to_end
from tests.sagas.toys import World, away, events_of, make_run, refuse, vanish

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
REFUSED_UNDO = Cause(saga="trip", step="hold", direction="compensation", error="said_no", provider="world")


def stuck_undo(world: World, trip: Saga, key: str, clock: FrozenClock | None = None) -> SagaRun:
    """Paying is refused, and the hold cannot be let go."""
    world.plan("pay", refuse)
    world.plan("undo hold", refuse)
    report = run_to_end(make_run(trip, key=key), clock=clock)
    assert report.status == "needs_attention"
    return report.run


def stuck_ahead(world: World, trip: Saga, key: str) -> SagaRun:
    """Telling keeps failing, after the pivot."""
    world.plan("tell", away, away, away)
    report = run_to_end(make_run(trip, key=key))
    assert report.status == "needs_attention"
    return report.run


def keys(items: Sequence[Item]) -> list[str]:
    return [item.run.business_key for item in items]


class TestGroups:
    def test_runs_of_one_cause_are_one_group(self, world: World, trip: Saga) -> None:
        later = timezone.now() + 3 * HOUR
        stuck_undo(world, trip, "T-2")
        stuck_ahead(world, trip, "T-3")
        stuck_undo(world, trip, "T-1", FrozenClock(later))
        run_to_end(make_run(trip, key="T-4"))

        found = inbox(later + HOUR)

        assert [(group.cause, group.title, keys(group.items)) for group in found.groups] == [
            (REFUSED_UNDO, "Undo hold", ["T-2", "T-1"]),
            (Cause("trip", "tell", "action", "away", "world"), "Tell", ["T-3"]),
        ]
        assert (found.count, found.snoozed, found.oldest) == (3, 0, found.groups[0].since)
        assert found.groups[0].arrivals == [0] * 10 + [1, 1]
        assert "refuses to undo it" in found.groups[0].advice
        assert found.groups[1].advice == "World could not be reached. See whether it is back, then retry."

    def test_an_unknown_outcome_is_asked_after(self, world: World, trip: Saga) -> None:
        world.plan("tell", vanish, vanish, vanish)
        run_to_end(make_run(trip))

        (group,) = inbox(timezone.now()).groups

        assert group.cause.error == "line_broke"
        assert group.advice.startswith("Ask world by the attempt's key whether it happened.")

    def test_nothing_waits(self, trip: Saga) -> None:
        run_to_end(make_run(trip))

        found = inbox(timezone.now())

        assert (found.groups, found.count, found.oldest, found.amounts) == ([], 0, None, {})

    def test_its_age_is_that_of_the_wait_and_not_of_the_last_word_said(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        began = run.updated_at

        services.signal(run_id=run.pk, name="called", payload={})

        (item,) = waiting_items(timezone.now())
        run.refresh_from_db()
        assert item.since == began < run.updated_at

    def test_queries_do_not_grow(
        self, world: World, trip: Saga, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        for number in range(5):
            stuck_undo(world, trip, f"T-{number}")

        with django_assert_num_queries(2):
            assert inbox(timezone.now()).count == 5

    def test_the_money_that_hangs_on_it(self, world: World, trip: Saga, settings: Settings) -> None:
        settings.SAGA_AMOUNTS_AT_RISK = {"trip": "tests.sagas.test_attention.twenty_each", "other": "no.such.function"}
        for number in range(2):
            stuck_undo(world, trip, f"T-{number}")
        stuck_ahead(world, trip, "FREE")

        found = inbox(timezone.now())

        assert [group.amounts for group in found.groups] == [{"EUR": Decimal(40), "USD": Decimal(2)}, {}]
        assert found.amounts == {"EUR": Decimal(40), "USD": Decimal(2)}

    @pytest.mark.parametrize(
        ("age", "word"),
        [
            (LATE_AFTER - timedelta(seconds=1), ""),
            (LATE_AFTER, "late"),
            (OVERDUE_AFTER - timedelta(seconds=1), "late"),
            (OVERDUE_AFTER, "overdue"),
        ],
    )
    def test_lateness(self, age: timedelta, word: str) -> None:
        now = timezone.now()

        assert lateness(now - age, now) == word


def twenty_each(found: Sequence[str]) -> dict[str, dict[str, Decimal]]:
    return {key: {"EUR": Decimal(20), "USD": Decimal(1)} for key in found if key != "FREE"}


class TestLookingAfter:
    def test_taken_on_and_given_back(self, world: World, trip: Saga) -> None:
        run, other = stuck_undo(world, trip, "T-1"), stuck_undo(world, trip, "T-2")
        before = SagaRun.objects.filter(pk=run.pk).values().get()

        for _ in range(2):
            services.assign(run_id=run.pk, owner="user:gina", actor="user:gina")

        assert keys(inbox(timezone.now(), owner="user:gina").groups[0].items) == ["T-1"]
        assert SagaRun.objects.filter(pk=run.pk).values().get() == before  # a worker's fence must not miss
        services.assign(run_id=run.pk, owner="", actor="user:sam")
        assert inbox(timezone.now(), owner="user:gina").groups == []
        assert events_of(run)[-2:] == [("assigned", "user:gina", ""), ("released", "user:sam", "")]
        assert "assigned" not in [kind for kind, *_ in events_of(other)]

    def test_put_off_and_had_back(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        stuck_undo(world, trip, "T-2")
        now = timezone.now()

        services.snooze(run_id=run.pk, until=now + HOUR, actor="user:gina")

        found = inbox(now)
        assert (keys(found.groups[0].items), found.groups[0].snoozed, found.snoozed) == (["T-2"], 1, 1)
        assert keys(inbox(now, resting=True).groups[0].items) == ["T-1", "T-2"]
        assert keys(inbox(now + HOUR).groups[0].items) == ["T-1", "T-2"]
        services.snooze(run_id=run.pk, until=None, actor="user:gina")
        assert inbox(now).count == 2
        assert [kind for kind, *_ in events_of(run)][-2:] == ["snoozed", "woken"]

    def test_what_comes_back_is_not_put_off_any_more(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        services.snooze(run_id=run.pk, until=timezone.now() + 24 * HOUR, actor="user:gina")
        world.plan("undo hold", refuse)
        services.retry(run_id=run.pk, step="hold", direction="compensation", actor="user:gina")

        assert run_to_end(run).status == "needs_attention"

        assert inbox(timezone.now()).count == 1

    @pytest.mark.parametrize("ahead", [-HOUR, timedelta(0), timedelta(days=30, minutes=1)])
    def test_a_rest_has_its_bounds(self, world: World, trip: Saga, ahead: timedelta) -> None:
        run = stuck_undo(world, trip, "T-1")

        with pytest.raises(ActRefused, match="is not within the next 30 days"):
            services.snooze(run_id=run.pk, until=timezone.now() + ahead, actor="user:gina")

        assert not Assignment.objects.exists()
        assert events_of(run)[-1][0] == "needs_attention"

    def test_only_what_waits_is_looked_after(self, trip: Saga) -> None:
        run = run_to_end(make_run(trip)).run

        with pytest.raises(ActRefused, match="only a run that waits for a person"):
            services.assign(run_id=run.pk, owner="user:gina", actor="user:gina")
        with pytest.raises(ActRefused, match="only a run that waits for a person"):
            services.snooze(run_id=run.pk, until=timezone.now() + HOUR, actor="user:gina")

        assert not Assignment.objects.exists()


class TestVersion:
    def test_it_changes_with_what_is_shown_and_with_nothing_else(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        now = run.updated_at
        seen = [version(now)]

        def changes() -> bool:
            seen.append(version(now))
            return seen[-1] != seen[-2]

        run_to_end(make_run(trip, key="T-2"))
        assert not changes()
        services.assign(run_id=run.pk, owner="user:gina", actor="user:gina")
        assert changes()
        services.snooze(run_id=run.pk, until=timezone.now() + HOUR, actor="user:gina")
        assert changes()
        now += LATE_AFTER - timedelta(seconds=1)
        assert not changes()
        now += timedelta(seconds=1)
        assert changes()  # it is late
        now += HOUR
        assert changes()  # its rest is over
        services.retry(run_id=run.pk, step="hold", direction="compensation", actor="user:gina")
        assert changes()
        assert version(now) == ("", False)

    def test_ones_own_inbox_does_not_change_with_others(self, world: World, trip: Saga) -> None:
        run = stuck_undo(world, trip, "T-1")
        services.assign(run_id=run.pk, owner="user:gina", actor="user:gina")
        mine = version(run.updated_at, owner="user:gina")

        stuck_undo(world, trip, "T-2")

        assert version(run.updated_at, owner="user:gina") == mine

    def test_one_query(self, world: World, trip: Saga, django_assert_num_queries: DjangoAssertNumQueries) -> None:
        for number in range(3):
            stuck_undo(world, trip, f"T-{number}")

        with django_assert_num_queries(1):
            assert len(version(timezone.now())) == 2 + 3
