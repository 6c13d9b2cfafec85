"""One worker process: drives what is due until nothing is. DATABASE_URL says where.

python -m benchmarks.worker [--threads 8] [--batch 500]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from datetime import timedelta

import django
from django.conf import settings

BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--batch", type=int, default=BATCH, help="Runs in flight at the most.")
    asked = parser.parse_args()
    django.setup()
    settings.SAGA_THREADS = asked.threads
    from sagas.driver import Driver, Limits

    limits = Limits.from_settings()
    limits.batch, limits.linger = asked.batch, timedelta(0)
    begin = time.process_time()
    taken = asyncio.run(Driver(limits=limits).drive(seconds=600))
    told = {
        "runs": taken,
        "cpu_seconds": round(time.process_time() - begin, 3),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
