"""Sending to an address that a stranger chose: never into our own network, never elsewhere than where was looked.

The name is resolved here, every address of it is checked, and the connection goes to a checked address: between the
look and the call nobody can point the name at something else. Redirects are not followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

CONNECT_SECONDS = 5.0
TIMEOUT = 15.0
"""Seconds from there to the answer's headers, all in all. Source: Standard Webhooks 1.0, 15 to 30 s."""


class BadAddress(ValueError):
    """Nothing is sent there. The message says why, and what would do."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    code: int | None
    """None: nothing did."""
    error: str = ""

    @property
    def is_taken(self) -> bool:
        return self.code is not None and 200 <= self.code < 300


def check_url(url: str) -> None:
    """Raises BadAddress for what is never sent to, as far as the address itself tells."""
    parts = _parts(url)
    if parts.username or parts.password:
        raise BadAddress("The address holds a name or a password. Check our signature instead.")
    if parts.scheme != "https" and not settings.WEBHOOKS_LOCAL:
        raise BadAddress(f"{url[:80]} does not begin with https://. Others could read what is sent.")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise BadAddress(f"{url[:80]} is not an address like https://shop.example/hooks.")
    addresses(parts.hostname, _port(url))


def addresses(host: str, port: int) -> list[str]:
    """What the name stands for now. Raises BadAddress if there is nothing, or anything within our own network."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadAddress(f"There is no host {host[:80]}.") from None
    ips = list(dict.fromkeys(str(one[4][0]) for one in found))
    for ip in ips:
        if not _is_public(ip) and not settings.WEBHOOKS_LOCAL:
            raise BadAddress(f"{host[:80]} is {ip}, which is not in the public network.")
    return ips


def send(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """One POST. Raises nothing: whatever goes wrong is in the answer. Its body is not read: nothing in it counts."""
    try:
        check_url(url)
        parts = _parts(url)
        host, port = str(parts.hostname), _port(url)
        sock = socket.create_connection((addresses(host, port)[0], port), timeout=CONNECT_SECONDS)
        sock.settimeout(TIMEOUT)
        # A server that sends a byte now and then would keep every single wait short, and us for ever.
        end = threading.Timer(TIMEOUT, _cut, [sock])
        end.start()
        try:
            code = _post(sock, parts, host, port, body, headers)
        finally:
            end.cancel()
            sock.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(code=None, error=f"{type(error).__name__}: {error}"[:300])
    return Answer(code=code, error="" if 200 <= code < 300 else f"answered {code}")


def _post(
    sock: socket.socket, parts: SplitResult, host: str, port: int, body: bytes, headers: Mapping[str, str]
) -> int:
    """Over a connection to an address that was checked; the certificate is checked against the name all the same."""
    connection = http.client.HTTPConnection(host, port)
    secure = ssl.create_default_context().wrap_socket(sock, server_hostname=host) if parts.scheme == "https" else sock
    connection.sock = secure
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise BadAddress(f"{url[:80]} is not an address like https://shop.example/hooks.") from None


def _port(url: str) -> int:
    parts = _parts(url)
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise BadAddress(f"{url[:80]} has no port that there is.") from None


def _is_public(ip: str) -> bool:
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    return address.is_global and not address.is_multicast
