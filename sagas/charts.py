"""Numbers as rectangles of an SVG picture. The pages give them their colours, and a table says the same in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")

GAP = 0.2
"""Of a column's room, what stays free between it and the next."""


@dataclass(frozen=True, kw_only=True)
class Rect:
    """A rectangle, in percent of the picture from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    look: str
    """The class that colours it."""


def columns(parts: Sequence[Mapping[str, int]], looks: Mapping[str, str]) -> tuple[list[Rect], int]:
    """(stacked columns side by side, the number that the picture's height stands for).

    `looks` names each kind's class, the lowest first.
    """
    top = nice_top(max((sum(part.values()) for part in parts), default=0))
    room = 100 / max(len(parts), 1)
    found = []
    for n, part in enumerate(parts):
        ground = 100.0
        for kind, look in looks.items():
            height = part[kind] / top * 100
            if height:
                ground -= height
                found.append(
                    Rect(
                        x=round(n * room + room * GAP / 2, 3),
                        y=round(ground, 3),
                        width=round(room * (1 - GAP), 3),
                        height=round(height, 3),
                        look=look,
                    )
                )
    return found, top


def nice_top(most: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50 … that is not below `most`: an axis that people can read."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= most:
                return digit * power
        power *= 10


def beside(rows: Sequence[Row], *values: Sequence[float | None]) -> list[tuple[Row, list[float]]]:
    """Each row with its values in percent of the greatest of all values; None is 0."""
    most = max((value for column in values for value in column if value is not None), default=0)
    return [
        (row, [round((value or 0) / most * 100, 2) if most else 0.0 for value in of_row])
        for row, *of_row in zip(rows, *values, strict=True)
    ]
