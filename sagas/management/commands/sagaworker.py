"""Runs a django-q2 cluster and watches that it works: rings for due runs each second, restarts a stalled cluster.

A cluster whose idle worker was killed looks healthy and takes nothing any more, because the dead worker took the
queue's lock with it. What gives it away is due work that nobody takes; that is what is watched here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, close_old_connections
from django.utils import timezone

from sagas import heartbeats, queue
from sagas.driver import new_worker_name

STALLED_AFTER = timedelta(seconds=15)
LONGEST_PATIENCE = timedelta(minutes=5)
GRACE_SECONDS = 20.0
"""In this time drives finish what is under way."""
STALLED_STOP_SECONDS = 3.0
"""A cluster that takes no work has nothing under way to wait for."""
NICE = 5
PR_SET_PDEATHSIG = 1  # prctl(2)


class Command(BaseCommand):
    help = "Run the queue's cluster under watch. SIGTERM or Ctrl-C stops it in good order."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--stalled-after",
            type=float,
            default=STALLED_AFTER.total_seconds(),
            help="Seconds that a run may be due and untaken before the cluster is restarted.",
        )

        parser.add_argument(
            "--grace",
            type=float,
            default=GRACE_SECONDS,
            metavar="SECONDS",
            help="How long attempts that are under way may take to end when it is told to stop; "
            f"{GRACE_SECONDS:g} unless said. What takes longer is killed, and taken over when its lease ends.",
        )

        parser.add_argument(
            "--nice",
            type=int,
            choices=range(20),
            default=NICE,
            metavar="0-19",
            help=f"How far the workers stand back for what else this machine does; {NICE} unless said.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stopping = False
        self.grace = max(options["grace"], 0)
        self.name, self.beaten_at = new_worker_name(), float("-inf")
        if hasattr(os, "nice"):
            # Who places an order waits for the answer; the order itself can wait a little longer.
            os.nice(options["nice"])
        with tempfile.TemporaryDirectory(prefix="sagaworker-") as folder:
            self.stop_flag = Path(folder) / "stop"
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            try:
                queue.schedule_sweep()
            except DatabaseError as error:
                # It may come up after us; the schedule is the second net, this process the first.
                self.stderr.write(f"The database gave no answer: {error}")
            self._watch(timedelta(seconds=options["stalled_after"]))

    def _watch(self, stalled_after: timedelta) -> None:
        cluster = self._start()
        started = time.monotonic()
        # A cluster takes seconds to start, and many on a busy machine: each restart that brings nothing waits longer.
        patience = stalled_after
        try:
            while not self.stopping:
                time.sleep(1)
                if cluster.poll() is not None:
                    self.stderr.write(f"The cluster ended with {cluster.returncode}; starting another.")
                    self._end(cluster, seconds=0)
                    cluster, started = self._start(), time.monotonic()
                elif not self._stalled(stalled_after):
                    patience = stalled_after
                    self._beat()
                elif time.monotonic() - started > patience.total_seconds():
                    self.stderr.write("Work is due and nobody takes it; restarting the cluster.")
                    self._end(cluster, seconds=STALLED_STOP_SECONDS)
                    cluster, started = self._start(), time.monotonic()
                    patience = min(patience * 2, LONGEST_PATIENCE)
        finally:
            self._beat_no_more()
            self._end(cluster, seconds=self.grace)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        with suppress(FileNotFoundError):  # told again at the very end
            self.stop_flag.touch()  # at once: what is told to stop takes nothing more

    def _stalled(self, longer_than: timedelta) -> bool:
        """Ring for what is due; True if the bell goes unanswered."""
        close_old_connections()
        try:
            return bool(queue.ring_for_due()) and queue.stalled(longer_than=longer_than)
        except DatabaseError as error:
            self.stderr.write(f"The database gave no answer: {error}")
            return False

    def _beat(self) -> None:
        """A sign of life, as long as the cluster is there and does not leave work lying."""
        if time.monotonic() - self.beaten_at < heartbeats.EVERY.total_seconds():
            return
        try:
            heartbeats.beat(self.name, cluster=queue.CLUSTER, now=timezone.now())
        except DatabaseError as error:
            self.stderr.write(f"The database gave no answer: {error}")
        else:
            self.beaten_at = time.monotonic()

    def _beat_no_more(self) -> None:
        try:
            heartbeats.stop(self.name, now=timezone.now())
        except DatabaseError as error:
            self.stderr.write(f"The database gave no answer: {error}")

    def _start(self) -> subprocess.Popen[bytes]:
        # A group of its own: stopping it reaches its workers too, and Ctrl-C reaches this process alone.
        self.stop_flag.unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, sys.argv[0], "qcluster"],
            env={**os.environ, queue.STOP_FLAG: str(self.stop_flag)},
            start_new_session=True,
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
        )

    def _end(self, cluster: subprocess.Popen[bytes], *, seconds: float) -> None:
        self.stop_flag.touch()  # or drives would go on for as long as work comes in
        if cluster.poll() is None:
            cluster.terminate()
            try:
                cluster.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.stderr.write(f"The cluster did not stop within {seconds:g} s; killing it.")
        # Whatever is left of the group: workers outlive a sentinel that was killed.
        try:
            os.killpg(cluster.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        cluster.wait()


def _stop_with_parent() -> None:
    """In the new process: be told to stop should the supervisor be killed, which then can tell nobody anything."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
