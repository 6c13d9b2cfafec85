"""A saga begun with `manage.py startsaga`: its tests pass as they were written, in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

SETTINGS = """
from config.settings_test import *
INSTALLED_APPS = [*INSTALLED_APPS, "bike_tours.apps.BikeToursConfig"]
"""


BARE = """
import os

SECRET_KEY = "of another project"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "trips.sqlite3"}}
USE_TZ = True
"""


def run_tests(folder: Path, package: str, settings: str) -> str:
    """What pytest says of the package's tests, in a process of its own."""
    here = Path(__file__).parents[2]
    words = ["-q", "-p", "no:cacheprovider", "-o", f"pythonpath={folder} {here}", f"--ds={settings}"]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--rootdir={folder}", str(folder / package / "tests.py")],
        cwd=folder,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return tests.stdout + tests.stderr


@pytest.mark.pure
def test_its_tests_pass_in_a_project_that_knows_nothing_of_the_shop(tmp_path: Path) -> None:
    """With what docs/sagas.md says such a project has to set, and nothing else."""
    page = (Path(__file__).parents[2] / "docs" / "sagas.md").read_text()
    (told,) = [text for text in re.findall(r"```python\n(.*?)\n```", page, re.DOTALL) if "Q_CLUSTER" in text]
    call_command("startsaga", "trips", "--dir", str(tmp_path))
    (tmp_path / "bare_settings.py").write_text(BARE + told)

    said = run_tests(tmp_path, "trips", "bare_settings")

    assert "12 passed" in said, said


@pytest.mark.pure
def test_what_it_writes_passes_its_own_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("startsaga", "bike_tours", "--dir", str(tmp_path))
    (tmp_path / "their_settings.py").write_text(SETTINGS)
    here = Path(__file__).parents[2]

    assert "bike_tours.apps.BikeToursConfig" in capsys.readouterr().out
    words = ["-q", "-p", "no:cacheprovider", "-o", f"pythonpath={tmp_path} {here}", "--ds=their_settings"]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--rootdir={tmp_path}", str(tmp_path / "bike_tours/tests.py")],
        cwd=here,
        env={"PATH": "", "DATABASE_URL": "sqlite:///unused.sqlite3", "VAR_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "12 passed" in tests.stdout
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--config", str(here / "pyproject.toml"), "--ignore", "S101", "."],
        cwd=tmp_path / "bike_tours",
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout


@pytest.mark.pure
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bike-tours", "cannot be a package's name"),
        ("class", "cannot be a package's name"),
        ("Tours", "cannot be a package's name"),
        ("orders", "There is a module orders already"),
        ("taken", "is there already; nothing was written"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(CommandError, match=words):
        call_command("startsaga", name, "--dir", str(tmp_path))

    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]
