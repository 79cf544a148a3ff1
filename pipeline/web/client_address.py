"""Find each request's client address: the peer of the connection, or the address that a trusted proxy reports.

Rate limits and the access log use this address. Therefore `X-Forwarded-For` counts only if a trusted proxy sent it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.limited_log import LimitedLog

Address = IPv4Address | IPv6Address

HEADER = b"x-forwarded-for"
MOST_PROXIES = 20  # entries read from the end of the header; longer chains of proxies do not exist
WARNING_SECONDS = 60.0  # at least this long between two warnings, because anyone can send the header
ADVICE = "if this peer is your reverse proxy, add it to SMT_TRUSTED_PROXIES"

log = structlog.get_logger(__name__)


class ClientAddresses:
    """ASGI layer that writes the client's address into `scope["client"]`."""

    def __init__(self, app: ASGIApp, trusted_proxies: Sequence[str]) -> None:
        """`trusted_proxies`: addresses and networks of the proxies whose header counts."""
        self._app, self._warn = app, LimitedLog(log.warning, WARNING_SECONDS)
        self._trusted = [ip_network(each) for each in trusted_proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the client's address (ASGI interface)."""
        if scope["type"] == "http" and any(name == HEADER for name, _ in scope["headers"]):
            scope["client"] = self._client(scope)
        await self._app(scope, receive, send)

    def _client(self, scope: Scope) -> tuple[str, int] | None:
        peer: tuple[str, int] | None = scope["client"]
        if peer is None or not self._is_trusted(parse_address(peer[0])):
            self._warn("forwarded_address_ignored", peer=_loggable(peer), advice=ADVICE)
            return peer
        found = self._first_untrusted(b",".join(value for name, value in scope["headers"] if name == HEADER))
        return (str(found), 0) if found else peer

    def _first_untrusted(self, header: bytes) -> Address | None:
        """Return the last address that is no trusted proxy: only it was seen by a trusted proxy.

        If all are trusted, return the first. Return None if an entry on the way is not an address.
        """
        found = None
        for text in reversed(header.decode("latin-1").rsplit(",", MOST_PROXIES)[-MOST_PROXIES:]):
            found = parse_address(text)
            if not self._is_trusted(found):
                return found
        return found

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def parse_address(text: str) -> Address | None:
    """Return the address in `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::1` or `[2001:db8::1]:1234`, otherwise None."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _loggable(peer: tuple[str, int] | None) -> str:
    """Return the address of a machine in a private network. A public address may be a person's, so it is not logged."""
    address = parse_address(peer[0]) if peer else None
    return str(address) if address and address.is_private else "a public address"
