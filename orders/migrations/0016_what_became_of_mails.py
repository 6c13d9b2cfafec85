import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0015_retired_uses_are_counted"),
    ]

    operations = [
        migrations.CreateModel(
            name="MailDelivery",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("delayed", "on its way"),
                            ("delivered", "delivered"),
                            ("dropped", "not delivered"),
                            ("bounced", "came back"),
                            ("complained", "taken for spam"),
                        ],
                        max_length=10,
                    ),
                ),
                ("note", models.CharField(blank=True, default="", max_length=300)),
                ("heard_at", models.DateTimeField()),
                (
                    "message",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="deliveries", to="orders.sentmessage"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "mail deliveries",
                "constraints": [models.UniqueConstraint(fields=("message", "kind"), name="orders_mail_delivery_once")],
            },
        ),
    ]
