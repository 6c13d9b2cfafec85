"""The order that every peer carries, and what is told of it. Standard library only."""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

STEPS = ("reserve_inventory", "process_payment", "create_shipment", "send_confirmation_email")
RESULTS: dict[str, dict[str, Any]] = {
    "reserve_inventory": {"reserved_items": [{"sku": "ITEM-001", "quantity": 2, "reservation_id": "RES-1"}]},
    "process_payment": {"transaction_id": "TXN-1", "amount": 99.99, "status": "completed"},
    "create_shipment": {"shipment_id": "SHIP-1", "tracking_number": "TRK-1", "estimated_delivery": "2024-01-15"},
    "send_confirmation_email": {"email_sent": True, "email_id": "EMAIL-1"},
}
UNDOES = ("process_payment", "reserve_inventory")
"""What is undone when the shipment is refused, in that order."""
WAIT_SECONDS = 0.05
KINDS = ("nothing", "waits", "refused", "idle", "light")
LIGHT_A_SECOND = 10
LONGEST_SECONDS = 600


class Refused(Exception):
    """The carrier says no."""


def end_of(kind: str) -> str:
    return "compensated" if kind == "refused" else "completed"


def wait_for(
    what: str, condition: Callable[[], bool], *, seconds: float = LONGEST_SECONDS, pause: float = 0.02
) -> None:
    """Raises RuntimeError when it does not come true in time: then nothing was measured."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"Waited {seconds:g} s in vain for {what}; nothing was measured.")
        time.sleep(pause)


def one_by_one(run_once: Callable[[int], None], runs: int, kind: str) -> dict[str, Any]:
    """How long one run takes from submit to its end: alone (`idle`), or with ten placed each second (`light`)."""
    took = []
    begin = time.monotonic()
    for number in range(runs):
        if kind == "light":
            time.sleep(max(begin + number / LIGHT_A_SECOND - time.monotonic(), 0))
        at = time.monotonic()
        run_once(number)
        took.append((time.monotonic() - at) * 1000)
        if kind == "idle":
            time.sleep(0.05)
    return {"p50_ms": round(statistics.median(took), 1), "p99_ms": round(sorted(took)[int(len(took) * 0.99)], 1)}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def answers(url: str) -> bool:
    """Whether somebody answers there, whatever the answer is."""
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def tell(figures: dict[str, Any]) -> None:
    """The last line of a peer's output."""
    sys.stdout.write(json.dumps(figures) + "\n")
