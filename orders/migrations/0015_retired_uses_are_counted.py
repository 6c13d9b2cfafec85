"""Who still uses what the API is about to lose is counted."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0014_newest_orders_of_an_address"),
    ]

    operations = [
        migrations.CreateModel(
            name="RetiredUse",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("operation", models.CharField(max_length=100)),
                ("caller", models.CharField(max_length=150)),
                ("count", models.PositiveBigIntegerField(default=0)),
                ("last_at", models.DateTimeField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("operation", "caller"), name="orders_retired_use_once")
                ],
            },
        ),
    ]
