"""`manage.py saga crashtest`: workers are really killed, and what goes wrong is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sagas.crashtest import edges

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.processes

BREAKS = """
import os, sys
import django
django.setup()
from django.core.management import call_command
from sagas import crashtest
whole = crashtest._effect
crashtest._effect = lambda folder, key: whole(folder, f"{key}:{os.getpid()}")
call_command("saga", "crashtest", "--runs", "6")
"""


def ran(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    database = os.environ.get("DATABASE_URL") or f"sqlite:///{folder}/shop.sqlite3"
    environment = {**os.environ, "DATABASE_URL": database, "VAR_DIR": str(folder)}
    environment["BROKER_URL"] = "redis://127.0.0.1:1/0"  # nobody listens there: who rings would be heard to complain
    environment["DJANGO_SETTINGS_MODULE"] = "config.settings"
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=200
    )


def test_each_edge_kills_a_worker_and_every_run_ends_as_it_should(tmp_path: Path) -> None:
    done = ran(["manage.py", "saga", "crashtest"], tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{edges()} workers were killed in {edges()} runs with seed 1.",
        "Each run ended all done or all undone, every effect happened once, and the audit finds nothing.",
    ]
    assert not (tmp_path / "shop.sqlite3").exists() or (tmp_path / "shop.sqlite3").stat().st_size == 0


def test_effects_that_go_by_no_key_are_found(tmp_path: Path) -> None:
    done = ran(["-c", BREAKS], tmp_path)

    assert done.returncode == 1
    assert "another key was sent" in done.stderr
    assert "runs did not end as they should" in done.stdout
