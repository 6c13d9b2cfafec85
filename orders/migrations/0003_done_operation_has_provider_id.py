"""Money that moved can be shown to the gateway by its own number."""

from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("orders", "0002_faults_can_be_slow")]

    operations = [
        migrations.AddConstraint(
            model_name="paymentoperation",
            constraint=models.CheckConstraint(
                condition=~Q(status="succeeded") | Q(kind="void") | ~Q(provider_id=""),
                name="orders_operation_done_has_provider_id",
            ),
        ),
    ]
