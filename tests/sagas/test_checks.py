"""System checks: a setting that would break a promise is named at start."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connections

from sagas.checks import check_lease, check_live_definitions, check_queue, check_sqlite
from sagas.testing import run_to_end
from tests.sagas.toys import World, make_run, make_trip, registered

GOOD = {"timeout": 60, "retry": 90, "save_limit": -1, "max_attempts": 0}


def ids(found: list[Any]) -> list[str]:
    return [message.id for message in found]


def test_the_projects_own_settings_are_good(db: None) -> None:
    assert [message.id for message in run_checks() if str(message.id).startswith("sagas.")] == []


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({}, [], ""),
        ({"timeout": None}, ["sagas.E001"], "no timeout"),
        ({"retry": 61}, [], ""),
        ({"retry": 60}, ["sagas.E002"], "is 60 and not above ['timeout'], 60"),
        ({"timeout": 30, "retry": 40}, ["sagas.E003"], "SAGA_DRIVE_SECONDS is 30"),
        ({"save_limit": 250}, ["sagas.E004"], "is not -1"),
        ({"max_attempts": 3}, ["sagas.E005"], "is 3"),
        ({"sync": True}, ["sagas.E006"], "is on"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_queue_settings(settings: Any, changes: dict[str, Any], expected: list[str], words: str) -> None:
    settings.SAGA_DRIVE_SECONDS = 30
    settings.Q_CLUSTER = GOOD | changes

    found = check_queue(None)

    assert ids(found) == expected
    assert all(words in message.msg and message.hint for message in found)


def test_what_django_q2_does_when_nothing_is_said_counts(settings: Any) -> None:
    settings.Q_CLUSTER = {"timeout": 60}

    assert ids(check_queue(None)) == ["sagas.E002", "sagas.E004"]


@pytest.mark.parametrize(("seconds", "expected"), [(4.9, ["sagas.E007"]), (5, [])])
def test_a_lease_must_outlast_a_slow_moment(settings: Any, seconds: float, expected: list[str]) -> None:
    settings.SAGA_LEASE = seconds

    assert ids(check_lease(None)) == expected


@pytest.mark.parametrize(
    ("mode", "expected"), [(None, ["sagas.E008"]), ("DEFERRED", ["sagas.E008"]), ("IMMEDIATE", [])]
)
def test_sqlite_needs_immediate_transactions(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, expected: list[str]
) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "ENGINE", "django.db.backends.sqlite3")
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {"transaction_mode": mode} if mode else {})

    assert ids(check_sqlite(None)) == expected


@pytest.mark.django_db
def test_a_definition_that_live_runs_need_is_gone(world: World) -> None:
    trip = make_trip(world)
    with registered(trip):
        make_run(trip, key="T-1")
        make_run(trip, key="T-2")
        assert check_live_definitions(None) == []

    found = check_live_definitions(None)

    assert [message.msg for message in found] == ["2 live runs of trip version 1 have no definition here."]


@pytest.mark.django_db
def test_ended_runs_need_no_definition(world: World) -> None:
    trip = make_trip(world)
    with registered(trip):
        run_to_end(make_run(trip))

    assert check_live_definitions(None) == []
