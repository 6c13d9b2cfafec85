"""Signs of life of workers."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("sagas", "0008_outcome_stored_at_the_end"),
    ]

    operations = [
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100, unique=True)),
                ("cluster", models.CharField(max_length=100)),
                ("seen_at", models.DateTimeField()),
                ("alive_until", models.DateTimeField()),
            ],
        ),
    ]
