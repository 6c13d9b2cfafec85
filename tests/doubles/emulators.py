"""Other people's emulators, as processes of their own: Prism, stripe-stateful-mock, localstripe.

Prism serves a vendor's own description: it judges each request by it, and answers with the vendor's examples or with
what it makes up from the schema. It remembers nothing, so it proves shapes and no life cycles.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.doubles.descriptions import Description
from tests.doubles.server import Call, Double, Reply, served
from tests.processes import Process, free_port, wait_for

NPM = Path(__file__).resolve().parents[2] / "var" / "npm"
NO_HEADERS = {"host", "content-length", "connection", "accept-encoding"}


def npm_tool(name: str) -> str:
    """The path of what `make npm` fetched; without it the test is skipped, or fails in CI."""
    tool = NPM / "node_modules" / ".bin" / name
    if not (NPM / "stamp").exists() or not tool.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not there; .ci/run should have called `make npm`.")
        pytest.skip(f"No {name} here; say `make npm` to have it.")
    return str(tool)


@contextmanager
def running(name: str, command: Sequence[str], folder: Path, port: int, **env: str) -> Iterator[str]:
    """The emulator's address, while it runs."""
    process = Process(name, list(command), {**os.environ, **env}, folder / f"{name}-{port}.log")
    try:
        wait_for(name, lambda: not process.is_running() or _listens(port), seconds=60)
        assert process.is_running(), process.output()
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def localstripe(folder: Path) -> Iterator[str]:
    """It keeps what it is told in one file for the whole machine, and begins without it."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "localstripe"), "--port", str(port), "--from-scratch"]
    with running("localstripe", command, folder, port) as url:
        yield url


@contextmanager
def stripe_stateful_mock(folder: Path) -> Iterator[str]:
    port = free_port()
    with running("stripe-stateful-mock", [npm_tool("stripe-stateful-mock")], folder, port, PORT=str(port)) as url:
        yield url


class PrismFront(Double):
    """One address before several Prisms, each with one of a vendor's descriptions; tokens are given out here, as far as
    no description has them."""

    def __init__(self, behind: Mapping[str, str]) -> None:
        super().__init__()
        self._behind = dict(behind)
        """Regular expression of a path -> where the Prism for it is."""
        self.prefers: dict[str, str] = {}
        """"METHOD path", as far as it matters -> what is to be answered: `code=422`, `example=card-direct`."""
        self.seen: list[tuple[str, str, int]] = []
        """(method, path, status) of each call that Prism judged."""
        self.said: list[str] = []
        self._client = httpx.Client(timeout=30)

    def answer(self, call: Call) -> Reply:
        where = next((url for pattern, url in self._behind.items() if re.match(pattern, call.path)), None)
        if where is None:
            if call.path.endswith("/token"):
                return Reply(said={"access_token": "token-1", "expires_in": 3600, "token_type": "Bearer"})
            return Reply(status=599, said={"detail": f"{call.path} is in no description"})
        headers = {name: value for name, value in call.headers.items() if name.lower() not in NO_HEADERS}
        for words, prefer in self.prefers.items():
            if words in f"{call.method} {call.path}":
                headers["Prefer"] = prefer
        prefix, _, url = where.partition(" ")
        path = call.path.removeprefix(prefix)
        answer = self._client.request(call.method, url + path, params=call.query, headers=headers, content=call.body)
        self.seen.append((call.method, call.path, answer.status_code))
        self.said.append(answer.text[:2000])
        said = answer.json() if "json" in answer.headers.get("content-type", "") and answer.content else None
        kept = {name: value for name, value in answer.headers.items() if name.lower() == "x-message-id"}
        return Reply(status=answer.status_code, said=said, headers=kept)

    def server_close(self) -> None:
        super().server_close()
        self._client.close()


@contextmanager
def prism(folder: Path, files: Mapping[str, tuple[str, str]]) -> Iterator[PrismFront]:
    """`files`: path's pattern -> (description, prefix of its paths). Skips the test where a description is not here."""
    tool = npm_tool("prism")
    with ExitStack() as stack:
        behind = {}
        for pattern, (file, prefix) in files.items():
            description = Description(file)
            if description.file is None:
                pytest.skip(f"{file} has no open licence, and is not beside this checkout (PROVIDER_SPECS).")
            port = free_port()
            command = [tool, "mock", "--host", "127.0.0.1", "--port", str(port), str(description.file)]
            url = stack.enter_context(running("prism", command, folder, port))
            behind[pattern] = f"{prefix} {url}"
        front = PrismFront(behind)
        stack.enter_context(served(front))
        yield front
