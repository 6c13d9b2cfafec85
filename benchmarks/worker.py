"""One worker process: drives what is due until nothing is. `python -m benchmarks.worker`; DATABASE_URL says where."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import timedelta

import django

BATCH = 500


def main() -> None:
    django.setup()
    from sagas.driver import Driver, Limits

    limits = Limits.from_settings()
    limits.batch, limits.linger = BATCH, timedelta(0)
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
