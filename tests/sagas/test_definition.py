"""What a saga may be, and what is refused when it is built."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any

import pytest

from sagas import DefinitionError, Direction, Kind, Saga, Step, StepContext, UnknownSaga, WaitFor, registry
from tests.sagas.toys import World, make_saga, make_step, registered

WORLD = World()


def step(name: str, **changes: Any) -> Step:
    return make_step(WORLD, name, **changes)


def refusal(**fields: Any) -> str:
    with pytest.raises(DefinitionError) as refused:
        make_saga(**fields)
    return str(refused.value)


class TestSaga:
    def test_steps_follow_one_another_as_written(self) -> None:
        saga = make_saga([step("a"), step("b"), step("c")])

        assert [saga.before(name) for name in ("a", "b", "c")] == [(), ("a",), ("b",)]
        assert saga.all_before("c") == {"a", "b"}

    def test_steps_may_name_what_they_come_after(self) -> None:
        saga = make_saga([step("a"), step("b", after=()), step("c", after=("a", "b"))])

        assert saga.before("b") == ()
        assert saga.all_before("c") == {"a", "b"}

    def test_a_step_that_is_not_there_is_named_with_those_that_are(self) -> None:
        saga = make_saga([step("a"), step("b")])

        with pytest.raises(DefinitionError, match=r"Saga trip has no step c; it has a, b\."):
            saga.step("c")

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ([], "Saga trip has no steps."),
            ([step("a"), step("a")], "Saga trip has two steps named a."),
            (
                [step("a", after=("z",))],
                "Saga trip: a comes after z, which is not a step written before it.",
            ),
            (
                [step("a", after=("a",))],
                "Saga trip: a comes after a, which is not a step written before it.",
            ),
            (
                [step("a", kind=Kind.PIVOT), step("b", kind=Kind.PIVOT)],
                "Saga trip has 2 pivots: a, b. One is the most.",
            ),
            (
                [step("a", kind=Kind.PIVOT), step("b")],
                "Saga trip: b is compensatable and comes after a, which is pivot. "
                "After that point steps are retriable.",
            ),
            (
                [step("a", kind=Kind.RETRIABLE), step("b")],
                "Saga trip: b is compensatable and comes after a, which is retriable. "
                "After that point steps are retriable.",
            ),
            (
                [step("a", kind=Kind.RETRIABLE), step("b", kind=Kind.PIVOT)],
                "Saga trip: b is pivot and comes after a, which is retriable. After that point steps are retriable.",
            ),
            (
                [step("a"), step("b", kind=Kind.PIVOT), step("c", after=("a",))],
                "Saga trip: the pivot b must come after every compensatable step; it does not come after c.",
            ),
        ],
    )
    def test_an_order_of_steps_that_cannot_be_undone_is_refused(self, steps: list[Step], message: str) -> None:
        assert refusal(steps=steps) == message

    def test_a_default_that_cannot_be_stored_is_named(self) -> None:
        assert refusal(steps=[step("a")], defaults={"amount": Decimal("1.50")}) == (
            "Saga trip: the default amount=Decimal('1.50') cannot be stored as JSON."
        )
        assert "the default amount=nan cannot be stored" in refusal(
            steps=[step("a")], defaults={"amount": float("nan")}
        )

    @pytest.mark.parametrize("name", ["", "x" * 101])
    def test_a_name_that_cannot_be_stored_is_refused(self, name: str) -> None:
        assert refusal(steps=[step("a")], name=name) == (f"A saga's name has 1 to 100 characters; this is {name!r}.")

    def test_versions_begin_with_one(self) -> None:
        assert refusal(steps=[step("a")], version=0) == "Saga trip: the version is 0; versions begin with 1."


class TestStep:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"name": "two words"}, "Step name 'two words' is not an identifier, like reserve_inventory."),
            ({"name": ""}, "Step name '' is not an identifier, like reserve_inventory."),
            ({"name": "x" * 101}, f"Step name {'x' * 101} has more than 100 characters."),
            (
                {"compensation": None},
                "Step hold is compensatable and has no compensation. Give it one, or another kind.",
            ),
            ({"timeout": timedelta(0)}, "Step hold: the timeout 0:00:00 is not a time to wait."),
        ],
    )
    def test_a_step_that_makes_no_sense_is_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(DefinitionError) as refused:
            Step(**{"name": "hold", "action": WORLD.act, "compensation": WORLD.act, **fields})

        assert str(refused.value) == message

    def test_titles_are_made_from_names_where_none_is_given(self) -> None:
        def release_seat(ctx: StepContext) -> None: ...

        made = Step(name="hold_seat", action=WORLD.act, compensation=release_seat)
        told = Step(name="a", action=WORLD.act, compensation=release_seat, title="Hold", compensation_title="Release")
        part = Step(name="pack", action=WORLD.act, compensation=partial(release_seat))
        final = Step(name="pay", action=WORLD.act, kind=Kind.PIVOT)

        assert (made.display, made.compensation_display) == ("Hold seat", "Release seat")
        assert (told.display, told.compensation_display) == ("Hold", "Release")
        assert (part.display, part.compensation_display) == ("Pack", "Undo of Pack")
        assert (final.display, final.compensation_display) == ("Pay", "")

    def test_a_direction_that_is_not_there_cannot_be_called(self) -> None:
        final = Step(name="pay", action=WORLD.act, kind=Kind.PIVOT)

        assert final.act(Direction.ACTION) == WORLD.act
        with pytest.raises(DefinitionError, match=r"Step pay has no compensation\."):
            final.act(Direction.COMPENSATION)

    @pytest.mark.parametrize(
        ("result", "found"),
        [
            ({"id": "P-1"}, "P-1"),
            ({}, ""),
            (None, ""),
            ({"of": "another shape"}, ""),
            ({"id": None}, ""),
            ({"id": 7}, ""),
            ({"id": ["P-1"]}, ""),
        ],
    )
    def test_where_a_result_has_the_other_sides_id(self, result: Any, found: str) -> None:
        pay = step("pay", receipt_id=itemgetter("id"))

        assert pay.id_in(result, Direction.ACTION) == found
        assert pay.id_in(result, Direction.COMPENSATION) == ""
        assert step("pay", compensation_receipt_id=itemgetter("id")).id_in(result, Direction.COMPENSATION) == found


class TestWaitFor:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"signal": "paid", "until": datetime(2030, 1, 1, tzinfo=UTC)},
            {"signal": "x" * 101},
            {"until": datetime(2030, 1, 1)},  # noqa: DTZ001  (that is the mistake)
            {"signal": "paid", "timeout": timedelta.max},
        ],
        ids=["neither", "both", "long name", "no zone", "for ever"],
    )
    def test_a_wait_that_cannot_be_kept_is_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(DefinitionError):
            WaitFor(**fields)


class TestContext:
    def test_keys_come_from_run_step_and_direction_and_never_from_the_attempt(self) -> None:
        def context(direction: Direction, attempt: int) -> StepContext:
            return StepContext(
                run_id="R",
                saga="trip",
                business_key="T-1",
                step="hold",
                direction=direction,
                input={},
                results={},
                attempt=attempt,
                maybe_done=False,
            )

        assert {context(Direction.ACTION, n).key for n in (1, 2, 9)} == {"R:hold:action"}
        assert context(Direction.COMPENSATION, 1).key == "R:hold:compensation"
        assert context(Direction.COMPENSATION, 1).action_key == "R:hold:action"


class TestRegistry:
    def test_a_run_finds_the_version_it_began_with(self) -> None:
        old, new = make_saga([step("a")]), make_saga([step("a"), step("b")], version=2)

        with registered(old, new):
            assert registry.get("trip", 1) is old
            assert registry.get("trip", 2) is new
            assert registry.newest("trip") is new
            assert ("trip", 1) in registry.names()

    def test_a_variant_is_found_and_never_the_newest(self) -> None:
        first, variant = make_saga([step("a")]), make_saga([step("a"), step("b")], version=2)

        with registered(first, variant):
            registry.register(variant, is_variant=True)
            assert registry.get("trip", 2) is variant
            assert registry.newest("trip") is first

    def test_the_same_definition_twice_is_harmless_and_another_one_is_not(self) -> None:
        saga: Saga = make_saga([step("a")])

        with registered(saga):
            assert registry.register(saga) is saga
            with pytest.raises(DefinitionError, match=r"Saga trip version 1 is registered already\. Raise"):
                registry.register(make_saga([step("b")]))

    def test_what_nobody_registered_is_named(self) -> None:
        with pytest.raises(UnknownSaga, match="No saga trip version 7 is registered"):
            registry.get("trip", 7)
        with pytest.raises(UnknownSaga, match="No saga trip is registered"):
            registry.newest("trip")
