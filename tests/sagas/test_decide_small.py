"""Every history of the small sagas, without chance: up to three steps, and whatever anybody may do a few acts deep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import pytest

from sagas import Kind, RetryPolicy, Saga, Step
from sagas.states import ENDED, Outcome
from tests.sagas.playing import AWAY, LOST_AFTER, LOST_BEFORE, NO, POSTPONED, SECOND, WAIT_DATE, WAIT_SIGNAL, YES, Play
from tests.sagas.toys import World, make_saga, make_step

pytestmark = pytest.mark.pure

WORLD = World()
ENDS = (YES, NO, AWAY, LOST_BEFORE, LOST_AFTER, WAIT_DATE, WAIT_SIGNAL, POSTPONED)
SHAPES = [
    kinds
    for total in (1, 2, 3)
    for kinds in product((Kind.COMPENSATABLE, Kind.PIVOT, Kind.RETRIABLE), repeat=total)
    if list(kinds) == sorted(kinds, key=list(Kind).index) and kinds.count(Kind.PIVOT) <= 1
]
"""All that a definition allows of up to three steps, in the order of their kinds."""
TWICE = RetryPolicy(attempts=2, first=SECOND, jitter=False)
DEPTHS = {(1, False): 4, (2, False): 3, (2, True): 3, (3, False): 3, (3, True): 2}
"""How many acts deep, by the number of steps and whether they are beside each other; a calm end comes after them."""

Act = Callable[[Play], object]


def small_saga(kinds: tuple[Kind, ...], *, beside: bool, careful: bool) -> Saga:
    """One step of each kind, one after the other or as far `beside` each other as may be.

    A `careful` one has look-ups, and undos also where they could be left out.
    """
    steps: list[Step] = []
    for name, kind in zip("abc", kinds, strict=False):
        undo = careful or kind is Kind.COMPENSATABLE
        steps.append(
            make_step(
                WORLD,
                name,
                kind=kind,
                after=() if beside and kind is not Kind.PIVOT else tuple(step.name for step in steps),
                compensation=WORLD.act if undo else None,
                compensation_title=f"Undo {name}" if undo else "",
                retry=TWICE,
                compensation_retry=TWICE,
                look_up=WORLD.look_up if careful else None,
                compensation_look_up=WORLD.look_up if careful else None,
            )
        )
    return make_saga(steps)


def possible(play: Play) -> Iterator[Act]:
    """Whatever anybody may do now."""
    for place in sorted(play.in_flight):
        for answer in ENDS:
            yield partial(Play.end, place=place, answer=answer)
    if play.in_flight:
        yield partial(Play.crash, happened=True)
    elif play.due_at is not None:
        yield partial(Play.pass_time, seconds=play.due_at - play.now)
    if play.may_cancel():
        yield Play.cancel
    if any(attempt.wait_signal for attempt in play.attempts) and not play.signals:
        yield partial(Play.signal, name="paid")
    for place in play.stuck():
        yield partial(Play.retry, place=place)
        yield partial(Play.settle, place=place, outcome=Outcome.RESOLVED)
        if play.may_skip(place):
            yield partial(Play.settle, place=place, outcome=Outcome.SKIPPED)


def follow_all(play: Play, depth: int) -> int:
    """Try every act, and after each of them every act; returns how many histories came to their end."""
    acts = list(possible(play)) if depth else []
    if not acts:
        play.finish()
        return 1
    ends = 0
    for act in acts:
        other = play.twin()
        act(other)
        if other.status not in ENDED:
            other.look()
        ends += follow_all(other, depth - 1)
    return ends


def starts(saga: Saga) -> Iterator[Play]:
    """A run that went well so far, after each of its steps; and the same, cancelled there."""
    play = Play(saga)
    play.look()
    while True:
        yield play
        if play.may_cancel():
            cancelled = play.twin()
            cancelled.cancel()
            cancelled.look()
            yield cancelled
        if play.status in ENDED:
            return
        play = play.twin()
        play.end(min(play.in_flight), YES)
        play.look()


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "careless"])
@pytest.mark.parametrize("kinds", SHAPES, ids=lambda kinds: "-".join(kind.value for kind in kinds))
def test_every_history_of_a_small_saga_is_legal_and_ends(kinds: tuple[Kind, ...], careful: bool) -> None:
    ends = 0
    for (total, beside), depth in DEPTHS.items():
        if total == len(kinds):
            for play in starts(small_saga(kinds, beside=beside, careful=careful)):
                ends += follow_all(play, depth)

    assert ends > 100
