"""A saga as a picture: every step and undo with its words, alone and with a run in it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sagas import Kind, Saga
from sagas.graph import as_mermaid, as_svg, as_text, picture
from sagas.selectors import run_view
from sagas.testing import run_to_end
from tests.sagas.toys import World, make_run, make_saga, make_step, refuse

pytestmark = pytest.mark.django_db
SVG = "{http://www.w3.org/2000/svg}"


def test_text(trip: Saga) -> None:
    assert as_text(trip) == (
        "trip, version 1\n"
        "1. Hold  ↩ Undo hold\n"
        "2. Pay   ↩ Undo pay  (pivot)\n"
        "3. Tell  ↩ no undo  (retriable)"
    )  # fmt: skip


def test_text_of_a_run(world: World, trip: Saga) -> None:
    world.plan("pay", refuse)
    run = run_to_end(make_run(trip)).run

    assert as_text(trip, run_view(run.pk)).splitlines() == [
        "trip, version 1: T-1, undone",
        "1. Hold  [Done]        ↩ Undo hold [Undone]",
        "2. Pay   [Failed]      ↩ Undo pay [Not needed]  (pivot)",
        "3. Tell  [Not reached] ↩ no undo  (retriable)",
    ]


def test_steps_side_by_side_stand_below_each_other(world: World) -> None:
    saga = make_saga(
        (
            make_step(world, "hotel", after=()),
            make_step(world, "flight", after=()),
            make_step(world, "pay", kind=Kind.PIVOT, after=("hotel", "flight")),
        )
    )

    drawn = picture(saga)

    places = {box.full: (box.x, box.y) for box in drawn.boxes}
    assert places["Hotel"][0] == places["Flight"][0] < places["Pay"][0]
    assert places["Hotel"][1] == places["Pay"][1] < places["Undo hotel"][1] < places["Flight"][1]
    assert all(box.x + drawn.box_width < drawn.width and box.y + drawn.box_height < drawn.height for box in drawn.boxes)
    assert [arrow.look for arrow in drawn.arrows].count("forward") == 2
    assert "2. Flight  ↩ Undo flight  (starts with the run)" in as_text(saga)
    assert "3. Pay     ↩ Undo pay  (pivot, after hotel and flight)" in as_text(saga)


def test_mermaid(trip: Saga) -> None:
    assert as_mermaid(trip).splitlines() == [
        "flowchart LR",
        '  hold["Hold"]',
        '  undo_hold("Undo hold")',
        "  hold -.- undo_hold",
        '  pay["Pay<br/>pivot"]',
        '  undo_pay("Undo pay")',
        "  pay -.- undo_pay",
        "  hold --> pay",
        "  undo_pay -.-> undo_hold",
        '  tell["Tell<br/>tried until done"]',
        "  pay --> tell",
    ]


def test_svg_is_a_file_that_says_everything_in_words_too(world: World, trip: Saga) -> None:
    world.plan("pay", refuse)
    view = run_view(run_to_end(make_run(trip)).run.pk)

    root = ElementTree.fromstring(as_svg(trip, view))  # noqa: S314  (ours)

    assert root.findtext(f"{SVG}title") == "T-1: undone"
    assert root.findtext(f"{SVG}desc") == (
        "Hold: done, undone by Undo hold: undone. Pay: failed, undone by Undo pay: not needed. Tell: not reached."
    )
    looks = [group.get("class") for group in root.findall(f"{SVG}g")]
    assert looks == ["box done", "box undone", "box failed", "box none", "box none"]
    assert root.find(f"{SVG}style") is not None


def test_names_are_text_and_long_ones_are_cut(world: World) -> None:
    saga = make_saga((make_step(world, "hold", title='A <b>"long"</b> name that fits into no box at all'),))

    drawn = as_svg(saga)

    assert "<b>" not in drawn
    title = ElementTree.fromstring(drawn).findall(f"{SVG}g/{SVG}text")[0].text  # noqa: S314  (ours)
    assert title == 'A <b>"long"</b> name tha…'
    assert "#quot;long#quot;" in as_mermaid(saga)
