"""A short attack for each broker, the whole way: `make chaos` does the same for as long as you like."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT

pytestmark = [pytest.mark.processes, pytest.mark.chaos]

SECONDS = 25
MOST_SECONDS = 220
SETTINGS = ("DATABASE_URL", "BROKER_URL", "DJANGO_SETTINGS_MODULE")  # the attack makes its own


@pytest.mark.parametrize("broker", ["orm", "valkey"])
def test_every_promise_is_kept_under_attack(broker: str) -> None:
    attack = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--seconds", str(SECONDS), "--seed", "3", "--broker", broker],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in SETTINGS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = attack.communicate(timeout=MOST_SECONDS)
    finally:
        attack.terminate()  # in order, or its servers would stay
        attack.wait()

    assert attack.returncode == 0, output
    assert "Every promise was kept." in output
