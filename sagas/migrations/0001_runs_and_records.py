import django.db.models.deletion
from django.db import migrations, models

import sagas.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Barrier",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=200, unique=True)),
                (
                    "cause",
                    models.CharField(choices=[("action", "action"), ("compensation", "compensation")], max_length=12),
                ),
                ("result", models.JSONField(default=dict)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="SagaRun",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=sagas.models.new_run_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("saga", models.CharField(max_length=100)),
                ("version", models.PositiveIntegerField()),
                ("business_key", models.CharField(max_length=200)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("running", "running"),
                            ("retrying", "retrying"),
                            ("compensating", "compensating"),
                            ("completed", "completed"),
                            ("compensated", "compensated"),
                            ("needs_attention", "needs attention"),
                            ("abandoned", "abandoned"),
                        ],
                        default="pending",
                        max_length=20,
                    ),
                ),
                ("input", models.JSONField(default=dict)),
                ("current_step", models.CharField(blank=True, default="", max_length=100)),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("deadline_at", models.DateTimeField(blank=True, null=True)),
                ("lease_owner", models.CharField(blank=True, default="", max_length=100)),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("fence", models.PositiveBigIntegerField(default=0)),
                ("claims", models.PositiveIntegerField(default=0)),
                ("turned_back_at", models.DateTimeField(blank=True, null=True)),
                ("cancel_requested_at", models.DateTimeField(blank=True, null=True)),
                ("cancel_reason", models.TextField(blank=True, default="")),
                ("fresh_from", models.JSONField(blank=True, default=dict)),
                ("failure_step", models.CharField(blank=True, default="", max_length=100)),
                ("failure_code", models.CharField(blank=True, default="", max_length=100)),
                ("failure_message", models.TextField(blank=True, default="")),
                ("attention_reason", models.TextField(blank=True, default="")),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at__isnull", False)), fields=["due_at"], name="sagas_run_due"
                    ),
                    models.Index(fields=["saga", "business_key"], name="sagas_run_key"),
                    models.Index(fields=["status", "-created_at"], name="sagas_run_status_created"),
                    models.Index(fields=["-created_at"], name="sagas_run_created"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "status__in",
                                [
                                    "pending",
                                    "running",
                                    "retrying",
                                    "compensating",
                                    "completed",
                                    "compensated",
                                    "needs_attention",
                                    "abandoned",
                                ],
                            )
                        ),
                        name="sagas_run_status_known",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("status__in", ["compensating", "needs_attention", "pending", "retrying", "running"])
                        ),
                        fields=("saga", "business_key"),
                        name="sagas_one_live_run_per_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("due_at__isnull", True), ("ended_at__isnull", False), ("lease_until__isnull", True)
                            ),
                            ("ended_at__isnull", True),
                            _connector="OR",
                        ),
                        name="sagas_run_ended_is_at_rest",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("ended_at__isnull", True),
                                ("status__in", ["compensating", "needs_attention", "pending", "retrying", "running"]),
                            ),
                            models.Q(
                                ("ended_at__isnull", False), ("status__in", ["abandoned", "compensated", "completed"])
                            ),
                            _connector="OR",
                        ),
                        name="sagas_run_ended_has_end",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("lease_owner", ""), ("lease_until__isnull", True)),
                            models.Q(("lease_until__isnull", False), models.Q(("lease_owner", ""), _negated=True)),
                            _connector="OR",
                        ),
                        name="sagas_run_lease_has_owner",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("status", "needs_attention"), _negated=True),
                            models.Q(("attention_reason", ""), _negated=True),
                            _connector="OR",
                        ),
                        name="sagas_run_attention_has_reason",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RunEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(max_length=50)),
                ("step", models.CharField(blank=True, default="", max_length=100)),
                ("direction", models.CharField(blank=True, default="", max_length=12)),
                ("actor", models.CharField(default="engine", max_length=150)),
                ("reason", models.TextField(blank=True, default="")),
                ("data", models.JSONField(blank=True, default=dict)),
                ("created_at", models.DateTimeField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="events", to="sagas.sagarun"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["run", "id"], name="sagas_event_run")],
            },
        ),
        migrations.CreateModel(
            name="Signal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100)),
                ("payload", models.JSONField(blank=True, default=dict)),
                ("actor", models.CharField(default="engine", max_length=150)),
                ("received_at", models.DateTimeField()),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="signals", to="sagas.sagarun"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("run", "name"), name="sagas_signal_heard_once")],
            },
        ),
        migrations.CreateModel(
            name="StepRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("step", models.CharField(max_length=100)),
                (
                    "direction",
                    models.CharField(choices=[("action", "action"), ("compensation", "compensation")], max_length=12),
                ),
                ("number", models.PositiveIntegerField()),
                (
                    "outcome",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("succeeded", "succeeded"),
                            ("refused", "refused"),
                            ("unavailable", "unavailable"),
                            ("unknown", "unknown"),
                            ("waiting", "waiting"),
                            ("skipped", "skipped"),
                            ("resolved", "resolved"),
                        ],
                        default="",
                        max_length=12,
                    ),
                ),
                ("key", models.CharField(max_length=200)),
                ("started_by", models.CharField(default="engine", max_length=150)),
                ("worker", models.CharField(blank=True, default="", max_length=100)),
                ("fence", models.PositiveBigIntegerField(default=0)),
                ("started_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("retry_at", models.DateTimeField(blank=True, null=True)),
                ("wait_signal", models.CharField(blank=True, default="", max_length=100)),
                ("settled", models.BooleanField(default=False)),
                ("result", models.JSONField(blank=True, null=True)),
                ("error_code", models.CharField(blank=True, default="", max_length=100)),
                ("error_message", models.TextField(blank=True, default="")),
                ("provider", models.CharField(blank=True, default="", max_length=100)),
                ("provider_id", models.CharField(blank=True, default="", max_length=200)),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="records", to="sagas.sagarun"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("run", "step", "direction", "number"), name="sagas_record_attempt_once"
                    ),
                    models.CheckConstraint(condition=models.Q(("number__gte", 1)), name="sagas_record_number_from_one"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("ended_at__isnull", True), ("outcome", "")),
                            models.Q(
                                (
                                    "outcome__in",
                                    [
                                        "succeeded",
                                        "refused",
                                        "unavailable",
                                        "unknown",
                                        "waiting",
                                        "skipped",
                                        "resolved",
                                    ],
                                ),
                                ("ended_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="sagas_record_ended_has_outcome",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("ended_at__isnull", True), ("ended_at__gte", models.F("started_at")), _connector="OR"
                        ),
                        name="sagas_record_ends_after_start",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("direction__in", ["action", "compensation"])),
                        name="sagas_record_direction_known",
                    ),
                ],
            },
        ),
    ]
