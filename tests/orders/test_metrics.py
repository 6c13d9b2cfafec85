"""/metrics, as a scraper reads it and as its numbers come about."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import load_command_class
from django.db import OperationalError, connection
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import OrmQ

from config.env import Rate
from orders.inbound import HEAR
from orders.metrics import HELP
from orders.models import ProviderHealth
from orders.providers.errors import Declined, OutcomeUnknown, Unavailable
from orders.providers.guard import Guarded
from orders.services import cancel_order
from orders.settling import LOOK
from orders.webhooks.delivery import DELIVER
from sagas import counting, heartbeats, queue, tallies
from sagas.metrics import HELP as ENGINES_HELP
from sagas.models import SagaRun, StepRecord, Tally
from sagas.testing import Crashed, crash_after, crash_at, run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import ORDERS, make_caller, order_body
from tests.orders.pages import ended, visitor
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)

DOCS = Path(__file__).resolve().parents[2] / "docs"
METRICS, OPERATIONS, MONITORING = DOCS / "metrics.md", DOCS / "operations.md", DOCS / "monitoring"
TOKEN = "what the scraper shows"


@pytest.fixture
def an_hour_later(a_scraper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For stories of crashes: the clock they are played by has gone on until leases were over."""
    monkeypatch.setattr(tallies, "SETTLED", -timedelta(hours=1))


@pytest.fixture(autouse=True)
def a_scraper(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.METRICS_TOKEN = TOKEN
    monkeypatch.setattr(tallies, "SETTLED", timedelta(0))
    counting.forget()  # what other tests of this process left


def scraped() -> dict[str, float]:
    """By name and labels, without the prefix that all have."""
    answer = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            sample = re.fullmatch(r"order_saga_(\w+(?:\{.*\})?) (\S+)", line)
            assert sample is not None, line
            assert sample[1] not in found
            found[sample[1]] = float(sample[2])
    return found


RUN = 'saga="order_processing"'


def step(name: str, outcome: str, code: str = "", way: str = "do") -> str:
    where = f'{RUN},step="{name}",direction="{way}"'
    return f'step_attempts_total{{{where},outcome="{outcome}",error_code="{code}"}}'


def test_orders_that_end_are_counted_once_however_often_it_is_scraped() -> None:
    make_shop()
    for number, token in (("ORD-1", "tok_visa"), ("ORD-2", "tok_declined")):
        make_order(order_id=number, card_token=token)
        run_to_end(SagaRun.objects.get(business_key=number))

    first, again = scraped(), scraped()

    assert first[f"runs_started_total{{{RUN}}}"] == 2
    assert first[f'runs_finished_total{{{RUN},outcome="completed"}}'] == 1
    assert first[f'runs_finished_total{{{RUN},outcome="compensated"}}'] == 1
    assert first[f'compensations_total{{{RUN},cause_step="process_payment"}}'] == 1
    assert first[step("reserve_inventory", "succeeded")] == 2
    assert first[step("process_payment", "refused", "card_declined")] == 1
    assert first[step("reserve_inventory", "succeeded", way="undo")] == 1
    place = f'{RUN},step="create_shipment",direction="do"'
    assert first[f"step_duration_seconds_count{{{place}}}"] == 1
    assert first[f'step_duration_seconds_bucket{{{place},le="60"}}'] == 1
    assert first[f'step_duration_seconds_bucket{{{place},le="+Inf"}}'] == 1
    assert first[f'run_duration_seconds_count{{{RUN},outcome="completed"}}'] == 1
    # Being asked is a request, too.
    moving = ("webhook_oldest_age_seconds", "due_oldest_age_seconds", "queue_oldest_age_seconds", "http_")
    assert {name: value for name, value in again.items() if not name.startswith(moving)} == {
        name: value for name, value in first.items() if not name.startswith(moving)
    }


def test_what_comes_later_is_added() -> None:
    make_shop()
    make_order(order_id="ORD-1")
    run_to_end(SagaRun.objects.get())
    before = scraped()
    cancel_order(order_id="ORD-1", actor="user:gina", reason="recalled")
    run_to_end(SagaRun.objects.get())

    after = scraped()

    undone = step("process_payment", "succeeded", way="undo")
    assert (before.get(undone), after[undone]) == (None, 1)
    assert after[step("process_payment", "succeeded")] == before[step("process_payment", "succeeded")] == 1


def test_what_is_under_way_is_a_gauge_and_waits_to_be_counted() -> None:
    make_shop()
    order = make_order()
    run = SagaRun.objects.get(business_key=order.order_id)
    now = timezone.now()
    common: dict[str, Any] = {"run": run, "direction": "action", "started_at": now - timedelta(minutes=1)}
    StepRecord.objects.create(step="reserve_inventory", number=1, key="a", **common)
    later = StepRecord.objects.create(step="process_payment", number=1, key="b", **common)
    StepRecord.objects.filter(pk=later.pk).update(outcome="succeeded", ended_at=now)

    under_way = scraped()
    StepRecord.objects.filter(step="reserve_inventory").update(outcome="succeeded", ended_at=now)
    over = scraped()

    assert under_way[f'runs_in_state{{{RUN},state="pending"}}'] == 1
    assert under_way["due_runs"] == 1
    assert not [name for name in under_way if name.startswith("step_attempts_total")]
    assert (over[step("reserve_inventory", "succeeded")], over[step("process_payment", "succeeded")]) == (1, 1)


def test_an_attempt_whose_worker_died_long_ago_holds_nobody_up() -> None:
    make_shop()
    run = SagaRun.objects.get(business_key=make_order().order_id)
    long_ago = timezone.now() - timedelta(hours=2)
    common: dict[str, Any] = {"run": run, "direction": "action", "number": 1, "started_at": long_ago}
    StepRecord.objects.create(step="reserve_inventory", key="a", **common)
    done = StepRecord.objects.create(step="process_payment", key="b", **common)
    StepRecord.objects.filter(pk=done.pk).update(outcome="succeeded", ended_at=long_ago)

    # As long as nobody has begun anything since, it holds up nobody: there is nothing else to count.
    while_nobody_works = scraped()
    StepRecord.objects.create(step="create_shipment", key="c", **common | {"started_at": timezone.now()})

    assert step("process_payment", "succeeded") not in while_nobody_works
    assert scraped()[step("process_payment", "succeeded")] == 1


@pytest.mark.usefixtures("an_hour_later")
def test_runs_that_are_taken_over_and_effects_that_are_found_by_their_key() -> None:
    make_shop()
    for number in ("ORD-1", "ORD-2"):
        make_order(order_id=number, card_token="tok_visa")
        run = SagaRun.objects.get(business_key=number)
        with suppress(Crashed), crash_after("process_payment"):
            run_to_end(run)
        run_to_end(run)

    found = scraped()

    assert found[f"recovered_runs_total{{{RUN}}}"] == 2
    assert found[f'duplicate_deliveries_total{{{RUN},step="process_payment"}}'] == 2
    assert found[f'unknown_outcomes_total{{{RUN},step="process_payment"}}'] == 2
    assert [name for name in found if name.startswith("duplicate_deliveries_total") and "payment" not in name] == []


@pytest.mark.usefixtures("an_hour_later")
def test_what_was_sent_again_because_it_had_not_come_through_is_no_duplicate() -> None:
    make_shop()
    make_order(order_id="ORD-1", card_token="tok_visa")
    run = SagaRun.objects.get(business_key="ORD-1")
    with suppress(Crashed), crash_at("before_call:process_payment:action"):
        run_to_end(run)
    run_to_end(run)

    found = scraped()

    assert found[f"recovered_runs_total{{{RUN}}}"] == 1
    assert found[step("process_payment", "succeeded")] == 1
    assert [name for name in found if name.startswith("duplicate_deliveries_total")] == []


def test_runs_whose_workers_were_all_away_for_a_night_are_counted_when_they_are_taken_over() -> None:
    make_shop()
    make_order(order_id="ORD-1")
    run = SagaRun.objects.get(business_key="ORD-1")
    with suppress(Crashed), crash_after("reserve_inventory"):
        run_to_end(run)
    night = timedelta(hours=9)
    StepRecord.objects.update(started_at=F("started_at") - night)
    SagaRun.objects.update(lease_until=F("lease_until") - night, due_at=F("due_at") - night)

    asleep = scraped()
    run_to_end(run)

    assert [name for name in asleep if name.startswith(("recovered", "step_attempts"))] == []
    assert scraped()[f"recovered_runs_total{{{RUN}}}"] == 1


def test_workers_are_alive_as_long_as_they_say_so() -> None:
    now = timezone.now()
    nobody = scraped()
    heartbeats.beat("host:1", cluster="orders", now=now)
    heartbeats.beat("host:2", cluster="orders", now=now - timedelta(seconds=20))
    heartbeats.beat("host:3", cluster="orders", now=now - timedelta(seconds=31))
    heartbeats.beat("host:4", cluster="returns", now=now - timedelta(hours=25))

    found = scraped()
    heartbeats.stop("host:1", now=now)
    heartbeats.stop("host:2", now=now)
    heartbeats.beat("host:5", cluster="orders", now=now - timedelta(seconds=40))  # sweeps out the one of yesterday
    stopped = scraped()

    assert nobody['workers_alive{cluster="orders"}'] == 0
    assert [name for name in nobody if name.startswith("worker_heartbeat")] == []
    assert found['workers_alive{cluster="orders"}'] == 2
    assert found['worker_heartbeat_age_seconds{cluster="orders"}'] < 5
    assert found['worker_heartbeat_age_seconds{cluster="returns"}'] >= 25 * 3600
    assert stopped['workers_alive{cluster="orders"}'] == 0
    assert [name for name in stopped if "returns" in name] == []


def test_a_cluster_that_nobody_watches_is_seen_by_its_sweeps(settings: Any) -> None:
    queue.ring_for_due()
    before = scraped()
    settings.SAGA_STOP_FLAG = "/nowhere/stop"  # set by sagaworker, which tells of its cluster itself
    queue.sweep()
    watched = scraped()
    settings.SAGA_STOP_FLAG = ""
    queue.sweep()
    queue.sweep()

    name = 'workers_alive{cluster="orders"}'
    assert (before[name], watched[name], scraped()[name]) == (0, 0, 1)


def test_how_long_the_oldest_wake_up_lies_in_the_queue() -> None:
    empty = scraped()
    make_shop()
    make_order()
    OrmQ.objects.update(lock=timezone.now() - timedelta(seconds=90))

    assert empty["queue_oldest_age_seconds"] == 0
    assert scraped()["queue_oldest_age_seconds"] == pytest.approx(90, abs=5)


def test_a_provider_that_makes_up_codes_makes_no_more_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "MOST_CODES", 3)
    make_shop()
    run = SagaRun.objects.get(business_key=make_order().order_id)
    now = timezone.now()
    for number in range(1, 7):
        StepRecord.objects.create(
            run=run, step="process_payment", direction="action", number=number, key="a", outcome="unavailable",
            error_code=f'e"{number}', started_at=now, ended_at=now,
        )  # fmt: skip

    lines = {name: value for name, value in scraped().items() if name.startswith("step_attempts_total")}

    assert [name.rpartition("error_code=")[2] for name in lines] == ['"e\\"1"}', '"e\\"2"}', '"e\\"3"}', '"other"}']
    assert list(lines.values()) == [1, 1, 1, 3]


def test_money_that_waits_for_a_person_and_providers_that_are_down_are_told() -> None:
    make_shop()
    ended("needs_attention")
    ProviderHealth.objects.update_or_create(
        name="sandbox", defaults={"opened_at": timezone.now(), "trial_at": timezone.now()}
    )

    found = scraped()

    assert found['unreconciled_amount{currency="EUR"}'] == 99.99
    assert found['stock_units{kind="on_hand"}'] > 0
    assert found['provider_circuit_open{provider="sandbox"}'] == 1
    assert found['provider_circuit_open{provider="local"}'] == 0


def test_a_sweep_says_when_it_was() -> None:
    queue.sweep()
    first = Tally.objects.get(name=tallies.SWEPT).value
    queue.sweep()

    assert abs(timezone.now().timestamp() - first) < 5
    assert Tally.objects.get(name=tallies.SWEPT).value == first
    assert scraped()["recovery_sweep_last_success_timestamp_seconds"] == pytest.approx(first)


def test_only_a_scraper_and_staff_may_look(settings: Any) -> None:
    make_shop()

    assert Client().get("/metrics").status_code == 404
    assert Client().get("/metrics", headers={"Authorization": "Bearer guessed"}).status_code == 404
    assert visitor("ada").get("/metrics").status_code == 404
    assert visitor("gina", "agent").get("/metrics").status_code == 200
    settings.METRICS_TOKEN = ""
    assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_the_number_of_queries_does_not_grow_with_the_orders() -> None:
    make_shop()
    counts = []
    for numbers in (range(1), range(1, 8)):
        for number in numbers:
            make_order(order_id=f"ORD-{number}")
            run_to_end(SagaRun.objects.get(business_key=f"ORD-{number}"))
        scraped()
        with CaptureQueriesContext(connection) as queries:
            scraped()
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 30


def test_a_value_at_its_longest_ends_with_its_quote() -> None:
    assert tallies.labelled(error_code="x" * 99 + "\\") == 'error_code="' + "x" * 99 + '\\\\"'


def test_names_and_codes_that_are_too_long_together_are_cut() -> None:
    text = tallies.labelled(
        saga="\\" * 100, step='"' * 100, direction="undo", outcome="compensating", error_code="\\" * 100
    )

    assert Tally._meta.get_field("labels").max_length == tallies.LONGEST_LABELS
    assert len(text) <= tallies.LONGEST_LABELS
    assert text.startswith('saga="' + "\\" * 76 + '",step="' + '\\"' * 38 + '",direction="undo",')


class TestCounted:
    """What is in no row of its own: kept in each process for a while, and added up."""

    def test_requests_by_page_method_and_kind_of_answer(self) -> None:
        make_shop()
        ada = visitor("ada")
        for path in ("/orders/new/", "/orders/new/", "/orders/ORD-7/", "/orders/ORD-8/", "/nowhere/7", "/nowhere/8"):
            ada.get(path)
        Client().generic("BREW", "/livez")

        first = scraped()
        again = scraped()

        page = 'route="order_new",method="GET",status="2xx"'
        assert first[f"http_requests_total{{{page}}}"] == 2
        assert first[f"http_request_duration_seconds_count{{{page}}}"] == 2
        assert first[f'http_request_duration_seconds_bucket{{{page},le="+Inf"}}'] == 2
        assert first['http_requests_total{route="order_detail",method="GET",status="4xx"}'] == 2
        assert first['http_requests_total{route="none",method="GET",status="4xx"}'] == 2
        assert [name for name in first if "BREW" in name] == []
        # Being asked is a request like any other, told the next time; all else stands.
        assert {name for name in again if again[name] != first.get(name) and name.startswith("http_requests")} == {
            'http_requests_total{route="metrics",method="GET",status="2xx"}'
        }

    def test_two_processes_add_to_one_number(self) -> None:
        counting.count("rate_limited_total", scope="order")
        counting.write_down()
        counting.forget()  # another process
        for _ in range(3):
            counting.count("rate_limited_total", scope="order")
        counting.observe("http_request_duration_seconds", 0.3, (0.1, 0.5, 2.5), route="a")

        found = scraped()

        assert found['rate_limited_total{scope="order"}'] == 4
        told = [
            name.rpartition("le=")[2] for name in found if name.startswith("http_request_duration_seconds_bucket{ro")
        ]
        assert told[:4] == ['"0.1"}', '"0.5"}', '"2.5"}', '"+Inf"}']

    def test_they_add_at_the_same_moment(self) -> None:
        sums = {("rate_limited_total", tallies.labelled(scope=str(n))): 1.0 for n in range(400)}

        ends = together(*[partial(tallies.add, dict(some)) for some in (sums.items(), reversed(sums.items()))] * 2)

        assert ends == [None] * 4
        assert set(Tally.objects.values_list("value", flat=True)) == {4.0}
        assert Tally.objects.count() == 400

    def test_what_the_database_does_not_take_is_kept(self) -> None:
        counting.count("rate_limited_total", scope="order")
        with connection.execute_wrapper(away):
            counting.write_down()
        counting.count("rate_limited_total", scope="order")

        assert scraped()['rate_limited_total{scope="order"}'] == 2

    def test_an_answer_is_followed_by_writing_down_when_it_is_time(self, settings: Any) -> None:
        settings.SAGA_COUNTS_KEPT = 0

        Client().get("/livez")

        assert Tally.objects.get(name="http_requests_total").value == 1

    @pytest.mark.parametrize("task", [queue.DRIVE, DELIVER, HEAR, LOOK])
    def test_so_is_each_task_of_a_worker(self, task: str, settings: Any) -> None:
        settings.SAGA_COUNTS_KEPT = 0
        counting.count("rate_limited_total", scope="provider")

        import_string(task)()

        assert Tally.objects.get(name="rate_limited_total").value == 1

    def test_keys_that_come_again_and_what_is_too_often(self, settings: Any) -> None:
        make_shop()
        ada = make_caller(make_user(username="ada"))
        for key, body in (("1", order_body()), ("1", order_body()), ("1", order_body(email="eve@example.com"))):
            ada.post(ORDERS, body, Idempotency_Key=key)
        settings.API_ORDER_RATE = Rate(1, 86_400)
        for key in "23":
            ada.post(ORDERS, order_body(order_id=f"ORD-{key}"), Idempotency_Key=key)

        found = scraped()

        outcomes = ("new", "replayed", "mismatch")
        assert [found[f'idempotency_requests_total{{outcome="{outcome}"}}'] for outcome in outcomes] == [1, 1, 1]
        assert found['rate_limited_total{scope="order"}'] == 2

    def test_calls_of_providers_of_others_by_how_they_ended(self) -> None:
        stripe = Guarded("stripe", Gateway())
        for error in (None, None, Declined, Unavailable, OutcomeUnknown, RuntimeError):
            with suppress(Exception):
                stripe.charge(error)

        found = scraped()

        call = 'provider="stripe",operation="charge"'
        ends = {"succeeded": 2, "refused": 1, "unavailable": 1, "unknown": 1, "failed": 1}
        for outcome, times in ends.items():
            assert found[f'provider_requests_total{{{call},outcome="{outcome}"}}'] == times
        assert found[f"provider_request_duration_seconds_count{{{call}}}"] == 6


class TestMonitoring:
    """The alerts and the dashboard that we give along."""

    @pytest.fixture
    def told(self) -> set[str]:
        """The name of all there is: what was counted once has its meaning in a list, gauges are told at any time."""
        make_shop()
        ended("needs_attention")
        gauges = {re.split(r"[{_]bucket|[{]", name)[0] for name in scraped()}
        return {name for name in gauges if not name.endswith(("_sum", "_count"))} | set(ENGINES_HELP) | set(HELP)

    def test_they_ask_for_nothing_that_is_not_told(self, told: set[str]) -> None:
        for file in ("alerts.yml", "dashboard.json"):
            asked = set(re.findall(r"order_saga_(\w+)", (MONITORING / file).read_text()))
            assert {name.removesuffix("_bucket") for name in asked} - told == set(), file
        rows = re.findall(r"^\| (`[a-z_`, ]+`)", METRICS.read_text(), re.MULTILINE)
        assert set(re.findall(r"\w+", " ".join(rows))) == told

    def test_each_alert_has_words_and_a_runbook_and_no_runbook_is_left_over(self) -> None:
        groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        runbooks = dict(re.findall(r"^### (\w+)\n\n(.+?)\n\n", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL))

        assert [rule["alert"] for rule in rules] == sorted(runbooks, key=list(runbooks).index)
        for rule in rules:
            assert rule["annotations"]["summary"]
            is_page = rule["labels"] == {"severity": "page"}
            assert is_page or rule["labels"] == {"severity": "ticket"}
            assert runbooks[rule["alert"]].startswith("*page.* ") == is_page, rule["alert"]

    def test_the_commands_that_runbooks_name_are_there(self) -> None:
        for command in re.findall(r"`((?:saga|webhooks|providers|apikey|audit)\b[^`]*)`", runbook_part()):
            words = re.sub(r"\bNAME\b|\bENDPOINT\b", "1", command.replace("\n", " ")).replace("…", "x").split()
            manager = load_command_class("sagas" if words[0] in ("saga",) else "orders", words[0])
            manager.create_parser("manage.py", words[0]).parse_args(words[1:])


def runbook_part() -> str:
    return OPERATIONS.read_text().partition("## Alerts")[2].partition("\n## ")[0]


def away(*args: Any) -> None:
    raise OperationalError("The database is away.")


class Gateway:
    def charge(self, error: type[Exception] | None) -> str:
        if error is RuntimeError:
            raise RuntimeError
        if error is not None:
            raise error("No.", provider="stripe", operation="charge")  # type: ignore[call-arg]
        return "charged"
