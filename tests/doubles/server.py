"""A server on loopback that plays an outside system, and breaks as it is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from tests.doubles.descriptions import Description

Kind = Literal["cut", "cut before", "hang", "hang after", "status", "not json"]


@dataclass(kw_only=True)
class Ill:
    """What goes wrong with the next call whose "METHOD path" holds `match`."""

    kind: Kind
    match: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass(kw_only=True)
class Reply:
    """What is answered."""

    status: int = 200
    said: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Double(ThreadingHTTPServer):
    """A double's memory and manners. `answer` is what each of them plays."""

    descriptions: Sequence[Description] = ()
    exempt: Sequence[str] = ()
    """Regular expressions of "METHOD path" that no description has."""
    checks_answers = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.RLock()
        self.calls: list[Call] = []
        self.ills: list[Ill] = []
        self.faults: list[str] = []
        """What was sent or answered and is not in the description."""
        self.over = threading.Event()
        self.compared = 0
        """Requests and answers that were held against a description."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fall_ill(self, kind: Kind, match: str = "", *, status: int = 0, times: int = 1, **headers: str) -> None:
        self.ills.append(Ill(kind=kind, match=match, status=status, times=times, headers=headers))

    def called(self, match: str) -> list[Call]:
        """Calls whose "METHOD path" holds that."""
        return [call for call in self.calls if match in f"{call.method} {call.path}"]

    def answer(self, call: Call) -> Reply:
        raise NotImplementedError

    def said_when_ill(self, status: int) -> Any:
        """The body of a failure."""
        return {}

    def take_ill(self, call: Call) -> Ill | None:
        with self.lock:
            for ill in self.ills:
                if ill.match in f"{call.method} {call.path}":
                    ill.times -= 1
                    if not ill.times:
                        self.ills.remove(ill)
                    return ill
        return None

    def check(self, call: Call, address: str, reply: Reply | None = None) -> list[str]:
        where = f"{call.method} {call.path}"
        if any(re.fullmatch(pattern, where) for pattern in self.exempt):
            return []
        here = [one for one in self.descriptions if one.is_here]
        if not here:
            return []
        known = [one for one in here if one.knows(call.method, call.path)]
        if not known:
            # Where a description that would know it is not here, nobody can say.
            return [] if len(here) < len(self.descriptions) else [f"{where} is in no description"]
        self.compared += 1
        if reply is None:
            found = known[0].faults(call.method, address, call.headers, call.body)
        else:
            found = known[0].faults(call.method, address, call.headers, call.body, reply.status, reply.said)
        return [f"{where}: {one}" for one in found]


class Handler(BaseHTTPRequestHandler):
    server: Double
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
        call = Call(method=self.command, path=split.path, query=query, headers=dict(self.headers), body=body)
        double = self.server
        double.calls.append(call)
        ill = double.take_ill(call)
        if ill is not None and ill.kind == "hang":
            double.over.wait(30)
        if ill is not None and ill.kind in {"hang", "cut before"}:
            self.close_connection = True
            return
        if ill is not None and ill.kind == "status":
            self.reply(Reply(status=ill.status, said=double.said_when_ill(ill.status), headers=ill.headers))
            return
        wrong = double.check(call, self.path)
        if wrong:
            double.faults += wrong
            self.reply(Reply(status=400, said={"wrong": wrong}))
            return
        with double.lock:
            reply = double.answer(call)
        if double.checks_answers:
            double.faults += [f"answered {one}" for one in double.check(call, self.path, reply)]
        if ill is not None:  # it did it all the same
            if ill.kind == "hang after":
                double.over.wait(30)
            if ill.kind == "not json":
                self.send_response(200)
                self.send_header("Content-Length", "6")
                self.end_headers()
                self.wfile.write(b"<html>")
                return
            self.close_connection = True
            return
        self.reply(reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def reply(self, reply: Reply) -> None:
        text = b"" if reply.said is None else json.dumps(reply.said).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in reply.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Tests say what happened by themselves."""


@contextmanager
def served(double: Double) -> Iterator[Double]:
    """The double, answering. At the end nothing may have been sent or answered that its description does not know."""
    thread = threading.Thread(target=double.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield double
        assert not double.faults, "\n".join(double.faults)
    finally:
        double.over.set()
        double.shutdown()
        thread.join()
        double.server_close()
