"""Play seeds from a shell: `python -m tests.simulation --seeds 100000 --from 0`, or one of them again with `--trace`.

Exits with 1 at the first seed whose story breaks a promise, and says which.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

import django
from django.test.utils import setup_databases, teardown_databases


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many to play")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--trace", action="store_true", help="tell the story as it goes")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings_test")
    django.setup()
    from tests.simulation.story import tell

    first, count = (options.seed, 1) if options.seed is not None else (options.first, options.seeds)
    databases = setup_databases(verbosity=0, interactive=False)
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    try:
        for seed in range(first, first + count):
            try:
                story = tell(seed, say if options.trace else None)
            except BaseException as error:
                say(f"\nseed {seed}: {type(error).__name__}: {error}")
                say(f"Play it again: python -m tests.simulation --seed {seed} --trace")
                return 1
            counts += story.counts + story.world.counts
            if sys.stdout.isatty():
                sys.stdout.write(f"\r{seed - first + 1:,} of {count:,}")
    finally:
        teardown_databases(databases, verbosity=0)
    seconds = time.monotonic() - begin
    say(f"\r{count:,} seeds in {seconds:.1f} s, every promise kept.")
    say(", ".join(f"{name} {number:,}" for name, number in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
