"""What belongs to the site as a whole: its settings' readers, what every answer carries, its probes."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from config import env
from config.logs import JsonFormatter
from config.middleware import POLICY
from sagas import notices, run_log
from sagas.heartbeats import beat
from sagas.models import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop


class TestEnv:
    def test_an_unset_and_an_empty_variable_give_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("THING", raising=False)
        assert (env.env_int("THING", 7), env.env_bool("THING", True), env.env_list("THING", ("a",))) == (7, True, ["a"])

        monkeypatch.setenv("THING", "  ")
        assert (env.env_int("THING", 7), env.env_bool("THING", True), env.env_list("THING", ("a",))) == (7, True, ["a"])

    def test_values_are_read_as_their_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("THING", " 0.5 ")
        assert env.env_seconds("THING", 1) == 0.5

        monkeypatch.setenv("THING", "Off")
        assert env.env_bool("THING", True) is False

        monkeypatch.setenv("THING", "a, b,,c")
        assert env.env_list("THING") == ["a", "b", "c"]

    @pytest.mark.parametrize("value", ["two", "1.5", "-1", "1e3"])
    def test_a_bad_number_stops_the_start_and_names_itself(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("THING", value)

        with pytest.raises(ImproperlyConfigured, match=f"^THING='{value}': expected "):
            env.env_int("THING", 1)

    @pytest.mark.parametrize("value", ["90s", "-1", "nan", "inf"])
    def test_a_bad_time_stops_the_start_and_names_itself(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("THING", value)

        with pytest.raises(ImproperlyConfigured, match=f"^THING='{value}': expected "):
            env.env_seconds("THING", 1)

    @pytest.mark.parametrize("value", ["https://logs.example.com", "javascript:alert('{run}')", "logs/{run}"])
    def test_a_link_that_leads_nowhere_stops_the_start(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("THING", value)

        with pytest.raises(ImproperlyConfigured, match=r"expected an address like https://logs\.example\.com/\?q="):
            env.env_link("THING", "{run}")

    def test_one_place_of_several_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("THING", "https://traces.example.com/?q={run}")
        assert env.env_link("THING", "{trace}", "{run}") == "https://traces.example.com/?q={run}"
        monkeypatch.setenv("THING", "https://traces.example.com/")

        with pytest.raises(ImproperlyConfigured, match=r"\?q={trace}, or with {run}\.$"):
            env.env_link("THING", "{trace}", "{run}")

    def test_a_link_is_taken_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert env.env_link("THING", "{run}") == ""
        monkeypatch.setenv("THING", "https://logs.example.com/{run}")
        assert env.env_link("THING", "{run}") == "https://logs.example.com/{run}"

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("sqlite:///shop.sqlite3", {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}),
            (
                "sqlite:////var/lib/a%20b.sqlite3",
                {"ENGINE": "django.db.backends.sqlite3", "NAME": "/var/lib/a b.sqlite3"},
            ),
            (
                "postgresql://ada:p%40ss@db.example.com:5433/shop?sslmode=require",
                {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": "shop",
                    "USER": "ada",
                    "PASSWORD": "p@ss",
                    "HOST": "db.example.com",
                    "PORT": "5433",
                    "OPTIONS": {"sslmode": "require"},
                },
            ),
            *(
                (
                    address,
                    {
                        "ENGINE": "django.db.backends.postgresql",
                        "NAME": "shop",
                        "USER": "ada",
                        "PASSWORD": "",
                        "HOST": "/run/Postgres",
                        "PORT": "",
                        "OPTIONS": {},
                    },
                )
                for address in ("postgresql://ada@/shop?host=/run/Postgres", "postgres://ada@%2Frun%2FPostgres/shop")
            ),
        ],
    )
    def test_database_addresses(
        self, monkeypatch: pytest.MonkeyPatch, address: str, expected: dict[str, object]
    ) -> None:
        monkeypatch.setenv("THING", address)

        assert env.env_database("THING", "") == expected

    @pytest.mark.parametrize(
        "address",
        [
            "mysql://u:s3cret@h/d",
            "sqlite://",
            "sqlite:///:memory:",
            "postgresql://u:s3cret@h",
            "postgresql://u:s3cret@h:x/d",
        ],
    )
    def test_a_bad_database_address_is_named_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        monkeypatch.setenv("THING", address)

        with pytest.raises(ImproperlyConfigured, match=r"^THING: ") as caught:
            env.env_database("THING", "")

        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("", {"orm": "default"}),
            ("orm", {"orm": "default"}),
            ("redis://h:6379/1", {"redis": "redis://h:6379/1"}),
            ("unix:///run/valkey.sock?db=0", {"redis": "unix:///run/valkey.sock?db=0"}),
            ("sqs://eu-central-1", {"sqs": {"aws_region": "eu-central-1", "receive_message_wait_time_seconds": 1}}),
        ],
    )
    def test_broker_addresses(self, monkeypatch: pytest.MonkeyPatch, address: str, expected: dict[str, object]) -> None:
        monkeypatch.setenv("THING", address)

        assert env.env_broker("THING") == expected

    def test_mail_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("THING", "smtps://ada:p%40ss@mail.example.com")
        backend, options = env.env_mailer("THING", "")

        assert backend == "django.core.mail.backends.smtp.EmailBackend"
        assert options == {
            "host": "mail.example.com",
            "port": 465,
            "username": "ada",
            "password": "p@ss",
            "use_tls": False,
            "use_ssl": True,
            "timeout": 10,
        }

        monkeypatch.setenv("THING", "anymail.backends.sendgrid.EmailBackend")
        assert env.env_mailer("THING", "") == ("anymail.backends.sendgrid.EmailBackend", {})

    @pytest.mark.parametrize("address", ["smtp://", "file:", "pigeon://loft", "nothing"])
    def test_a_bad_mail_address_is_refused(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        monkeypatch.setenv("THING", address)

        with pytest.raises(ImproperlyConfigured, match=r"^THING: expected "):
            env.env_mailer("THING", "")

    def test_a_secret_is_made_once_and_kept_private(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("THING", raising=False)
        file = tmp_path / "var" / "secret"

        first = env.env_secret("THING", file, required=False)

        assert len(first) >= 50
        assert env.env_secret("THING", file, required=False) == first
        assert file.stat().st_mode & 0o777 == 0o600
        assert list(file.parent.iterdir()) == [file]

    def test_a_public_site_must_be_given_its_secret(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("THING", raising=False)

        with pytest.raises(ImproperlyConfigured, match=r"^THING is not set\."):
            env.env_secret("THING", tmp_path / "secret", required=True)

        assert list(tmp_path.iterdir()) == []


class TestAnswers:
    def test_every_answer_carries_the_policy_and_an_id(self, client: Client) -> None:
        found, missing = client.get("/livez"), client.get("/no-such-page/")

        assert (found.status_code, missing.status_code) == (200, 404)
        assert [found["Content-Security-Policy"], missing["Content-Security-Policy"]] == [POLICY, POLICY]
        assert len(found["X-Request-Id"]) == 32
        assert found["X-Request-Id"] != missing["X-Request-Id"]

    def test_the_policy_allows_nothing_inline(self) -> None:
        assert "default-src 'self'" in POLICY
        assert "unsafe" not in POLICY

    def test_a_well_formed_id_is_kept(self, client: Client) -> None:
        assert client.get("/livez", headers={"X-Request-Id": "order-42:try.1"})["X-Request-Id"] == "order-42:try.1"

    @pytest.mark.parametrize("given", ["short", "with blank", "x" * 65, "<script>", "inj\r\nected-header"])
    def test_any_other_id_is_replaced(self, client: Client, given: str) -> None:
        assert len(client.get("/livez", headers={"X-Request-Id": given})["X-Request-Id"]) == 32


class TestProbes:
    def test_alive_without_a_database(self, client: Client) -> None:
        answer = client.get("/livez")  # this test has no access to one, and would fail if it were asked

        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

    @pytest.mark.django_db
    def test_ready(self, client: Client) -> None:
        answer = client.get("/readyz")

        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "database": "ok", "migrations": "ok"})
        assert "no-store" in answer["Cache-Control"]

    @pytest.mark.django_db
    def test_not_ready_with_a_migration_waiting(self, client: Client) -> None:
        recorder = MigrationRecorder(connection)
        name = recorder.migration_qs.filter(app="sagas").latest("name").name
        recorder.record_unapplied("sagas", name)

        answer = client.get("/readyz")

        assert (answer.status_code, answer.json()["database"]) == (503, "ok")
        assert f"sagas.{name}" in answer.json()["migrations"]

    @pytest.mark.django_db
    def test_not_ready_without_an_answer_from_the_database(self, client: Client) -> None:
        def refuse(*args: object) -> None:
            raise DatabaseError("gone")

        with connection.execute_wrapper(refuse):
            answer = client.get("/readyz")

        assert (answer.status_code, answer.json()["database"]) == (503, "no answer")

    @pytest.mark.django_db
    def test_told_in_full_on_request(self, client: Client) -> None:
        make_shop()
        make_order()
        none = client.get("/readyz?verbose")
        beat("host:1", cluster="orders", now=timezone.now())
        well = client.get("/readyz?verbose").json()
        SagaRun.objects.update(due_at=timezone.now() - timedelta(minutes=1))

        late = client.get("/readyz?verbose")

        assert (none.status_code, none.json()["status"]) == (200, "ok")  # orders are taken without workers, too
        assert none.json()["workers"] == "warning: no worker has been seen for 30 s"
        assert (well["cache"], well["workers"]) == ("ok", "ok")
        assert (late.status_code, late.json()["status"]) == (200, "ok")
        assert late.json()["workers"] == "warning: work has been due for 30 s and nobody takes it"

    def test_only_reading_is_possible(self, client: Client) -> None:
        assert client.post("/livez").status_code == 405


class TestLog:
    def line(self, **fields: Any) -> dict[str, Any]:
        record = logging.LogRecord("sagas.runs", logging.INFO, "file", 1, "two\nlines %s", ("here",), None)
        vars(record).update(fields)
        text = JsonFormatter().format(record)
        assert "\n" not in text
        told: dict[str, Any] = json.loads(text)
        return told

    def test_a_line_is_one_object(self) -> None:
        told = self.line(request_id="r-1", order_id="ORD-1", step="", card="4242")

        assert datetime.fromisoformat(told.pop("ts")).tzinfo is not None
        assert told == {
            "level": "info",
            "logger": "sagas.runs",
            "event": "two\nlines here",
            "request_id": "r-1",
            "trace_id": "-",
            "order_id": "ORD-1",
        }

    def test_an_error_has_its_trace(self) -> None:
        try:
            raise ValueError("no")
        except ValueError:
            told = self.line(exc_info=sys.exc_info())

        assert told["error"].endswith("ValueError: no")

    @pytest.mark.django_db(transaction=True)
    def test_what_happens_to_runs_is_said_once_it_is_so(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(notices, "_listeners", [run_log.note])
        caplog.set_level(logging.INFO, "sagas.runs")
        make_shop()
        with suppress(ZeroDivisionError), transaction.atomic():
            make_order(order_id="ORD-0")
            raise ZeroDivisionError
        make_order(order_id="ORD-1", card_token="tok_declined")
        run_to_end(SagaRun.objects.get())

        said = [record for record in caplog.records if record.name == "sagas.runs"]

        told = [(one.getMessage(), vars(one)["step"], vars(one)["attempt"]) for one in said]
        assert told == [
            ("started", "", None),
            ("step_done", "reserve_inventory", 1),
            ("turned_back", "process_payment", None),
            ("step_done", "reserve_inventory", 1),
            ("compensated", "", None),
        ]
        about = {(vars(one)["order_id"], vars(one)["run_id"], vars(one)["trace_id"]) for one in said}
        run = SagaRun.objects.get()
        assert about == {("ORD-1", str(run.pk), run.trace_id)}
        assert not any("ada" in JsonFormatter().format(one) for one in said)
