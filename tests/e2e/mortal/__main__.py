"""Drive runs by processes that die: `python -m tests.e2e.mortal JOBS.json ENDS.json`.

A job is {"run": id, "point": name, "pass_by": how often it is survived, "together": bool}. Alone, a process drives the
run until it dies, and another one after it; together, two drive it from the start, and whoever comes to the point first
dies. Written is, for each job, how its processes ended: [-9, 0].

Processes are forked from this one, which has Django loaded and no connection open.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any
from uuid import UUID

import django

AT_A_TIME = 6


def live(job: dict[str, Any], *, is_mortal: bool) -> None:
    """Drive the run to its end, or die on the way."""
    from sagas import points
    from sagas.driver import Driver

    mark, left = Path(job["mark"]), job["pass_by"]

    def hook(point: str) -> None:
        nonlocal left
        if point != job["point"]:
            return
        if left:
            left -= 1
            return
        try:
            mark.touch(exist_ok=False)  # of two, one dies
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    if is_mortal:
        points.set_hook(hook)
    asyncio.run(Driver().drive_run(UUID(job["run"])))


def fork(job: dict[str, Any], *, is_mortal: bool) -> int:
    """A process of its own for one life; its exit code is 0 if the run was driven to its end."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        live(job, is_mortal=is_mortal)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(jobs: list[dict[str, Any]]) -> list[list[int]]:
    """How the processes of each job ended, the dead first. No threads: what is forked would inherit their locks."""
    django.setup()
    ends: list[list[int]] = [[] for _ in jobs]
    waiting = list(range(len(jobs)))
    alive: dict[int, int] = {}
    while waiting or alive:
        while waiting and len(alive) < AT_A_TIME:
            number = waiting.pop(0)
            for _ in range(2 if jobs[number]["together"] else 1):
                alive[fork(jobs[number], is_mortal=True)] = number
        pid, status = os.wait()
        number = alive.pop(pid)
        ends[number].append(os.waitstatus_to_exitcode(status))
        if not jobs[number]["together"] and len(ends[number]) == 1:
            alive[fork(jobs[number], is_mortal=False)] = number
    return [sorted(end) for end in ends]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
