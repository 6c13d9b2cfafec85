"""Fewer bytes per run: no index knows the status, which every claim changes; keys are checked while the run's row is
still the one that was locked; and no attempt is locked for a trigger that has nothing to say."""

from __future__ import annotations

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

WRITTEN_WITH_THE_RUN = ("StepRecord", "RunEvent")


def check_keys_at_once(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """PostgreSQL checks a foreign key by locking the row it names.

    At the end of the transaction, when Django has it checked, the run's row was written anew, and each lock on the new
    one is an entry in the log. At once, the row is the one the worker has locked already.
    """
    _alter_keys(apps, schema_editor, "NOT DEFERRABLE")


def check_keys_at_the_end(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    _alter_keys(apps, schema_editor, "DEFERRABLE INITIALLY DEFERRED")


# A trigger that comes before a change has the row locked first, an entry in the log for each attempt that ends.
ASKED_AFTERWARDS = """
DROP TRIGGER sagas_ended_attempt_stays ON sagas_steprecord;
CREATE TRIGGER sagas_ended_attempt_stays AFTER UPDATE ON sagas_steprecord
    FOR EACH ROW WHEN (OLD.outcome <> '') EXECUTE FUNCTION sagas_history_is_only_added();
"""
ASKED_BEFORE = ASKED_AFTERWARDS.replace("AFTER UPDATE", "BEFORE UPDATE")


def refuse_afterwards(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(ASKED_AFTERWARDS, params=None)


def refuse_before(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(ASKED_BEFORE, params=None)


def _alter_keys(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor, when: str) -> None:
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    quote = connection.ops.quote_name
    for name in WRITTEN_WITH_THE_RUN:
        table = apps.get_model("sagas", name)._meta.db_table
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, table)
        for key, what in found.items():
            if what["foreign_key"]:
                schema_editor.execute(f"ALTER TABLE {quote(table)} ALTER CONSTRAINT {quote(key)} {when}")


class Migration(migrations.Migration):
    dependencies = [("sagas", "0006_runs_can_be_archived")]

    operations = [
        migrations.RemoveConstraint("sagarun", "sagas_one_live_run_per_key"),
        migrations.RemoveIndex("sagarun", "sagas_run_status"),
        migrations.AddField(
            "sagarun",
            "phase",
            models.GeneratedField(
                db_persist=True,
                expression=models.Case(
                    models.When(status__in=["pending", "retrying", "running"], then=models.Value("forward")),
                    default=models.F("status"),
                ),
                output_field=models.CharField(max_length=20),
            ),
        ),
        migrations.AddIndex("sagarun", models.Index(fields=["phase", "-id"], name="sagas_run_phase")),
        migrations.AddConstraint(
            "sagarun",
            models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True)),
                fields=("saga", "business_key"),
                name="sagas_one_live_run_per_key",
            ),
        ),
        migrations.RunPython(check_keys_at_once, check_keys_at_the_end),
        migrations.RunPython(refuse_afterwards, refuse_before),
    ]
