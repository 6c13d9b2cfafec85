"""`python -m benchmarks.peers.djangoq KIND RUNS PROCESSES DATABASE_URL`; PROCESSES is the number of queue workers."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

import django

from benchmarks.peers.order import tell

SETTINGS = (
    "ORM broker, polled every 20 ms, 50 tasks at a time; results of tasks are not saved, as the rows of the steps "
    "tell them. A worker carries one order at a time, also where its steps wait."
)
WHEN_KILLED = (
    "Rows of ended steps are kept, but the task is done again from its first step 90 s after it was taken, unless it "
    "is written to look at those rows."
)


def main(kind: str, runs: int, workers: str, url: str) -> None:
    os.environ |= {
        "DATABASE_URL": url,
        "WORKERS": workers,
        "DJANGO_SETTINGS_MODULE": "benchmarks.peers.djangoq.settings",
    }
    django.setup()
    from benchmarks.peers.djangoq.measure import measure

    versions = {"django-q2": version("django-q2"), "django": version("django")}
    tell({**measure(kind, runs), "versions": versions, "settings": SETTINGS, "when_killed": WHEN_KILLED})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
