"""The embedded providers, with a point to die at on either side of each thing they do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.core.mail.backends.filebased import EmailBackend

from orders.providers.inventory.local import LocalInventory
from orders.providers.mail.django import DjangoMail
from orders.providers.payments.sandbox import SandboxGateway
from orders.providers.shipping.sandbox import SandboxCarrier
from sagas import points

Provider = TypeVar("Provider")


def mortal(*names: str) -> Callable[[type[Provider]], type[Provider]]:
    """Around these methods, `before_provider:<name>` and `after_provider:<name>`."""

    def decorate(provider: type[Provider]) -> type[Provider]:
        for name in names:
            setattr(provider, name, _around(name, getattr(provider, name)))
        return provider

    return decorate


def _around(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        points.reach(f"before_provider:{name}")
        answer = method(*arguments, **named)
        points.reach(f"after_provider:{name}")
        return answer

    return wrapped


@mortal("reserve", "release")
class Inventory(LocalInventory):
    """Stock."""


@mortal("charge", "refund")
class Gateway(SandboxGateway):
    """Money."""


@mortal("create_shipment", "cancel_shipment")
class Carrier(SandboxCarrier):
    """Parcels."""


@mortal("send")
class Mail(DjangoMail):
    """Mail."""


class MailBackend(EmailBackend):
    """Files, one a mail; a point to die at when a mail is out and nobody has noted it."""

    def send_messages(self, messages: Any) -> int:
        sent = super().send_messages(messages)
        points.reach("mail_is_out")
        return sent or 0
