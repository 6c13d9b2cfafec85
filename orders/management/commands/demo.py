"""The whole product on one's own machine: web, worker, and one order for each way an order can go."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import webbrowser
from argparse import BooleanOptionalAction
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import OperationalError, close_old_connections
from django.urls import reverse

from orders.addresses import order_address
from orders.children import Children
from orders.demo import BY_NAME, CANCEL_REASON, SCENARIOS, Scenario
from orders.demo_screen import Line, Screen
from orders.models import Order
from orders.seeding import Seeded, place_all, seed
from orders.selectors import OrderRow, order_rows
from orders.services import cancel_order
from sagas.shell import ShellCommand

HOST = "127.0.0.1"
PORTS_TRIED = 50
LOOK_EVERY = 0.25
CANCELLED_BY = "user:agent"
ENDS = {"completed": "completed", "compensated": "undone", "needs_attention": "needing attention"}
"""How an end is told after "to end"."""


class Command(ShellCommand):
    help = "Start a demo shop: web, worker and one order per scenario. Ctrl-C stops it; the data stays."
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="Web port; the next free one if it is taken.")
        parser.add_argument("--reset", action="store_true", help="Wipe the database first.")
        parser.add_argument("--noinput", action="store_true", help="Do not ask before wiping.")
        parser.add_argument(
            "--exit-when-done",
            action="store_true",
            help="Stop when every order has ended; exit code 1 if one did not end as expected.",
        )
        parser.add_argument(
            "--scenario",
            action="append",
            choices=sorted(BY_NAME),
            metavar="NAME",
            help=f"Only this one; may be given several times: {', '.join(sorted(BY_NAME))}.",
        )
        parser.add_argument(
            "--browser", action=BooleanOptionalAction, default=None, help="Open the page; on a terminal that has one."
        )
        parser.add_argument("--timeout", type=float, default=120, help="Seconds that --exit-when-done waits at most.")

    def handle(self, *args: Any, **options: Any) -> None:
        port = self._settle_environment(options["port"])
        self.stopping = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        if options["reset"] and not options["noinput"]:
            _ask_before_wiping()
        call_command("migrate", verbosity=0)
        if options["reset"]:
            call_command("flush", verbosity=0, interactive=False)
        seeded = seed()
        with Children(Path(settings.VAR_DIR) / "demo") as children:
            children.start(
                "web",
                *("-m", "granian", "--interface", "wsgi", "--host", HOST, "--port", str(port)),
                *("--blocking-threads", "4", "--no-ws", "config.wsgi:application"),
            )
            children.start("worker", sys.argv[0], "sagaworker")
            self._wait_for_web(port, children)
            self._introduce(seeded, children)
            place_all([BY_NAME[name] for name in options["scenario"] or BY_NAME])
            if options["browser"] or (options["browser"] is None and has_screen(os.environ)):
                webbrowser.open(f"{settings.SITE_URL}{reverse('order_list')}")
            code = self._watch(children, options)
        if code:
            raise CommandError("Not every order ended as expected.", returncode=code)

    def _settle_environment(self, wanted: int) -> int:
        """The port; begins this process anew, once, under the settings that the demo needs."""
        if not settings.DEMO or "DEMO_PORT" not in os.environ:
            port = free_port(wanted)
            os.environ.setdefault("SITE_URL", f"http://{HOST}:{port}")
            os.environ |= {"DEMO": "true", "DEMO_PORT": str(port)}
            self.stdout.flush()
            os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606  (this very program)
        return int(os.environ["DEMO_PORT"])

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _wait_for_web(self, port: int, children: Children) -> None:
        end = time.monotonic() + 30
        while not self.stopping:
            children.check()
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((HOST, port)) == 0:
                    return
            if time.monotonic() > end:
                raise CommandError(f"The web server does not answer on port {port}; see {children.folder}.")
            time.sleep(0.05)

    def _introduce(self, seeded: Seeded, children: Children) -> None:
        logins = [f"{login.username} / {login.password}" for login in seeded.logins]
        facts = [
            ("Web", f"{settings.SITE_URL}/"),
            ("Logins", ", ".join(logins)),
            ("API key", seeded.api_key),
            ("API docs", f"{settings.SITE_URL}{reverse('docs')}"),
            ("Health", f"{settings.SITE_URL}{reverse('health')}"),
            ("Metrics", f"{settings.SITE_URL}{reverse('metrics')}"),
            ("Logs", str(children.folder)),
        ]
        for name, value in facts:
            self.stdout.write(f"{name:<9} {value}")
        self.stdout.write("\nOrders, one for each way an order can go, and how each is to end:")
        self.stdout.flush()

    def _watch(self, children: Children, options: dict[str, Any]) -> int:
        """Show the orders until told to stop; 1 if asked to end with them and one has not ended as expected."""
        screen = Screen(sys.stdout, os.environ)
        end = time.monotonic() + options["timeout"]
        told = False
        while not self.stopping:
            children.check()
            lines = self._lines()
            if lines is not None:
                screen.show(lines)
                if all(line.verdict for line in lines) and not told:
                    told = True
                    self._tell_end(lines)
                    if options["exit_when_done"]:
                        return 0 if all(line.is_expected for line in lines) else 1
                    screen.settle(lines)
            if options["exit_when_done"] and time.monotonic() > end:
                return 1
            time.sleep(LOOK_EVERY if not told else 1)
        return 0

    def _tell_end(self, lines: list[Line]) -> None:
        odd = sum(not line.is_expected for line in lines)
        verdict = f"{odd} of them not as expected" if odd else "each as expected"
        self.stdout.write(f"All {len(lines)} orders have come to their ends, {verdict}.")
        self.stdout.write("Ctrl-C stops the demo; the data stays. `manage.py demo --reset` wipes it.")
        self.stdout.flush()

    def _lines(self) -> list[Line] | None:
        """How the orders stand; None while the database is busy elsewhere. Cancels what is to be cancelled."""
        try:
            close_old_connections()
            orders = Order.objects.filter(order_id__in=[scenario.order_id for scenario in SCENARIOS])
            rows = {row.order.scenario: row for row in order_rows(orders)}
            for name, row in rows.items():
                if BY_NAME[name].cancel_when_completed and row.status == "completed":
                    cancel_order(order_id=row.order.order_id, actor=CANCELLED_BY, reason=CANCEL_REASON)
            return [line_of(rows[scenario.name]) for scenario in SCENARIOS if scenario.name in rows]
        except OperationalError:
            return None


def line_of(row: OrderRow) -> Line:
    """A row of the order list as the demo's screen shows it."""
    scenario = BY_NAME[row.order.scenario]
    verdict, is_expected = verdict_of(row, scenario)
    return Line(
        title=scenario.title.partition(" (")[0],
        status_word=row.status_word,
        step_line=row.step_line,
        verdict=verdict,
        is_expected=is_expected,
        end=ENDS[scenario.end],
        link=order_address(row.order.order_id),
    )


def verdict_of(row: OrderRow, scenario: Scenario) -> tuple[str, bool]:
    """What to say of an order's end, and whether it is a good one; nothing while it is under way."""
    if row.status == scenario.end:
        return "as expected", True
    if row.status not in {"completed", "compensated", "needs_attention", "abandoned"}:
        return "", False
    if row.status == "completed" and scenario.cancel_when_completed:
        return "", False  # half of the story: it is about to be cancelled
    # The demo is there to be played with: an order that somebody helped on, or cancelled, has not gone wrong.
    if scenario.end == "needs_attention" or row.failure_code == "cancelled":
        return "by hand", True
    return f"expected to end {ENDS[scenario.end]}", False


def has_screen(environment: Mapping[str, str]) -> bool:
    """Whether somebody sits before a browser: not over ssh, nor where only a text browser would take the terminal."""
    is_graphical = sys.platform == "darwin" or "DISPLAY" in environment or "WAYLAND_DISPLAY" in environment
    return sys.stdout.isatty() and is_graphical and "SSH_CONNECTION" not in environment


def free_port(wanted: int) -> int:
    """`wanted`, or the next port that nobody listens on."""
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket() as listener:
            # As the web server will: a port whose last connections are still winding down is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
            return port
    raise CommandError(f"No port from {wanted} to {wanted + PORTS_TRIED - 1} is free; name another with --port.")


def _ask_before_wiping() -> None:
    """Raises CommandError unless somebody says yes."""
    try:
        said = input(f"Wipe everything in {settings.DATABASES['default']['NAME']}? Type yes: ")
    except EOFError:  # nobody is there
        said = ""
    if said != "yes":
        raise CommandError("Nothing was wiped. With --noinput nobody is asked.")
