"""Bringing a run in from a file that was exported elsewhere, to look at it here."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from sagas.exceptions import InvalidExport
from sagas.export import imported
from sagas.permissions import actor_of, require
from sagas.twins import command_of
from sagas.views import staff_only

LARGEST = 5 * 1024 * 1024
"""Bytes of a file. A run with a thousand attempts has about one million."""
AROUND = 10_000
"""What a form adds to its file."""
TOO_LARGE = f"The file is larger than {LARGEST // 1024 // 1024} MiB. On the site's machine `saga import` takes it."


# The middleware would read the whole body, however large, to find the token in it: it is sought once the size is known.
@csrf_exempt
@never_cache
@require_http_methods(["GET", "POST"])
@staff_only
def run_import(request: HttpRequest) -> HttpResponseBase:
    """sagas/run_import.html: asks for the file, then stores the run and leads to it; what is wrong is told there."""
    require(request, "import")
    if int(request.META.get("CONTENT_LENGTH") or 0) > LARGEST + AROUND:
        return _form(request, TOO_LARGE, status=413)
    return _read(request)


@csrf_protect
def _read(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return _form(request)
    try:
        run = imported(_told(request), actor=actor_of(request))
    except InvalidExport as error:
        return _form(request, str(error), status=400)
    messages.success(request, "The run is stored, to be looked at.")
    return redirect("run_detail", run.pk)


def _told(request: HttpRequest) -> Any:
    """What the file says. Raises InvalidExport."""
    file = request.FILES.get("file")
    if file is None:
        raise InvalidExport("Choose a file.")
    if file.size is None or file.size > LARGEST:
        raise InvalidExport(TOO_LARGE)
    try:
        return json.loads(file.read().decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise InvalidExport("The file is no text in UTF-8, and so no export of a run.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidExport(f"The file is no JSON, and so no export of a run: {error}.") from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _form(request: HttpRequest, fault: str = "", *, status: int = 200) -> HttpResponse:
    context = {
        "section": "runs",
        "fault": fault,
        "largest": LARGEST // 1024 // 1024,
        "command": command_of("saga", "import", "run.json"),
    }
    return render(request, "sagas/run_import.html", context, status=status)
