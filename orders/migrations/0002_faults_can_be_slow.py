"""A planned fault may also be slowness."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_shop")]

    operations = [
        migrations.AddField(model_name="faultplan", name="seconds", field=models.FloatField(default=0)),
        migrations.AlterField(
            model_name="faultplan",
            name="kind",
            field=models.CharField(
                choices=[
                    ("refuse", "says no"),
                    ("unavailable", "is away"),
                    ("slow", "does it, after a while"),
                    ("lose_answer", "does it and loses the answer"),
                    ("silent", "does nothing and gives no answer"),
                ],
                max_length=12,
            ),
        ),
    ]
