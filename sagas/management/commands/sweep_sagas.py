from __future__ import annotations

from typing import Any

from sagas.queue import ring_for_due
from sagas.shell import ShellCommand, counted


class Command(ShellCommand):
    help = "Ring the bell if runs are due and held by nobody, and say how many there are."

    def handle(self, *args: Any, **options: Any) -> None:
        waiting = ring_for_due()
        self.stdout.write(counted(waiting, "run is", "runs are") + " due and held by nobody.")
