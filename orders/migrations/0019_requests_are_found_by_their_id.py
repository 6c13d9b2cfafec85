from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0018_deliveries_are_kept_once"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="RefusedRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("request_id", models.CharField(max_length=64)),
                ("actor", models.CharField(max_length=150)),
                ("method", models.CharField(max_length=7)),
                ("path", models.CharField(max_length=200)),
                ("order_id", models.CharField(blank=True, default="", max_length=40)),
                ("status", models.PositiveSmallIntegerField()),
                ("code", models.CharField(max_length=50)),
                ("detail", models.CharField(max_length=1000)),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name="idempotentrequest",
            name="request_id",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
        migrations.AddIndex(
            model_name="idempotentrequest",
            index=models.Index(
                condition=models.Q(("request_id", ""), _negated=True),
                fields=["request_id"],
                name="orders_idempotency_request_id",
            ),
        ),
        migrations.AddIndex(
            model_name="refusedrequest",
            index=models.Index(fields=["request_id"], name="orders_refused_request_id"),
        ),
        migrations.AddIndex(
            model_name="refusedrequest",
            index=models.Index(fields=["created_at"], name="orders_refused_created"),
        ),
    ]
