"""What commands have in common: a database that does not answer is said in a sentence, not by a trace, and a word that
is not known with the one that was perhaps meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

UNAVAILABLE = 69
"""The exit code for it, as sysexits.h has it: a script may try again later."""
NOT_MIGRATED = re.compile(r"no such (table|column)|has no column|relation .* does not exist|column .* does not exist")


UNKNOWN_CHOICE = re.compile(r"invalid choice: '?([^\s']+)'? \(choose from (.*)\)")
UNKNOWN_OPTION = re.compile(r"unrecognized arguments: (?:.*? )??(--[^\s=]+)")


class HelpfulParser(CommandParser):
    """Says what was perhaps meant by a word or an option that it does not know."""

    def error(self, message: str) -> NoReturn:
        if found := UNKNOWN_CHOICE.search(message):
            message += meant(found[1], re.findall(r"[^\s',]+", found[2]))
        elif found := UNKNOWN_OPTION.search(message):
            options = (name for parser in parsers_of(self) for name in parser._option_string_actions)
            message += "." + meant(found[1], options)
        super().error(message)
        raise AssertionError  # it has ended by now, one way or the other


def meant(text: str, known: Iterable[str]) -> str:
    """ " Did you mean …?", or nothing."""
    close = difflib.get_close_matches(text, list(known), n=3)
    return f" Did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""


def counted(count: int, one: str, many: str) -> str:
    """ "1 run waits", "2,000 runs wait"."""
    return f"{count:,} {one if count == 1 else many}"


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of its verbs."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from parsers_of(verb)


class ShellCommand(BaseCommand):
    """With --traceback it raises as any other."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        for one in parsers_of(parser):
            one.__class__ = HelpfulParser  # Django makes its own, and takes no other
        return parser

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
