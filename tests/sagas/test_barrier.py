"""Effects in our own database, once, in whatever order and however often their calls arrive."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import transaction

from sagas import StepRefused
from sagas.barrier import do_once, first_time, undo_once
from sagas.models import Barrier
from tests.races import Paused, meet, together

pytestmark = pytest.mark.django_db(transaction=True)

DO, UNDO = "run-1:hold_seat:action", "run-1:hold_seat:compensation"
HELD, FREED, NOTHING = {"seat": "12A"}, {"freed": "12A"}, {"freed": ""}


def hold_seat() -> dict[str, str]:
    """The toy effect: a group stands for a seat that is held. Held twice, the database would say so."""
    Group.objects.create(name="seat 12A")
    return HELD


def free_seat() -> dict[str, str]:
    deleted, _ = Group.objects.filter(name="seat 12A").delete()
    assert deleted == 1
    return FREED


def act() -> dict[str, Any]:
    return do_once(DO, hold_seat)


def undo() -> dict[str, Any]:
    return undo_once(UNDO, DO, free_seat, NOTHING)


def is_held() -> bool:
    return Group.objects.filter(name="seat 12A").exists()


def barrier_rows() -> list[tuple[str, str, Any]]:
    return list(Barrier.objects.order_by("key").values_list("key", "cause", "result"))


def end_of(call: Callable[[], Any]) -> Any:
    """What it returned, or the code with which it was refused."""
    try:
        return call()
    except StepRefused as error:
        return error.code


class TestOneAfterTheOther:
    def test_an_action_has_its_effect_and_returns_its_result(self) -> None:
        assert act() == HELD

        assert is_held()
        assert barrier_rows() == [(DO, "action", HELD)]

    def test_again_it_returns_the_first_result_and_does_nothing(self) -> None:
        act()

        assert do_once(DO, lambda: {"seat": "another"}) == HELD
        assert barrier_rows() == [(DO, "action", HELD)]

    def test_an_effect_that_keeps_no_result_says_whether_it_was_had_now(self) -> None:
        assert first_time(DO, hold_seat)
        assert not first_time(DO, hold_seat)  # twice, the database would say so

        assert barrier_rows() == [(DO, "action", {})]
        assert undo() == FREED
        assert not first_time(DO, hold_seat)  # it came, and was undone: its rows tell
        assert not is_held()

    def test_an_undo_that_came_first_bars_such_an_effect_too(self) -> None:
        undo()

        with pytest.raises(StepRefused) as caught:
            first_time(DO, hold_seat)
        assert caught.value.code == "already_undone"
        assert not is_held()

    def test_an_undo_undoes_what_was_done(self) -> None:
        act()

        assert undo() == FREED
        assert not is_held()
        assert barrier_rows() == [(DO, "action", HELD), (UNDO, "compensation", FREED)]

    def test_an_undo_that_comes_first_has_nothing_to_undo_and_bars_the_action(self) -> None:
        assert undo() == NOTHING

        with pytest.raises(StepRefused) as caught:
            act()
        assert caught.value.code == "already_undone"
        assert not is_held()
        assert barrier_rows() == [(DO, "compensation", {}), (UNDO, "compensation", NOTHING)]

    @pytest.mark.parametrize(
        "arrival", sorted(set(permutations(["act", "act", "undo", "undo"]))), ids=lambda arrival: " ".join(arrival)
    )
    def test_doubled_calls_end_undone_in_every_order_of_arrival(self, arrival: tuple[str, ...]) -> None:
        ends = [(name, end_of(act if name == "act" else undo)) for name in arrival]

        was_done = arrival[0] == "act"
        assert ends == [
            (name, (FREED if was_done else NOTHING) if name == "undo" else HELD if was_done else "already_undone")
            for name in arrival
        ]
        assert not is_held()
        assert Barrier.objects.count() == 2

    def test_an_effect_that_fails_leaves_nothing_and_may_be_tried_again(self) -> None:
        def half() -> dict[str, str]:
            hold_seat()
            raise StepRefused("The seat is broken.", code="broken")

        assert end_of(lambda: do_once(DO, half)) == "broken"

        assert not is_held()
        assert barrier_rows() == []
        assert act() == HELD

    def test_the_undo_of_an_effect_that_failed_has_nothing_to_undo(self) -> None:
        def half() -> dict[str, str]:
            hold_seat()
            raise StepRefused("The seat is broken.", code="broken")

        end_of(lambda: do_once(DO, half))

        assert undo() == NOTHING
        assert end_of(act) == "already_undone"

    def test_an_undo_that_fails_leaves_everything_and_may_be_tried_again(self) -> None:
        act()

        def half() -> dict[str, str]:
            free_seat()
            raise StepRefused("The till is closed.", code="closed")

        assert end_of(lambda: undo_once(UNDO, DO, half, NOTHING)) == "closed"
        assert is_held()
        assert barrier_rows() == [(DO, "action", HELD)]
        assert undo() == FREED
        assert not is_held()

    def test_the_barrier_goes_with_the_callers_transaction(self) -> None:
        with transaction.atomic():
            act()
            transaction.set_rollback(True)

        assert not is_held()
        assert barrier_rows() == []
        assert undo() == NOTHING

    def test_other_keys_are_not_concerned(self) -> None:
        undo()

        assert do_once("run-2:hold_seat:action", hold_seat) == HELD
        assert is_held()


class TestAtOnce:
    def test_of_two_actions_one_has_the_effect_and_both_the_result(self) -> None:
        assert together(act, act) == [HELD, HELD]

        assert Group.objects.filter(name="seat 12A").count() == 1
        assert barrier_rows() == [(DO, "action", HELD)]

    def test_of_two_undos_one_undoes_and_both_say_so(self) -> None:
        act()

        assert together(undo, undo) == [FREED, FREED]
        assert not is_held()

    def test_doubled_actions_and_undos_end_undone_whoever_wins(self) -> None:
        ends = [end if isinstance(end, dict) else getattr(end, "code", end) for end in together(act, undo, act, undo)]

        action_first = [HELD, FREED, HELD, FREED]
        undo_first = ["already_undone", NOTHING, "already_undone", NOTHING]
        assert ends in (action_first, undo_first)
        assert not is_held()
        assert Barrier.objects.count() == 2

    def test_an_undo_waits_for_the_action_that_is_under_way(self) -> None:
        paused = Paused(hold_seat)

        acting, undoing = self.meet(lambda: do_once(DO, paused), undo, paused)

        assert (acting, undoing) == (HELD, FREED)
        assert not is_held()

    def test_an_action_waits_for_the_undo_that_came_first_and_is_turned_away(self) -> None:
        paused = Paused(lambda: None)

        def undo_slowly() -> dict[str, Any]:
            with transaction.atomic():
                result = undo()
                paused()
            return result

        undoing, acting = self.meet(undo_slowly, act, paused)

        assert (undoing, getattr(acting, "code", acting)) == (NOTHING, "already_undone")
        assert not is_held()

    def test_an_undo_waits_for_its_twin(self) -> None:
        act()
        paused = Paused(free_seat)

        first, second = self.meet(lambda: undo_once(UNDO, DO, paused, NOTHING), undo, paused)

        assert (first, second) == (FREED, FREED)
        assert not is_held()

    def test_an_undo_that_waited_for_an_action_that_failed_has_nothing_to_undo(self) -> None:
        def fail() -> dict[str, str]:
            raise StepRefused("The seat is broken.", code="broken")

        paused = Paused(fail)

        acting, undoing = self.meet(lambda: do_once(DO, paused), undo, paused)

        assert (getattr(acting, "code", acting), undoing) == ("broken", NOTHING)
        assert end_of(act) == "already_undone"

    def meet(self, first: Callable[[], Any], second: Callable[[], Any], paused: Paused) -> tuple[Any, Any]:
        """`first` stops in the middle of its effect, `second` sets out, `first` goes on; the ends of both."""
        ends, has_waited = meet(first, second, paused)
        assert has_waited
        return ends
