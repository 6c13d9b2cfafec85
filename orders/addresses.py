"""Addresses for whoever is not on the site: in mail, on a terminal."""

from __future__ import annotations

from django.conf import settings


def order_address(order_id: str) -> str:
    """Where people see the order. Written out, since a worker that sends mail need not know the site's pages."""
    return f"{settings.SITE_URL}/orders/{order_id}/"
