"""Orders have tags."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0010_outside_effects"),
    ]

    operations = [
        migrations.CreateModel(
            name="OrderTag",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tag", models.CharField(max_length=40)),
                ("author", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "order",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="tags",
                        to="orders.order",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["tag", "-order"], name="orders_tag_orders")],
                "constraints": [
                    models.UniqueConstraint(fields=("order", "tag"), name="orders_tag_once"),
                    models.CheckConstraint(condition=models.Q(("tag", ""), _negated=True), name="orders_tag_has_text"),
                ],
            },
        ),
    ]
