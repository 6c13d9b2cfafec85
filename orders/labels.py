"""What a parcel's label may be: a document of a kind that is known by its first bytes, or an https address.

A carrier's answer is a stranger's: what it says of a label is not believed, and a label that is none is no reason to
lose a booking.
"""

from __future__ import annotations

from urllib.parse import urlsplit

PDF, PNG, GIF, ZPL, LINK = "pdf", "png", "gif", "zpl", "link"
MEDIA_TYPES = {PDF: "application/pdf", PNG: "image/png", GIF: "image/gif", ZPL: "application/zpl"}
"""The only ones that are ever served."""
FIRST_BYTES = {PDF: (b"%PDF-",), PNG: (b"\x89PNG\r\n\x1a\n",), GIF: (b"GIF87a", b"GIF89a")}
LARGEST = 2 * 1024 * 1024
"""Bytes. Labels have some ten thousand."""
LONGEST_ADDRESS = 2000


def kind_of(content: bytes) -> str:
    """What a document is; empty: none that is kept."""
    if not content or len(content) > LARGEST:
        return ""
    for kind, beginnings in FIRST_BYTES.items():
        if content.startswith(beginnings):
            return kind
    return ZPL if _is_zpl(content) else ""


def is_address(url: str) -> bool:
    """Whether it can be shown as a link: https, to a named host, without a password, on one line."""
    if not url or len(url) > LONGEST_ADDRESS or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        split = urlsplit(url)
        return split.scheme == "https" and bool(split.hostname) and "@" not in split.netloc and split.port != 0
    except ValueError:  # brackets without an end, a port that is none
        return False


def _is_zpl(content: bytes) -> bool:
    """Commands for a printer of Zebra's: text with a format's beginning and, behind it, its end."""
    begins = content.find(b"^XA")
    return begins >= 0 and content.find(b"^XZ", begins) > 0 and b"\0" not in content
