from __future__ import annotations

import keyword
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.template import Context, Engine

import sagas
from sagas.shell import ShellCommand

SKELETON = Path(sagas.__file__).parent / "skeleton"


class Command(ShellCommand):
    help = (
        "Write a saga to begin with: definition, actions, compensations, a provider to try with, and tests that pass."
    )
    requires_system_checks = []  # it writes files: whoever begins has not set everything up yet

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="of the saga and its package, like trips")
        parser.add_argument("--dir", type=Path, default=Path(), help="where the package goes (here)")

    def handle(self, *args: Any, **options: Any) -> None:
        name, folder = options["name"], options["dir"]
        if not name.isidentifier() or keyword.iskeyword(name) or not name.islower():
            raise CommandError(f"{name!r} cannot be a package's name. Take lower case letters, like trips.")
        if find_spec(name) is not None:
            raise CommandError(f"There is a module {name} already. Take another name.")
        if not folder.is_dir():
            raise CommandError(f"There is no folder {folder}.")
        package = folder / name
        if package.exists():
            raise CommandError(f"{package} is there already; nothing was written.")
        words = {"name": name, "constant": name.upper(), "camel": name.title().replace("_", "")}
        package.mkdir()
        for template in sorted(SKELETON.glob("*-tpl")):
            text = Engine(autoescape=False).from_string(template.read_text()).render(Context(words))
            (package / template.name.removesuffix("-tpl")).write_text(text)
        self.stdout.write(
            f"{package} is written. Next:\n"
            f'  1. add "{name}.apps.{words["camel"]}Config" to INSTALLED_APPS\n'
            f"  2. pytest {package}/tests.py\n"
            f"  3. manage.py saga graph {name}"
        )
