"""What happens to runs, as lines of the log: SAGA_LOG_RUNS. Off, it costs nothing; the rows tell the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db import transaction

from sagas.models import SagaRun
from sagas.notices import Notice

log = logging.getLogger("sagas.runs")


def note(notices: Sequence[Notice]) -> None:
    """Say what was written, once it is. What is rolled back was never said."""
    lines = [_line(notice) for notice in notices]
    transaction.on_commit(lambda: _say(lines))


def of(run: SagaRun) -> dict[str, object]:
    """What any line about a run says of it."""
    return {"trace_id": run.trace_id, "order_id": run.business_key, "run_id": str(run.pk), "saga": run.saga}


def _line(notice: Notice) -> tuple[str, dict[str, object]]:
    run = notice.run
    return notice.kind, {
        **of(run),
        "step": notice.step,
        "direction": notice.direction,
        "attempt": notice.attempt,
        "state": run.status,
        "duration": round((notice.at - run.created_at).total_seconds(), 3),
    }


def _say(lines: Sequence[tuple[str, dict[str, object]]]) -> None:
    for event, fields in lines:
        log.info(event, extra=fields)
