"""The health page: what works, since when something does not, which orders it hits, and the same for programs."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_q.models import Schedule
from pytest_django import Settings

from orders.models import ProviderHealth, WebhookDelivery, WebhookEndpoint, WebhookEvent
from sagas import heartbeats
from sagas.health import lines
from sagas.models import RunEvent, SagaRun, StepRecord, Tally
from sagas.queue import schedule_sweep
from sagas.tallies import SWEPT, note_sweep
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import ended, run_of, text_of, visitor

pytestmark = pytest.mark.django_db

CHEAP: dict[str, Any] = {"items": [{"sku": "ITEM-001", "quantity": 1}], "total_amount": None}


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()
    schedule_sweep()
    heartbeats.beat("host:7", cluster="orders", now=timezone.now())


def line(client: Client, name: str) -> dict[str, Any]:
    """The newest line of that name, as programs are told."""
    told = client.get("/health.json").json()["lines"]
    return next(one for one in reversed(told) if one["name"] == name)


def test_all_is_well(gina: Client) -> None:
    told = gina.get("/health.json").json()

    assert told["state"] == "ok"
    assert {one["state"] for one in told["lines"]} == {"ok"}
    names = [one["name"] for one in told["lines"]]
    assert names[:10] == [
        *("web", "database", "migrations", "cache", "work", "queue", "workers", "sweep", "attention", "definitions"),
    ]
    assert names[-3:] == ["providers", "webhooks", "version"]
    words = text_of(gina.get("/health/"))
    assert "Ok Migrations all applied – Runbook : Migrations" in words
    assert "Ok Workers 1 alive; nothing was begun yet" in words


def test_it_is_for_staff_alone(client: Client) -> None:
    for address in ("/health/", "/health.json", "/health/runbooks/"):
        assert client.get(address).status_code == 302
        assert visitor(f"ada{len(address)}").get(address).status_code == 404


def test_every_line_has_its_runbook(gina: Client) -> None:
    page = gina.get("/health/runbooks/").content.decode()

    for one in lines(timezone.now()):
        assert f'id="{one.name}"' in page


def test_orders_that_are_hit_are_named(gina: Client) -> None:
    for number in range(12):
        make_order(order_id=f"ORD-{number:02}", **CHEAP)
    late = timezone.now() - timedelta(seconds=60)
    SagaRun.objects.filter(business_key__gt="ORD-00").update(due_at=late)

    found = line(gina, "work")
    words = text_of(gina.get("/health/"))

    assert (found["state"], found["hit"], len(found["hit_keys"])) == ("failing", 11, 10)
    assert found["since"] == late.isoformat()
    assert "ORD-00" not in found["hit_keys"]
    assert "and 11 in all" in words
    assert 'href="/orders/ORD-01/"' in gina.get("/health/").content.decode()
    assert gina.get("/health.json").json()["state"] == "failing"


def test_what_needs_a_person_is_a_warning_and_after_two_hours_more(gina: Client) -> None:
    run = run_of(ended("needs_attention"))
    since = RunEvent.objects.get(run=run, kind="needs_attention").created_at

    first = line(gina, "attention")
    later = next(one for one in lines(since + timedelta(hours=3)) if one.name == "attention")

    assert (first["state"], first["text"], first["hit_keys"]) == ("warning", "1 run waits for a person", ["ORD-123"])
    assert first["since"] == since.isoformat()
    assert (later.state, later.text) == ("failing", "1 run waits for a person, the longest for more than 2 h")


def test_workers_are_counted_with_the_last_sign_of_life(gina: Client) -> None:
    heartbeats.beat("host:8", cluster="orders", now=timezone.now())
    ended("completed")

    found = line(gina, "workers")

    assert re.fullmatch(r"2 alive; the last attempt began \d+ s ago", found["text"])
    assert (found["state"], found["since"]) == ("ok", None)


def test_that_no_worker_is_alive_is_told_with_when_one_was_last_seen(gina: Client) -> None:
    now = timezone.now()
    late = now + timedelta(seconds=40)
    heartbeats.beat("host:7", cluster="orders", now=now)

    found = next(one for one in lines(late) if one.name == "workers")
    heartbeats.stop("host:7", now=now)

    assert (found.state, found.since) == ("failing", now)
    assert found.text == "none is alive; the last one was seen 40 s ago. Start `manage.py sagaworker`"
    assert line(gina, "workers")["state"] == "failing"


def test_it_says_which_process_answers_and_for_how_long(gina: Client) -> None:
    assert re.fullmatch(rf"answers: process {os.getpid()} on \S+, for \d+ s", line(gina, "web")["text"])


def test_the_oldest_wake_up_and_the_last_sweep_are_told(gina: Client) -> None:
    Tally.objects.filter(name=SWEPT).delete()
    assert line(gina, "queue")["text"] == "0 wake-ups"
    assert line(gina, "sweep")["text"] == "runs each minute; none yet"

    make_order()
    note_sweep()

    assert re.fullmatch(r"1 wake-up, the oldest for \d s", line(gina, "queue")["text"])
    assert re.fullmatch(r"runs each minute; the last one \d s ago", line(gina, "sweep")["text"])


def test_a_scheduler_that_does_not_run_is_told(gina: Client) -> None:
    due = timezone.now() - timedelta(minutes=10)
    Schedule.objects.filter(name="saga sweep").update(next_run=due)

    found = line(gina, "sweep")

    assert (found["state"], found["since"]) == ("warning", due.isoformat())
    Schedule.objects.all().delete()
    assert line(gina, "sweep")["text"] == "not scheduled; `manage.py sagaworker` plans it when it starts"


def test_a_step_that_does_not_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sagas.health.LATELY", timedelta(days=1)
    )  # backoffs are drawn, and pass on a clock of their own
    for number in range(2):
        ended("needs_attention", order_id=f"ORD-{number}", **CHEAP)
    tries = StepRecord.objects.exclude(outcome="refused")
    now = max(record.ended_at for record in tries if record.ended_at)
    well = tries.filter(outcome="succeeded").count()

    found = {one.title: one for one in lines(now)}

    assert found["Tries"].text == f"{well} of {tries.count()} in the last 5 minutes got through"
    refund = found["Refund payment"]
    assert (refund.state, refund.hit_count) == ("failing", 2)
    assert refund.text.startswith("0 of ")
    assert refund.text.endswith("in the last 5 minutes got through; sandbox gateway fails")
    assert refund.since is not None
    assert "Create shipment" not in found  # it was refused, which is an answer
    assert "Process payment" not in found


def test_a_breaker_that_is_open_is_failing(gina: Client) -> None:
    now = timezone.now()
    ProviderHealth.objects.create(name="sandbox", failures=9, last_error="503", opened_at=now, trial_at=now)

    found = line(gina, "providers")

    assert (found["state"], found["since"]) == ("failing", now.isoformat())
    assert "sandbox is down" in found["text"]


def test_webhooks_that_wait_for_long(gina: Client) -> None:
    now = timezone.now()
    late = now - timedelta(minutes=20)
    user = make_user(username="shop")
    endpoint = WebhookEndpoint.objects.create(user=user, url="https://shop.example/", secret="whsec_x", created_at=now)
    event = WebhookEvent.objects.create(type="order.completed", order_id="ORD-123", created_at=now)
    assert line(gina, "webhooks")["text"] == "nothing waits to be sent"

    WebhookDelivery.objects.create(endpoint=endpoint, event=event, next_at=late)

    found = line(gina, "webhooks")
    assert (found["state"], found["text"], found["since"]) == ("warning", "1 to be sent", late.isoformat())


def test_a_migration_that_is_missing(gina: Client) -> None:
    MigrationRecorder.Migration.objects.filter(app="orders").order_by("-id").first().delete()  # type: ignore[union-attr]

    found = line(gina, "migrations")

    assert found["state"] == "failing"
    assert found["text"].startswith("not applied: orders.0")


def test_a_cache_that_forgets(gina: Client, settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    assert (line(gina, "cache")["state"], line(gina, "cache")["text"]) == ("failing", "DummyCache")


def test_its_queries_do_not_grow(gina: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert gina.get("/health.json").status_code == 200
        return len(captured)

    ended("needs_attention", order_id="ORD-0", **CHEAP)
    few = queries()
    for number in range(1, 4):
        ended("needs_attention", order_id=f"ORD-{number}", **CHEAP)

    assert queries() == few
