"""What people may do to a run: each act in each state, twice, and without a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sagas import ActRefused, DuplicateRun, Kind, Saga, StepContext, UnknownSaga, WaitFor, journal, registry, services
from sagas.models import RunEvent, SagaRun, Signal, StepRecord
from sagas.states import Outcome, RunStatus
from sagas.testing import FrozenClock, drive_once, run_to_end
from tests.races import together
from tests.sagas.toys import (
    World,
    attempts_of,
    away,
    cannot_tell,
    events_of,
    fast,
    make_run,
    make_saga,
    make_step,
    make_trip,
    refuse,
    registered,
    vanish,
)

pytestmark = pytest.mark.django_db
several_connections = pytest.mark.django_db(transaction=True)

WHO, WHY = "user:otto", "asked by phone"
ACTS: dict[str, Callable[[SagaRun], Any]] = {
    "cancel": lambda run: services.cancel(run_id=run.pk, actor=WHO, reason=WHY),
    "abandon": lambda run: services.abandon(run_id=run.pk, actor=WHO, reason=WHY),
    "retry tell": lambda run: services.retry(run_id=run.pk, step="tell", direction="action", actor=WHO),
    "skip tell": lambda run: services.skip(run_id=run.pk, step="tell", direction="action", actor=WHO, reason=WHY),
    "resolve tell": lambda run: services.resolve(
        run_id=run.pk, step="tell", direction="action", actor=WHO, reason=WHY, evidence="letter 7"
    ),
    "retry the undo of pay": lambda run: services.retry(run_id=run.pk, step="pay", direction="compensation", actor=WHO),
    "skip the undo of pay": lambda run: services.skip(
        run_id=run.pk, step="pay", direction="compensation", actor=WHO, reason=WHY
    ),
    "resolve the undo of pay": lambda run: services.resolve(
        run_id=run.pk, step="pay", direction="compensation", actor=WHO, reason=WHY, evidence="bank statement 12"
    ),
}


class Bench:
    """Brings a run of hold, pay, tell into any state there is."""

    def __init__(self, world: World, saga: Saga) -> None:
        self.world = world
        self.saga = saga

    def make(self, state: str) -> SagaRun:
        run = make_run(self.saga)
        getattr(self, state.replace(" ", "_"))(run)
        run.refresh_from_db()
        return run

    def pending(self, run: SagaRun) -> None: ...

    def running_in_a_workers_hands(self, run: SagaRun) -> None:
        self.claim()

    def retrying(self, run: SagaRun) -> None:
        self.world.plan("tell", away)
        drive_once(run, clock=FrozenClock())

    def completed(self, run: SagaRun) -> None:
        run_to_end(run)

    def compensating(self, run: SagaRun) -> None:
        run_to_end(run)
        services.cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")

    def undo_retrying(self, run: SagaRun) -> None:
        self.compensating(run)
        self.world.plan("undo pay", away)
        drive_once(run, clock=FrozenClock())

    def compensated(self, run: SagaRun) -> None:
        self.compensating(run)
        run_to_end(run)

    def tell_stuck(self, run: SagaRun) -> None:
        self.world.plan("tell", refuse)
        run_to_end(run)

    def undo_stuck(self, run: SagaRun) -> None:
        self.compensating(run)
        self.world.plan("undo pay", refuse)
        run_to_end(run)

    def abandoned(self, run: SagaRun) -> None:
        self.undo_stuck(run)
        services.abandon(run_id=run.pk, actor=WHO, reason="lost cause")

    @staticmethod
    def claim() -> list[journal.Held]:
        return journal.claim(worker="w1", now=timezone.now(), lease=timedelta(seconds=60), limit=1, max_claims=5)


@pytest.fixture
def bench(world: World, trip: Saga) -> Bench:
    return Bench(world, trip)


def refusal_of(act: Callable[[], Any]) -> ActRefused:
    with pytest.raises(ActRefused) as refused:
        act()
    return refused.value


class TestWhichActsWhen:
    """The whole table: what is possible is done and recorded, what is not is refused and changes nothing."""

    POSSIBLE: dict[str, tuple[str, ...]] = {
        "pending": ("cancel",),
        "running in a workers hands": ("cancel",),
        "retrying": ("cancel", "retry tell"),
        "completed": ("cancel",),
        "compensating": (),
        "undo retrying": ("retry the undo of pay",),
        "compensated": (),
        "tell stuck": ("cancel", "abandon", "retry tell", "resolve tell", "skip tell"),
        "undo stuck": ("abandon", "retry the undo of pay", "resolve the undo of pay", "skip the undo of pay"),
        "abandoned": (),
    }
    # Asked for again what is so already: no error, and no second event either.
    HARMLESS = {
        ("compensating", "cancel"),
        ("undo retrying", "cancel"),
        ("undo stuck", "cancel"),
        ("compensated", "cancel"),
        ("abandoned", "abandon"),
    }

    @pytest.mark.parametrize("act", ACTS)
    @pytest.mark.parametrize("state", POSSIBLE)
    def test_each_act_in_each_state(self, bench: Bench, state: str, act: str) -> None:
        run = bench.make(state)
        row = SagaRun.objects.filter(pk=run.pk).values().get()
        before = (attempts_of(run), events_of(run))

        if act in self.POSSIBLE[state]:
            ACTS[act](run)
            assert len(events_of(run)) == len(before[1]) + 1
            assert events_of(run)[-1][1] == WHO
            return
        if (state, act) in self.HARMLESS:
            ACTS[act](run)
        else:
            refused = refusal_of(lambda: ACTS[act](run))
            assert refused.state == row["status"]
            assert refused.act == act.split()[0]
            assert set(refused.possible) == set(self.POSSIBLE[state])
        assert (attempts_of(run), events_of(run)) == before
        assert SagaRun.objects.filter(pk=run.pk).values().get() == row

    @pytest.mark.parametrize(("state", "act"), [(state, act) for state, acts in POSSIBLE.items() for act in acts])
    def test_twice_is_once(self, bench: Bench, state: str, act: str) -> None:
        run = bench.make(state)

        ACTS[act](run)
        after_one = (SagaRun.objects.filter(pk=run.pk).values().get(), attempts_of(run), events_of(run))
        ACTS[act](run)

        assert (SagaRun.objects.filter(pk=run.pk).values().get(), attempts_of(run), events_of(run)) == after_one

    def test_a_refusal_names_the_state_the_reason_and_what_is_possible_instead(self, bench: Bench) -> None:
        assert str(refusal_of(lambda: ACTS["skip tell"](bench.make("retrying")))) == (
            "Cannot skip while retrying: tell is waiting. Possible now: cancel, retry tell."
        )

    def test_a_step_in_a_workers_hands_ends_first(self, bench: Bench) -> None:
        run = bench.make("running in a workers hands")

        assert refusal_of(lambda: ACTS["retry tell"](run)).reason == (
            "a worker is at it, and what is under way ends first"
        )

    def test_a_step_that_is_not_there_is_named_with_those_that_are(self, bench: Bench) -> None:
        run = bench.make("tell stuck")

        refused = refusal_of(lambda: services.retry(run_id=run.pk, step="fly", direction="action", actor=WHO))

        assert refused.reason == "there is no step fly; there are hold, pay, tell"

    def test_a_run_that_is_not_there(self, bench: Bench) -> None:
        with pytest.raises(SagaRun.DoesNotExist):
            services.cancel(run_id="01890000-0000-7000-8000-000000000000", actor=WHO, reason=WHY)


class TestReasons:
    @pytest.mark.parametrize(
        ("reason", "why"),
        [
            ("", "it wants a reason"),
            ("  ", "it wants a reason"),
            ("x" * 501, "the reason has 501 characters; 500 is the most"),
            ("a\0b", "the reason holds a NUL character"),
        ],
    )
    @pytest.mark.parametrize("act", ["cancel", "abandon", "skip", "resolve"])
    def test_these_acts_want_a_reason(self, bench: Bench, act: str, reason: str, why: str) -> None:
        run = bench.make("tell stuck")
        more: dict[str, Any] = {}
        if act in ("skip", "resolve"):
            more = {"step": "tell", "direction": "action"}
        if act == "resolve":
            more["evidence"] = "letter 7"

        refused = refusal_of(lambda: getattr(services, act)(run_id=run.pk, actor=WHO, reason=reason, **more))

        assert refused.reason == why
        run.refresh_from_db()
        assert run.status == RunStatus.NEEDS_ATTENTION

    @pytest.mark.parametrize("evidence", ["", " ", "a\0b"])
    def test_resolving_wants_evidence(self, bench: Bench, evidence: str) -> None:
        run = bench.make("tell stuck")

        refused = refusal_of(
            lambda: services.resolve(
                run_id=run.pk, step="tell", direction="action", actor=WHO, reason=WHY, evidence=evidence
            )
        )

        assert refused.reason == "it wants evidence: the reference under which it was done"


class TestStart:
    def test_a_run_is_stored_and_due_at_once(self, trip: Saga) -> None:
        run = services.start(saga=trip, business_key="T-1", input={"seat": "12A"}, actor="customer:ada")

        run.refresh_from_db()
        assert (run.saga, run.version, run.business_key, run.status) == ("trip", 1, "T-1", RunStatus.PENDING)
        assert (run.input, run.due_at, run.deadline_at) == ({"seat": "12A"}, run.created_at, None)
        assert events_of(run) == [("started", "customer:ada", "")]

    def test_the_same_again_is_the_run_that_is_there_also_after_its_end(self, trip: Saga) -> None:
        run = make_run(trip, input={"seats": ("12A", "12B")})

        assert make_run(trip, input={"seats": ["12A", "12B"]}).pk == run.pk
        run_to_end(run)
        again = make_run(trip, input={"seats": ("12A", "12B")})

        assert (again.pk, again.status) == (run.pk, RunStatus.COMPLETED)
        assert SagaRun.objects.count() == 1

    def test_another_input_is_refused_naming_what_differs(self, trip: Saga) -> None:
        make_run(trip, input={"seat": "12A", "name": "Ada"})

        with pytest.raises(DuplicateRun) as refused:
            make_run(trip, input={"seat": "14C", "name": "Ada", "meal": "none"})

        assert refused.value.differing == ("meal", "seat")
        assert SagaRun.objects.count() == 1

    @several_connections
    def test_twice_at_once_is_one_run(self, trip: Saga) -> None:
        ends = together(*[lambda: make_run(trip)] * 4)

        assert len({run.pk for run in ends}) == 1
        assert RunEvent.objects.count() == 1

    def test_defaults_fill_what_the_starter_leaves_out(self, world: World) -> None:
        saga = make_trip(world, defaults={"meal": "none", "seat": "any"}, deadline=timedelta(hours=1))
        with registered(saga):
            run = make_run(saga, input={"seat": "12A"})

        assert run.input == {"meal": "none", "seat": "12A"}
        assert run.deadline_at == run.created_at + timedelta(hours=1)

    def test_what_cannot_be_stored_is_refused(self, trip: Saga) -> None:
        with pytest.raises(TypeError, match="Decimal is not JSON serializable"):
            make_run(trip, input={"amount": Decimal("1.50")})
        assert not SagaRun.objects.exists()

    def test_a_saga_that_nobody_registered_is_refused(self, world: World) -> None:
        with pytest.raises(UnknownSaga):
            make_run(make_trip(world, name="unheard_of"))


class TestCancel:
    def test_a_finished_run_is_undone_in_full(self, world: World, bench: Bench) -> None:
        run = bench.make("completed")

        services.cancel(run_id=run.pk, actor="customer:ada", reason="changed my mind")
        report = run_to_end(run)

        assert (report.status, report.undone) == (RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == ["hold", "pay", "tell", "undo pay", "undo hold"]
        assert (report.error_code, report.error) == ("cancelled", "changed my mind")
        assert [ctx.reason for ctx in world.contexts[-2:]] == ["changed my mind"] * 2

    def test_the_definition_may_say_that_it_is_too_late(self, world: World) -> None:
        asked: list[Any] = []

        def refuse_cancel(*facts: Any) -> str:
            asked.append(facts)
            return "the plane has left" if "left" in facts[2] else ""

        with registered(saga := make_trip(world, refuse_cancel=refuse_cancel)):
            run = make_run(saga)
            run_to_end(run)
            services.signal(run_id=run.pk, name="left", payload={"at": "noon"})

            refused = refusal_of(lambda: ACTS["cancel"](run))

        assert refused.reason == "the plane has left"
        assert refused.possible == ()
        run_input, results, signals = asked[-1]
        assert (run_input, set(results), signals) == (
            {"seat": "12A"},
            {"hold", "pay", "tell"},
            {"left": {"at": "noon"}},
        )

    def test_a_pivot_without_an_undo_closes_the_way_back(self, world: World) -> None:
        saga = make_saga(
            [
                make_step(world, "hold"),
                make_step(world, "pay", kind=Kind.PIVOT, compensation=None, compensation_title=""),
                make_step(world, "tell", kind=Kind.RETRIABLE),
            ]
        )
        with registered(saga):
            early, late = make_run(saga, key="early"), make_run(saga, key="late")
            run_to_end(late)

            ACTS["cancel"](early)
            refused = refusal_of(lambda: ACTS["cancel"](late))

            assert run_to_end(early).status is RunStatus.COMPENSATED
        assert refused.reason == "pay is done, or may be, and has no undo"

    def test_a_run_that_stands_still_can_be_cancelled(self, world: World, trip: Saga) -> None:
        run = make_run(trip)
        SagaRun.objects.filter(pk=run.pk).update(claims=5)
        run_to_end(run)  # taken up too often: it needs a person now
        assert SagaRun.objects.get().status == RunStatus.NEEDS_ATTENTION

        ACTS["cancel"](run)

        assert run_to_end(run).status is RunStatus.COMPENSATED
        assert world.effects == []


class TestRetry:
    def test_it_cuts_a_backoff_short(self, world: World, bench: Bench) -> None:
        run = bench.make("retrying")
        assert run.due_at is not None
        assert run.due_at > timezone.now()

        services.retry(run_id=run.pk, step="tell", direction="action", actor=WHO, reason="the line is back")
        drive_once(run, clock=FrozenClock())

        run.refresh_from_db()
        assert run.status == RunStatus.COMPLETED
        assert world.calls == ["hold", "pay", "tell", "tell"]
        assert ("retry_requested", WHO, "the line is back") in events_of(run)

    def test_clicked_again_while_the_try_it_asked_for_is_under_way(self, bench: Bench) -> None:
        run = bench.make("tell stuck")
        ACTS["retry tell"](run)
        assert len(Bench.claim()) == 1

        ACTS["retry tell"](run)

        assert [event[0] for event in events_of(run)].count("retry_requested") == 1

    def test_it_gives_a_fresh_budget_and_keeps_the_key(self, world: World, bench: Bench) -> None:
        run = bench.make("undo stuck")
        world.plan("undo pay", away, away)

        ACTS["retry the undo of pay"](run)
        report = run_to_end(run)

        assert (report.status, report.undone) == (RunStatus.COMPENSATED, ["hold", "pay"])
        keys = StepRecord.objects.filter(run=run, step="pay", direction="compensation").values_list("key", flat=True)
        assert set(keys) == {f"{run.pk}:pay:compensation"}
        assert len(keys) == 4

    def test_two_failed_undos_are_two_retries(self, world: World, bench: Bench) -> None:
        run = make_run(bench.saga)
        run_to_end(run)
        ACTS["cancel"](run)
        world.plan("undo pay", refuse)
        world.plan("undo hold", refuse)
        report = run_to_end(run)
        assert report.attention == "Undo pay failed: It says no.; Undo hold failed: It says no."

        ACTS["retry the undo of pay"](run)
        assert run_to_end(run).attention == "Undo hold failed: It says no."
        services.retry(run_id=run.pk, step="hold", direction="compensation", actor=WHO)

        assert run_to_end(run).status is RunStatus.COMPENSATED

    def test_a_run_whose_definition_has_come_back_goes_on(self, world: World, trip: Saga) -> None:
        run = make_run(trip)
        registry.forget(trip)
        run_to_end(run)
        assert refusal_of(lambda: ACTS["retry tell"](run)).reason == "its definition is not installed here"
        assert refusal_of(lambda: ACTS["cancel"](run)).reason == "its definition is not installed here"

        registry.register(trip)
        for _ in range(2):
            services.retry(run_id=run.pk, step="hold", direction="action", actor=WHO)

        assert run_to_end(run).status is RunStatus.COMPLETED
        assert [event[0] for event in events_of(run)].count("retry_requested") == 1

    def test_a_question_nobody_could_answer_is_asked_again(self, world: World, trip: Saga) -> None:
        world.plan("pay", vanish)
        world.plan("look pay", *[cannot_tell] * 5)
        run = make_run(trip)
        report = run_to_end(run)
        assert report.status is RunStatus.NEEDS_ATTENTION
        assert report.attention == "Pay: the outcome is unknown after 6 tries (The books are closed.)"

        services.retry(run_id=run.pk, step="pay", direction="action", actor=WHO)

        assert run_to_end(run).status is RunStatus.COMPLETED
        assert world.effects == ["hold", "pay", "tell"]


class TestSettling:
    def test_a_skipped_step_is_left_out_and_the_run_goes_on(self, world: World, bench: Bench) -> None:
        run = bench.make("tell stuck")

        ACTS["skip tell"](run)
        report = run_to_end(run)

        assert report.status is RunStatus.COMPLETED
        assert attempts_of(run)[-1] == ("tell", "action", 2, "skipped")
        assert events_of(run)[-2:] == [("skipped", WHO, WHY), ("completed", "engine", "")]
        assert world.effects == ["hold", "pay"]

    def test_only_a_retriable_step_may_be_left_out(self, world: World, trip: Saga) -> None:
        world.plan("pay", vanish)
        world.plan("look pay", *[cannot_tell] * 5)
        run = make_run(trip)
        run_to_end(run)

        refused = refusal_of(
            lambda: services.skip(run_id=run.pk, step="pay", direction="action", actor=WHO, reason=WHY)
        )

        assert refused.reason == "pay is pivot; only a retriable step may be left out"
        assert refused.possible == ("cancel", "abandon", "retry pay", "resolve pay")

    def test_a_resolved_step_has_the_result_and_the_evidence_that_was_given(self, world: World, trip: Saga) -> None:
        world.plan("pay", vanish)
        world.plan("look pay", *[cannot_tell] * 5)
        run = make_run(trip)
        run_to_end(run)

        services.resolve(
            run_id=run.pk,
            step="pay",
            direction="action",
            actor=WHO,
            reason=WHY,
            evidence="bank statement 12",
            result={"reference": "B-12"},
        )
        report = run_to_end(run)

        assert report.status is RunStatus.COMPLETED
        assert report.results["pay"] == {"reference": "B-12"}
        event = RunEvent.objects.get(run=run, kind="resolved")
        assert (event.step, event.direction, event.data) == ("pay", "action", {"evidence": "bank statement 12"})
        record = StepRecord.objects.get(run=run, outcome="resolved")
        assert (record.started_by, record.worker, record.number) == (WHO, "", 7)

    def test_an_undo_left_as_it_is_lets_the_run_end(self, world: World, bench: Bench) -> None:
        run = bench.make("undo stuck")

        ACTS["skip the undo of pay"](run)

        assert run_to_end(run).status is RunStatus.COMPENSATED
        assert world.effects == ["hold", "pay", "tell", "undo hold"]


class TestAbandon:
    def test_it_lists_what_stays_undone(self, world: World, bench: Bench) -> None:
        run = bench.make("undo stuck")

        services.abandon(run_id=run.pk, actor=WHO, reason="lost cause")

        run.refresh_from_db()
        assert (run.status, run.due_at, run.attention_reason) == (RunStatus.ABANDONED, None, "")
        event = RunEvent.objects.get(run=run, kind="abandoned")
        assert (event.actor, event.reason, event.data) == (WHO, "lost cause", {"left_undone": ["pay"]})

    def test_a_run_going_forward_leaves_all_it_has_done(self, bench: Bench) -> None:
        run = bench.make("tell stuck")

        ACTS["abandon"](run)

        assert RunEvent.objects.get(run=run, kind="abandoned").data == {"left_undone": ["pay", "hold"]}

    def test_also_without_a_definition(self, trip: Saga) -> None:
        run = make_run(trip)
        registry.forget(trip)
        run_to_end(run)

        ACTS["abandon"](run)

        run.refresh_from_db()
        assert run.status == RunStatus.ABANDONED

    def test_nothing_happens_to_it_any_more(self, world: World, bench: Bench) -> None:
        run = bench.make("abandoned")
        calls = list(world.calls)

        run_to_end(run)

        assert world.calls == calls


class TestSignal:
    @pytest.fixture
    def waiting(self, world: World) -> Iterator[Saga]:
        def wait(ctx: StepContext) -> Any:
            if ctx.signal is None:
                return WaitFor(signal="paid", timeout=timedelta(hours=1))
            return {"amount": ctx.signal["amount"]}

        world.plan("hold", wait, wait)
        saga = make_saga([make_step(world, "hold"), make_step(world, "tell", kind=Kind.RETRIABLE)])
        with registered(saga):
            yield saga

    def test_it_wakes_the_step_that_waits_for_it(self, world: World, waiting: Saga) -> None:
        run = make_run(waiting)
        report = run_to_end(run)
        assert (report.status, report.attempts) == (RunStatus.RUNNING, [("hold", "action", 1, "waiting")])

        heard = services.signal(run_id=run.pk, name="paid", payload={"amount": 5}, actor="webhook")
        report = run_to_end(run)

        assert heard is True
        assert (report.status, report.results["hold"]) == (RunStatus.COMPLETED, {"amount": 5})
        assert ("signal", "webhook", "paid") in events_of(run)

    def test_one_that_comes_early_is_kept(self, world: World, waiting: Saga) -> None:
        run = make_run(waiting)

        services.signal(run_id=run.pk, name="paid", payload={"amount": 5})
        report = run_to_end(run)

        assert report.status is RunStatus.COMPLETED
        assert report.attempts[:2] == [("hold", "action", 1, "waiting"), ("hold", "action", 2, "succeeded")]

    def test_one_that_comes_while_the_step_is_under_way_is_heard(self, world: World, waiting: Saga) -> None:
        run = make_run(waiting)
        (held,) = Bench.claim()
        services.signal(run_id=run.pk, name="paid", payload={"amount": 5})
        ended = journal.Ended(
            outcome=Outcome.WAITING, wait_signal="paid", wait_until=timezone.now() + timedelta(hours=1)
        )

        journal.commit([(held, held.begun[0][1], ended)], worker="w1", now=timezone.now(), lease=timedelta(seconds=60))

        assert [(begin.number, begin.signal) for begin, _ in held.begun] == [(2, {"amount": 5})]

    @several_connections
    def test_twice_is_heard_once(self, waiting: Saga) -> None:
        run = make_run(waiting)

        told = together(
            *[lambda n=n: services.signal(run_id=run.pk, name="paid", payload={"amount": n}) for n in range(3)]
        )

        assert sorted(told) == [False, False, True]
        assert Signal.objects.count() == 1
        assert [event[0] for event in events_of(run)] == ["started", "signal"]

    def test_one_that_comes_too_late_changes_nothing(self, world: World, waiting: Saga) -> None:
        run = make_run(waiting)
        clock = FrozenClock()
        drive_once(run, clock=clock)
        clock.advance(timedelta(hours=1))
        report = run_to_end(run, clock=clock)
        assert (report.status, report.error_code) == (RunStatus.COMPENSATED, "signal_timeout")

        assert services.signal(run_id=run.pk, name="paid", payload={"amount": 5}) is True

        run.refresh_from_db()
        assert (run.status, run.due_at) == (RunStatus.COMPENSATED, None)

    def test_a_date_passes_by_itself(self, world: World) -> None:
        clock = FrozenClock()
        tomorrow = clock.now + timedelta(days=1)
        world.plan("hold", lambda ctx: WaitFor(until=tomorrow))
        with registered(saga := make_saga([make_step(world, "hold")])):
            report = run_to_end(make_run(saga), clock=clock)

        assert report.status is RunStatus.COMPLETED
        assert clock.now == tomorrow
        assert world.contexts[-1].signal == {}


@several_connections
class TestExecute:
    async def test_it_drives_the_run_here_and_now(self, world: World, trip: Saga) -> None:
        run = await sync_to_async(make_run)(trip)

        ended = await services.execute(run_id=run.pk)

        assert ended.status == RunStatus.COMPLETED
        assert world.effects == ["hold", "pay", "tell"]

    async def test_a_run_that_waits_for_the_world_comes_back_as_it_is(self, world: World) -> None:
        world.plan("b", lambda ctx: WaitFor(signal="paid"))
        world.plan("a", away)
        saga = make_saga(
            [
                make_step(
                    world,
                    "a",
                    after=(),
                    retry=fast(attempts=2, first=timedelta(milliseconds=20)),
                ),
                make_step(world, "b", after=()),
            ]
        )
        with registered(saga):
            run = await sync_to_async(make_run)(saga)

            waiting = await services.execute(run_id=run.pk)

        assert waiting.status == RunStatus.RUNNING
        # The branch that only had to be tried again was.
        assert world.effects == ["a"]

    def test_from_a_plain_script(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        ended = asyncio.run(services.execute(run_id=run.pk))

        assert ended.status == RunStatus.COMPLETED


def test_an_act_costs_a_fixed_number_of_statements(bench: Bench) -> None:
    run = bench.make("tell stuck")

    with CaptureQueriesContext(connection) as queries:
        ACTS["retry tell"](run)

    assert len(queries) <= 10
