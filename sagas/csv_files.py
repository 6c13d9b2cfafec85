"""Tables as files for spreadsheets, written while they are being read: however long, never whole in memory."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence

from django.http import StreamingHttpResponse


def csv_file(rows: Iterable[Sequence[str]], *, name: str) -> StreamingHttpResponse:
    """`rows`, headings first, as a file to be kept under `name`."""
    writer = csv.writer(_Echo())
    lines = (writer.writerow([_plain(text) for text in row]) for row in rows)
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _plain(text: str) -> str:
    """Spreadsheets take what begins like this for a formula, and run it. Source: OWASP, CSV injection."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


class _Echo:
    """Gives back what the CSV writer writes, a line at a time."""

    def write(self, line: str) -> str:
        return line
