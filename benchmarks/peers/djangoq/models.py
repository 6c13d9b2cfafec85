"""Two tables: the run, and its steps."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Run(models.Model):
    objects: ClassVar[models.Manager[Run]]

    kind = models.CharField(max_length=20)
    status = models.CharField(max_length=20, default="pending")
    step = models.CharField(max_length=50, default="")
    ended_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "djangoq"

    def __str__(self) -> str:
        return f"{self.pk}: {self.status}"


class StepRow(models.Model):
    objects: ClassVar[models.Manager[StepRow]]

    run = models.ForeignKey(Run, on_delete=models.CASCADE)
    step = models.CharField(max_length=50)
    result = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "djangoq"

    def __str__(self) -> str:
        return self.step
