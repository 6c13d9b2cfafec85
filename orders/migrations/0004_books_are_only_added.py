"""The books of stock, money and mail: the database itself refuses to change what is over and done.

Only changes are refused, so that test databases can be emptied. On SQLite a later migration that rebuilds one of these
tables drops its trigger with it, and has to make it again; tests/orders/test_models.py finds out.
"""

from __future__ import annotations

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

# Trigger, table, and the rows that stay as they are; nothing for all of them.
KEPT = (
    ("orders_movement_stays", "orders_stockmovement", ""),
    ("orders_ended_reservation_stays", "orders_reservation", "OLD.status <> 'held'"),
    ("orders_done_operation_stays", "orders_paymentoperation", "OLD.status = 'succeeded'"),
    ("orders_sent_message_stays", "orders_sentmessage", "OLD.status = 'sent'"),
    ("orders_sandbox_refund_stays", "orders_sandboxrefund", ""),
    ("orders_sandbox_mail_stays", "orders_sandboxmail", ""),
)
FUNCTION = """
CREATE FUNCTION orders_books_are_only_added() RETURNS trigger AS $$
BEGIN
    RAISE EXCEPTION 'orders: this row of % is history and is only added to', TG_TABLE_NAME
        USING ERRCODE = 'check_violation';
END $$ LANGUAGE plpgsql;
"""


def add_triggers(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    on_postgresql = schema_editor.connection.vendor == "postgresql"
    if on_postgresql:
        # Without parameters, or the % of the message would be taken for a place to put one.
        schema_editor.execute(FUNCTION, params=None)
    for name, table, over in KEPT:
        if on_postgresql:
            when = f"FOR EACH ROW WHEN ({over})" if over else "FOR EACH ROW"
            does = "EXECUTE FUNCTION orders_books_are_only_added()"
        else:
            when = f"WHEN {over}" if over else ""
            does = f"BEGIN SELECT RAISE(ABORT, 'orders: this row of {table} is history and is only added to'); END"
        schema_editor.execute(f"CREATE TRIGGER {name} BEFORE UPDATE ON {table} {when} {does}", params=None)


def drop_triggers(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    on_postgresql = schema_editor.connection.vendor == "postgresql"
    for name, table, _ in KEPT:
        schema_editor.execute(f"DROP TRIGGER {name} ON {table}" if on_postgresql else f"DROP TRIGGER {name}")
    if on_postgresql:
        schema_editor.execute("DROP FUNCTION orders_books_are_only_added()")


class Migration(migrations.Migration):
    dependencies = [("orders", "0003_done_operation_has_provider_id")]

    operations = [migrations.RunPython(add_triggers, drop_triggers)]
