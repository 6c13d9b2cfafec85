"""docs/tutorial.md, done as it says: its files written, its tests run, its commands typed in a shell beside a worker.

The button that is pressed in the end stands in tests/e2e; here the command beside it is typed, that does the same.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import call_command

HERE = Path(__file__).resolve().parent.parent
PAGE = (HERE / "docs" / "tutorial.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)\n```", PAGE, re.DOTALL)
PYTHON = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'manage.py'))}"

pytestmark = pytest.mark.pure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which all files of the page have been written, in the page's order."""
    call_command("startsaga", "bike_tours", "--dir", str(tmp_path), verbosity=0)
    for language, text in BLOCKS:
        name, _, body = text.partition("\n")
        if language == "python":
            (tmp_path / name.removeprefix("# ")).write_text(f"{body}\n")
        elif language == "diff":
            change(tmp_path / name, body)
    return tmp_path


def change(file: Path, diff: str) -> None:
    """Do what a block of the page shows; each place must be there exactly once."""
    text = file.read_text()
    for hunk in diff.split("\n@@\n"):
        lines = hunk.split("\n")
        before = "\n".join(line[1:] for line in lines if line[:1] != "+")
        after = "\n".join(line[1:] for line in lines if line[:1] != "-")
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file.write_text(text)


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return kept | {
        "DJANGO_SETTINGS_MODULE": "tours_settings",
        "PYTHONPATH": f"{folder}:{HERE}",
        "VAR_DIR": str(folder / "var"),
        "DATABASE_URL": f"sqlite:///{folder}/tours.sqlite3",
        "PYTHONUNBUFFERED": "1",
    }


def typed(folder: Path, line: str) -> str:
    """What a line of the page prints."""
    line = line.replace("python manage.py", PYTHON).replace("pytest ", f"{shlex.quote(sys.executable)} -m pytest ")
    done = subprocess.run(  # noqa: S602  (our own page)
        line, shell=True, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False, timeout=120
    )
    return done.stdout + done.stderr


def stories(first: str, last: str) -> Iterator[tuple[str, list[str]]]:
    """(a line to type, what the page says that it prints) of the blocks between two headings."""
    part = PAGE[PAGE.index(first) : PAGE.index(last)]
    for block in re.findall(r"```(?:console|sh)\n(.*?)\n```", part, re.DOTALL):
        if "$ " not in block and block.startswith(("export ", "python manage.py demo")):
            continue
        for told in re.split(r"^\$ ", block, flags=re.MULTILINE):
            line, *printed = told.split("\n")
            if line:
                yield line, [text for text in printed if text]


def assert_prints(folder: Path, line: str, printed: list[str]) -> None:
    said = " ".join(typed(folder, line).split())
    for text in printed:
        assert " ".join(text.split()) in said, (line, text, said)


def test_what_was_written_is_there_as_the_page_says(folder: Path) -> None:
    assert typed(folder, "python manage.py saga check").startswith("✓ bike_tours version 1: 3 steps\n")
    assert {block[1].partition("\n")[0] for block in BLOCKS if block[0] == "diff"} == {
        "bike_tours/definition.py", "bike_tours/tests.py",
    }  # fmt: skip


def test_its_tests_pass(folder: Path) -> None:
    told = dict(stories("## 3.", "## 4."))
    (folder / "pytest.ini").write_text("[pytest]\n")

    for line, printed in told.items():
        assert_prints(folder, line, printed)
    assert list(told.values()) == [["15 passed"]]


@contextmanager
def worker(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "manage.py"), "sagaworker"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.processes
def test_the_story_is_as_it_is_told(folder: Path) -> None:
    typed(folder, "python manage.py migrate")

    with worker(folder):
        for line, printed in stories("## 4.", "## Where to go"):
            assert_prints(folder, line, printed)

    assert list((folder / "var" / "bank").iterdir()) == []
