import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0016_what_became_of_mails"),
    ]

    operations = [
        migrations.CreateModel(
            name="ShipmentLabel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("pdf", "PDF"),
                            ("png", "PNG"),
                            ("gif", "GIF"),
                            ("zpl", "ZPL"),
                            ("link", "at the carrier"),
                        ],
                        max_length=4,
                    ),
                ),
                ("content", models.BinaryField(default=b"")),
                ("url", models.CharField(blank=True, default="", max_length=2000)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "shipment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="label", to="orders.shipment"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("kind", "link"), ("url__startswith", "https://")),
                            models.Q(models.Q(("kind", "link"), _negated=True), ("url", "")),
                            _connector="OR",
                        ),
                        name="orders_label_is_document_or_link",
                    )
                ],
            },
        ),
    ]
