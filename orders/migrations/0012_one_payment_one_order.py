from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0011_orders_have_tags"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="outsideeffect",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "charge"), models.Q(("remote_id", ""), _negated=True)),
                fields=("provider", "remote_id"),
                name="orders_effect_charge_once",
            ),
        ),
    ]
