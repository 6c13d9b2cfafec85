"""Money as people read it."""

from __future__ import annotations

from decimal import Decimal

from django import template

from orders.money import format_money

register = template.Library()


@register.filter
def money(amount: Decimal, currency: str) -> str:
    """99.99 EUR."""
    return format_money(amount, currency)
