"""migrate beside a shop that is open: real processes, and a reader that holds a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from orders.models import Order
from tests.factories import make_shop, make_user
from tests.orders.api_client import ORDERS, make_caller, order_body
from tests.processes import Site, database_url, wait_for

pytestmark = [
    pytest.mark.processes,
    pytest.mark.parametrize(
        "site",
        [{"DJANGO_SETTINGS_MODULE": "tests.e2e.growing.settings", "DATABASE_LOCK_TIMEOUT_SECONDS": "2"}],
        indirect=True,
    ),
]

TABLE = "orders_idempotentrequest"

only_postgresql = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite locks no table: whoever reads sees what was there before"
)


@contextmanager
def somebody_reading() -> Iterator[Any]:
    """A long report: it has read the table, and its transaction is still open."""
    import psycopg

    with psycopg.connect(database_url()) as reader:
        reader.execute("SELECT count(*) FROM orders_idempotentrequest")
        yield reader
        reader.rollback()


def waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass", [TABLE])
        return bool(cursor.fetchone()[0])


def grown() -> tuple[bool, bool, bool]:
    """(whether the migration counts as applied, its table is there, its column is)."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        columns = connection.introspection.get_table_description(cursor, TABLE)
    applied = MigrationRecorder.Migration.objects.filter(app="growing").exists()
    return applied, "growing_first" in tables, "grown" in {column.name for column in columns}


@only_postgresql
def test_migrate_gives_up_and_the_shop_goes_on(site: Site) -> None:
    make_shop()
    caller = make_caller(make_user(username="ada"))

    with somebody_reading() as reader:
        migrate = site.start("migrate", "manage.py", "migrate", "growing")
        wait_for("migrate to wait for the table", waiting)
        answer = caller.post(ORDERS, order_body())  # behind it, for which it needs the table as well
        still_read, pid = reader.info.transaction_status.name, reader.info.backend_pid
        code = migrate.popen.wait(30)

    assert (answer.status_code, still_read) == (202, "INTRANS")
    assert Order.objects.get().order_id == "ORD-123"
    assert code == 1
    error = migrate.output().partition("CommandError: ")[2]
    assert error.startswith("A table is in use, and was not free within 2 s (DATABASE_LOCK_TIMEOUT_SECONDS)")
    assert f"Open for longest: pid {pid} (" in error
    assert "Traceback" not in migrate.output()
    assert grown() == (False, False, False)


def test_where_nobody_holds_anything_it_goes_through(site: Site) -> None:
    site.manage("migrate", "growing")
    after = grown()
    site.manage("migrate", "growing", "zero")

    assert after == (True, True, True)
    assert grown() == (False, False, False)
