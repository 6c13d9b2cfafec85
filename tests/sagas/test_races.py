"""Two that come at the same time, forced to both orders: at a named point of one of them, or inside its transaction.

Where two orders differ in nothing but who holds the row first, SQLite and PostgreSQL get there differently: SQLite lets
one writer in after the other, PostgreSQL locks the row, and a claim passes a locked row by.

What else is raced: doubled actions and undos, in test_barrier; two claimers, and a cancellation before or after the
commit that completes a run, in test_journal; a worker that dies instead of stalling, in test_crash; a drive beside
another with much to do, in test_driver; one key started twice, in test_services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone
from django_q.models import OrmQ

from sagas import ActRefused, Kind, Saga, StepContext, WaitFor, journal
from sagas.barrier import do_once, undo_once
from sagas.journal import Ended, Held
from sagas.models import Barrier, SagaRun, StepRecord
from sagas.queue import drive, sweep
from sagas.services import abandon, cancel, resolve, retry, signal, skip
from sagas.states import Outcome, RunStatus
from sagas.testing import FrozenClock, RunReport, drive_once, report, run_to_end
from tests.races import during, overlapping, together
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
    refuse,
    registered,
)

pytestmark = pytest.mark.django_db(transaction=True)

FORWARD = ["hold", "pay", "tell"]
LEASE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
WHY = "changed my mind"


def worker(run: SagaRun, *, later: timedelta = timedelta(0)) -> Callable[[], None]:
    """A worker of its own, by its own clock; `later`: when the leases of all before have ended."""
    clock = FrozenClock(timezone.now() + later)
    return lambda: drive_once(run, clock=clock)


def owner_after(run: SagaRun) -> Callable[[], RunReport]:
    """The next owner, who comes when the lease of the one before has ended, and stays to the end."""
    clock = FrozenClock(timezone.now() + 2 * LEASE)
    return lambda: run_to_end(run, clock=clock)


def canceller(run: SagaRun) -> Callable[[], SagaRun]:
    return lambda: cancel(run_id=run.pk, actor="customer:ada", reason=WHY)


def claim(run: SagaRun) -> Held:
    (held,) = journal.claim(worker="w1", now=timezone.now(), lease=LEASE, limit=1, max_claims=5, run_id=run.pk)
    return held


def committer(held: Held, *ends: Ended) -> Callable[[], list[Held]]:
    """Records the ends of what `held` was told to begin: done, unless something else is said."""
    done = Ended(outcome=Outcome.SUCCEEDED, result={"reference": "R-1"})
    pairs = list(zip(held.begun, ends or [done] * len(held.begun), strict=True))
    finished = [(held, record, end) for (_, record), end in pairs]
    return lambda: journal.commit(finished, worker="w1", now=timezone.now(), lease=LEASE)


def workers_of(run: SagaRun, step: str) -> list[str]:
    """Who tried that step, in the order of the attempts."""
    return list(StepRecord.objects.filter(run=run, step=step).order_by("id").values_list("worker", flat=True))


def kinds(run: SagaRun) -> list[str]:
    return [kind for kind, _, _ in events_of(run)]


class TestTheSameTaskTwice:
    def test_the_second_comes_while_the_first_looks(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        taken = during(drive, "before_claim", drive)

        assert taken == (0, 1)
        assert world.calls == FORWARD
        assert attempts_of(run) == [(step, "action", 1, "succeeded") for step in FORWARD]

    @pytest.mark.parametrize("point", ["after_claim", "before_call:pay:action", "after_call:tell:action"])
    def test_the_second_comes_while_the_first_is_at_it(self, world: World, trip: Saga, point: str) -> None:
        run = make_run(trip)

        taken = during(drive, point, drive)

        assert taken == (1, 0)
        assert world.calls == FORWARD
        assert attempts_of(run) == [(step, "action", 1, "succeeded") for step in FORWARD]
        assert report(run).status is RunStatus.COMPLETED


class TestASlowWorkerAndTheNewOwner:
    def test_it_stalled_before_its_call(self, world: World, trip: Saga, caplog: pytest.LogCaptureFixture) -> None:
        run = make_run(trip)

        slow, owner = during(worker(run), "before_call:pay:action", owner_after(run))

        assert (slow, owner.status) == (None, RunStatus.COMPLETED)
        # Its call goes out all the same, under the same key.
        assert world.calls == ["hold", "look pay", "pay", "tell", "pay"]
        assert world.effects == FORWARD
        assert len({ctx.key for ctx in world.contexts if ctx.step == "pay"}) == 1
        self.only_the_owner_wrote(run, caplog)

    def test_it_stalled_after_its_call(self, world: World, trip: Saga, caplog: pytest.LogCaptureFixture) -> None:
        run = make_run(trip)

        slow, owner = during(worker(run), "after_call:pay:action", owner_after(run))

        assert (slow, owner.status) == (None, RunStatus.COMPLETED)
        assert world.calls == ["hold", "pay", "look pay", "tell"]
        assert world.effects == FORWARD
        self.only_the_owner_wrote(run, caplog)

    def test_it_stalled_before_its_write(self, world: World, trip: Saga, caplog: pytest.LogCaptureFixture) -> None:
        run = make_run(trip)

        slow, owner = during(worker(run), "before_commit", owner_after(run), pass_by=1)

        assert (slow, owner.status) == (None, RunStatus.COMPLETED)
        assert world.effects == FORWARD
        self.only_the_owner_wrote(run, caplog)

    def only_the_owner_wrote(self, run: SagaRun, caplog: pytest.LogCaptureFixture) -> None:
        assert attempts_of(run) == [
            ("hold", "action", 1, "succeeded"),
            ("pay", "action", 1, "unknown"),
            ("pay", "action", 2, "succeeded"),
            ("tell", "action", 1, "succeeded"),
        ]
        slow, owner = workers_of(run, "pay")
        assert workers_of(run, "hold") == [slow] != [owner] == workers_of(run, "tell")
        assert kinds(run) == ["started", "completed"]
        said = [record.getMessage() for record in caplog.records if record.name == "sagas.driver"]
        assert said == ["1 runs changed hands while they were driven; letting go."]

    @pytest.mark.parametrize("point", ["before_call", "after_call"])
    def test_on_the_way_back(self, world: World, trip: Saga, point: str) -> None:
        run = make_run(trip)
        run_to_end(run)
        canceller(run)()

        slow, owner = during(worker(run, later=SECOND), f"{point}:pay:compensation", owner_after(run))

        assert (slow, owner.status, owner.undone) == (None, RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == [*FORWARD, "undo pay", "undo hold"]
        assert len({ctx.key for ctx in world.contexts if ctx.step == "pay" and ctx.key.endswith("compensation")}) == 1
        assert attempts_of(run)[3:] == [
            ("pay", "compensation", 1, "unknown"),
            ("pay", "compensation", 2, "succeeded"),
            ("hold", "compensation", 1, "succeeded"),
        ]

    def test_a_lease_that_ended_with_nobody_there_costs_nothing(self, world: World, trip: Saga) -> None:
        run, clock = make_run(trip), FrozenClock()

        during(lambda: drive_once(run, clock=clock), "before_call:pay:action", lambda: clock.advance(2 * LEASE))

        assert world.calls == FORWARD
        assert attempts_of(run) == [(step, "action", 1, "succeeded") for step in FORWARD]


class TestACancellationAndAStepUnderWay:
    def test_before_the_first_step_nothing_is_done(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        _, told = during(worker(run, later=SECOND), "before_claim", canceller(run))

        assert told.status == RunStatus.PENDING
        assert (report(run).status, attempts_of(run), world.calls) == (RunStatus.COMPENSATED, [], [])

    @pytest.mark.parametrize("point", ["before_call:hold:action", "after_call:hold:action", "before_commit"])
    def test_the_step_ends_and_is_undone(self, world: World, trip: Saga, point: str) -> None:
        run = make_run(trip)

        _, told = during(worker(run), point, canceller(run))

        assert (told.status, told.cancel_reason) == (RunStatus.RUNNING, WHY)
        assert world.calls == ["hold", "undo hold"]
        ended = report(run)
        assert (ended.status, ended.error_code, ended.error) == (RunStatus.COMPENSATED, "cancelled", WHY)
        assert kinds(run) == ["started", "cancel_requested", "turned_back", "compensated"]

    @pytest.mark.parametrize("answer", ["refuse", "lose"])
    def test_however_the_step_ends(self, world: World, trip: Saga, answer: str) -> None:
        world.plan("pay", refuse if answer == "refuse" else world.lose)
        run = make_run(trip)

        during(worker(run), "before_call:pay:action", canceller(run))

        undone = ["hold"] if answer == "refuse" else ["pay", "hold"]
        assert (report(run).status, report(run).undone) == (RunStatus.COMPENSATED, undone)
        assert world.effects[-len(undone) :] == [f"undo {step}" for step in undone]
        assert report(run).error_code == "cancelled"

    def test_the_next_step_has_begun(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        during(worker(run), "after_commit", canceller(run))

        assert world.effects == ["hold", "pay", "undo pay", "undo hold"]
        assert report(run).undone == ["pay", "hold"]


class TestACancellationAndAPivotWithoutAnUndo:
    """Exactly one of the two: undone and never paid, or refused and done."""

    @pytest.fixture
    def one_way(self, world: World) -> Iterator[Saga]:
        saga = make_saga(
            (
                make_step(world, "hold"),
                make_step(world, "pay", kind=Kind.PIVOT, compensation=None, compensation_title=""),
                make_step(world, "tell", kind=Kind.RETRIABLE),
            )
        )
        with registered(saga):
            yield saga

    @pytest.mark.parametrize("point", ["before_claim", "before_call:hold:action", "before_commit"])
    def test_before_the_pivot_was_begun_it_is_never_begun(self, world: World, one_way: Saga, point: str) -> None:
        run = make_run(one_way)

        _, told = during(worker(run, later=SECOND), point, canceller(run))

        assert isinstance(told, SagaRun)
        assert report(run).status is RunStatus.COMPENSATED
        assert "pay" not in world.calls
        assert world.effects in ([], ["hold", "undo hold"])

    @pytest.mark.parametrize(
        "point", ["after_commit", "before_call:pay:action", "after_call:pay:action", "before_call:tell:action"]
    )
    def test_from_its_begin_on_it_is_refused(self, world: World, one_way: Saga, point: str) -> None:
        run = make_run(one_way)

        _, told = during(worker(run), point, canceller(run))

        assert isinstance(told, ActRefused)
        assert told.reason == "pay is done, or may be, and has no undo"
        assert (report(run).status, world.effects) == (RunStatus.COMPLETED, FORWARD)
        assert kinds(run) == ["started", "completed"]

    def test_the_cancellation_holds_the_run_while_the_pivot_is_to_be_begun(self, one_way: Saga) -> None:
        held = claim(run := make_run(one_way))

        told, still = overlapping(canceller(run), committer(held))

        assert isinstance(told, SagaRun)
        assert [begin.step.name for begin, _ in still[0].begun] == ["hold"]
        assert attempts_of(run) == [("hold", "action", 1, "succeeded"), ("hold", "compensation", 1, "")]

    def test_the_begin_of_the_pivot_holds_the_run_while_it_is_to_be_cancelled(self, one_way: Saga) -> None:
        held = claim(run := make_run(one_way))

        still, told = overlapping(committer(held), canceller(run))

        assert [begin.step.name for begin, _ in still[0].begun] == ["pay"]
        assert isinstance(told, ActRefused)
        assert kinds(run) == ["started"]


class TestACancellationAndTheLastCommit:
    """Of a saga that cannot be cancelled once all is done: both are told the same."""

    @pytest.fixture
    def last(self, world: World) -> Iterator[tuple[SagaRun, Held]]:
        def closed(input: Any, results: Any, signals: Any) -> str:
            return "the seat is taken" if "hold" in results else ""

        saga = make_saga([make_step(world, "hold")], refuse_cancel=closed)
        with registered(saga):
            run = make_run(saga)
            yield run, claim(run)

    def test_the_cancellation_is_first(self, last: tuple[SagaRun, Held]) -> None:
        run, held = last

        told, still = overlapping(canceller(run), committer(held))

        assert isinstance(told, SagaRun)
        assert still[0].run.status == report(run).status == RunStatus.COMPENSATING
        assert kinds(run) == ["started", "cancel_requested", "turned_back"]

    def test_the_completion_is_first(self, last: tuple[SagaRun, Held]) -> None:
        run, held = last

        still, told = overlapping(committer(held), canceller(run))

        assert isinstance(told, ActRefused)
        assert (told.state, told.reason) == (RunStatus.COMPLETED, "the seat is taken")
        assert still[0].run.status == report(run).status == RunStatus.COMPLETED
        assert kinds(run) == ["started", "completed"]


class TestTwoOperators:
    @pytest.fixture
    def stuck(self, world: World, trip: Saga) -> SagaRun:
        """All is done but the last step, which was refused."""
        world.plan("tell", refuse)
        run = make_run(trip)
        assert run_to_end(run).status is RunStatus.NEEDS_ATTENTION
        return run

    def acts(self, run: SagaRun, actor: str) -> dict[str, Callable[[], SagaRun]]:
        place: dict[str, Any] = {"run_id": run.pk, "step": "tell", "direction": "action", "actor": actor}
        return {
            "retry": lambda: retry(**place),
            "skip": lambda: skip(**place, reason="told by telephone"),
            "resolve": lambda: resolve(**place, reason="told by telephone", evidence="note 7"),
            "abandon": lambda: abandon(run_id=run.pk, actor=actor, reason="it is hopeless"),
        }

    @pytest.mark.parametrize("act", ["retry", "skip", "resolve", "abandon"])
    def test_of_the_same_act_twice_at_once_one_counts(self, world: World, stuck: SagaRun, act: str) -> None:
        otto, olga = self.acts(stuck, "user:otto")[act], self.acts(stuck, "user:olga")[act]

        assert [type(end) for end in together(otto, olga)] == [SagaRun, SagaRun]

        run_to_end(stuck, clock=FrozenClock(timezone.now() + SECOND))
        assert sum(actor in ("user:otto", "user:olga") for _, actor, _ in events_of(stuck)) == 1
        after = {"retry": ["succeeded"], "skip": ["skipped"], "resolve": ["resolved"], "abandon": []}[act]
        assert [outcome for step, _, _, outcome in attempts_of(stuck) if step == "tell"] == ["refused", *after]
        assert world.effects == (FORWARD if act == "retry" else FORWARD[:2])

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (first, second)
            for first in ("retry", "skip", "resolve", "abandon")
            for second in ("retry", "skip", "resolve", "abandon")
            if first != second
        ],
    )
    def test_of_two_different_acts_the_second_is_refused(
        self, world: World, stuck: SagaRun, first: str, second: str
    ) -> None:
        won, lost = overlapping(self.acts(stuck, "user:otto")[first], self.acts(stuck, "user:olga")[second])

        assert isinstance(won, SagaRun)
        assert isinstance(lost, ActRefused)
        assert "user:olga" not in [actor for _, actor, _ in events_of(stuck)]
        ended = run_to_end(stuck, clock=FrozenClock(timezone.now() + SECOND))
        assert ended.status is (RunStatus.ABANDONED if first == "abandon" else RunStatus.COMPLETED)
        assert world.effects == (FORWARD if first == "retry" else FORWARD[:2])

    @pytest.mark.parametrize("first", ["retry", "skip", "resolve"])
    def test_a_cancellation_that_comes_second_undoes_what_the_first_has_settled(
        self, world: World, stuck: SagaRun, first: str
    ) -> None:
        won, told = overlapping(self.acts(stuck, "user:otto")[first], canceller(stuck))

        assert isinstance(won, SagaRun)
        assert isinstance(told, SagaRun)
        ended = run_to_end(stuck, clock=FrozenClock(timezone.now() + SECOND))
        assert (ended.status, ended.undone) == (RunStatus.COMPENSATED, ["pay", "hold"])
        assert world.effects == ["hold", "pay", "undo pay", "undo hold"]


class TestAnOperatorsRetryAndTheAutomaticOne:
    @pytest.fixture
    def waiting(self, world: World, trip: Saga) -> SagaRun:
        """The first attempt failed; the next is due in a second."""
        world.plan("hold", away)
        run = make_run(trip)
        worker(run)()
        assert report(run).status is RunStatus.RETRYING
        return run

    def asks(self, run: SagaRun) -> SagaRun:
        return retry(run_id=run.pk, step="hold", direction="action", actor="user:otto")

    @pytest.mark.parametrize("point", ["after_claim", "before_call:hold:action", "after_call:hold:action"])
    def test_the_worker_is_first(self, world: World, waiting: SagaRun, point: str) -> None:
        _, told = during(worker(waiting, later=2 * SECOND), point, lambda: self.asks(waiting))

        assert isinstance(told, ActRefused)
        assert told.reason == "a worker is at it, and what is under way ends first"
        self.was_tried_once_more(world, waiting)
        assert kinds(waiting) == ["started", "completed"]

    def test_the_operator_is_first(self, world: World, waiting: SagaRun) -> None:
        during(worker(waiting, later=2 * SECOND), "before_claim", lambda: self.asks(waiting))

        self.was_tried_once_more(world, waiting)
        assert kinds(waiting) == ["started", "retry_requested", "completed"]

    def test_the_operator_holds_the_run_while_the_worker_comes(self, world: World, waiting: SagaRun) -> None:
        overlapping(lambda: self.asks(waiting), worker(waiting, later=2 * SECOND))

        worker(waiting, later=2 * SECOND)()  # on PostgreSQL the first one has passed the locked run by
        self.was_tried_once_more(world, waiting)

    def was_tried_once_more(self, world: World, run: SagaRun) -> None:
        assert [end for step, _, _, end in attempts_of(run) if step == "hold"] == ["unavailable", "succeeded"]
        assert world.effects == FORWARD


class TestTheSweepAndAClaim:
    def test_what_is_claimed_is_not_rung_for(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        _, waiting = during(worker(run), "after_claim", sweep)

        assert (waiting, OrmQ.objects.count()) == (0, 0)
        assert world.calls == FORWARD

    def test_a_bell_rung_while_another_was_claiming_is_answered_in_vain(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        _, waiting = during(worker(run), "before_claim", sweep)

        assert (waiting, OrmQ.objects.count(), drive()) == (1, 1, 0)
        assert world.calls == FORWARD

    def test_a_sweep_that_cannot_see_the_claim_yet_harms_nothing(self, world: World, trip: Saga) -> None:
        run = make_run(trip)

        held, waiting = overlapping(lambda: claim(run), sweep)

        assert (len(held.begun), waiting, drive()) == (1, 1, 0)
        assert attempts_of(run) == [("hold", "action", 1, "")]
        assert world.calls == []


class TestASignalAndTheEndOfItsWait:
    @pytest.fixture
    def waiting(self, world: World) -> Iterator[SagaRun]:
        """The second step waits a minute for the signal `paid`."""

        def wait(ctx: StepContext) -> Any:
            if ctx.signal is None:
                return WaitFor(signal="paid", timeout=LEASE)
            return world.do(ctx)

        saga = make_saga([make_step(world, "hold"), make_step(world, "pay", action=wait)])
        with registered(saga):
            run = make_run(saga)
            worker(run)()
            yield run

    def says(self, run: SagaRun) -> bool:
        return signal(run_id=run.pk, name="paid", payload={"by": "card"})

    def test_the_signal_is_first(self, world: World, waiting: SagaRun) -> None:
        _, heard = during(worker(waiting, later=2 * LEASE), "before_claim", lambda: self.says(waiting))

        assert heard
        assert (report(waiting).status, world.effects) == (RunStatus.COMPLETED, ["hold", "pay"])

    def test_the_signal_holds_the_run_when_its_wait_ends(self, world: World, waiting: SagaRun) -> None:
        heard, _ = overlapping(lambda: self.says(waiting), worker(waiting, later=2 * LEASE))

        worker(waiting, later=2 * LEASE)()  # on PostgreSQL the first one has passed the locked run by
        assert heard
        assert (report(waiting).status, world.effects) == (RunStatus.COMPLETED, ["hold", "pay"])

    @pytest.mark.parametrize("point", ["after_claim", "before_call:pay:compensation", "after_call:hold:compensation"])
    def test_the_end_of_the_wait_is_first(self, world: World, waiting: SagaRun, point: str) -> None:
        _, heard = during(worker(waiting, later=2 * LEASE), point, lambda: self.says(waiting))

        assert heard
        ended = report(waiting)
        assert (ended.status, ended.error_code) == (RunStatus.COMPENSATED, "signal_timeout")
        assert world.effects == ["hold", "undo hold"]

    def test_of_two_at_once_one_is_heard(self, world: World, waiting: SagaRun) -> None:
        heard = together(lambda: self.says(waiting), lambda: self.says(waiting))

        worker(waiting, later=SECOND)()
        assert sorted(heard) == [False, True]
        assert world.effects == ["hold", "pay"]
        assert kinds(waiting) == ["started", "signal", "completed"]


class TestWhatAPersonSettledAndALateOutcome:
    @pytest.fixture
    def dark(self, world: World) -> Iterator[SagaRun]:
        """One step, tried once, of which nobody can tell whether it was done."""
        world.plan("look hold", *[cannot_tell] * 5)
        saga = make_saga([make_step(world, "hold", look_up=world.look_up, retry=fast(attempts=1))])
        with registered(saga):
            yield make_run(saga)

    def settles(self, run: SagaRun) -> SagaRun:
        return resolve(
            run_id=run.pk,
            step="hold",
            direction="action",
            actor="user:otto",
            reason="seen in their books",
            evidence="W-7",
            result={"reference": "W-7"},
        )

    @pytest.mark.parametrize("point", ["before_call", "after_call"])
    def test_the_person_is_first(self, world: World, dark: SagaRun, point: str) -> None:
        clock = FrozenClock(timezone.now() + 2 * LEASE)

        def somebody_else_and_a_person() -> RunStatus:
            given_up = run_to_end(dark, clock=clock).status
            self.settles(dark)
            return given_up

        _, given_up = during(worker(dark), f"{point}:hold:action", somebody_else_and_a_person)

        assert given_up is RunStatus.NEEDS_ATTENTION
        ended = run_to_end(dark, clock=clock)
        assert (ended.status, ended.results) == (RunStatus.COMPLETED, {"hold": {"reference": "W-7"}})
        assert [end for *_, end in attempts_of(dark)] == ["unknown"] * 4 + ["resolved"]
        assert world.effects == ["hold"]

    @pytest.mark.parametrize("point", ["before_call:hold:action", "before_commit"])
    def test_the_outcome_is_first(self, world: World, dark: SagaRun, point: str) -> None:
        _, told = during(worker(dark), point, lambda: self.settles(dark))

        assert isinstance(told, ActRefused)
        assert report(dark).results == {"hold": {"reference": "hold-1"}}
        assert kinds(dark) == ["started", "completed"]

    def test_a_run_that_was_given_up_stays_so(self, world: World, dark: SagaRun) -> None:
        def somebody_else_gives_it_up() -> None:
            owner_after(dark)()
            abandon(run_id=dark.pk, actor="user:otto", reason="it is hopeless")

        during(worker(dark), "after_call:hold:action", somebody_else_gives_it_up)

        assert report(dark).status is RunStatus.ABANDONED
        assert [end for *_, end in attempts_of(dark)] == ["unknown"] * 4
        assert kinds(dark)[-1] == "abandoned"


class TestALateActionAndItsUndo:
    """Effects in our own database, behind the barrier."""

    @pytest.fixture
    def seat(self, world: World) -> Iterator[SagaRun]:
        def hold(ctx: StepContext) -> Any:
            return do_once(ctx.key, lambda: {"seat": Group.objects.create(name="seat 12A").name})

        def free(ctx: StepContext) -> Any:
            def undo() -> dict[str, Any]:
                return {"freed": Group.objects.filter(name="seat 12A").delete()[0]}

            return undo_once(ctx.key, ctx.action_key, undo, {"freed": 0})

        saga = make_saga([make_step(world, "hold", action=hold, compensation=free)])
        with registered(saga):
            yield make_run(saga)

    def cancelled_by_the_next_owner(self, run: SagaRun) -> RunReport:
        canceller(run)()
        return owner_after(run)()

    def test_the_undo_is_first(self, seat: SagaRun) -> None:
        _, ended = during(worker(seat), "before_call:hold:action", lambda: self.cancelled_by_the_next_owner(seat))

        assert (ended.status, ended.undone) == (RunStatus.COMPENSATED, ["hold"])
        assert StepRecord.objects.get(run=seat, direction="compensation").result == {"freed": 0}
        # The action came, and was turned away.
        assert not Group.objects.filter(name="seat 12A").exists()
        assert sorted(Barrier.objects.values_list("cause", flat=True)) == ["compensation", "compensation"]
        assert attempts_of(seat) == [("hold", "action", 1, "unknown"), ("hold", "compensation", 1, "succeeded")]

    def test_the_action_is_first(self, seat: SagaRun) -> None:
        _, ended = during(worker(seat), "after_call:hold:action", lambda: self.cancelled_by_the_next_owner(seat))

        assert (ended.status, ended.undone) == (RunStatus.COMPENSATED, ["hold"])
        assert StepRecord.objects.get(run=seat, direction="compensation").result == {"freed": 1}
        assert not Group.objects.filter(name="seat 12A").exists()
        assert sorted(Barrier.objects.values_list("cause", flat=True)) == ["action", "compensation"]
