"""Whole histories, row by row: those that must never be, and by chance a number of those that may."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from sagas import Kind, Saga, step_key
from sagas.audit import audit_runs
from sagas.exceptions import ActRefused
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.services import cancel, resolve, retry, skip
from sagas.states import Direction
from sagas.testing import FrozenClock, drive_once, run_to_end
from tests.sagas.toys import (
    World,
    attempts_of,
    away,
    cannot_tell,
    make_run,
    make_saga,
    make_step,
    refuse,
    registered,
    vanish,
)

pytestmark = pytest.mark.django_db

DO, UNDO = "action", "compensation"
Row = tuple[str, str, int, str]
PAID: list[Row] = [("hold", DO, 1, "succeeded"), ("pay", DO, 1, "succeeded")]
TOLD: list[Row] = [*PAID, ("tell", DO, 1, "succeeded")]


def codes() -> list[str]:
    return [finding.code for finding in audit_runs()]


def tell(saga: Saga, status: str, rows: list[Row], **changes: Any) -> SagaRun:
    """A run of that status, and that history of it."""
    run, now = make_run(saga), timezone.now()
    for step, direction, number, outcome in rows:
        StepRecord.objects.create(
            run=run,
            step=step,
            direction=direction,
            number=number,
            outcome=outcome,
            key=step_key(str(run.pk), step, Direction(direction)),
            started_at=now,
            ended_at=now if outcome else None,
            wait_signal="paid" if outcome == "waiting" else "",
        )
    columns: dict[str, Any] = {"status": status, "due_at": now}
    if status in ("completed", "compensated", "abandoned"):
        columns |= {"due_at": None, "ended_at": now}
    if status in ("compensating", "compensated"):
        columns |= {"turned_back_at": now, "failure_code": "cancelled"}
    SagaRun.objects.filter(pk=run.pk).update(**columns | changes)
    return run


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("hold", DO, 1, "waiting")], ["something_left"]),
        ([("hold", DO, 1, "unknown"), ("hold", DO, 2, "unavailable")], ["something_left"]),
        ([("hold", DO, 1, "refused"), ("hold", UNDO, 1, "succeeded")], ["undone_what_left_nothing"]),
        ([("hold", DO, 1, "unavailable"), ("hold", UNDO, 1, "succeeded")], ["undone_what_left_nothing"]),
        (
            [*PAID, ("pay", UNDO, 1, "succeeded"), ("hold", UNDO, 1, "succeeded"), ("hold", UNDO, 2, "succeeded")],
            ["attempt_after_success"],
        ),
        (
            [*PAID, ("pay", UNDO, 1, "unavailable"), ("hold", UNDO, 1, "succeeded"), ("pay", UNDO, 2, "succeeded")],
            ["undo_out_of_order"],
        ),
        (
            [("hold", DO, 1, "refused"), ("hold", DO, 2, "succeeded"), ("hold", UNDO, 1, "succeeded")],
            ["attempt_after_refusal"],
        ),
        (
            [*TOLD, ("tell", UNDO, 1, "succeeded"), ("pay", UNDO, 1, "succeeded"), ("hold", UNDO, 1, "succeeded")],
            ["undone_without_undo"],
        ),
        (
            [("hold", DO, 1, "succeeded"), ("hold", UNDO, 1, "skipped")],
            ["settled_by_nobody"],
        ),
    ],
    ids=lambda value: str(value[-1]),
)
def test_an_undone_run_that_cannot_have_been(trip: Saga, rows: list[Row], expected: list[str]) -> None:
    tell(trip, "compensated", rows)

    assert codes() == expected


@pytest.mark.parametrize(
    ("status", "rows", "changes", "expected"),
    [
        ("pending", PAID, {}, ["pending_and_begun"]),
        ("running", [("hold", DO, 1, "")], {}, ["attempt_of_nobody"]),
        ("needs_attention", [("hold", DO, 1, "")], {"attention_reason": "why"}, ["attempt_of_nobody"]),
        ("running", PAID, {"turned_back_at": timezone.now()}, ["another_way"]),
        ("compensating", PAID, {"turned_back_at": None}, ["another_way"]),
        (
            "compensating",
            [*PAID[:1], ("pay", DO, 1, ""), ("pay", UNDO, 1, "unavailable")],
            {"lease_owner": "w1", "lease_until": timezone.now() + timedelta(hours=1)},
            ["undo_beside_action"],
        ),
    ],
    ids=["pending", "running", "needs_attention", "turned_back", "not_turned_back", "undone_beside"],
)
def test_a_status_that_its_history_does_not_allow(
    trip: Saga, status: str, rows: list[Row], changes: dict[str, Any], expected: list[str]
) -> None:
    tell(trip, status, rows, **changes)

    assert codes() == expected


@pytest.mark.parametrize(("said", "expected"), [([], ["abandoned_and_not_said"]), (["hold"], [])])
def test_a_run_is_given_up_with_a_list_of_what_stands(trip: Saga, said: list[str], expected: list[str]) -> None:
    run = tell(trip, "abandoned", PAID[:1])
    RunEvent.objects.create(
        run=run, kind="abandoned", reason="enough", data={"left_undone": said}, created_at=timezone.now()
    )

    assert codes() == expected


def test_a_person_may_settle_an_undo_before_a_worker_notes_the_cancellation(world: World) -> None:
    step = make_step(world, "hold", kind=Kind.PIVOT, look_up=world.look_up)
    world.plan("hold", *[vanish] * 9)
    world.plan("look hold", *[cannot_tell] * 20)
    with registered(saga := make_saga([step])):
        run = make_run(saga)
        assert run_to_end(run).status == "needs_attention"
        cancel(run_id=run.pk, actor="user:sam", reason="enough")
        resolve(run_id=run.pk, step="hold", direction=UNDO, actor="user:sam", reason="by phone", evidence="ticket 7")
        assert codes() == []

        assert run_to_end(run).status == "compensated"

        assert codes() == []


def test_a_person_may_have_the_newer_undo_tried_again_after_the_older(world: World, trip: Saga) -> None:
    world.plan("undo pay", refuse)
    run = make_run(trip)
    run_to_end(run)
    cancel(run_id=run.pk, actor="user:sam", reason="enough")
    assert run_to_end(run).status == "needs_attention"
    retry(run_id=run.pk, step="pay", direction=UNDO, actor="user:sam")

    run_to_end(run)

    assert attempts_of(run)[-3:] == [
        ("pay", UNDO, 1, "refused"),
        ("hold", UNDO, 1, "succeeded"),
        ("pay", UNDO, 2, "succeeded"),
    ]
    assert codes() == []


@pytest.mark.parametrize("seed", range(40))
def test_no_history_that_the_engine_writes_is_found_fault_with(world: World, seed: int) -> None:
    dice = random.Random(seed)
    saga = chance_saga(world, dice)
    with registered(saga):
        run, clock = make_run(saga), FrozenClock()
        drive_once(run, clock=clock)
        if dice.random() < 0.3:
            try_to(cancel, run_id=run.pk, actor="user:sam", reason="enough")
        for _ in range(4):
            assert codes() == [], attempts_of(run)
            run_to_end(run, clock=clock)
            assert codes() == [], attempts_of(run)
            meddle(run, dice)
            clock.now = max(clock.now + timedelta(seconds=5), timezone.now())


def chance_saga(world: World, dice: random.Random) -> Saga:
    """a and b, in a row or side by side, then the pivot c, then d, which is retriable; all answer by chance."""
    side_by_side = dice.random() < 0.5
    answers = [refuse, away, vanish, world.lose, world.do, world.do, world.do]
    steps = []
    for name in "abcd":
        changes: dict[str, Any] = {"c": {"kind": Kind.PIVOT}, "d": {"kind": Kind.RETRIABLE}}.get(name, {})
        if side_by_side:
            changes["after"] = {"c": ("a", "b"), "d": ("a", "b", "c")}.get(name, ())
        if dice.random() < 0.6:
            changes["look_up"] = world.look_up
        steps.append(make_step(world, name, **changes))
        for what in (name, f"undo {name}"):
            world.plan(what, *dice.choices(answers, k=dice.randrange(5)))
        world.plan(f"look {name}", *dice.choices([cannot_tell, cannot_tell, world.do], k=dice.randrange(3)))
    return make_saga(steps)


def meddle(run: SagaRun, dice: random.Random) -> None:
    """What a person might try, sensible or not."""
    fields: dict[str, Any] = {"run_id": run.pk, "actor": "user:sam", "reason": "by phone"}
    for step in dice.sample("abcd", 4):
        way = {"step": step, "direction": dice.choice([DO, UNDO])}
        act = dice.choice([retry, skip, resolve, cancel, None])
        if act is cancel:
            try_to(cancel, **fields)
        elif act is resolve:
            try_to(resolve, **fields, **way, evidence="ticket 7")
        elif act is not None:
            try_to(act, **fields, **way)


def try_to(act: Callable[..., Any], **fields: Any) -> None:
    try:
        act(**fields)
    except ActRefused:
        return
