"""What mail services without an idempotency key have in common: a mail is handed over once, and at most once more.

A second mail is a nuisance and none at all a loss, so a mail whose answer was lost is sent once more; after that a
person decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta

from orders.providers import effects
from orders.providers.base import Message, Sent
from orders.providers.effects import Kind
from orders.providers.errors import NOT_SEEN, Declined, OutcomeUnknown, Unavailable
from orders.providers.keys import as_uuid

MOST_ASKS = 2


class MailerByService(ABC):
    """A Mailer by way of a service."""

    provider: str
    patience = timedelta(seconds=30)
    """A call that was made this long ago is not under way any more."""

    @abstractmethod
    def hand_over(self, message: Message, key: str) -> str:
        """Send; the service's id of the mail. Raises ProviderError."""

    def send(self, message: Message, *, key: str) -> Sent:
        """Send, once per key. Raises Declined (bad_address, bad_message) and Unavailable."""
        effect = effects.begin(
            self.provider, key, Kind.MAIL, "send", recipient=message.recipient, subject=message.subject
        )
        if effect.remote_id:
            return Sent(email_id=effect.remote_id)
        if not effect.reference:
            effect = effects.note(effect, reference=as_uuid(key))
        if effect.asks >= MOST_ASKS or not effects.claim(effect, settled=self.patience):
            raise self._unknown("send")
        try:
            number = self.hand_over(message, key)
        except (Declined, Unavailable):
            effects.give_up(effect)
            raise
        return Sent(email_id=effects.note(effect, remote_id=number).remote_id)

    def find(self, *, key: str) -> Sent | None:
        """The mail sent under this key. Raises OutcomeUnknown once two answers were lost."""
        effect = effects.find(self.provider, key)
        if effect is None:
            return None
        if effect.remote_id:
            return Sent(email_id=effect.remote_id)
        if effect.asks >= MOST_ASKS:
            raise self._unknown("find")
        return None

    def _unknown(self, operation: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            "The mail was handed over, and no answer came: whether it goes out is not known.",
            provider=self.provider,
            operation=operation,
            code=NOT_SEEN,
        )
