"""API keys from a shell: make one, list them, revoke one."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date

from orders.api_keys import KeyNameTaken, UnknownScope, create_key, revoke_key
from orders.models import ApiKey, Scope, User
from orders.models.api_key import TOKEN_START
from sagas import console, shell
from sagas.shell import ShellCommand

USUAL_SCOPES = [Scope.ORDERS_READ.value, Scope.ORDERS_WRITE.value]


class Command(ShellCommand):
    help = "Make, list and revoke API keys. A key is shown once, when it is made."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and print it, once")
        create.add_argument("--user", required=True, help="in whose name it calls")
        create.add_argument("--name", required=True, help="how the history names it; never used twice")
        create.add_argument(
            "--scope",
            action="append",
            choices=[scope.value for scope in Scope],
            help=f"may be given several times; {' and '.join(USUAL_SCOPES)} if it is not given",
        )
        create.add_argument("--expires", help="a date, 2027-01-31, or a number of days, 90d; never, if not given")
        listed = verbs.add_parser("list", help="show every key, without its secret")
        listed.add_argument("--output", choices=("text", "json", "jsonl"), default="text")
        revoke = verbs.add_parser("revoke", help="let a key open nothing from now on")
        revoke.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        match options["verb"]:
            case "create":
                self._create(options)
            case "list":
                self._list(options["output"])
            case "revoke":
                self._revoke(options["name"])

    def _create(self, options: dict[str, Any]) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            names = User.objects.values_list("username", flat=True)[: console.ALIKE_AMONG]
            raise CommandError(f"There is no user {options['user']}.{shell.meant(options['user'], names)}")
        try:
            key, text = create_key(
                user=user,
                name=options["name"],
                scopes=options["scope"] or USUAL_SCOPES,
                expires_at=expiry(options["expires"], now=timezone.now()),
                created_by=f"user:{getpass.getuser()}",
            )
        except (KeyNameTaken, UnknownScope) as error:
            raise CommandError(str(error)) from error
        self.stderr.write(f"Key {key.name} of {user.username}: {', '.join(key.scopes)}. It is not shown again.")
        # Alone on its stream, so that it can be piped to where it is kept.
        self.stdout.write(text)

    def _list(self, output: str) -> None:
        if output != "text":
            told = [_told(key) for key in ApiKey.objects.select_related("user").order_by("name")]
            for one in [told] if output == "json" else told:
                self.stdout.write(console.as_json(one, indent=2 if output == "json" else None))
            return
        rows = [("NAME", "USER", "KEY", "SCOPES", "STATE", "LAST USED")]
        for key in ApiKey.objects.select_related("user").order_by("name"):
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            start = f"{TOKEN_START}{key.prefix}…"
            rows.append((key.name, key.user.username, start, " ".join(key.scopes), state_of(key), used))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            self.stdout.write("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())

    def _revoke(self, name: str) -> None:
        try:
            key = revoke_key(name=name)
        except ApiKey.DoesNotExist:
            meant = shell.meant(name, ApiKey.objects.values_list("name", flat=True)[: console.ALIKE_AMONG])
            raise CommandError(f"There is no key {name}.{meant} `apikey list` shows them.") from None
        self.stdout.write(f"Key {key.name} is revoked.")


def _told(key: ApiKey) -> dict[str, Any]:
    """A key as programs read it, without its secret."""
    names = ("name", "prefix", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    return {"user": key.user.username, "state": state_of(key), **{name: getattr(key, name) for name in names}}


def expiry(text: str | None, *, now: datetime) -> datetime | None:
    """When a key ends: the end of a day, or so many days from now. Raises CommandError."""
    if text is None:
        return None
    if text.endswith("d") and text[:-1].isdecimal():
        ends = now + timedelta(days=min(int(text[:-1]), 36_500))
    else:
        try:
            day = parse_date(text)
        except ValueError:
            day = None
        if day is None:
            raise CommandError(f"--expires {text}: expected a date like 2027-01-31 or days like 90d.")
        ends = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    if ends <= now:
        raise CommandError(f"--expires {text}: that is over already.")
    return ends


def state_of(key: ApiKey) -> str:
    """A key's state in a word or two."""
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "live"
    return f"{'live until' if key.is_live(timezone.now()) else 'expired'} {key.expires_at:%Y-%m-%d}"
