"""The OpenAPI document as a file: written, and held against what the API is now."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from drf_spectacular.generators import SchemaGenerator

from orders.api_changes import breaking_changes
from sagas.shell import ShellCommand

KEPT = Path(settings.BASE_DIR) / "docs" / "openapi.json"


class Command(ShellCommand):
    help = "Write the API's OpenAPI document to a file, or hold a file against what the API is now."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        export = verbs.add_parser("export", help="write it")
        export.add_argument("file", nargs="?", default=str(KEPT), help="where to; - is standard output")
        check = verbs.add_parser("check", help="exit 1 if clients made from the file would break")
        check.add_argument("file", nargs="?", default=str(KEPT))
        check.add_argument("--exact", action="store_true", help="exit 1 also if anything else differs")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"] == "export":
            self._export(options["file"])
        else:
            self._check(Path(options["file"]), is_exact=options["exact"])

    def _export(self, file: str) -> None:
        if file == "-":
            self.stdout.write(text_of(document()), ending="")
            return
        try:
            Path(file).write_text(text_of(document()), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{file} cannot be written: {error}", returncode=2) from error
        self.stdout.write(f"{file} is written.")

    def _check(self, file: Path, *, is_exact: bool) -> None:
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
            old["paths"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"{file} is no OpenAPI document: {error}", returncode=2) from error
        new = document()
        broken = breaking_changes(old, new)
        for change in broken:
            self.stderr.write(change)
        if broken:
            self.stderr.write(
                f"{len(broken)} changes break clients. Undo them, or say that they go: orders/api_retiring.py."
            )
            sys.exit(1)
        if text_of(old) != text_of(new):
            self.stdout.write("Nothing breaks clients. The file is older than the API: `schema export` writes it anew.")
            if is_exact:
                sys.exit(1)
        else:
            self.stdout.write("The file says what the API is.")


def document() -> dict[str, Any]:
    """What the API is now."""
    generator = SchemaGenerator(api_version=settings.SPECTACULAR_SETTINGS["VERSION"])
    made: dict[str, Any] = json.loads(json.dumps(generator.get_schema(request=None, public=True), default=str))
    return made


def text_of(told: dict[str, Any]) -> str:
    """The document as it stands in a file: one line for each member, so that changes can be read."""
    return json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
