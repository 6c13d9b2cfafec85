"""The next move of a run, case by case. No database, no clock. All cases at once: test_decide_properties.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sagas import Kind, RetryPolicy, Saga
from sagas.decide import (
    Attempt,
    Decision,
    Failure,
    History,
    decide,
    retry_at,
)
from sagas.states import Direction, Outcome, RunStatus
from tests.sagas.toys import PATIENT, World, make_saga, make_step, make_trip

pytestmark = pytest.mark.pure

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ACTION, UNDO = Direction.ACTION, Direction.COMPENSATION
WORLD = World()
TRIP = make_trip(WORLD)


def attempt(step: str, outcome: Outcome | None, number: int = 1, direction: Direction = ACTION, **more: Any) -> Attempt:
    return Attempt(step=step, direction=direction, number=number, outcome=outcome, started_at=NOW, **more)


def begun(decision: Decision) -> list[tuple[str, Direction, int]]:
    return [(begin.step.name, begin.direction, begin.number) for begin in decision.begin]


def after(*attempts: Attempt, saga: Saga = TRIP, now: datetime = NOW, **more: Any) -> Decision:
    return decide(saga, History(attempts=attempts, **more), now)


HELD = attempt("hold", Outcome.SUCCEEDED)
PAID = attempt("pay", Outcome.SUCCEEDED)
TOLD = attempt("tell", Outcome.SUCCEEDED)


class TestForward:
    def test_it_begins_with_the_first_step(self) -> None:
        decision = after()

        assert begun(decision) == [("hold", ACTION, 1)]
        assert (decision.status, decision.current_step, decision.failure) == (RunStatus.RUNNING, "hold", None)

    def test_one_step_follows_the_other_and_the_last_ends_it(self) -> None:
        assert begun(after(HELD)) == [("pay", ACTION, 1)]
        assert begun(after(HELD, PAID)) == [("tell", ACTION, 1)]
        assert after(HELD, PAID, TOLD) == Decision(status=RunStatus.COMPLETED)

    def test_what_is_under_way_is_left_alone(self) -> None:
        decision = after(attempt("hold", None), in_flight=frozenset({("hold", ACTION)}))

        assert (decision.begin, decision.status, decision.due_at) == ((), RunStatus.RUNNING, None)

    def test_what_another_worker_began_and_never_ended_is_unknown_and_looked_up(self) -> None:
        (begin,) = after(attempt("hold", None)).begin

        assert (begin.number, begin.maybe_done, begin.look_up_only) == (2, True, False)

    def test_independent_steps_begin_side_by_side_and_meet_again(self) -> None:
        saga = make_saga(
            [
                make_step(WORLD, "a"),
                make_step(WORLD, "b", after=("a",)),
                make_step(WORLD, "c", after=("a",)),
                make_step(WORLD, "d", after=("b", "c")),
            ]
        )
        a, b, c = (attempt(name, Outcome.SUCCEEDED) for name in "abc")

        assert begun(after(a, saga=saga)) == [("b", ACTION, 1), ("c", ACTION, 1)]
        assert begun(after(a, b, attempt("c", None), saga=saga, in_flight=frozenset({("c", ACTION)}))) == []
        assert begun(after(a, b, c, saga=saga)) == [("d", ACTION, 1)]


class TestRetrying:
    def test_it_waits_for_its_time_and_then_tries_again(self) -> None:
        failed = attempt("hold", Outcome.UNAVAILABLE, retry_at=NOW + 2 * SECOND)

        waiting, ready = after(failed), after(failed, now=NOW + 2 * SECOND)

        assert (waiting.status, waiting.begin, waiting.due_at) == (RunStatus.RETRYING, (), NOW + 2 * SECOND)
        assert begun(ready) == [("hold", ACTION, 2)]
        assert ready.begin[0].maybe_done is False

    def test_an_unknown_one_stays_unknown_through_later_failures(self) -> None:
        (begin,) = after(attempt("hold", Outcome.UNKNOWN), attempt("hold", Outcome.UNAVAILABLE, 2)).begin

        assert begin.maybe_done is True

    def test_a_look_up_settles_what_came_before_it(self) -> None:
        settled = attempt("hold", Outcome.UNAVAILABLE, 2, settled=True)

        (begin,) = after(attempt("hold", Outcome.UNKNOWN), settled).begin

        assert begin.maybe_done is False

    def test_the_last_failure_before_the_pivot_turns_back(self) -> None:
        tries = [attempt("pay", Outcome.UNAVAILABLE, n, error_code="away", error_message="Away.") for n in (1, 2, 3)]

        decision = after(HELD, *tries)

        assert decision.failure == Failure(step="pay", code="away", message="Away.")
        assert (decision.status, begun(decision)) == (RunStatus.COMPENSATING, [("hold", UNDO, 1)])

    def test_tries_used_up_with_an_open_question_ask_before_they_give_up(self) -> None:
        tries = [attempt("pay", Outcome.UNKNOWN, n) for n in (1, 2, 3)]

        (begin,) = after(HELD, *tries).begin

        assert (begin.step.name, begin.number, begin.maybe_done, begin.look_up_only) == ("pay", 4, True, True)

    def test_a_question_that_nobody_can_answer_is_a_persons(self) -> None:
        tries = [attempt("pay", Outcome.UNKNOWN, n, error_message="No answer.") for n in range(1, 7)]

        decision = after(HELD, *tries)

        assert (decision.status, decision.begin, decision.due_at) == (RunStatus.NEEDS_ATTENTION, (), None)
        assert decision.attention == "Pay: the outcome is unknown after 6 tries (No answer.)"
        assert decision.current_step == "pay"

    def test_without_a_look_up_the_person_is_asked_at_once(self) -> None:
        saga = make_saga([make_step(WORLD, "hold", retry=RetryPolicy(attempts=1))])

        decision = after(attempt("hold", Outcome.UNKNOWN, error_message="No answer."), saga=saga)

        assert decision.status is RunStatus.NEEDS_ATTENTION

    def test_a_look_up_that_found_nothing_at_the_end_turns_back(self) -> None:
        tries = [attempt("pay", Outcome.UNKNOWN, n) for n in (1, 2, 3)]
        absent = attempt("pay", Outcome.UNAVAILABLE, 4, settled=True, error_code="not_done", error_message="Not done.")

        decision = after(HELD, *tries, absent)

        assert decision.failure == Failure(step="pay", code="not_done", message="Not done.")
        assert begun(decision) == [("pay", UNDO, 1)]  # what was under way may still come, and must be turned away

    def test_a_refused_step_is_not_tried_again(self) -> None:
        no = attempt("pay", Outcome.REFUSED, error_code="declined", error_message="Declined.")

        decision = after(HELD, no)

        assert decision.failure == Failure(step="pay", code="declined", message="Declined.")
        assert begun(decision) == [("hold", UNDO, 1)]

    def test_nothing_done_is_nothing_to_undo(self) -> None:
        decision = after(attempt("hold", Outcome.REFUSED, error_code="full", error_message="Full."))

        assert decision == Decision(
            status=RunStatus.COMPENSATED, failure=Failure(step="hold", code="full", message="Full.")
        )

    def test_a_retriable_step_never_turns_back(self) -> None:
        refused = after(HELD, PAID, attempt("tell", Outcome.REFUSED, error_message="No such address."))
        spent = after(HELD, PAID, *[attempt("tell", Outcome.UNAVAILABLE, n, error_message="Away.") for n in (1, 2, 3)])

        assert (refused.status, refused.failure) == (RunStatus.NEEDS_ATTENTION, None)
        assert refused.attention == "Tell failed for good: No such address."
        assert (spent.status, spent.attention) == (RunStatus.NEEDS_ATTENTION, "Tell failed for good: Away.")

    def test_a_persons_retry_opens_a_new_budget(self) -> None:
        tries = [attempt("tell", Outcome.UNAVAILABLE, n) for n in (1, 2, 3)]

        again = after(HELD, PAID, *tries, fresh_from={"tell:action": 3})
        fourth = attempt("tell", Outcome.UNAVAILABLE, 4, retry_at=NOW + SECOND)
        waiting = after(HELD, PAID, *tries, fourth, fresh_from={"tell:action": 3})

        assert begun(again) == [("tell", ACTION, 4)]
        assert (waiting.status, waiting.due_at) == (RunStatus.RETRYING, NOW + SECOND)

    def test_no_try_begins_after_the_policys_own_deadline(self) -> None:
        saga = make_saga([make_step(WORLD, "hold", retry=replace(PATIENT, attempts=99, deadline=5 * SECOND))])
        early = attempt("hold", Outcome.UNAVAILABLE, retry_at=NOW + 5 * SECOND)
        late = attempt("hold", Outcome.UNAVAILABLE, retry_at=NOW + 6 * SECOND, error_code="away", error_message="Away.")

        assert after(early, saga=saga).status is RunStatus.RETRYING
        assert after(late, saga=saga).failure == Failure(step="hold", code="away", message="Away.")

    def test_the_wait_follows_the_number_of_failures_and_the_other_sides_wish(self) -> None:
        first, second = attempt("hold", Outcome.UNAVAILABLE), attempt("hold", None, 2)
        history = History(attempts=(first, second), in_flight=frozenset({("hold", ACTION)}))

        assert retry_at(TRIP, history, second, now=NOW, draw=0.5) == NOW + 2 * SECOND
        assert retry_at(TRIP, history, second, now=NOW, draw=0.5, retry_after=9 * SECOND) == NOW + 9 * SECOND


class TestGoingBack:
    def test_undo_goes_in_reverse_and_one_at_a_time(self) -> None:
        undone = attempt("pay", Outcome.SUCCEEDED, direction=UNDO)
        cancelled: dict[str, Any] = {"cancel_requested": True, "cancel_reason": "changed my mind"}

        first = after(HELD, PAID, **cancelled)
        second = after(HELD, PAID, undone, turned_back=True)
        last = after(HELD, PAID, undone, attempt("hold", Outcome.SUCCEEDED, direction=UNDO), turned_back=True)

        assert first.failure == Failure(step="", code="cancelled", message="changed my mind")
        assert begun(first) == [("pay", UNDO, 1)]
        assert begun(second) == [("hold", UNDO, 1)]
        assert last == Decision(status=RunStatus.COMPENSATED)

    def test_what_is_under_way_ends_before_anything_is_undone(self) -> None:
        decision = after(HELD, attempt("pay", None), cancel_requested=True, in_flight=frozenset({("pay", ACTION)}))

        assert (decision.status, decision.begin, decision.current_step) == (RunStatus.COMPENSATING, (), "pay")

    def test_an_undo_that_may_go_on_waits_for_the_one_under_way(self) -> None:
        waits = attempt("pay", Outcome.WAITING, direction=UNDO, wait_signal="refunded", retry_at=NOW)
        under_way = attempt("hold", None, direction=UNDO)
        history: dict[str, Any] = {"turned_back": True, "signals": {"refunded": {}}}

        decision = after(HELD, PAID, waits, under_way, in_flight=frozenset({("hold", UNDO)}), **history)

        assert (decision.status, decision.begin, decision.current_step) == (RunStatus.COMPENSATING, (), "hold")

    def test_what_may_have_happened_is_undone_too(self) -> None:
        assert begun(after(HELD, attempt("pay", Outcome.UNKNOWN), turned_back=True)) == [("pay", UNDO, 1)]
        assert begun(after(HELD, attempt("pay", None), turned_back=True)) == [("pay", UNDO, 1)]

    def test_what_surely_did_not_happen_is_not_undone(self) -> None:
        for outcome in (Outcome.REFUSED, Outcome.UNAVAILABLE):
            assert begun(after(HELD, attempt("pay", outcome), turned_back=True)) == [("hold", UNDO, 1)]

    def test_what_was_not_found_may_still_come_and_is_undone(self) -> None:
        """A worker that stalled before it sent, and goes on after another one has looked in vain."""
        absent = attempt("pay", Outcome.UNAVAILABLE, 2, settled=True)

        assert begun(after(HELD, attempt("pay", None), absent, turned_back=True)) == [("pay", UNDO, 1)]

    def test_what_was_there_while_it_waited_is_undone_although_the_look_up_found_no_end_of_it(self) -> None:
        waited = attempt("pay", Outcome.WAITING, wait_signal="confirmed")
        lost = attempt("pay", Outcome.UNKNOWN, 2)
        absent = attempt("pay", Outcome.UNAVAILABLE, 3, settled=True)

        assert begun(after(HELD, waited, lost, absent, turned_back=True)) == [("pay", UNDO, 1)]

    def test_what_was_refused_after_it_waited_left_nothing(self) -> None:
        waited = attempt("pay", Outcome.WAITING, wait_signal="confirmed")

        assert begun(after(HELD, waited, attempt("pay", Outcome.REFUSED, 2), turned_back=True)) == [("hold", UNDO, 1)]

    def test_a_failed_undo_does_not_keep_the_others_from_being_done(self) -> None:
        no = attempt("pay", Outcome.REFUSED, direction=UNDO, error_message="Too late.")

        decision = after(HELD, PAID, no, turned_back=True)
        end = after(HELD, PAID, no, attempt("hold", Outcome.SUCCEEDED, direction=UNDO), turned_back=True)

        assert begun(decision) == [("hold", UNDO, 1)]
        assert (end.status, end.attention, end.current_step) == (
            RunStatus.NEEDS_ATTENTION,
            "Undo pay failed: Too late.",
            "pay",
        )

    def test_undos_that_share_a_name_say_whose_they_are(self) -> None:
        saga = make_saga([make_step(WORLD, name, compensation_title="Release") for name in ("seat", "room")])
        begun = [attempt(name, Outcome.SUCCEEDED) for name in ("seat", "room")]
        no = [attempt(name, Outcome.REFUSED, direction=UNDO, error_message="No.") for name in ("room", "seat")]

        decision = after(*begun, *no, saga=saga, turned_back=True)

        assert decision.attention == "Release (room) failed: No.; Release (seat) failed: No."

    def test_an_undo_that_waits_for_its_time_keeps_the_next_one_waiting(self) -> None:
        away = attempt("pay", Outcome.UNAVAILABLE, direction=UNDO, retry_at=NOW + SECOND)

        decision = after(HELD, PAID, away, turned_back=True)

        assert (decision.status, decision.begin, decision.due_at) == (RunStatus.COMPENSATING, (), NOW + SECOND)

    def test_one_branch_fails_while_the_other_is_under_way(self) -> None:
        saga = make_saga([make_step(WORLD, "a", after=()), make_step(WORLD, "b", after=())])
        no = attempt("a", Outcome.REFUSED, error_code="no", error_message="No.")
        under_way: dict[str, Any] = {"saga": saga, "in_flight": frozenset({("b", ACTION)})}

        meanwhile = after(no, attempt("b", None), **under_way)
        then = after(no, attempt("b", Outcome.SUCCEEDED), saga=saga, turned_back=True)

        assert (meanwhile.status, meanwhile.begin) == (RunStatus.COMPENSATING, ())
        assert meanwhile.failure == Failure(step="a", code="no", message="No.")
        assert begun(then) == [("b", UNDO, 1)]


class TestDeadline:
    def test_it_is_what_a_waiting_run_is_due_for(self) -> None:
        failed = attempt("hold", Outcome.UNAVAILABLE, retry_at=NOW + 9 * SECOND)

        assert after(failed, deadline_at=NOW + 5 * SECOND).due_at == NOW + 5 * SECOND

    def test_it_turns_a_run_back_until_its_pivot_is_done(self) -> None:
        late = after(HELD, deadline_at=NOW)
        past = after(HELD, PAID, deadline_at=NOW)

        assert late.failure == Failure(
            step="", code="deadline", message="The run's deadline passed before its pivot was done."
        )
        assert begun(late) == [("hold", UNDO, 1)]
        assert (past.failure, begun(past)) == (None, [("tell", ACTION, 1)])

    def test_a_pivot_without_an_undo_that_may_be_done_leaves_no_way_back(self) -> None:
        final = make_step(WORLD, "pay", kind=Kind.PIVOT, compensation=None, compensation_title="")
        saga = make_saga([make_step(WORLD, "hold"), final])
        tries = [attempt("pay", Outcome.UNKNOWN, n) for n in (1, 2, 3)]

        decision = after(HELD, *tries, saga=saga, deadline_at=NOW)

        assert (decision.status, decision.due_at) == (RunStatus.NEEDS_ATTENTION, None)


class TestWaiting:
    WAITS = attempt("hold", Outcome.WAITING, wait_signal="paid", retry_at=NOW + 60 * SECOND)

    def test_it_waits_for_the_signal_until_the_timeout(self) -> None:
        decision = after(self.WAITS)

        assert (decision.status, decision.begin, decision.due_at) == (RunStatus.RUNNING, (), NOW + 60 * SECOND)

    def test_the_signal_begins_the_next_attempt_with_its_payload(self) -> None:
        (begin,) = after(self.WAITS, signals={"paid": {"amount": 5}}).begin

        assert (begin.number, begin.signal) == (2, {"amount": 5})

    def test_the_payload_is_not_lost_by_a_failure_after_the_wait(self) -> None:
        failed = attempt("hold", Outcome.UNAVAILABLE, 2)

        (begin,) = after(self.WAITS, failed, signals={"paid": {"amount": 5}}).begin

        assert (begin.number, begin.signal) == (3, {"amount": 5})

    def test_a_signal_that_does_not_come_refuses_the_step_and_undoes_it(self) -> None:
        decision = after(self.WAITS, now=NOW + 60 * SECOND)

        assert decision.failure == Failure(
            step="hold", code="signal_timeout", message="The signal paid did not come in time."
        )
        assert begun(decision) == [("hold", UNDO, 1)]

    def test_a_signal_that_came_counts_although_nobody_looked_in_time(self) -> None:
        assert begun(after(self.WAITS, now=NOW + 99 * SECOND, signals={"paid": {}})) == [("hold", ACTION, 2)]

    def test_a_step_that_waits_again_for_what_it_was_given_is_not_called_for_ever(self) -> None:
        again = replace(self.WAITS, number=2)

        decision = after(self.WAITS, again, signals={"paid": {}})

        assert decision.failure == Failure(
            step="hold", code="waits_again", message="It waits again for the signal paid, which has come."
        )

    def test_a_persons_retry_after_the_timeout_waits_anew(self) -> None:
        saga = make_saga([make_step(WORLD, "tell", kind=Kind.RETRIABLE)])
        timed_out = replace(self.WAITS, step="tell", retry_at=NOW)

        stuck = after(timed_out, saga=saga)
        asked = after(timed_out, saga=saga, fresh_from={"tell:action": 1})
        second = replace(timed_out, number=2, retry_at=NOW + SECOND)
        heard = after(timed_out, second, saga=saga, fresh_from={"tell:action": 1}, signals={"paid": {}})

        assert stuck.status is RunStatus.NEEDS_ATTENTION
        assert begun(asked) == [("tell", ACTION, 2)]
        assert begun(heard) == [("tell", ACTION, 3)]

    def test_a_pivot_without_an_undo_that_waited_in_vain_is_a_persons(self) -> None:
        saga = make_saga([make_step(WORLD, "hold"), make_step(WORLD, "ship", kind=Kind.PIVOT, compensation=None)])
        waits = attempt("ship", Outcome.WAITING, wait_signal="fetched", retry_at=NOW + SECOND)

        late = after(HELD, waits, saga=saga, now=NOW + SECOND)
        refused = after(HELD, waits, attempt("ship", Outcome.REFUSED, 2), saga=saga)

        assert (late.status, late.begin, late.failure) == (RunStatus.NEEDS_ATTENTION, (), None)
        assert late.attention == "Ship failed for good: The signal fetched did not come in time."
        assert begun(refused) == [("hold", UNDO, 1)]

    def test_a_date_begins_the_next_attempt(self) -> None:
        dated = replace(self.WAITS, wait_signal="")

        assert after(dated).due_at == NOW + 60 * SECOND
        (begin,) = after(dated, now=NOW + 60 * SECOND).begin
        assert (begin.number, begin.signal) == (2, {})

    def test_a_waiting_step_is_undone_when_the_run_turns_back(self) -> None:
        assert begun(after(self.WAITS, cancel_requested=True)) == [("hold", UNDO, 1)]


class TestPostponed:
    """The other side could not even be asked: down, or at its limit."""

    LATER = NOW + 30 * SECOND

    def postponed(self, step: str = "hold", number: int = 1, **more: Any) -> Attempt:
        given = {"retry_at": self.LATER, "error_code": "circuit_open", **more}
        return attempt(step, Outcome.WAITING, number, **given)

    def test_it_comes_again_when_it_said(self) -> None:
        waiting = after(self.postponed())
        again = after(self.postponed(), now=self.LATER)

        assert (waiting.begin, waiting.status, waiting.due_at) == ((), RunStatus.RUNNING, self.LATER)
        assert begun(again) == [("hold", ACTION, 2)]
        assert (again.begin[0].maybe_done, again.begin[0].signal) == (False, None)

    def test_it_costs_no_try_however_often(self) -> None:
        tries = [self.postponed(number=n) for n in range(1, 100)]

        decision = after(*tries, attempt("hold", Outcome.UNAVAILABLE, 100, retry_at=NOW), now=self.LATER)

        assert begun(decision) == [("hold", ACTION, 101)]
        assert decision.status is RunStatus.RETRYING

    def test_nothing_was_sent_so_nothing_is_undone(self) -> None:
        decision = after(HELD, self.postponed("pay"), cancel_requested=True)

        assert begun(decision) == [("hold", UNDO, 1)]

    def test_an_open_question_stays_open(self) -> None:
        unknown = attempt("hold", Outcome.UNKNOWN, retry_at=NOW, error_code="timeout")

        (begin,) = after(unknown, self.postponed(number=2), now=self.LATER).begin

        assert (begin.number, begin.maybe_done, begin.look_up_only) == (3, True, False)

    def test_once_the_tries_are_used_up_it_still_only_asks(self) -> None:
        saga = make_saga([make_step(WORLD, "a", retry=RetryPolicy(attempts=1), look_up=lambda ctx: None)])
        unknown = attempt("a", Outcome.UNKNOWN, retry_at=NOW, error_code="timeout")

        (begin,) = after(unknown, self.postponed("a", 2), saga=saga, now=self.LATER).begin

        assert (begin.number, begin.look_up_only) == (3, True)

    def test_it_still_hears_the_signal_it_waited_for(self) -> None:
        wait = attempt("hold", Outcome.WAITING, wait_signal="paid", retry_at=NOW + 99 * SECOND)

        (begin,) = after(wait, self.postponed(number=2), signals={"paid": {"by": "card"}}, now=self.LATER).begin

        assert (begin.number, begin.signal) == (3, {"by": "card"})

    def test_the_deadline_does_not_wait_for_it(self) -> None:
        decision = after(HELD, self.postponed("pay"), deadline_at=NOW + SECOND, now=NOW + 2 * SECOND)

        assert (decision.failure and decision.failure.code, begun(decision)) == ("deadline", [("hold", UNDO, 1)])
