"""How a program gets at what a page shows or does: the command and the curl line that the pages offer to copy.

What only the person can say stands in them as a variable of the shell: sent without it, they are refused.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest
from django.urls import reverse

from sagas.overview import Period
from sagas.states import Direction

MOST_NAMED = 100
"""Of an act on many runs so many are named one by one; a longer line nobody reads before sending it."""
ACT_ADDRESSES = {
    "retry": "api-saga-run-retries",
    "skip": "api-saga-run-skips",
    "resolve": "api-saga-run-resolutions",
    "cancel": "api-saga-run-compensations",
}
"""Giving up is for people who look: the API has no operation for it."""


def command_of(*words: str) -> str:
    """A line for a shell on a machine of the site's."""
    return " ".join(["python manage.py", *(shlex.quote(word) for word in words)])


def word_of(body: Mapping[str, Any], said: Sequence[str] = ()) -> str:
    """JSON as one word of a shell, but for the members that the person gives: those are variables of the same name."""
    # Quoted, because a step's name comes from an address, and may be anything.
    word = shlex.quote(json.dumps({**body, **{name: f"${name.upper()}" for name in said}}, ensure_ascii=False))
    for name in said:
        word = word.replace(f"${name.upper()}", f"""'"${name.upper()}"'""")
    return word


def curl_of(
    request: HttpRequest, address: str, word: str = "", *, header: str = "If-Match: *", method: str = ""
) -> str:
    """How a program asks for an address, or sends what `word_of` made there, by POST unless `method` says otherwise."""
    line = "curl" + (f" -X {method}" if method else "") + ' -H "Authorization: Bearer $API_KEY"'
    if word:
        line += f' -H "Content-Type: application/json" -H {shlex.quote(header)} -d {word}'
    return f'{line} "{request.build_absolute_uri(address)}"'


def list_twins(
    request: HttpRequest, asked: Mapping[str, str], period: Period | None, since: datetime | None
) -> tuple[str, str]:
    """(command, curl) of a list of runs. No curl where an attempt's error is asked for: the API has no such filter."""
    words = ["saga", "list"]
    for name, option in (("status", "--state"), ("saga", "--saga"), ("key", "--key"), ("error", "--error")):
        words += [option, asked[name]] if asked[name] else []
    words += ["--since", span_of(period.length)] if period is not None else []
    command = command_of(*words)
    if asked["error"]:
        return command, ""
    names = {"state": asked["status"], "saga": asked["saga"], "business_key": asked["key"]}
    query = {name: value for name, value in names.items() if value}
    query |= {"created_from": since.isoformat(timespec="seconds")} if since is not None else {}
    address = reverse("api-saga-runs") + (f"?{urlencode(query)}" if query else "")
    return command, curl_of(request, address)


def act_twins(request: HttpRequest, run_id: UUID, act: str, step: str, direction: str) -> tuple[str, str]:
    """(command, curl) of an act on one run; no curl where the API has no such act."""
    needs_place, needs_evidence = act in ("retry", "skip", "resolve"), act == "resolve"
    command = command_of("saga", act, str(run_id), *(_place_words(step, direction) if needs_place else ()))
    command += ' --reason "$REASON"' + (' --evidence "$EVIDENCE"' if needs_evidence else "")
    if act not in ACT_ADDRESSES:
        return command, ""
    body = {"step": step, "direction": direction} if needs_place else {}
    said = ["reason", *(["evidence"] if needs_evidence else [])]
    return command, curl_of(request, reverse(ACT_ADDRESSES[act], kwargs={"run_id": run_id}), word_of(body, said))


def assign_twin(request: HttpRequest, run_id: UUID) -> str:
    """The curl line that says who looks after a run."""
    return curl_of(request, reverse("api-saga-run", kwargs={"run_id": run_id}), word_of({}, ["owner"]), method="PATCH")


def many_twins(request: HttpRequest, act: str, run_ids: Sequence[UUID], step: str, direction: str) -> tuple[str, str]:
    """(command, curl) of an act on these runs; neither for more than are named, no command for taking them on."""
    if not 0 < len(run_ids) <= MOST_NAMED:
        return "", ""
    ids = [str(run_id) for run_id in run_ids]
    command = ""
    if act == "retry" and step:
        command = command_of("saga", act, *ids, *_place_words(step, direction)) + ' --reason "$REASON"'
    body = {"act": act, "run_ids": ids}
    return command, curl_of(request, reverse("api-bulk-operations"), word_of(body, ["reason"]))


def span_of(length: timedelta) -> str:
    """As commands take it: 1h, 7d."""
    days, hours = length.days, int(length.total_seconds()) // 3600
    return f"{days}d" if timedelta(days=days) == length else f"{hours}h"


def _place_words(step: str, direction: str) -> list[str]:
    return ["--step", step, *(["--undo"] if direction == Direction.COMPENSATION.value else [])]
