"""Any Django mail backend, with a log of what went out by key: SMTP itself cannot be asked.

With DEMO on there are test addresses, at any host; without it they are addresses like any other:
mail-away-then-back@…   the server is away twice for each mail, and then back
bounces@…               the server refuses the address
"""

from __future__ import annotations

import hashlib
import smtplib

from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from orders.models import SandboxMail
from orders.providers.base import Message, Sent
from orders.providers.errors import Declined, ProviderError, Unavailable
from orders.providers.ledger import added, first_times

PROVIDER = "mail"


class DjangoMail:
    """The default mailer.

    If the process dies between sending and noting, the mail goes out twice: SMTP allows no better. Both bear the same
    Message-ID, by which mail programs show them as one.
    """

    def send(self, message: Message, *, key: str) -> Sent:
        """Send, once per key. Raises Declined (bad_address, bad_message) and Unavailable."""
        known = self.find(key=key)
        if known is not None:
            return known
        if settings.DEMO:
            _play_test_address(message, key)
        name = hashlib.sha256(key.encode()).hexdigest()
        try:
            _compose(message, message_id=f"<{name[:32]}@{_our_host()}>").send()
        except (OSError, ValueError) as error:  # smtplib's own errors are OSErrors
            raise _outcome_of(error) from error
        sent = SandboxMail(key=key, email_id=f"EMAIL-{name[:12].upper()}", recipient=message.recipient)
        # Never before the sending: a mail noted and not sent would be one that nobody ever gets.
        added(sent)
        return Sent(email_id=sent.email_id)

    def find(self, *, key: str) -> Sent | None:
        """The mail sent under this key."""
        known = SandboxMail.objects.filter(key=key).first()
        return Sent(email_id=known.email_id) if known is not None else None


def _compose(message: Message, *, message_id: str) -> EmailMultiAlternatives:
    mail = EmailMultiAlternatives(
        message.subject, message.body, to=[message.recipient], headers={"Message-ID": message_id}
    )
    if message.html:
        mail.attach_alternative(message.html, "text/html")
    return mail


def _our_host() -> str:
    return str(settings.DEFAULT_FROM_EMAIL).rpartition("@")[2].rstrip(">") or "localhost"


def _outcome_of(error: OSError | ValueError) -> ProviderError:
    """What the failure means. Codes from 500 on are the server's last word, those below ask to come again: RFC 5321,
    4.2.1. A connection that broke may have delivered the mail, and it is safe to send it again all the same."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        if all(code >= 500 for code, _ in error.recipients.values()):
            return _no("The mail server refuses this address.", "bad_address")
        return _away("The mail server does not take mail for this address just now.")
    if isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500:
        return _no(f"The mail server refuses this mail ({error.smtp_code}).", "bad_message")
    if isinstance(error, ValueError):
        return _no(
            "This mail cannot be written: a line break in its subject, or an address out of order.", "bad_message"
        )
    return _away(f"The mail server is away: {type(error).__name__}.")


def _play_test_address(message: Message, key: str) -> None:
    local_part = message.recipient.partition("@")[0]
    if local_part == "mail-away-then-back" and first_times(f"{PROVIDER}:{key}", 2):
        raise _away("The mail server is away.")
    if local_part == "bounces":
        raise _no("The mail server refuses this address.", "bad_address")


def _away(why: str) -> Unavailable:
    return Unavailable(why, provider=PROVIDER, operation="send")


def _no(why: str, code: str) -> Declined:
    return Declined(why, provider=PROVIDER, operation="send", code=code)
