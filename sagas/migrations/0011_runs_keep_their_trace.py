"""A run keeps the trace that it was asked for in. The database has a default too: old code writes runs meanwhile."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sagas", "0010_runs_from_files")]

    operations = [
        migrations.AddField(
            model_name="sagarun",
            name="traceparent",
            field=models.CharField(blank=True, db_default="", default="", max_length=55),
        ),
    ]
