"""Child processes that are sure to end: when told to, when their parent does, and whatever they have started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from django.core.management.base import CommandError

STOP_SECONDS = 30
PR_SET_PDEATHSIG = 1
"""prctl(2): send me a signal when my parent is gone. Linux only; elsewhere a killed parent leaves its children."""


class Children:
    """Python programs under watch, their output in files of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, *arguments: str) -> None:
        """Run this Python with `arguments`."""
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603  (our own programs)
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # A session of its own: Ctrl-C reaches the parent alone, which then stops them in order.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def pids(self) -> list[int]:
        return [process.pid for process in self._running.values()]

    def check(self) -> None:
        """Raises CommandError, with the last words, if one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                last = "\n".join(self._log(name).read_text(errors="replace").splitlines()[-20:])
                raise CommandError(f"{name} ended with {process.returncode}. Its last words:\n{last}")

    def stop(self) -> None:
        """Ask all to stop, wait for them, and kill what is left of their process groups."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self._running.clear()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
