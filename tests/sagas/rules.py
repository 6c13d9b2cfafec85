"""What must hold of every decision, whatever happened before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sagas import Kind, Step
from sagas.decide import Begin, Decision, decide
from sagas.states import DONE, ENDED, RUN_MOVES, RunStatus
from tests.sagas.reference import ACTION, UNDO, Expected, Move

if TYPE_CHECKING:
    from tests.sagas.playing import Play

FORWARD = (RunStatus.RUNNING, RunStatus.RETRYING)


def check(play: Play, decision: Decision) -> None:
    back = play.turned_back or decision.failure is not None
    assert decision.status is play.status or decision.status in RUN_MOVES[play.status], "an illegal move"
    assert not (play.turned_back and decision.failure), "turned back twice"
    for begin in decision.begin:
        _check_begin(play, begin, back=back)
    assert len({begin.step.name for begin in decision.begin}) == len(decision.begin), "begun twice at once"
    if back:
        _check_undo(play, decision)
    _check_status(play, decision, back=back)
    _check_due(play, decision)
    _check_same(play, decision)
    expected = play.reference.expect(play.now)
    assert told(decision) == expected_of(expected), "not what the reference says"
    _check_words(play, decision, expected, back=back)


def _check_begin(play: Play, begin: Begin, *, back: bool) -> None:
    place = (begin.step.name, begin.direction)
    tries = [a for a in play.attempts if (a.step, a.direction) == place]
    assert place not in play.in_flight, "begun again while it is under way"
    assert begin.number == len(tries) + 1, "numbers have gaps"
    assert not any(a.outcome in DONE for a in tries), "done a second time"
    assert begin.direction is (UNDO if back else ACTION), "forward after turning back"
    in_doubt = play.reference.tracks[place].open
    assert begin.maybe_done is in_doubt, "an open question is looked up, and nothing else"
    if not back:
        done = {a.step for a in play.attempts if a.direction is ACTION and a.outcome in DONE}
        assert done >= set(play.saga.before(begin.step.name)), "begun before its time"


def _check_undo(play: Play, decision: Decision) -> None:
    under_way = [place for place in play.in_flight if place[1] is UNDO]
    assert len(decision.begin) + len(under_way) <= 1, "two undos at a time"
    for begin in decision.begin:
        assert not play.in_flight, "undone while something is under way"
        name = begin.step.name
        assert play.reference.left(begin.step), "undone, and nothing was done"
        later = play.reference.begun[play.reference.begun.index(name) + 1 :]
        for other in later:
            if other in play.standing() and play.saga.step(other).compensation is not None:
                stand = play.reference.stand((other, UNDO), play.now)
                assert stand == "failed", f"{name} is undone before {other}, which began later"


def _check_status(play: Play, decision: Decision, *, back: bool) -> None:
    busy = bool(decision.begin or play.in_flight)
    left = {name for name in play.standing() if _is_to_be_undone(play.saga.step(name))}
    if decision.status in FORWARD:
        assert not back
    elif decision.status is RunStatus.COMPLETED:
        assert not busy
        assert not back
        done = {a.step for a in play.attempts if a.direction is ACTION and a.outcome in DONE}
        assert done == {step.name for step in play.saga.steps}, "completed, and something is not done"
    elif decision.status is RunStatus.COMPENSATED:
        assert not busy
        assert back
        assert left == set(), "left behind without a word"
    elif decision.status is RunStatus.NEEDS_ATTENTION:
        assert not busy
        if back:
            named = {n for n in left if _undo_words(play, play.saga.step(n)) in decision.attention}
            assert named == left, "left behind without a word"


def _check_due(play: Play, decision: Decision) -> None:
    """Time alone changes nothing before `due_at`, and something at it."""
    if decision.begin or play.in_flight or decision.status in ENDED:
        assert decision.due_at is None
        return
    assert decision.due_at is None or decision.due_at > play.now, "due, and it does nothing"
    waits = decision.status is not RunStatus.NEEDS_ATTENTION
    assert decision.due_at is not None or not waits, "it sleeps for ever"
    history = play.history(turned_back=play.turned_back or decision.failure is not None)
    calm = replace(decision, failure=None)
    for moment in _moments(play):
        later = decide(play.saga, history, moment)
        if decision.due_at is None or moment < decision.due_at:
            assert later == calm, "time alone moves it on, and nobody is told when"
    if decision.due_at is not None:
        assert decide(play.saga, history, decision.due_at) != calm, "woken for nothing"


def _moments(play: Play) -> list[datetime]:
    known = {a.retry_at for a in play.attempts} | {play.reference.deadline_at, play.now + timedelta(days=4000)}
    for attempt in play.attempts:
        limit = play.saga.step(attempt.step).policy(attempt.direction).deadline
        known.add(attempt.started_at + limit if limit is not None else None)
    tick = timedelta(microseconds=1)
    return sorted({m for k in known if k is not None for m in (k - tick, k, k + tick) if m > play.now})


def _check_same(play: Play, decision: Decision) -> None:
    """The same history, however it is put together, gives the same decision."""
    turned = play.history(
        signals=dict(reversed(play.signals.items())),
        fresh_from=dict(reversed(play.fresh_from.items())),
        in_flight=frozenset(reversed(play.in_flight)),
    )
    assert decide(play.saga, turned, play.now) == decision, "the same history, another decision"


def _check_words(play: Play, decision: Decision, expected: Expected, *, back: bool) -> None:
    """A person is told of each step that waits for him, and of nothing else; and where to look first."""
    steps = [play.saga.step(name) for name in expected.named]
    words = [_undo_words(play, step) if back else step.display for step in steps]
    assert [part.split(" failed")[0].split(":")[0] for part in decision.attention.split("; ") if part] == words
    if decision.status is RunStatus.NEEDS_ATTENTION:
        assert decision.current_step in expected.named
    elif decision.status not in ENDED:
        assert decision.current_step in {step.name for step in play.saga.steps}


def _undo_words(play: Play, step: Step) -> str:
    """How a person is told of the step's undo, also where several share a title."""
    titles = [other.compensation_title for other in play.saga.steps]
    shared = titles.count(step.compensation_title) > 1
    return f"{step.compensation_title} ({step.name})" if shared else step.compensation_title


def _is_to_be_undone(step: Step) -> bool:
    return step.compensation is not None or step.kind is Kind.PIVOT


Told = tuple[RunStatus, tuple[Move, ...], str]


def told(decision: Decision) -> Told:
    moves = tuple(
        Move(
            place=(begin.step.name, begin.direction),
            number=begin.number,
            maybe_done=begin.maybe_done,
            only_ask=begin.look_up_only,
            brings=None if begin.signal is None else begin.signal.get("signal", ""),
        )
        for begin in decision.begin
    )
    cause = ""
    if decision.failure is not None:
        cause = decision.failure.step or decision.failure.code
    return decision.status, moves, cause


def expected_of(expected: Expected) -> Told:
    return expected.status, expected.moves, expected.cause
