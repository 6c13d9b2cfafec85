"""The shop that is attacked: its servers, its clusters, and which of their processes does what."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests import servers
from tests.processes import Process, Site

LEASE_SECONDS = 5
SETTINGS = {
    "DEMO": "true",  # test cards and postcodes plan failures of their own
    "FAULTS": "true",
    "SAGA_LEASE_SECONDS": str(LEASE_SECONDS),
    "SAGA_DRIVE_SECONDS": "10",
    "SAGA_LINGER_SECONDS": "1",  # so that there are idle workers too
    "SAGA_THREADS": "8",
    "Q_WORKERS": "2",
    "Q_TIMEOUT_SECONDS": "30",
    "Q_RETRY_SECONDS": "40",
    "ORDER_RETRY_ATTEMPTS": "8",
    "ORDER_PATIENT_ATTEMPTS": "12",
    "ORDER_RETRY_FIRST_SECONDS": "0.2",
    "ORDER_RETRY_CAP_SECONDS": "2",
    "LOG_LEVEL": "WARNING",
}


class Cluster:
    """One `manage.py sagaworker`, started as the README does, and everything that it started."""

    def __init__(self, site: Site, number: int) -> None:
        self.site = site
        self.name = f"cluster{number}"
        self.process = self._start()

    def _start(self) -> Process:
        # Told by its environment, which every process below inherits however it came to be.
        self.site.env["CHAOS_CLUSTER"] = self.name
        try:
            return self.site.start(self.name, "manage.py", "sagaworker")
        finally:
            del self.site.env["CHAOS_CLUSTER"]

    def pids(self) -> list[int]:
        """All of its living processes, the supervisor first."""
        marks = {f"CHAOS_CLUSTER={self.name}".encode(), f"VAR_DIR={self.site.env['VAR_DIR']}".encode()}
        return sorted(pid for pid, environment in living() if marks <= environment)

    def sentinel_children(self) -> list[int]:
        """The processes that do the cluster's work: workers, the pusher, the monitor."""
        parents = {pid: parent_of(pid) for pid in self.pids()}
        return [pid for pid in parents if _depth(pid, parents) >= 3]

    def kill(self) -> None:
        """As a power cut: all at once, and no handler runs."""
        for pid in self.pids():
            send(pid, signal.SIGKILL)
        self.process.kill()

    def start_again(self) -> None:
        if not self.process.is_running():
            self.process = self._start()


@dataclass
class Shop:
    """Everything under attack."""

    site: Site
    postgres: servers.Postgres
    valkey: servers.Valkey | None
    clusters: list[Cluster] = field(default_factory=list)

    def start_clusters(self, count: int) -> None:
        self.clusters = [Cluster(self.site, number) for number in range(1, count + 1)]


@contextmanager
def shop_servers(broker: str) -> Iterator[tuple[servers.Postgres, servers.Valkey | None]]:
    """PostgreSQL that syncs to disk, and the broker if it is not the database itself."""
    with servers.postgres(fsync=True) as database:
        if broker == "orm":
            yield database, None
            return
        with servers.valkey() as queue:
            yield database, queue


def living() -> Iterator[tuple[int, set[bytes]]]:
    """Every process that we may look at, with its environment."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if environment:  # what ended and was not collected has none
            yield int(folder.name), set(environment.split(b"\0"))


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def send(pid: int, number: signal.Signals) -> bool:
    """Whether there was still somebody to hear it."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _depth(pid: int, parents: dict[int, int]) -> int:
    """How far below its supervisor: supervisor 0, cluster 1, sentinel 2, what works 3."""
    depth = 0
    while (pid := parents.get(pid, 0)) in parents:
        depth += 1
    return depth


def pause(seconds: float) -> None:
    """Let things happen: the attack itself is a matter of time, unlike a test's conditions."""
    time.sleep(seconds)
