"""Django's own, which waits for a table for as long as somebody reads it, and lets everybody else wait behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

LOCK_NOT_AVAILABLE = "55P03"
"""What PostgreSQL calls it: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        try:
            with short_of_patience(connection, settings.DATABASE_LOCK_TIMEOUT):
                super().handle(*args, **options)
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", "") != LOCK_NOT_AVAILABLE:
                raise
            raise CommandError(
                f"A table is in use, and was not free within {settings.DATABASE_LOCK_TIMEOUT:g} s "
                "(DATABASE_LOCK_TIMEOUT_SECONDS): everybody else would have waited for it, too. Of the migration that "
                f"was under way nothing is left; those before it are done. {holders(connection)} "
                "Let that end, or end it by pg_terminate_backend(pid), and call migrate again."
            ) from error


@contextmanager
def short_of_patience(connection: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
    """On PostgreSQL no statement waits longer for a lock; 0: as long as it takes. SQLite has a timeout of its own."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{round(seconds * 1000)}ms"])
    try:
        yield
    finally:
        with suppress(DatabaseError, InterfaceError), connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")


def holders(connection: BaseDatabaseWrapper) -> str:
    """Which transactions have been open for longest: one of them has the table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, round(extract(epoch FROM clock_timestamp() - xact_start)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL "
            "ORDER BY xact_start LIMIT 3"
        )
        rows = cursor.fetchall()
    named = ", ".join(f"pid {pid} ({seconds:.0f} s)" for pid, seconds in rows)
    return f"Open for longest: {named}." if named else "Nothing is open any more."
