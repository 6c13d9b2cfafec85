"""System checks: a shop that cannot do what it is set up for is told at its start."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from orders import provider_status
from orders.providers import class_of, paths_of
from orders.providers.base import Captures, offers


@register()
def check_providers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Each provider that is named exists and has its settings, and none of them is a toy in a real shop."""
    faults = list(provider_status.faults_in_settings())
    if faults:
        return [
            Error(fault, hint="docs/providers.md lists them; `manage.py providers check` tries them.", id="orders.E001")
            for fault in faults
        ]
    found: list[CheckMessage] = []
    if not settings.ALLOW_SANDBOX:
        found += [
            Error(
                f"{phrase}, with which nothing real happens, and this is no demo.",
                hint="Name a real provider with live credentials, or set ALLOW_SANDBOX=true if that is what you want.",
                id="orders.E002",
            )
            for phrase in provider_status.sandboxes_in_use()
        ]
    if settings.ORDER_CAPTURE == "shipment":
        found += [
            Error(
                f"ORDER_CAPTURE is 'shipment', and the gateway {name} cannot set money aside.",
                hint="Name one that can (stripe, paypal, adyen), or set ORDER_CAPTURE=placing.",
                id="orders.E003",
            )
            for name in paths_of("payments")
            if not offers(class_of("payments", name), Captures)
        ]
    return found
