"""The newest orders of an e-mail address are found without reading and sorting all of them."""

import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0013_how_the_list_begins")]

    operations = [
        migrations.RemoveIndex(model_name="order", name="orders_order_email"),
        migrations.AddIndex(
            model_name="order",
            index=models.Index(
                django.db.models.functions.text.Upper("email"),
                models.OrderBy(models.F("placed_at"), descending=True),
                models.OrderBy(models.F("id"), descending=True),
                name="orders_order_email",
            ),
        ),
    ]
