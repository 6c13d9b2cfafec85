from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.urls import reverse

from orders import provider_status
from orders.providers import guard, paths_of
from sagas.shell import ShellCommand


class Command(ShellCommand):
    help = "Look at the providers that the shop is set up with, and try their credentials."
    requires_system_checks: list[str] = []  # it is there to tell what those would stop at

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        check = verbs.add_parser(
            "check", help="name what is missing, try credentials, print a table; 1 if not all is well"
        )
        check.add_argument("--no-calls", action="store_true", help="look at the settings only")
        verbs.add_parser("list", help="how each provider stands")
        close = verbs.add_parser("close", help="say that a provider is well again: the next call is made")
        close.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        {"check": self._check, "list": self._list, "close": self._close}[options["verb"]](options)

    def _check(self, options: dict[str, Any]) -> None:
        try:
            statuses = provider_status.provider_statuses()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        rows, is_well = [], True
        for one in statuses:
            good, found = (
                not one.faults,
                f"{len(one.faults)} settings are wrong" if one.faults else "settings are there",
            )
            if good and not options["no_calls"]:
                good, found = provider_status.tried(one.kind, one.name)
            is_well = is_well and good
            rows.append((one.kind, one.name, "ok" if good else "FAILED", found))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            self.stdout.write(
                "  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)).rstrip()
            )
        for one in statuses:
            if provider_status.sends_webhooks(one.kind, one.name) and not one.faults:
                address = settings.SITE_URL + reverse("inbound_webhook", args=[one.name])
                self.stdout.write(f"{one.name} sends its webhooks to {address}")
        faults = list(provider_status.faults_in_settings())
        for fault in faults:
            self.stderr.write(fault)
        if faults or not is_well:
            sys.exit(1)

    def _list(self, options: dict[str, Any]) -> None:
        for one in provider_status.provider_statuses():
            since = f" since {one.opened_at:%Y-%m-%d %H:%M:%S %Z}" if one.opened_at is not None else ""
            words = f"{one.kind}  {one.name}  {one.state}{since}  {one.limit or 'no limit'}  {one.last_error}"
            self.stdout.write(words.rstrip())

    def _close(self, options: dict[str, Any]) -> None:
        known = [name for kind in provider_status.KINDS for name in paths_of(kind)]
        if options["name"] not in known:
            raise CommandError(f"There is no {options['name']}; there are {', '.join(known)}.")
        said = "is asked again from now on" if guard.close(options["name"]) else "was not known to be down"
        self.stdout.write(f"{options['name']} {said}.")
