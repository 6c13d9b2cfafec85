from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet
from django.utils import timezone

from orders.exceptions import EndpointOff
from orders.models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import endpoints
from sagas import console
from sagas.shell import ShellCommand

SHOWN = 50
COLUMNS = (
    ("id", "ID"), ("status", "STATUS"), ("attempts", "TRIES"), ("answer", "ANSWER"), ("type", "TYPE"),
    ("order_id", "ORDER"), ("created_at", "AT"), ("url", "URL"),
)  # fmt: skip


class Command(ShellCommand):
    help = "Look at what webhooks were sent, and send some again."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listed = verbs.add_parser("list", help=f"the newest {SHOWN} deliveries")
        listed.add_argument("--endpoint", type=int, help="its number")
        listed.add_argument("--status", choices=WebhookDelivery.Status.values)
        listed.add_argument("--since", type=_span, help="of events in the last 90s, 15m, 2h, 3d")
        listed.add_argument("--output", choices=("text", "json", "jsonl"), default="text")
        resend = verbs.add_parser("resend", help="send deliveries again now, under the same ids")
        resend.add_argument("delivery", nargs="*", type=int, help="their numbers")
        resend.add_argument("--failed-of", type=int, metavar="ENDPOINT", help="all given up for this endpoint")
        resend.add_argument("--since", type=_span, help="with --failed-of: of events in the last 2h, 3d")
        resend.add_argument("--dry-run", action="store_true", help="say which, and send none")
        test = verbs.add_parser("send-test", help="send a message that tells of nothing")
        test.add_argument("endpoint", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        {"list": self._list, "resend": self._resend, "send-test": self._test}[options["verb"]](options)

    def _list(self, options: dict[str, Any]) -> None:
        rows = WebhookDelivery.objects.select_related("endpoint", "event").order_by("-id")
        if options["endpoint"] is not None:
            rows = rows.filter(endpoint=options["endpoint"])
        if options["status"]:
            rows = rows.filter(status=options["status"])
        found = [_row(one) for one in _since(rows, options["since"])[:SHOWN]]
        if options["output"] == "json":
            self.stdout.write(console.as_json(found))
        elif options["output"] == "jsonl":
            for row in found:
                self.stdout.write(console.as_json(row, indent=None))
        elif found:
            for line in console.as_table(found, COLUMNS, is_iso=False):
                self.stdout.write(line)
        else:
            self.stderr.write("No delivery fits.")

    def _resend(self, options: dict[str, Any]) -> None:
        if options["failed_of"] is None and options["since"]:
            raise CommandError(
                "--since goes with --failed-of ENDPOINT alone: all given up for it since then. Deliveries that are "
                "named by number are sent again whatever their age; `webhooks list --since` shows their numbers."
            )
        if options["failed_of"] is not None and options["delivery"]:
            raise CommandError("Name deliveries by number, or say --failed-of ENDPOINT: not both.")
        rows = WebhookDelivery.objects.filter(pk__in=options["delivery"])
        if options["failed_of"] is not None:
            rows = _since(
                WebhookDelivery.objects.filter(endpoint=options["failed_of"], status="failed"), options["since"]
            )
        elif not options["delivery"]:
            raise CommandError("Name deliveries by number, or say --failed-of ENDPOINT; `webhooks list` shows them.")
        else:
            gone = sorted(set(options["delivery"]) - set(rows.values_list("pk", flat=True)))
            if gone:
                raise CommandError(f"There is no delivery {gone[0]}. `webhooks list` shows them.")
        if options["dry_run"]:
            for one in rows.select_related("endpoint", "event"):
                self.stdout.write(f"Would send {one.pk} again: {one.event} to {one.endpoint.url}")
            return
        count = 0
        for one in rows.select_related("endpoint"):
            try:
                endpoints.redeliver(one)
            except EndpointOff as error:
                raise CommandError(f"{error} {count} are sent again.") from error
            count += 1
        self.stdout.write(f"{count} are sent again.")

    def _test(self, options: dict[str, Any]) -> None:
        endpoint = WebhookEndpoint.objects.filter(pk=options["endpoint"], deleted_at__isnull=True).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['endpoint']}.")
        try:
            delivery = endpoints.send_test(endpoint)
        except EndpointOff as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Delivery {delivery.pk} is on its way to {endpoint.url}.")


def _since(rows: QuerySet[WebhookDelivery], span: timedelta | None) -> QuerySet[WebhookDelivery]:
    return rows.filter(event__created_at__gte=timezone.now() - span) if span else rows


def _row(one: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": one.pk,
        "status": one.status,
        "attempts": one.attempts,
        "answer": one.last_code or one.last_error,
        "type": one.event.type,
        "order_id": one.event.order_id,
        "created_at": one.event.created_at,
        "next_at": one.next_at,
        "url": one.endpoint.url,
    }


def _span(text: str) -> timedelta:
    try:
        return console.span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
