"""System checks: settings that would break the engine's promises are found at start, not at night."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections


@register()
def check_queue(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The queue must not hand a drive out again while it runs, nor kill it before it has let go."""
    cluster: dict[str, Any] = getattr(settings, "Q_CLUSTER", {})
    found: list[CheckMessage] = []
    timeout, retry = cluster.get("timeout"), cluster.get("retry", 60)
    if timeout is None:
        found.append(
            Error(
                "Q_CLUSTER has no timeout: a hung drive would hold a worker for ever.",
                hint="Set Q_CLUSTER['timeout'] to 60.",
                id="sagas.E001",
            )
        )
    elif retry <= timeout:
        found.append(
            Error(
                f"Q_CLUSTER['retry'] is {retry} and not above ['timeout'], {timeout}: "
                "drives would be handed out twice.",
                hint=f"Set Q_CLUSTER['retry'] to {timeout + 30}.",
                id="sagas.E002",
            )
        )
    if timeout is not None and timeout < settings.SAGA_DRIVE_SECONDS + 20:
        found.append(
            Error(
                f"SAGA_DRIVE_SECONDS is {settings.SAGA_DRIVE_SECONDS}; with 20 s to finish what is under way it does "
                f"not fit into Q_CLUSTER['timeout'], {timeout}.",
                hint="Lower SAGA_DRIVE_SECONDS, or raise the timeout and with it retry.",
                id="sagas.E003",
            )
        )
    if cluster.get("save_limit", 250) != -1:
        found.append(
            Error(
                "Q_CLUSTER['save_limit'] is not -1: each drive would read and lock every stored success.",
                hint="Set Q_CLUSTER['save_limit'] to -1. The history of runs is in the engine's own tables.",
                id="sagas.E004",
            )
        )
    if cluster.get("max_attempts", 0):
        found.append(
            Error(
                f"Q_CLUSTER['max_attempts'] is {cluster['max_attempts']}: wake-ups would be dropped.",
                hint="Set it to 0.",
                id="sagas.E005",
            )
        )
    if cluster.get("sync"):
        found.append(
            Error(
                "Q_CLUSTER['sync'] is on: drives would run inside the caller's transaction.",
                hint="Take it out; in tests use sagas.testing.run_to_end().",
                id="sagas.E006",
            )
        )
    return found


@register()
def check_lease(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A lease shorter than the renewal can keep up with would change hands while its worker is well."""
    if settings.SAGA_LEASE < 5:
        return [
            Error(
                f"SAGA_LEASE is {settings.SAGA_LEASE} s; a worker that is merely slow would lose its runs.",
                hint="Set it to 5 or more; 60 is the default.",
                id="sagas.E007",
            )
        ]
    return []


@register()
def check_sqlite(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """SQLite has no row locks: only immediate transactions keep two writers apart."""
    found: list[CheckMessage] = []
    for alias in connections:
        database = connections[alias].settings_dict
        if database["ENGINE"].endswith("sqlite3") and database["OPTIONS"].get("transaction_mode") != "IMMEDIATE":
            found.append(
                Error(
                    f"DATABASES['{alias}'] is SQLite without immediate transactions.",
                    hint="Set OPTIONS['transaction_mode'] to 'IMMEDIATE'.",
                    id="sagas.E008",
                )
            )
    return found


@register(deploy=True)
def check_live_definitions(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Runs whose definition is gone would need attention, each of them, as soon as it is due."""
    from sagas.selectors import missing_definitions

    return [
        Warning(
            f"{count} live runs of {name} version {version} have no definition here.",
            hint="Keep the old version registered until its last run has ended.",
            id="sagas.W001",
        )
        for name, version, count in missing_definitions()
    ]
