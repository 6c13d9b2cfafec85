"""The overview and the health page over HTTP: the same numbers, for staff's programs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.models import Scope
from sagas import Saga
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_user
from tests.orders.api_client import Caller, faults, make_caller, problem
from tests.sagas.toys import World, away, make_run, refuse

pytestmark = pytest.mark.django_db(transaction=True)

STATISTICS, HEALTH = "/api/v1/saga-statistics", "/api/v1/health"


@pytest.fixture
def agent() -> Caller:
    return make_caller(make_user(username="agent", role="agent"))


@pytest.mark.parametrize("address", [STATISTICS, HEALTH])
def test_it_is_for_staff_with_a_key_for_runs(address: str) -> None:
    ada = make_caller(make_user(username="ada"))
    orders_only = make_caller(make_user(username="gina", role="agent"), Scope.ORDERS_READ)
    viewer = make_caller(make_user(username="vera", role="viewer"), Scope.RUNS_READ)

    problem(Caller().get(address), 401, "unauthenticated")
    problem(ada.get(address), 403, "forbidden")
    problem(orders_only.get(address), 403, "scope-missing")
    assert viewer.get(address).status_code == 200


class TestStatistics:
    def test_it_tells_what_the_page_does(self, world: World, trip: Saga, agent: Caller) -> None:
        assert run_to_end(make_run(trip, key="T-1")).status == "completed"
        world.plan("pay", refuse)
        assert run_to_end(make_run(trip, key="T-2")).status == "compensated"
        make_run(trip, key="T-3")

        told = agent.get(STATISTICS, {"since": "hour"}).json()

        ends = {"completed": 1, "compensated": 1, "under_way": 1, "needs_attention": 0, "abandoned": 0}
        assert told["outcomes"] == ends
        assert len(told["over_time"]) == 60
        assert told["over_time"][0]["begins_at"] == told["begins_at"]
        assert {end: sum(part["runs"][end] for part in told["over_time"]) for end in ends} == ends
        assert [(one["step"], one["direction"], one["attempts"], one["succeeded"]) for one in told["steps"]] == [
            ("hold", "action", 2, 2),
            ("hold", "compensation", 1, 1),
            ("pay", "action", 2, 1),
            ("tell", "action", 1, 1),
        ]
        assert all(one["p95_seconds"] >= one["p50_seconds"] >= 0 for one in told["steps"])
        assert told["steps_are_of_the_newest"] is None
        assert told["causes"] == [{"saga": "trip", "title": "Pay", "error_code": "said_no", "runs": 1}]
        (waits,) = told["waiting"]
        assert (waits["state"], waits["what"], waits["runs"]) == ("pending", "a worker to begin", 1)

    def test_without_a_period_it_is_the_last_day(self, trip: Saga, agent: Caller) -> None:
        make_run(trip)
        SagaRun.objects.update(created_at=timezone.now() - timedelta(hours=2))

        hour, day = (agent.get(STATISTICS, query).json() for query in ({"since": "hour"}, {}))

        assert (hour["outcomes"]["under_way"], day["outcomes"]["under_way"], len(day["over_time"])) == (0, 1, 24)

    def test_there_are_four_periods(self, agent: Caller) -> None:
        assert faults(agent.get(STATISTICS, {"since": "year"})) == [("?since", "invalid_choice")]
        assert faults(agent.get(STATISTICS, {"period": "day"})) == [("?period", "unknown_field")]

    def test_unchanged_it_is_a_304(self, trip: Saga, agent: Caller) -> None:
        make_run(trip)
        first = agent.get(STATISTICS, {"since": "month"})

        again = agent.get(STATISTICS, {"since": "month"}, If_None_Match=first.headers["ETag"])
        make_run(trip, key="T-2")
        changed = agent.get(STATISTICS, {"since": "month"}, If_None_Match=first.headers["ETag"])

        assert (again.status_code, again.content) == (304, b"")
        assert (changed.status_code, changed.json()["outcomes"]["under_way"]) == (200, 2)

    def test_the_queries_do_not_grow(self, world: World, trip: Saga, agent: Caller) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as asked:
                agent.get(STATISTICS)
            return len(asked)

        run_to_end(make_run(trip, key="T-0"))
        agent.get(STATISTICS)  # notes the key's use
        few = queries()
        for number in range(1, 6):
            world.plan("pay", away)
            run_to_end(make_run(trip, key=f"T-{number}"))

        assert queries() == few <= 6


def test_health_tells_what_the_page_does(agent: Caller) -> None:
    told = agent.get(HEALTH).json()

    assert told["lines"][0] | {"text": ""} == {
        "name": "web", "state": "ok", "text": "", "since": None, "hit": 0, "hit_keys": [],
    }  # fmt: skip
    ill = {one["name"]: one["state"] for one in told["lines"] if one["state"] != "ok"}
    assert (told["state"], ill) == ("failing", {"workers": "failing", "sweep": "warning"})
    assert {"work", "queue", "sweep", "attention", "providers", "version"} < {one["name"] for one in told["lines"]}
