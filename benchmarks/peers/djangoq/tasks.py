"""What the cluster calls."""

from __future__ import annotations

import time
from typing import Any

from django.db import transaction
from django.utils import timezone

from benchmarks.peers.djangoq.models import Run, StepRow
from benchmarks.peers.order import RESULTS, STEPS, UNDOES, WAIT_SECONDS, Refused


def order(run_id: int) -> None:
    run = Run.objects.get(pk=run_id)
    try:
        for step in STEPS:
            record(run, step, act(step, run.kind), status="completed" if step == STEPS[-1] else "running")
    except Refused:
        for step in UNDOES:
            ended = step == UNDOES[-1]
            record(run, f"undo_{step}", {"undone": step}, status="compensated" if ended else "compensating")


def act(step: str, kind: str) -> dict[str, Any]:
    if kind == "waits":
        time.sleep(WAIT_SECONDS)
    if kind == "refused" and step == "create_shipment":
        raise Refused("No delivery to this address.")
    return RESULTS[step]


def record(run: Run, step: str, result: dict[str, Any], *, status: str) -> None:
    """One commit: what the step returned, and where the run stands."""
    run.status, run.step = status, step
    if status in ("completed", "compensated"):
        run.ended_at = timezone.now()
    with transaction.atomic():
        StepRow.objects.create(run=run, step=step, result=result)
        run.save(update_fields=["status", "step", "ended_at"])
