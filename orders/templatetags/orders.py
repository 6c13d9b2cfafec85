"""Money as people read it."""

from __future__ import annotations

import re
from decimal import Decimal

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from orders.money import format_money

register = template.Library()


@register.filter
def money(amount: Decimal, currency: str) -> str:
    """99.99 EUR."""
    return format_money(amount, currency)


@register.filter
def coded(text: str) -> SafeString:
    """A sentence with what stands in `backticks` as code."""
    return mark_safe(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))  # noqa: S308  (escaped just before)
