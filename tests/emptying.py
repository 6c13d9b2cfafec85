"""Empties the database after a test that commits, in milliseconds.

Django truncates every table and makes permissions anew, a third of a second each time on PostgreSQL, and two thousand
tests commit. Here only tables that hold rows are emptied, and the rows that every installation has are left as they
are; if a test changed one of those, Django does it in its way.
"""

from __future__ import annotations

from typing import Any

from django.core.management.color import no_style
from django.db import connection, transaction
from django.test import TransactionTestCase

Rows = dict[str, list[tuple[Any, ...]]]

_by_django = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]  # there is no public name for it
_always_there: Rows = {}


def empty_quickly() -> None:
    """From now on tests that commit are cleaned up after by this module."""
    TransactionTestCase._fixture_teardown = _empty  # type: ignore[attr-defined]


def _empty(self: TransactionTestCase) -> None:
    filled = _filled()
    if not _always_there or not _may() or any(_rows(table) != rows for table, rows in _always_there.items()):
        _by_django(self)
        _always_there.clear()
        _always_there.update({table: _rows(table) for table in _filled()})
        return
    tables = [table for table in filled if table not in _always_there]
    if not tables:
        return
    if connection.vendor != "postgresql":
        connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # in any order, and without triggers
        for table in tables:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")  # noqa: S608  (our own tables)


def _may() -> bool:
    """Whether this account may pass over keys and triggers; a test database of one's own may be of one that may not."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SHOW is_superuser")
        return bool(cursor.fetchone()[0] == "on")


def _filled() -> list[str]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    asked = (f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {connection.ops.quote_name(table)})" for table in tables)  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(asked))
        return sorted(name for (name,) in cursor.fetchall())


def _rows(table: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)} ORDER BY 1")  # noqa: S608
        return list(cursor.fetchall())
