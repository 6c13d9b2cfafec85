"""Everybody chooses the columns of the order list, and the view that it begins with."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0012_one_payment_one_order")]

    operations = [
        migrations.AddField(
            model_name="preference",
            name="columns",
            field=models.JSONField(blank=True, default=None, null=True),
        ),
        migrations.AddField(
            model_name="preference",
            name="first_view",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="orders.savedview",
            ),
        ),
    ]
