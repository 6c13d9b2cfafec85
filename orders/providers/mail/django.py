"""Any Django mail backend, with a log of what went out by key: SMTP itself cannot be asked.

Test addresses: at mail-away-then-back@… the server is away twice for each mail; at bounces@… it refuses the address.
"""

from __future__ import annotations

import secrets
import smtplib

from django.core.mail import EmailMultiAlternatives

from orders.models import SandboxMail
from orders.providers.base import Message, Sent
from orders.providers.errors import Declined, Unavailable
from orders.providers.mishaps import first_times

PROVIDER = "mail"


class DjangoMail:
    """The default mailer. If the process dies between sending and noting, a mail goes out twice: SMTP allows no better."""

    def send(self, message: Message, *, key: str) -> Sent:
        """Send, once per key. Raises Declined (bad_address) and Unavailable."""
        known = self.find(key=key)
        if known is not None:
            return known
        local_part = message.recipient.partition("@")[0]
        if local_part == "mail-away-then-back" and first_times(f"{PROVIDER}:{key}", 2):
            raise _away("The mail server is away.")
        if local_part == "bounces":
            raise _bad_address(message)
        email_id = f"EMAIL-{secrets.token_hex(6).upper()}"
        mail = EmailMultiAlternatives(
            message.subject, message.body, to=[message.recipient], headers={"X-Email-ID": email_id}
        )
        if message.html:
            mail.attach_alternative(message.html, "text/html")
        try:
            mail.send()
        except smtplib.SMTPRecipientsRefused as error:
            raise _bad_address(message) from error
        except OSError as error:  # smtplib's own errors are OSErrors too
            raise _away(f"The mail server is away: {type(error).__name__}.") from error
        sent, _ = SandboxMail.objects.get_or_create(
            key=key, defaults={"email_id": email_id, "recipient": message.recipient}
        )
        return Sent(email_id=sent.email_id)

    def find(self, *, key: str) -> Sent | None:
        """The mail sent under this key."""
        known = SandboxMail.objects.filter(key=key).first()
        return Sent(email_id=known.email_id) if known is not None else None


def _away(why: str) -> Unavailable:
    return Unavailable(why, provider=PROVIDER, operation="send")


def _bad_address(message: Message) -> Declined:
    return Declined("The mail server refuses this address.", provider=PROVIDER, operation="send", code="bad_address")
