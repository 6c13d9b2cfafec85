"""A visitor of the pages, as browsers are: logged in, with what an answer shows taken apart."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.messages import get_messages
from django.test import Client

from orders.models import Order
from sagas.selectors import SagaRun
from sagas.testing import run_to_end
from tests.factories import make_order, make_user

ENDS: dict[str, dict[str, str]] = {
    "completed": {},
    "compensated": {"ship_postcode": "00000"},
    "needs_attention": {"ship_postcode": "00000", "card_token": "tok_refund_fails"},
}
"""A run's end -> what to order to come to it."""
INLINE = re.compile(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son[a-z]+=|javascript:", re.IGNORECASE)
"""What the policy would refuse, and what nobody should have to look for."""


def visitor(username: str, role: str = "", **options: Any) -> Client:
    """A new person of that role, logged in."""
    client = Client(**options)
    client.force_login(make_user(username=username, role=role))
    return client


def run_of(order: Order) -> SagaRun:
    return SagaRun.objects.get(business_key=order.order_id)


def ended(end: str, **changes: Any) -> Order:
    """An order that has come to that end."""
    order = make_order(**{**ENDS[end], **changes})
    assert run_to_end(run_of(order)).status == end
    return order


def text_of(response: Any) -> str:
    """What a person reads: no tags, and one blank where there were many."""
    body = re.sub(r"<template.*?</template>|<title>.*?</title>", " ", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body))).strip()


def order_ids(response: Any) -> list[str]:
    """The orders of a list, in its order."""
    return re.findall(r'class="id" href="/orders/([^/]+)/"', response.content.decode())


def told(response: Any) -> list[str]:
    """The messages that the next page will show."""
    return [str(message) for message in get_messages(response.wsgi_request)]
