"""What a line of the log says of where it comes from, and the log as one JSON object a line: LOG_FORMAT=json."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from sagas import traces

FIELDS = ("order_id", "run_id", "saga", "step", "direction", "attempt", "outcome", "duration", "actor", "state")
"""What a line may say besides its event, where whoever wrote it knew. No address, card or mail is among them."""


class TraceFilter(logging.Filter):
    """Lets log lines say which trace they belong to and, while a step is at work, which attempt of which run."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in traces.said().items():
            if not hasattr(record, name):  # whoever wrote the line knew better
                setattr(record, name, value)
        return True


class JsonFormatter(logging.Formatter):
    """`ts`, `level`, `logger`, `event`, `request_id`, `trace_id`, FIELDS that are known, and `error` with the trace of
    one."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            "request_id": getattr(record, "request_id", "-"),
            "trace_id": getattr(record, "trace_id", "") or "-",
        }
        told |= {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) not in (None, "")}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        # Lines of a trace, and whatever a message holds, stay within the one line.
        return json.dumps(told, ensure_ascii=False, default=str)
