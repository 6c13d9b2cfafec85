"""What happened is never edited: the database itself refuses to change an ended attempt or an event."""

from __future__ import annotations

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

POSTGRESQL = """
CREATE FUNCTION sagas_history_is_only_added() RETURNS trigger AS $$
BEGIN
    RAISE EXCEPTION 'sagas: % is history and is only added to', TG_TABLE_NAME USING ERRCODE = 'check_violation';
END $$ LANGUAGE plpgsql;
CREATE TRIGGER sagas_ended_attempt_stays BEFORE UPDATE ON sagas_steprecord
    FOR EACH ROW WHEN (OLD.outcome <> '') EXECUTE FUNCTION sagas_history_is_only_added();
CREATE TRIGGER sagas_event_stays BEFORE UPDATE ON sagas_runevent
    FOR EACH ROW EXECUTE FUNCTION sagas_history_is_only_added();
"""
SQLITE = (
    """
CREATE TRIGGER sagas_ended_attempt_stays BEFORE UPDATE ON sagas_steprecord WHEN OLD.outcome <> ''
BEGIN SELECT RAISE(ABORT, 'sagas: sagas_steprecord is history and is only added to'); END
""",
    """
CREATE TRIGGER sagas_event_stays BEFORE UPDATE ON sagas_runevent
BEGIN SELECT RAISE(ABORT, 'sagas: sagas_runevent is history and is only added to'); END
""",
)


def add_triggers(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        # Without parameters, or the % of the message would be taken for a place to put one.
        schema_editor.execute(POSTGRESQL, params=None)
    elif schema_editor.connection.vendor == "sqlite":
        for statement in SQLITE:
            schema_editor.execute(statement)


def drop_triggers(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    on = schema_editor.connection.vendor == "postgresql"
    schema_editor.execute("DROP TRIGGER sagas_event_stays" + (" ON sagas_runevent" if on else ""))
    schema_editor.execute("DROP TRIGGER sagas_ended_attempt_stays" + (" ON sagas_steprecord" if on else ""))
    if on:
        schema_editor.execute("DROP FUNCTION sagas_history_is_only_added()")


class Migration(migrations.Migration):
    dependencies = [("sagas", "0001_runs_and_records")]

    operations = [migrations.RunPython(add_triggers, drop_triggers)]
