"""The demo's shop, its scenarios and its screen, without its processes."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from orders.api_keys import key_of
from orders.children import Children
from orders.demo import BY_NAME, CANCEL_REASON, LOGINS, PRODUCTS, SCENARIOS, Scenario, order_fields
from orders.demo_screen import Line, Screen, laid_out
from orders.management.commands.demo import free_port, verdict_of
from orders.models import ApiKey, Order, Product, StockItem, StockMovement
from orders.roles import Act, can
from orders.seeding import place_all, seed
from orders.selectors import OrderRow, order_rows
from orders.services import cancel_order
from sagas.selectors import SagaRun
from sagas.testing import run_to_end
from tests.processes import wait_for


@pytest.fixture(autouse=True)
def var_dir(settings: Settings, tmp_path: Path) -> Path:
    settings.VAR_DIR = tmp_path
    return tmp_path


class TestShop:
    pytestmark = pytest.mark.django_db

    def test_the_examples_order_adds_up(self) -> None:
        seed()

        prices = dict(Product.objects.values_list("sku", "price"))
        assert 2 * prices["ITEM-001"] + prices["ITEM-002"] == Decimal("99.99")

    def test_stock_came_in_by_movements(self) -> None:
        seed()

        stock = dict(StockItem.objects.values_list("product__sku", "on_hand"))
        assert stock == {product.sku: product.stock for product in PRODUCTS}
        moved = dict(StockMovement.objects.values_list("stock__product__sku", "delta_on_hand"))
        assert moved == stock

    def test_twice_is_once_and_leaves_what_people_changed(self) -> None:
        first = seed()
        Product.objects.filter(sku="ITEM-001").update(price=31)
        User.objects.get(username="ada").set_password("changed")
        counts = [model.objects.count() for model in (Product, StockMovement, User, ApiKey)]

        again = seed()

        assert again == first
        assert Product.objects.get(sku="ITEM-001").price == 31
        assert [model.objects.count() for model in (Product, StockMovement, User, ApiKey)] == counts

    def test_everybody_can_log_in_and_do_what_their_role_allows(self) -> None:
        seed()

        users = {login.username: authenticate(username=login.username, password=login.password) for login in LOGINS}
        allowed = {name: [act.value for act in Act if can(user, act)] for name, user in users.items()}
        assert None not in users.values()
        assert allowed == {
            "ada": [],
            "viewer": ["see_runs"],
            "agent": ["see_runs", "cancel", "retry", "assign"],
            "supervisor": [act.value for act in Act],
        }

    def test_the_api_key_opens_and_is_kept_for_its_owner_alone(self, var_dir: Path) -> None:
        text = seed().api_key

        key = key_of(text)
        assert key is not None
        assert key.is_live(timezone.now())
        assert (var_dir / "demo_api_key").stat().st_mode & 0o777 == 0o600

    def test_a_lost_key_is_replaced_by_another_one(self, var_dir: Path) -> None:
        first = seed().api_key
        (var_dir / "demo_api_key").unlink()

        second = seed().api_key

        assert second != first
        assert list(ApiKey.objects.order_by("id").values_list("name", flat=True)) == ["demo", "demo 2"]

    def test_the_command_says_what_there_is(self) -> None:
        out = io.StringIO()
        call_command("seed_demo", stdout=out)

        assert out.getvalue() == (
            "Products  8\n"
            "Logins    supervisor / supervisor-demo  agent / agent-demo  viewer / viewer-demo  ada / ada-demo\n"
            f"API key   {seed().api_key}\n"
        )


class TestReset:
    def test_with_nobody_to_ask_nothing_is_wiped_and_no_trace_is_shown(self, tmp_path: Path) -> None:
        environment = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{tmp_path}/shop.sqlite3",
            "VAR_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        command = [sys.executable, "manage.py", "demo", "--reset", "--no-browser"]

        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().endswith("CommandError: Nothing was wiped. With --noinput nobody is asked.")


class TestScenarios:
    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
    def test_each_comes_to_the_end_it_promises(self, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orders.providers.shipping.sandbox.SLOW_SECONDS", 0)
        seed()
        place_all()
        run = SagaRun.objects.get(business_key=scenario.order_id)

        report = run_to_end(run)
        if scenario.cancel_when_completed:
            assert report.status == "completed"
            cancel_order(order_id=scenario.order_id, actor="user:agent", reason=CANCEL_REASON)
            report = run_to_end(run)

        assert report.status == scenario.end

    def test_placing_them_again_finds_them(self) -> None:
        seed()
        first = [order.pk for order in place_all()]

        assert [order.pk for order in place_all()] == first
        assert Order.objects.count() == len(SCENARIOS) == 11
        assert SagaRun.objects.count() == 11

    def test_they_are_known_by_name(self) -> None:
        assert list(BY_NAME) == [scenario.name for scenario in SCENARIOS]
        assert len({scenario.order_id for scenario in SCENARIOS}) == len(SCENARIOS)
        assert {order_fields(scenario)["scenario"] for scenario in SCENARIOS} == set(BY_NAME)


class TestVerdict:
    @pytest.mark.parametrize(
        ("name", "status", "code", "expected"),
        [
            ("all_well", "running", "", ("", False)),
            ("all_well", "completed", "", ("as expected", True)),
            ("all_well", "compensated", "card_declined", ("expected to end completed", False)),
            ("all_well", "needs_attention", "", ("expected to end completed", False)),
            ("all_well", "compensated", "cancelled", ("by hand", True)),
            ("refund_keeps_failing", "compensating", "address_not_served", ("", False)),
            ("refund_keeps_failing", "needs_attention", "address_not_served", ("as expected", True)),
            ("refund_keeps_failing", "compensated", "address_not_served", ("by hand", True)),
            ("cancelled_after_completion", "completed", "", ("", False)),
            ("cancelled_after_completion", "compensated", "cancelled", ("as expected", True)),
        ],
    )
    def test_an_end_is_judged(self, name: str, status: str, code: str, expected: tuple[str, bool]) -> None:
        row = OrderRow(
            order=Order(order_id="DEMO"),
            status=status,
            status_word="",
            step_line="",
            failure_code=code,
            last_change=timezone.now(),
        )

        assert verdict_of(row, BY_NAME[name]) == expected

    @pytest.mark.django_db
    def test_a_row_that_was_just_placed_is_under_way(self) -> None:
        seed()
        place_all()

        rows = order_rows(Order.objects.all())

        assert {verdict_of(row, BY_NAME[row.order.scenario]) for row in rows} == {("", False)}


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


LINES = [
    Line(
        title="All well",
        status_word="Pending",
        step_line="",
        verdict="",
        is_expected=False,
        end="completed",
        link="http://h/orders/A/",
    ),
    Line(
        title="Declined",
        status_word="Running",
        step_line="Process payment",
        verdict="",
        is_expected=False,
        end="undone",
        link="http://h/orders/LONG/",
    ),
]
ENDED = [
    LINES[0],
    Line(
        title="Declined",
        status_word="Undone",
        step_line="declined",
        verdict="as expected",
        is_expected=True,
        end="undone",
        link="http://h/orders/LONG/",
    ),
]


class TestScreen:
    def test_piped_each_change_is_a_line_of_its_own(self) -> None:
        out = io.StringIO()
        screen = Screen(out, {"TERM": "xterm"})
        for lines in (LINES, LINES, ENDED):
            screen.show(lines)

        assert out.getvalue() == (
            "All well  http://h/orders/A/     Pending, to end completed\n"
            "Declined  http://h/orders/LONG/  Running: Process payment, to end undone\n"
            "Declined  http://h/orders/LONG/  Undone, as expected\n"
        )

    def test_on_a_terminal_the_lines_move_in_their_places(self) -> None:
        out = Terminal()
        screen = Screen(out, {"TERM": "xterm", "NO_COLOR": "1"})
        for lines in (LINES, LINES, ENDED):
            screen.show(lines)

        assert out.getvalue() == (
            "\r\x1b[2KAll well  http://h/orders/A/     Pending, to end completed\n"
            "\r\x1b[2KDeclined  http://h/orders/LONG/  Running: Process payment, to end undone\n"
            "\x1b[2A"
            "\r\x1b[2KAll well  http://h/orders/A/     Pending, to end completed\n"
            "\r\x1b[2KDeclined  http://h/orders/LONG/  Undone, as expected\n"
        )

    def test_colours_show_only_where_they_are_wanted(self) -> None:
        wanted, unwanted, dumb = (Terminal() for _ in range(3))
        Screen(wanted, {"TERM": "xterm"}).show(ENDED)
        Screen(unwanted, {"TERM": "xterm", "NO_COLOR": "1"}).show(ENDED)
        Screen(dumb, {"TERM": "dumb"}).show(ENDED)

        assert "\x1b[32mDeclined" in wanted.getvalue()
        assert "\x1b[3" not in unwanted.getvalue()
        assert "\x1b" not in dumb.getvalue()

    def test_once_settled_only_changes_are_said(self) -> None:
        out = Terminal()
        screen = Screen(out, {"TERM": "xterm", "NO_COLOR": "1"})
        screen.show(LINES)
        screen.settle(LINES)
        out.seek(0)
        out.truncate()

        screen.show(LINES)
        screen.show(ENDED)

        assert out.getvalue() == "Declined  http://h/orders/LONG/  Undone, as expected\n"

    def test_every_scenario_fits_on_a_terminal_of_80_columns(self) -> None:
        lines = [
            Line(
                title=scenario.title.partition(" (")[0],
                status_word="Needs attention",
                step_line="",
                verdict="as expected",
                is_expected=True,
                end="",
                link=f"http://127.0.0.1:8000/orders/{scenario.order_id}/",
            )
            for scenario in SCENARIOS
        ]

        assert all(text.endswith("as expected") for text in laid_out(lines, 80))

    def test_on_a_narrow_terminal_links_lose_their_host_and_no_line_wraps(self) -> None:
        texts = laid_out(ENDED, 65)

        assert texts[1] == "Declined  /orders/LONG/  Undone, as expected"
        assert max(len(text) for text in laid_out(ENDED, 30)) == 29


class TestPorts:
    def test_a_taken_port_is_passed_over(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]

            assert free_port(port) > port

    def test_no_port_at_all_is_said(self) -> None:
        with pytest.raises(CommandError, match="--port"):
            free_port(65536)


SLEEPER = "import time\nprint('ready', flush=True)\ntime.sleep(60)"


class TestChildren:
    def test_they_end_with_the_block(self, tmp_path: Path) -> None:
        with Children(tmp_path) as children:
            children.start("sleeper", "-c", SLEEPER)
            wait_for("the child", lambda: "ready" in (tmp_path / "sleeper.log").read_text())
            (pid,) = children.pids()

        assert not is_alive(pid)

    def test_one_that_ends_by_itself_is_told_with_its_last_words(self, tmp_path: Path) -> None:
        with Children(tmp_path) as children:
            children.start("liar", "-c", "print('no more'); raise SystemExit(3)")
            (pid,) = children.pids()
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

            with pytest.raises(CommandError, match=r"liar ended with 3[\s\S]*no more"):
                children.check()

    @pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a child that its parent was killed.")
    def test_they_do_not_outlive_a_parent_that_is_killed(self, tmp_path: Path) -> None:
        parent = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys, time; from pathlib import Path; from orders.children import Children\n"
                "with Children(Path(sys.argv[1])) as children:\n"
                "    children.start('sleeper', '-c', sys.argv[2])\n"
                "    print(*children.pids(), flush=True)\n"
                "    time.sleep(60)",
                str(tmp_path),
                SLEEPER,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for("the child", lambda: "ready" in (tmp_path / "sleeper.log").read_text())

        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()

        wait_for("the child's end", lambda: not is_alive(pid), seconds=5)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody has waited for yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
