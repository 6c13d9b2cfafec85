"""A table of its own, which nobody holds, and then a column for one that everybody uses."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_shop")]

    operations = [
        migrations.RunSQL("CREATE TABLE growing_first (id integer)", "DROP TABLE growing_first"),
        migrations.RunSQL(
            "ALTER TABLE orders_idempotentrequest ADD COLUMN grown integer",
            "ALTER TABLE orders_idempotentrequest DROP COLUMN grown",
        ),
    ]
