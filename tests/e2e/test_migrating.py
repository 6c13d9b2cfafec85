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
    pytest.mark.parametrize("site", [{"DATABASE_LOCK_TIMEOUT_SECONDS": "2"}], indirect=True),
]

TABLE = "orders_idempotentrequest"
LAST, BEFORE = "0019_requests_are_found_by_their_id", "0018_deliveries_are_kept_once"
"""Taking the first of them back takes a column from the table, for which nobody may even read it."""
TAKE_BACK = ("manage.py", "migrate", "orders", BEFORE)

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


def stands() -> tuple[bool, bool, set[str]]:
    """(whether the migration counts as applied, has its column, the indexes of both its tables)."""
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, TABLE)
        indexes = {
            name
            for table in (TABLE, "orders_refusedrequest")
            for name in connection.introspection.get_constraints(cursor, table)
        }
    applied = MigrationRecorder.Migration.objects.filter(app="orders", name=LAST).exists()
    return applied, "request_id" in {column.name for column in columns}, indexes


@only_postgresql
def test_migrate_gives_up_and_the_shop_goes_on(site: Site) -> None:
    make_shop()
    caller = make_caller(make_user(username="ada"))
    before = stands()

    with somebody_reading() as reader:
        migrate = site.start("migrate", *TAKE_BACK)
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
    assert stands() == before
    assert before[:2] == (True, True)


def test_where_nobody_holds_anything_it_goes_through(site: Site) -> None:
    before = stands()

    site.manage(*TAKE_BACK[1:])
    without = stands()
    site.manage("migrate", "orders")

    assert without[:2] == (False, False)
    assert stands() == before
