"""Runs over HTTP, as staff's programs meet them. With a toy saga: what steps do makes no difference here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orders.models import Scope
from sagas import Kind, RetryPolicy, Saga, Step, StepContext, StepRefused, StepUnavailable
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.registry import forget, register
from sagas.services import cancel, start
from sagas.testing import run_to_end
from tests.factories import make_user
from tests.orders.api_client import Caller, faults, make_caller, problem

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = "/api/v1/saga-runs"

broken: set[str] = set()
"""The acts that fail for now."""


def does(name: str) -> Any:
    """An act that succeeds unless it is broken."""

    def act(ctx: StepContext) -> dict[str, Any]:
        if name in broken:
            raise StepUnavailable(f"{name} is away.", code="away", provider="toy")
        return {"by": name}

    return act


def refuses(ctx: StepContext) -> dict[str, Any]:
    raise StepRefused("No train today.", code="no_train", provider="railway", provider_id="R-7")


ONCE = RetryPolicy(attempts=1)
HOTEL = Step(name="book_hotel", action=does("hotel"), compensation=does("unhotel"), compensation_retry=ONCE)
TRIP = Saga(
    name="api_trip",
    version=1,
    steps=(
        HOTEL,
        Step(name="book_train", kind=Kind.PIVOT, action=refuses, retry=ONCE),
        Step(name="send_ticket", kind=Kind.RETRIABLE, action=does("ticket"), retry=ONCE),
    ),
)
STAY = Saga(
    name="api_stay",
    version=1,
    steps=(HOTEL, Step(name="send_voucher", kind=Kind.RETRIABLE, action=does("voucher"), retry=ONCE)),
)


@pytest.fixture(autouse=True)
def sagas() -> Iterator[None]:
    broken.clear()
    for saga in (TRIP, STAY):
        register(saga)
    yield
    for saga in (TRIP, STAY):
        forget(saga)


@pytest.fixture
def agent() -> Caller:
    return make_caller(make_user(username="agent", role="agent"))


@pytest.fixture
def supervisor() -> Caller:
    return make_caller(make_user(username="supervisor", role="supervisor"))


def make_run(saga: Saga = TRIP, key: str = "T-1") -> SagaRun:
    return start(saga=saga, business_key=key, input={"to": "Rome"}, ring=False)


def stuck_undo() -> SagaRun:
    """A run whose undo failed for good: it needs attention."""
    broken.add("unhotel")
    run = make_run()
    assert run_to_end(run).status == "needs_attention"
    return run


def stuck_step() -> SagaRun:
    """A run whose last step failed for good: it needs attention."""
    broken.add("voucher")
    run = make_run(STAY, "S-1")
    assert run_to_end(run).status == "needs_attention"
    return run


def newest_first(*runs: SagaRun) -> list[SagaRun]:
    """By number, which grows with time to the millisecond; within one, any order is as good, and always the same."""
    return sorted(runs, key=lambda run: run.pk, reverse=True)


def only_gina_retries(user: Any, act: str) -> bool:
    """A site's rule of its own."""
    return act == "see_runs" or (act, user.get_username()) == ("retry", "gina")


def events(run: SagaRun) -> list[tuple[str, str, str, str]]:
    found = RunEvent.objects.filter(run=run).exclude(actor="engine").order_by("id")
    return list(found.values_list("kind", "step", "actor", "reason"))


class TestWhoMay:
    def test_a_customer_may_not(self) -> None:
        run = stuck_undo()
        ada = make_caller(make_user(username="ada"))

        for response in (
            ada.get(RUNS),
            ada.get(f"{RUNS}/{run.pk}"),
            ada.post(f"{RUNS}/{run.pk}/retries", {"step": "book_hotel", "direction": "compensation"}),
        ):
            refused = problem(response, 403, "forbidden")
            assert refused["errors"] == []
            assert refused["detail"] == "This is for the shop's people, and takes an agent. Ask the shop to do it."
        assert events(run) == []

    def test_nobody_without_a_key_may(self) -> None:
        problem(Caller().get(RUNS), 401, "unauthenticated")

    def test_an_agent_retries_and_no_more(self, agent: Caller) -> None:
        run = stuck_undo()
        place = {"step": "book_hotel", "direction": "compensation"}

        for act in ("skips", "resolutions"):
            body = {**place, "reason": "it is fine", "evidence": "mail 7"}
            refused = problem(agent.post(f"{RUNS}/{run.pk}/{act}", body), 403, "forbidden")
            assert refused["detail"] == "This takes a supervisor, and your role is agent. Ask a supervisor to do it."
        assert events(run) == []
        assert agent.post(f"{RUNS}/{run.pk}/retries", place).status_code == 202

    def test_a_key_needs_the_scope(self) -> None:
        run = stuck_undo()
        reader = make_caller(make_user(username="agent", role="agent"), Scope.RUNS_READ)

        assert reader.get(f"{RUNS}/{run.pk}").status_code == 200
        body = problem(reader.post(f"{RUNS}/{run.pk}/retries", {"step": "book_hotel"}), 403, "scope-missing")
        assert "runs:act" in body["detail"]

    def test_the_rule_is_that_of_the_pages(self, supervisor: Caller, settings: Any) -> None:
        run = stuck_undo()
        place = {"step": "book_hotel", "direction": "compensation"}
        settings.SAGA_MAY_ACT, settings.SAGA_MAY_NOT_WORDS = "tests.sagas.test_api.only_gina_retries", ""
        gina = make_caller(make_user(username="gina"))

        assert supervisor.get(f"{RUNS}/{run.pk}").status_code == 200
        refused = problem(supervisor.post(f"{RUNS}/{run.pk}/retries", place), 403, "forbidden")
        assert refused["detail"] == "Your role does not allow this."
        assert events(run) == []
        assert gina.post(f"{RUNS}/{run.pk}/retries", place).status_code == 202

    def test_without_a_rule_superusers_may_and_nobody_else(self, supervisor: Caller, settings: Any) -> None:
        run = stuck_undo()
        settings.SAGA_MAY_ACT = settings.SAGA_MAY_NOT_WORDS = ""
        root = make_caller(make_user(username="root", is_superuser=True))

        refused = problem(supervisor.get(f"{RUNS}/{run.pk}"), 403, "forbidden")
        assert refused["detail"] == "Only superusers may."
        assert root.get(f"{RUNS}/{run.pk}").status_code == 200

    def test_the_group_counts_and_not_the_key_to_the_admin(self) -> None:
        make_run()
        clerk = make_caller(make_user(username="clerk", is_staff=True))
        agent = make_caller(make_user(username="agent", role="agent", is_staff=False))

        assert [caller.get(RUNS).status_code for caller in (clerk, agent)] == [403, 200]


class TestReading:
    def test_a_run_shows_every_attempt_and_what_can_be_done(self, agent: Caller) -> None:
        run = stuck_undo()

        body = agent.get(f"{RUNS}/{run.pk}").json()

        assert (body["id"], body["saga"], body["version"]) == (str(run.pk), "api_trip", 1)
        assert (body["business_key"], body["state"], body["input"]) == ("T-1", "needs_attention", {"to": "Rome"})
        assert body["failure"] == {"step": "book_train", "code": "no_train", "message": "No train today."}
        assert body["can"] == ["abandon"]
        hotel, train, ticket = body["steps"]
        assert (hotel["state"], hotel["result"], hotel["can"]) == ("done", {"by": "hotel"}, [])
        assert (hotel["compensation"]["state"], hotel["compensation"]["can"]) == (
            "failed",
            ["retry", "resolve", "skip"],
        )
        (undo,) = hotel["compensation"]["attempts"]
        assert (undo["number"], undo["outcome"], undo["started_by"]) == (1, "unavailable", "engine")
        assert undo["error"] == {"code": "away", "message": "unhotel is away."}
        assert undo["key"] == f"{run.pk}:book_hotel:compensation"
        (attempt,) = train["attempts"]
        assert (attempt["outcome"], attempt["provider"], attempt["provider_id"]) == ("refused", "railway", "R-7")
        assert (train["compensation"], ticket["state"], ticket["attempts"]) == (None, "not_reached", [])
        assert [event["kind"] for event in body["events"]] == ["started", "turned_back", "needs_attention"]

    def test_a_tag_spares_an_answer_that_did_not_change(self, agent: Caller) -> None:
        run = make_run()
        tag = agent.get(f"{RUNS}/{run.pk}").headers["ETag"]

        assert agent.get(f"{RUNS}/{run.pk}", If_None_Match=tag).status_code == 304
        run_to_end(run)
        assert agent.get(f"{RUNS}/{run.pk}", If_None_Match=tag).status_code == 200

    def test_a_run_that_is_not_there(self, agent: Caller) -> None:
        problem(agent.get(f"{RUNS}/{uuid4()}"), 404, "not-found")
        problem(agent.post(f"{RUNS}/{uuid4()}/retries", {"step": "book_hotel"}), 404, "not-found")

    def test_a_list_is_filtered(self, agent: Caller) -> None:
        stuck, stay, fresh = stuck_undo(), make_run(STAY, "S-2"), make_run(TRIP, "T-2")
        broken.clear()
        run_to_end(stay)

        def keys(**query: str) -> list[str]:
            return [row["id"] for row in agent.get(RUNS, query).json()["results"]]

        assert keys() == [str(run.pk) for run in newest_first(fresh, stay, stuck)]
        assert keys(state="needs_attention") == [str(stuck.pk)]
        assert keys(saga="api_stay") == [str(stay.pk)]
        assert keys(business_key="T-2") == [str(fresh.pk)]
        assert keys(error_code="no_train") == [str(stuck.pk)]
        assert keys(step="book_hotel") == [str(stuck.pk)]
        assert keys(created_to=stay.created_at.isoformat()) == [str(stuck.pk)]
        assert faults(agent.get(RUNS, {"status": "x"})) == [("?status", "unknown_field")]

    def test_pages_go_on_where_the_last_one_ended(self, agent: Caller) -> None:
        runs = [make_run(key=f"T-{number}") for number in range(5)]

        seen, url = [], f"{RUNS}?limit=2"
        while url:
            page = agent.get(url).json()
            seen.append([row["business_key"] for row in page["results"]])
            url = page["next"]

        assert [key for page in seen for key in page] == [run.business_key for run in newest_first(*runs)]
        assert [len(page) for page in seen] == [2, 2, 1]
        problem(agent.get(RUNS, {"cursor": "WyJub3QtYS11dWlkIiwwXQ"}), 400, "malformed-cursor")

    def test_the_number_of_queries_does_not_grow_with_the_rows(self, agent: Caller) -> None:
        for number in range(6):
            run_to_end(make_run(key=f"T-{number}"))
        agent.get(RUNS)  # notes the key's use
        counts = []
        for limit in (1, 6):
            with CaptureQueriesContext(connection) as queries:
                agent.get(RUNS, {"limit": str(limit)})
            counts.append(len(queries))

        assert counts[0] == counts[1] <= 5


class TestHelping:
    def test_an_undo_is_tried_again_and_the_run_comes_to_its_end(self, agent: Caller) -> None:
        run = stuck_undo()

        response = agent.post(f"{RUNS}/{run.pk}/retries", {"step": "book_hotel", "direction": "compensation"})

        assert (response.status_code, response.headers["Location"]) == (202, f"{RUNS}/{run.pk}")
        assert response.json()["state"] == "compensating"
        broken.clear()
        assert run_to_end(run).status == "compensated"
        assert events(run) == [("retry_requested", "book_hotel", "key:agent's key", "")]
        tries = StepRecord.objects.filter(run=run, step="book_hotel", direction="compensation").order_by("number")
        assert list(tries.values_list("number", "outcome")) == [(1, "unavailable"), (2, "succeeded")]

    def test_a_step_is_left_out_with_a_reason(self, supervisor: Caller) -> None:
        run = stuck_step()

        response = supervisor.post(
            f"{RUNS}/{run.pk}/skips", {"step": "send_voucher", "reason": "handed over at the desk"}
        )

        assert response.status_code == 202
        assert run_to_end(run).status == "completed"
        assert events(run) == [("skipped", "send_voucher", "key:supervisor's key", "handed over at the desk")]

    def test_a_step_done_outside_is_resolved_with_its_evidence(self, supervisor: Caller) -> None:
        run = stuck_step()
        body = {
            "step": "send_voucher",
            "reason": "printed",
            "evidence": "receipt 77",
            "result": {"by": "hand", "price": 12.5},
        }

        response = supervisor.post(f"{RUNS}/{run.pk}/resolutions", body)

        assert response.status_code == 202
        report = run_to_end(run)
        assert (report.status, report.results["send_voucher"]) == ("completed", {"by": "hand", "price": 12.5})
        event = RunEvent.objects.get(run=run, kind="resolved")
        assert (event.actor, event.data) == ("key:supervisor's key", {"evidence": "receipt 77"})

    def test_asked_twice_is_done_once(self, agent: Caller) -> None:
        run = stuck_undo()
        place = {"step": "book_hotel", "direction": "compensation"}

        answers = [agent.post(f"{RUNS}/{run.pk}/retries", place) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [202, 202]
        assert len(events(run)) == 1

    def test_what_makes_no_sense_is_refused_with_what_does(self, supervisor: Caller) -> None:
        run = stuck_undo()

        response = supervisor.post(f"{RUNS}/{run.pk}/retries", {"step": "send_ticket"})

        body = problem(response, 409, "state-conflict")
        assert body["state"] == "needs_attention"
        assert body["possible"] == [
            "abandon",
            "retry the undo of book_hotel",
            "resolve the undo of book_hotel",
            "skip the undo of book_hotel",
        ]
        assert events(run) == []

    def test_an_ended_run_is_left_alone(self, supervisor: Caller) -> None:
        run = make_run(STAY)
        run_to_end(run)

        body = {"step": "send_voucher", "reason": "why not"}
        answer = problem(supervisor.post(f"{RUNS}/{run.pk}/skips", body), 409, "state-conflict")

        assert (answer["state"], answer["possible"]) == ("completed", ["cancel"])

    def test_a_run_cancelled_elsewhere_shows_it(self, agent: Caller) -> None:
        run = make_run()
        cancel(run_id=run.pk, actor="user:agent", reason="by mistake")

        body = agent.get(f"{RUNS}/{run.pk}").json()

        assert body["cancel_reason"] == "by mistake"
        assert [(event["kind"], event["actor"]) for event in body["events"]] == [
            ("started", "engine"),
            ("cancel_requested", "user:agent"),
        ]

    @pytest.mark.parametrize(
        ("act", "body", "expected"),
        [
            ("retries", {}, [("/step", "required")]),
            ("retries", {"step": 7}, [("/step", "invalid")]),
            ("retries", {"step": "book_hotel", "direction": "sideways"}, [("/direction", "invalid_choice")]),
            ("retries", {"step": "book_hotel", "reason": "x" * 501}, [("/reason", "max_length")]),
            ("skips", {"step": "book_hotel"}, [("/reason", "required")]),
            ("skips", {"step": "book_hotel", "reason": " "}, [("/reason", "blank")]),
            ("resolutions", {"step": "book_hotel", "reason": "r"}, [("/evidence", "required")]),
            (
                "resolutions",
                {"step": "book_hotel", "reason": "r", "evidence": "e", "result": [1]},
                [("/result", "invalid")],
            ),
            (
                "resolutions",
                {"step": "book_hotel", "reason": "r", "evidence": "e", "result": {"a": ["\x00"]}},
                [("/result", "text")],
            ),
            ("resolutions", {"step": "s", "reason": "r", "evidence": "e", "who": "me"}, [("/who", "unknown_field")]),
        ],
    )
    def test_a_fault_is_named_and_nothing_done(
        self, supervisor: Caller, act: str, body: dict[str, Any], expected: list[tuple[str, str]]
    ) -> None:
        run = stuck_undo()

        assert faults(supervisor.post(f"{RUNS}/{run.pk}/{act}", body)) == expected
        assert events(run) == []
        run.refresh_from_db()
        assert run.status == "needs_attention"

    def test_a_step_that_does_not_exist_is_refused(self, supervisor: Caller) -> None:
        run = stuck_undo()

        body = problem(supervisor.post(f"{RUNS}/{run.pk}/retries", {"step": "fly"}), 409, "state-conflict")

        assert "there is no step fly" in body["detail"]
