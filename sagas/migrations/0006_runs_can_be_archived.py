"""Runs of long ago give up their attempts and events, and remember when."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("sagas", "0005_tallies"),
    ]

    operations = [
        migrations.AddField(
            model_name="sagarun",
            name="pruned_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
