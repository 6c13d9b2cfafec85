"""Three thousand stories in which everything goes wrong. A seed that breaks a promise is named, and plays again."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import connection

from tests.simulation.story import tell

SEEDS = 3_000
CHUNK = 250
TROUBLES = {
    "away", "refused", "lost", "silent", "slow", "killed", "stalled", "database away", "commit failed",
    "commit unheard", "cancelled", "retried by a person", "completed", "compensated", "needs_attention",
}  # fmt: skip

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.pure  # PostgreSQL plays some of them below
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept(first: int) -> None:
    counts: Counter[str] = Counter()

    for seed in range(first, first + CHUNK):
        try:
            story = tell(seed)
        except Exception as error:
            pytest.fail(f"Seed {seed}: {error}\nAgain: python -m tests.simulation --seed {seed} --trace")
        counts += story.counts + story.world.counts

    assert set(counts) >= TROUBLES  # what did not happen was not survived


def test_some_of_them_on_either_database() -> None:
    for seed in range(SEEDS, SEEDS + 100):
        try:
            tell(seed)
        except Exception as error:
            pytest.fail(f"Seed {seed} on {connection.vendor}: {error}")


def test_the_same_seed_plays_the_same_story() -> None:
    told: list[list[str]] = [[], []]

    for lines in told:
        tell(1519, lines.append)

    assert told[0] == told[1]
    assert len(told[0]) > 20
