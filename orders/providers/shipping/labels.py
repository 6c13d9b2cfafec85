"""Labels out of carriers' answers. Whatever stands there, nothing here raises: the parcel is booked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from typing import Any

from orders.labels import LARGEST, is_address, kind_of
from orders.providers.base import Label


def within(said: Any, *path: str | int) -> Any:
    """What is at a place in an answer; None: there is no such place."""
    for step in path:
        try:
            said = said[step]
        except (LookupError, TypeError):
            return None
    return said


def first_of(documents: Any, member: str, kinds: Collection[str]) -> Any:
    """Of a list of documents the first that says to be of these kinds."""
    for one in documents if isinstance(documents, list) else []:
        kind = within(one, member)
        if isinstance(kind, str) and kind in kinds:
            return one
    return None


def label_of(*, encoded: Any = None, url: Any = None) -> Label | None:
    """The label in base64 or, without a good one, its address; None: neither is one."""
    content = _decoded(encoded)
    if kind_of(content):
        return Label(content=content)
    return Label(url=url) if isinstance(url, str) and is_address(url) else None


def _decoded(encoded: Any) -> bytes:
    if not isinstance(encoded, str) or len(encoded) > 2 * LARGEST:  # not worth decoding
        return b""
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""
