"""Fewer bytes per run: no index that another one serves for, and room in a page for a row's next version."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

COVERED = ("StepRecord", "RunEvent", "Signal")
"""Each has an index that begins with its run; the foreign key's own was a second one."""


def drop_covered(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # By hand: altering the field makes SQLite copy the table, and the copy has lost its triggers.
    connection = schema_editor.connection
    for name in COVERED:
        table = apps.get_model("sagas", name)._meta.db_table
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, table)
        for index, what in found.items():
            if what["index"] and not what["unique"] and what["columns"] == ["run_id"]:
                schema_editor.execute(f"DROP INDEX {connection.ops.quote_name(index)}")


def add_covered(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    quote = schema_editor.connection.ops.quote_name
    for name in COVERED:
        table = apps.get_model("sagas", name)._meta.db_table
        schema_editor.execute(f"CREATE INDEX {quote(table + '_run_id')} ON {quote(table)} ({quote('run_id')})")


def leave_room(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """PostgreSQL writes a row's new version beside the old one, with no change to any index, if the page has room."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE sagas_sagarun SET (fillfactor = 50)")
        schema_editor.execute("ALTER TABLE sagas_steprecord SET (fillfactor = 40)")


def leave_none(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE sagas_sagarun RESET (fillfactor)")
        schema_editor.execute("ALTER TABLE sagas_steprecord RESET (fillfactor)")


def run_key(related_name: str) -> models.ForeignKey[Any, Any]:
    return models.ForeignKey(
        db_index=False,
        on_delete=django.db.models.deletion.PROTECT,
        related_name=related_name,
        to="sagas.sagarun",
    )


class Migration(migrations.Migration):
    dependencies = [("sagas", "0002_history_is_only_added")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(drop_covered, add_covered)],
            state_operations=[
                migrations.AlterField("steprecord", "run", run_key("records")),
                migrations.AlterField("runevent", "run", run_key("events")),
                migrations.AlterField("signal", "run", run_key("signals")),
            ],
        ),
        migrations.RemoveIndex("sagarun", "sagas_run_created"),
        migrations.RemoveIndex("sagarun", "sagas_run_status_created"),
        migrations.AddIndex("sagarun", models.Index(fields=["status", "-id"], name="sagas_run_status")),
        migrations.RunPython(leave_room, leave_none),
    ]
