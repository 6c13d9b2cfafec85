"""Which provider stands behind each interface: from settings.PROVIDERS, one object a process.

shop → faults, if they are on → router, if several are named → guard, if it is somebody else's → adapter
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from orders.providers import http
from orders.providers.base import Carrier, InventoryService, Mailer, PaymentGateway
from orders.providers.faults import Faulty
from orders.providers.guard import Guarded
from orders.providers.names import EMBEDDED, chosen
from orders.providers.routing import ROUTED, rules_of


def get_inventory() -> InventoryService:
    """Who holds stock."""
    return cast(InventoryService, _provider("inventory"))


def get_payments() -> PaymentGateway:
    """Who takes money."""
    return cast(PaymentGateway, _provider("payments"))


def get_shipping() -> Carrier:
    """Who moves parcels."""
    return cast(Carrier, _provider("shipping"))


def get_mail() -> Mailer:
    """Who sends mail."""
    return cast(Mailer, _provider("mail"))


def paths_of(kind: str) -> Mapping[str, str]:
    """Name -> dotted path of those that settings.PROVIDERS names. Raises ImproperlyConfigured."""
    setting = settings.PROVIDERS[kind]
    try:
        return chosen(kind, setting)
    except ValueError as error:
        raise ImproperlyConfigured(f"PROVIDERS[{kind!r}] is {setting!r}: {error}.") from error


def class_of(kind: str, name: str) -> type[Any]:
    """The adapter's class. Raises ImproperlyConfigured if it cannot be imported."""
    path = paths_of(kind)[name]
    try:
        return cast(type[Any], import_string(path))
    except ImportError as error:
        raise ImproperlyConfigured(
            f"PROVIDERS[{kind!r}] is {path!r}, which cannot be imported: {error}. Name a class by its dotted path."
        ) from error


def adapter(kind: str, name: str) -> Any:
    """The adapter itself, without guard or faults. Raises ImproperlyConfigured naming every setting it misses."""
    return _adapter(kind, name, settings.PROVIDERS[kind])


def _provider(kind: str) -> Any:
    return _built(kind, settings.PROVIDERS[kind], settings.FAULTS)


@cache
def _built(kind: str, setting: str, with_faults: bool) -> Any:
    paths = paths_of(kind)
    each = {
        name: adapter(kind, name) if path in EMBEDDED else Guarded(name, adapter(kind, name))
        for name, path in paths.items()
    }
    if len(each) == 1:
        (provider,) = each.values()
    else:
        try:
            provider = ROUTED[kind](kind=kind, providers=each, rules=rules_of(kind, list(each)))
        except ValueError as error:
            raise ImproperlyConfigured(f"{error}.") from error
    return Faulty(kind, provider) if with_faults else provider


@cache
def _adapter(kind: str, name: str, setting: str) -> Any:
    made = class_of(kind, name)()
    _adapters.append(made)
    return made


_adapters: list[Any] = []


def forget() -> None:
    """Let go of all connections, and build the providers anew at their next use: for tests that change settings."""
    for one in _adapters:
        getattr(one, "close", lambda: None)()
    http.close_all()
    _adapters.clear()
    _built.cache_clear()
    _adapter.cache_clear()
