"""What commands have in common: a database that does not answer is said in a sentence, not by a trace."""

from __future__ import annotations

import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError

UNAVAILABLE = 69
"""The exit code for it, as sysexits.h has it: a script may try again later."""
NOT_MIGRATED = re.compile(r"no such (table|column)|has no column|relation .* does not exist|column .* does not exist")


class ShellCommand(BaseCommand):
    """With --traceback it raises as any other."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except (DatabaseError, InterfaceError) as error:
            words = _words_of(error)
            if not words or options.get("traceback"):
                raise
            raise CommandError(words, returncode=UNAVAILABLE) from error


def _words_of(error: Exception) -> str:
    """What it is and the way out; empty: a mistake of ours, of which the trace tells more."""
    said = str(error).partition("\n")[0]
    if NOT_MIGRATED.search(said):
        return f"The database is older than the code, or empty ({said}). Say `manage.py migrate`, then try again."
    if type(error).__name__ in ("OperationalError", "InterfaceError"):
        return f"The database does not answer ({said}). Start it, or mend DATABASE_URL; `saga doctor` says more."
    return ""
