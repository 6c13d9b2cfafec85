"""Real processes for tests: web server, workers, one-off commands, all on the test's own database.

The `site` fixture hands a `Site` out. Because the test's database is a file or a server, the test reads with the ORM
what the processes wrote.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

from django.db import connection

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 20

T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], T], *, seconds: float = 30) -> T:
    """Ask until `condition` answers with something true, and return that; fail with `what` and its last answer."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"Waited {seconds:g} s for {what}; the last answer was {answer!r}.")
        time.sleep(0.05)
    return answer


class Process:
    """One started command, with its log in a file and everything it starts in a process group of its own."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], log: Path, root: Path = ROOT) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                command,
                cwd=root,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def stop(self) -> int:
        """Stop as an operator would; returns the exit code. Whatever is left of the group after that is killed."""
        if self.is_running():
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop within {STOP_SECONDS} s of SIGTERM.") from None
        self.kill()
        return self.popen.returncode

    def kill(self) -> None:
        """Kill the whole group, as a power cut would: no handler runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(STOP_SECONDS)

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Site:
    """The site's processes on one database, with nothing shared with the machine's real installation.

    Their code is that of `root`: this working copy, or another version of it.
    """

    def __init__(self, folder: Path, root: Path = ROOT, /, **settings: str) -> None:
        self.folder = folder
        self.root = root
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: list[Process] = []
        self.env = {
            **{name: value for name, value in os.environ.items() if name not in {"DJANGO_SETTINGS_MODULE"}},
            "DATABASE_URL": database_url(),
            "VAR_DIR": str(folder / "var"),
            "EMAIL_URL": f"file:{folder / 'mail'}",
            "SITE_URL": self.url,
            "SECRET_KEY": "a secret for tests only",
            "DEMO": "true",
            "PYTHONUNBUFFERED": "1",  # a log is of use only if it holds the last words
            **settings,
        }
        (folder / "mail").mkdir(parents=True)

    def start(self, name: str, *command: str) -> Process:
        log = self.folder / f"{len(self.processes)}-{name}.log"
        process = Process(name, [sys.executable, *command], self.env, log, self.root)
        self.processes.append(process)
        return process

    def start_web(self, *options: str) -> Process:
        """The web server of `make demo`; returns when it answers."""
        web = self.start(
            "web",
            *("-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--blocking-threads", "4", "--no-ws", *options, "config.wsgi:application"),
        )
        wait_for("the web server", lambda: not web.is_running() or self._answers())
        assert web.is_running(), web.output()
        return web

    def start_worker(self, name: str = "worker") -> Process:
        """django-q2's cluster under our supervisor. Ask the database, not the process, whether it works."""
        return self.start(name, "manage.py", "sagaworker")

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end; returns what it printed, fails with it if it failed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"manage.py {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        """Stop everything, newest first; a process that will not stop fails the test, after all are gone."""
        stubborn = []
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as error:
                stubborn.append(str(error))
        assert not stubborn, "\n".join(stubborn)

    def logs(self) -> str:
        return "\n".join(f"----- {process.name}\n{process.output()}" for process in self.processes)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/livez", timeout=2) as response:  # noqa: S310  (our own address)
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def family(site: Site) -> list[int]:
    """Every process that was started for this site, told by its environment, however it came to be."""
    mark = f"VAR_DIR={site.env['VAR_DIR']}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if mark in environment.split(b"\0") and state != "Z":
            found.append(int(folder.name))
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def database_url() -> str:
    """The address of the database this test runs on, for another process."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(str(settings['NAME']))}"
    query = {"host": settings["HOST"], "port": settings["PORT"], **settings["OPTIONS"]}
    query = {name: str(value) for name, value in query.items() if value and isinstance(value, str | int)}
    login = f"{quote(settings['USER'], safe='')}:{quote(settings['PASSWORD'], safe='')}"
    return f"postgresql://{login}@/{quote(settings['NAME'])}?{urlencode(query)}"
