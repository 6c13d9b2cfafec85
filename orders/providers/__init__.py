"""Which provider stands behind each interface: from settings.PROVIDERS, one object a process."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from orders.providers.base import Carrier, InventoryService, Mailer, PaymentGateway
from orders.providers.faults import Faulty


def get_inventory() -> InventoryService:
    """Who holds stock."""
    return cast(InventoryService, _provider("inventory", settings.PROVIDERS["inventory"], settings.FAULTS))


def get_payments() -> PaymentGateway:
    """Who takes money."""
    return cast(PaymentGateway, _provider("payments", settings.PROVIDERS["payments"], settings.FAULTS))


def get_shipping() -> Carrier:
    """Who moves parcels."""
    return cast(Carrier, _provider("shipping", settings.PROVIDERS["shipping"], settings.FAULTS))


def get_mail() -> Mailer:
    """Who sends mail."""
    return cast(Mailer, _provider("mail", settings.PROVIDERS["mail"], settings.FAULTS))


@cache
def _provider(kind: str, path: str, with_faults: bool) -> Any:
    try:
        provider = import_string(path)()
    except ImportError as error:
        raise ImproperlyConfigured(
            f"PROVIDERS[{kind!r}] is {path!r}, which cannot be imported: {error}. Name a class by its dotted path."
        ) from error
    return Faulty(kind, provider) if with_faults else provider
