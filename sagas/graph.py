"""A saga as a picture: its steps in the order they may run, their undos and its pivot, with a run's state in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.template.loader import render_to_string

from sagas.definition import Kind, Saga, Step
from sagas.presentation import STEP_BADGES, UNDO_BADGES, Badge
from sagas.selectors import RunView, StepView
from sagas.states import UndoState

WIDTH, HEIGHT = 190, 58
"""Of a box, in the picture's own units: about a pixel each."""
GAP = 36
BAND = 2 * HEIGHT + 3 * GAP
"""Room for a step and its undo, one above the other."""
LETTERS = 25
"""That fit into a box."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A step, or an undo, at its place."""

    x: int
    y: int
    title: str
    """Cut to what fits; `full` is not."""
    full: str
    note: str
    """The kind of step, or the state that the run's is in."""
    look: str

    @property
    def text_x(self) -> int:
        return self.x + 12

    @property
    def title_y(self) -> int:
        return self.y + 24

    @property
    def note_y(self) -> int:
        return self.y + 44


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """From one box to another."""

    path: str
    look: str
    """forward, undo or link: which undo belongs to which step."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Boxes and arrows, with all of it in words."""

    width: int
    height: int
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    title: str
    words: str
    box_width: int = WIDTH
    box_height: int = HEIGHT


def picture(saga: Saga, view: RunView | None = None) -> Picture:
    """The definition, or with `view` how far that run of it has come."""
    places = _places(saga)
    states = {step.name: step for step in view.steps} if view is not None else {}
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    for step in saga.steps:
        column, row = places[step.name]
        x, y = GAP + column * (WIDTH + GAP), GAP + row * BAND
        badge = _badge(step, states.get(step.name))
        boxes.append(_box(x, y, step.display, badge))
        for earlier in saga.before(step.name):
            from_column, from_row = places[earlier]
            start = GAP + from_column * (WIDTH + GAP) + WIDTH
            begin = GAP + from_row * BAND + HEIGHT // 2
            arrows.append(Arrow(path=_curve(start, begin, x, y + HEIGHT // 2), look="forward"))
        if step.compensation is None:
            continue
        below = y + HEIGHT + GAP
        boxes.append(_box(x, below, step.compensation_display, _undo_badge(states.get(step.name))))
        arrows.append(Arrow(path=f"M{x + WIDTH // 2} {y + HEIGHT} V{below}", look="link"))
        for earlier in saga.before(step.name):
            if saga.step(earlier).compensation is None:
                continue
            from_column, from_row = places[earlier]
            end = GAP + from_column * (WIDTH + GAP) + WIDTH
            at = GAP + from_row * BAND + HEIGHT + GAP + HEIGHT // 2
            arrows.append(Arrow(path=_curve(x, below + HEIGHT // 2, end, at), look="undo"))
    columns = max(column for column, _ in places.values()) + 1
    rows = max(row for _, row in places.values()) + 1
    title = f"{saga.name}, version {saga.version}"
    if view is not None:
        title = f"{view.run.business_key}: {view.status_word.lower()}"
    return Picture(
        width=GAP + columns * (WIDTH + GAP),
        height=rows * BAND,
        boxes=boxes,
        arrows=arrows,
        title=title,
        words=". ".join(_line(saga, step, states.get(step.name)) for step in saga.steps) + ".",
    )


def as_text(saga: Saga, view: RunView | None = None) -> str:
    """For a terminal: a line a step."""
    states = {step.name: step for step in view.steps} if view is not None else {}
    head = f"{saga.name}, version {saga.version}"
    if view is not None:
        head += f": {view.run.business_key}, {view.status_word.lower()}"
    wide = max(len(step.display) for step in saga.steps)
    lines = [head]
    for number, step in enumerate(saga.steps, 1):
        undo = step.compensation_display if step.compensation is not None else "no undo"
        state, undo_state = "", ""
        found = states.get(step.name)
        if found is not None:
            state = f"[{_badge(step, found).word}] "
            undo_state = f" [{_undo_badge(found).word}]" if step.compensation is not None else ""
        line = f"{number}. {step.display:<{wide}}  {state:<14}" if found else f"{number}. {step.display:<{wide}}  "
        lines.append(f"{line}↩ {undo}{undo_state}{_remarks(saga, step, number)}")
    return "\n".join(lines)


def as_mermaid(saga: Saga, view: RunView | None = None) -> str:
    """A flowchart in Mermaid's language."""
    states = {step.name: step for step in view.steps} if view is not None else {}
    lines = ["flowchart LR"]
    for step in saga.steps:
        found = states.get(step.name)
        words = f"<br/>{_badge(step, found).word}" if found or step.kind is not Kind.COMPENSATABLE else ""
        lines.append(f'  {step.name}["{_quoted(step.display)}{words}"]')
        if step.compensation is not None:
            words = f"<br/>{_undo_badge(found).word}" if found else ""
            lines.append(f'  undo_{step.name}("{_quoted(step.compensation_display)}{words}")')
            lines.append(f"  {step.name} -.- undo_{step.name}")
        for earlier in saga.before(step.name):
            lines.append(f"  {earlier} --> {step.name}")
            if step.compensation is not None and saga.step(earlier).compensation is not None:
                lines.append(f"  undo_{step.name} -.-> undo_{earlier}")
    return "\n".join(lines)


def as_svg(saga: Saga, view: RunView | None = None) -> str:
    """A file of its own, with its styles in it."""
    return render_to_string("sagas/graph.svg", {"picture": picture(saga, view), "is_file": True})


def _places(saga: Saga) -> dict[str, tuple[int, int]]:
    """Step -> (column, row): as far right as its longest way here, steps side by side in rows below each other."""
    columns: dict[str, int] = {}
    taken: dict[int, int] = {}
    places = {}
    for step in saga.steps:
        column = max((columns[earlier] + 1 for earlier in saga.before(step.name)), default=0)
        columns[step.name] = column
        places[step.name] = (column, taken.get(column, 0))
        taken[column] = taken.get(column, 0) + 1
    return places


def _box(x: int, y: int, title: str, badge: Badge) -> Box:
    short = title if len(title) <= LETTERS else title[: LETTERS - 1] + "…"
    return Box(x=x, y=y, title=short, full=title, note=badge.word, look=badge.look)


def _badge(step: Step, found: StepView | None) -> Badge:
    if found is not None:
        return STEP_BADGES[found.state]
    words = {Kind.PIVOT: "pivot", Kind.RETRIABLE: "tried until done"}
    return Badge(word=words.get(step.kind, "can be undone"), look="none")


def _undo_badge(found: StepView | None) -> Badge:
    if found is not None:
        return UNDO_BADGES[found.undo_state or UndoState.NOT_NEEDED]
    return Badge(word="undo", look="none")


def _curve(x1: int, y1: int, x2: int, y2: int) -> str:
    if y1 == y2:
        return f"M{x1} {y1} H{x2}"
    middle = (x1 + x2) // 2
    return f"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}"


def _line(saga: Saga, step: Step, found: StepView | None) -> str:
    line = f"{step.display}: {_badge(step, found).word.lower()}"
    if step.compensation is not None:
        line += f", undone by {step.compensation_display}"
        line += f": {_undo_badge(found).word.lower()}" if found is not None else ""
    return line


def _remarks(saga: Saga, step: Step, number: int) -> str:
    remarks = [step.kind.value] if step.kind is not Kind.COMPENSATABLE else []
    before = saga.before(step.name)
    usual = (saga.steps[number - 2].name,) if number > 1 else ()
    if before != usual:
        remarks.append(f"after {' and '.join(before)}" if before else "starts with the run")
    return f"  ({', '.join(remarks)})" if remarks else ""


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")
