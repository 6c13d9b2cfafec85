"""What the demo prints of its orders: on a terminal one line per order that moves in its place, elsewhere one line per
change. NO_COLOR is kept; a terminal that cannot move its cursor counts as none."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO
from urllib.parse import urlsplit

UP = "\x1b[{}A"
CLEAR = "\x1b[2K"
PAINT = {"good": "\x1b[32m", "bad": "\x1b[31m", "busy": "\x1b[36m"}
PLAIN = "\x1b[0m"
STATE_WIDTH = 40
"""What a state needs, with the blanks between columns."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One order as the screen shows it."""

    title: str
    status_word: str
    step_line: str
    verdict: str
    """Empty while it is under way; then whether it ended as expected."""
    is_expected: bool
    end: str
    """How it is to end, told for as long as it is under way."""
    link: str


class Screen:
    """Shows lines and, when told of new ones, what changed."""

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        self._out = out
        self.moves = out.isatty() and environ.get("TERM", "dumb") != "dumb"
        self.has_colour = self.moves and not environ.get("NO_COLOR")
        self._shown: list[str] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Bring the screen up to date."""
        width = shutil.get_terminal_size().columns if self.moves else None
        texts = laid_out(lines, width)
        if self.moves:
            self._redraw(texts, lines)
        else:
            for text in texts:
                if text not in self._shown:
                    self._out.write(f"{text}\n")
        self._shown = texts
        self._out.flush()

    def settle(self, lines: Sequence[Line]) -> None:
        """From here on other things are printed below: say changes as lines of their own, and do not go up again."""
        self.moves = False
        self._shown = laid_out(lines, None)

    def _redraw(self, texts: Sequence[str], lines: Sequence[Line]) -> None:
        if texts == self._shown:
            return
        if self._shown:
            self._out.write(UP.format(len(self._shown)))
        for text, line in zip(texts, lines, strict=True):
            self._out.write(f"\r{CLEAR}{self._painted(text, line)}\n")

    def _painted(self, text: str, line: Line) -> str:
        if not self.has_colour:
            return text
        mood = "busy" if not line.verdict else "good" if line.is_expected else "bad"
        return f"{PAINT[mood]}{text}{PLAIN}"


def laid_out(lines: Sequence[Line], width: int | None) -> list[str]:
    """The lines' texts in columns. With a width none is longer, since one that wraps would spoil the going up:
    links lose their host first, and then the end is cut."""
    titles = max((len(line.title) for line in lines), default=0)
    hosts = [(line.link, urlsplit(line.link).path) for line in lines]
    links = [link for link, _ in hosts]
    room = None if width is None else width - 1
    if room is not None and titles + max(map(len, links), default=0) + STATE_WIDTH > room:
        links = [path for _, path in hosts]
    widest = max(map(len, links), default=0)
    texts = [
        f"{line.title:<{titles}}  {link:<{widest}}  {state_of(line)}" for line, link in zip(lines, links, strict=True)
    ]
    return [text[:room] for text in texts]


def state_of(line: Line) -> str:
    """ "Undoing: Refund payment, try 2 of 4, to end undone", "Undone, as expected"."""
    if line.verdict:
        return f"{line.status_word}, {line.verdict}"
    under_way = f"{line.status_word}: {line.step_line}" if line.step_line else line.status_word
    return f"{under_way}, to end {line.end}"
