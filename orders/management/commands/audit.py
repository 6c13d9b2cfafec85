"""Hold the whole shop against itself and against its providers' ledgers. Reads only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from orders.audit import audit_shop
from orders.models import Order
from sagas.audit import STALE_AFTER, Finding, audit_runs
from sagas.progress import Progress
from sagas.selectors import counts
from sagas.shell import ShellCommand, counted


class Command(ShellCommand):
    help = "Check every run, order, stock item and provider's ledger. Exits with 1 and a list if something is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
        parser.add_argument(
            "--stale-minutes",
            type=float,
            default=STALE_AFTER.total_seconds() / 60,
            help="how long a run may be due, or its lease over, before that is a finding",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["stale_minutes"] < 0:
            raise CommandError(f"--stale-minutes is {options['stale_minutes']:g}; it must be 0 or more.", returncode=2)
        begin = time.monotonic()
        self.runs = self.orders = 0
        progress = Progress(sum(counts().values()) + Order.objects.count())
        count = 0
        found: list[Finding] = []  # kept only for the one JSON object: lines are written as they come
        for finding in self._findings(timedelta(minutes=options["stale_minutes"]), progress):
            count += 1
            if options["json"]:
                found.append(finding)
            else:
                progress.clear()
                self.stdout.write(str(finding))
        progress.clear()
        seconds = time.monotonic() - begin
        if options["json"]:
            self.stdout.write(
                json.dumps(
                    {
                        "orders": self.orders,
                        "runs": self.runs,
                        "seconds": round(seconds, 3),
                        "findings": [
                            {"code": one.code, "subject": one.subject, "message": one.message} for one in found
                        ],
                    },
                    indent=2,
                )
            )
        else:
            what = {0: "nothing wrong", 1: "1 finding"}.get(count, f"{count:,} findings")
            looked_at = f"{counted(self.orders, 'order', 'orders')} and {counted(self.runs, 'run', 'runs')}"
            self.stdout.write(f"Audited {looked_at} in {seconds:.1f} s: {what}.")
        if count:
            sys.exit(1)

    def _findings(self, stale_after: timedelta, progress: Progress) -> Iterator[Finding]:
        def saw_runs(count: int) -> None:
            self.runs += count
            progress.show(self.runs + self.orders)

        def saw_orders(count: int) -> None:
            self.orders += count
            progress.show(self.runs + self.orders)

        yield from audit_runs(stale_after=stale_after, seen=saw_runs)
        yield from audit_shop(seen=saw_orders)
