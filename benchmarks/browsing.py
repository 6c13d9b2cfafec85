"""What a browser and a web server feel with 100,000 orders: how soon pages show, watching tabs, a long export.

python -m benchmarks.browsing 100000      in a process with the settings it needs; `make bench-pages` calls it
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.db import connections

from tests import chromium
from tests.processes import free_port, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TABS = 200
EVERY = 10.0
"""Seconds between two looks of a tab that watches the list, as its page says."""
WATCHED_FOR = 30.0
VISITS = 7
# A telephone on 4G, as Lighthouse sets it: 150 ms there and back, 1.6 Mbit/s down, 0.75 Mbit/s up.
THROTTLED = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
FEEL = """() => {
  window.felt = { shown: 0, moved: 0, slowest: 0 };
  const look = (type, take, more = {}) =>
    new PerformanceObserver((list) => list.getEntries().forEach(take)).observe({ type, buffered: true, ...more });
  look("largest-contentful-paint", (one) => { felt.shown = one.startTime; });
  look("layout-shift", (one) => { if (!one.hadRecentInput) felt.moved += one.value; });
  look("event", (one) => { felt.slowest = Math.max(felt.slowest, one.duration); }, { durationThreshold: 16 });
}"""
"""Largest contentful paint (ms), cumulative layout shift, and the longest from key or click to the next frame (ms)."""

CHANGED = "(before) => document.querySelector('h1').innerText !== before || document.querySelector('[data-ended]')"


def measure(orders: int) -> dict[str, Any]:
    """On a PostgreSQL that is empty before."""
    from benchmarks.shop import _is_open, _running, filled_shop
    from sagas.models import SagaRun

    program = chromium.find()
    if program is None:
        raise RuntimeError("No Chromium found; install the system's package.")
    client = filled_shop(orders, stuck=1)
    run = SagaRun.objects.get(business_key="STUCK-0")
    session = client.cookies["sessionid"].value
    connections.close_all()
    port = free_port()
    web = ("-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port))
    with _running(*web, "--blocking-threads", "4", "--no-ws", "config.wsgi:application") as server:
        wait_for("the web server", lambda: _is_open(port))
        told = {"tabs": _tabs(port, session, server.pid), "export": _export(port, session, server.pid)}
        with chromium.running(program) as browser:
            pages = {"list": "/orders/", "order": "/orders/WATCHED/", "run": f"/runs/{run.pk}/"}
            pages |= {"inbox": "/runs/attention/"}
            for name, path in pages.items():
                told[f"first visit, {name}"] = _visits(browser, port, session, path)
            with _running("manage.py", "sagaworker"):
                told["click"] = _click(browser, port, session)
    return told


def _tabs(port: int, session: str, pid: int) -> dict[str, Any]:
    """How much of a core the server takes while so many tabs watch a list in which nothing changes."""
    path = "/orders/?top=WATCHED"
    first = _ask(port, session, path, {"X-Live": "1"})
    tag = first.headers["ETag"]
    first.read()
    answers: list[int] = []

    def tab(number: int) -> None:
        time.sleep(EVERY * number / TABS)
        until = begin + WATCHED_FOR
        while time.monotonic() < until:
            asked_at = time.monotonic()
            answers.append(_ask(port, session, path, {"X-Live": "1", "If-None-Match": tag}).status)
            time.sleep(max(EVERY - (time.monotonic() - asked_at), 0))

    before, begin = _cpu(pid), time.monotonic()
    tabs = [threading.Thread(target=tab, args=(number,)) for number in range(TABS)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    seconds = time.monotonic() - begin
    if set(answers) != {304}:
        raise RuntimeError(f"The list answered {sorted(set(answers))} to those that watch it; nothing was measured.")
    return {"tabs": TABS, "share_of_a_core": round((_cpu(pid) - before) / seconds, 3), "answers": len(answers)}


def _export(port: int, session: str, pid: int) -> dict[str, Any]:
    """The whole list as a file: how soon it begins, how long it takes, and what it adds to the server's memory."""
    before, begin = _memory(pid), time.monotonic()
    answer = _ask(port, session, "/orders/export.csv", {})
    lines = len(answer.read(1000).splitlines()) - 1
    first = time.monotonic() - begin
    peak, lines = before, max(lines, 0)
    while part := answer.read(1_000_000):
        lines += part.count(b"\n")
        peak = max(peak, _memory(pid))
    return {
        "rows": lines,
        "first_bytes_seconds": round(first, 2),
        "seconds": round(time.monotonic() - begin, 1),
        "added_megabytes": round((peak - before) / 1e6, 1),
    }


def _visits(browser: Browser, port: int, session: str, path: str) -> dict[str, Any]:
    """First visits on a slow line, with nothing cached: the worst quarter begins at what is told."""
    felt = []
    for _ in range(VISITS):
        with _page(browser, port, session) as page:
            page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", THROTTLED)
            page.add_init_script(f"({FEEL})()")
            page.goto(f"http://127.0.0.1:{port}{path}", wait_until="networkidle")
            for _ in range(8):
                page.keyboard.press("Tab")
            page.locator("summary, h1").first.click()
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            felt.append(page.evaluate("felt"))
    quarter = {name: statistics.quantiles([one[name] for one in felt], n=4)[2] for name in felt[0]}
    return {
        "lcp_ms": round(quarter["shown"]),
        "inp_ms": round(quarter["slowest"]),
        "cls": round(quarter["moved"], 3),
    }


def _click(browser: Browser, port: int, session: str) -> dict[str, Any]:
    """From the click that places an order to the first change that its page shows by itself."""
    took = []
    for _ in range(VISITS):
        with _page(browser, port, session) as page:
            page.goto(f"http://127.0.0.1:{port}/orders/new/")
            for label, value in (("E-mail", "ada@example.com"), ("Name", "Ada"), ("Street", "Street 1")):
                page.get_by_role("textbox", name=label).first.fill(value)
            page.get_by_role("textbox", name="City").fill("Town")
            page.get_by_role("textbox", name="Postcode").fill("12345")
            page.get_by_role("textbox", name="Country").fill("DE")
            page.get_by_role("textbox", name="Card").fill("tok_visa")
            page.get_by_label("Product").first.select_option("ITEM-001")
            page.get_by_label("Quantity").first.fill("1")
            page.get_by_role("button", name="Review the order").click()
            begin = time.monotonic()
            page.get_by_role("button", name="Place the order").click()
            before = page.get_by_role("heading", level=1).inner_text()
            page.wait_for_function(CHANGED, arg=before)
            took.append((time.monotonic() - begin) * 1000)
    return {"p50_ms": round(statistics.median(took)), "slowest_ms": round(max(took))}


@contextmanager
def _page(browser: Browser, port: int, session: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": "sessionid", "value": session, "url": f"http://127.0.0.1:{port}"}])
    yield context.new_page()
    context.close()


def _ask(port: int, session: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    asked.request("GET", path, headers={"Cookie": f"sessionid={session}", **headers})
    return asked.getresponse()


def _family(pid: int) -> list[int]:
    """The process and all that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _cpu(pid: int) -> float:
    """Seconds of computing so far."""
    ticks = 0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    """Bytes in memory now."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in _family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's loop runs in this thread
    django.setup()
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]))) + "\n")
