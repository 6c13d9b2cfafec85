from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from orders.exceptions import InvalidOrder
from orders.models import WebhookDelivery, WebhookEndpoint
from orders.webhooks import endpoints

SHOWN = 50


class Command(BaseCommand):
    help = "Look at what webhooks were sent, and send some again."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listed = verbs.add_parser("list", help=f"the newest {SHOWN} deliveries")
        listed.add_argument("--endpoint", type=int, help="its number")
        listed.add_argument("--status", choices=WebhookDelivery.Status.values)
        listed.add_argument("--since-hours", type=float, help="of events so many hours old at most")
        resend = verbs.add_parser("resend", help="send deliveries again now, under the same ids")
        resend.add_argument("delivery", nargs="*", type=int, help="their numbers")
        resend.add_argument("--failed-of", type=int, metavar="ENDPOINT", help="all given up for this endpoint")
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
        if options["since_hours"] is not None:
            rows = rows.filter(event__created_at__gte=timezone.now() - timedelta(hours=options["since_hours"]))
        for one in rows[:SHOWN]:
            answer = one.last_code or one.last_error or "–"
            what = f"{one.event.type} {one.event.order_id}".strip()
            self.stdout.write(f"{one.pk}  {one.status}  {one.attempts} tries  {answer}  {what}  {one.endpoint.url}")

    def _resend(self, options: dict[str, Any]) -> None:
        rows = WebhookDelivery.objects.filter(pk__in=options["delivery"])
        if options["failed_of"] is not None:
            rows = WebhookDelivery.objects.filter(endpoint=options["failed_of"], status="failed")
        elif rows.count() != len(set(options["delivery"])) or not options["delivery"]:
            raise CommandError("Name deliveries that there are; `webhooks list` shows them.")
        count = 0
        for one in rows:
            endpoints.redeliver(one)
            count += 1
        self.stdout.write(f"{count} are sent again.")

    def _test(self, options: dict[str, Any]) -> None:
        endpoint = WebhookEndpoint.objects.filter(pk=options["endpoint"], deleted_at__isnull=True).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['endpoint']}.")
        try:
            delivery = endpoints.send_test(endpoint)
        except InvalidOrder as error:
            raise CommandError(error.errors[0].message) from error
        self.stdout.write(f"Delivery {delivery.pk} is on its way to {endpoint.url}.")
