"""Read from the kernel (/proc) which hosts a process is connected to, and find connections that the settings do not allow."""

import ipaddress
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.network.egress import HTTPS, PAYPAL, Address, OutboundRoute, Resolve, outbound_routes, resolve
from pipeline.network.hosts import is_on_this_machine
from pipeline.settings import Settings

HANDSHAKE_SECONDS = 5.0  # timeout of the TLS handshake in `is_paypal`

_ESTABLISHED, _LISTEN = "01", "0A"  # include/net/tcp_states.h
Row = tuple[str, str, int, Address, int]  # state, inode, local port, remote address and port


@dataclass(frozen=True, slots=True)
class Connection:
    """The remote end of an open connection that a process of this program has made."""

    address: Address
    port: int


def open_connections(pid: int) -> list[Connection]:
    """Return the TCP connections that a process has opened, not those it has accepted. Raises OSError if it is gone."""
    sockets = set(_sockets(pid))
    rows = [row for name in ("tcp", "tcp6") for row in _table(pid, name)]
    listening = {port for state, _, port, _, _ in rows if state == _LISTEN}
    return [
        Connection(address, remote)
        for state, inode, local, address, remote in rows
        if state == _ESTABLISHED and inode in sockets and local not in listening
    ]


def unexpected_connections(
    found: Iterable[Connection], settings: Settings, resolver: Resolve = resolve
) -> list[Connection]:
    """Return the connections to hosts that the settings do not allow."""
    allowed = {(address, hop.port) for hop in outbound_routes(settings) for address in _addresses(hop, resolver)}
    return [each for each in found if (each.address, each.port) not in allowed and not is_paypal(each)]


def is_paypal(found: Connection) -> bool:
    """Return whether the host presents a valid certificate of PayPal.

    The check is needed because PayPal's DNS answers can change while a connection lasts.
    """
    if found.port != HTTPS or found.address.is_loopback:
        return False
    return any(_has_certificate_for(found, host) for host in sorted(PAYPAL))


def _has_certificate_for(found: Connection, host: str) -> bool:
    address, context = (str(found.address), found.port), ssl.create_default_context()
    try:
        with (
            socket.create_connection(address, HANDSHAKE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def _addresses(hop: OutboundRoute, resolver: Resolve) -> frozenset[Address]:
    if is_on_this_machine(hop.host):
        return frozenset(map(ipaddress.ip_address, ("127.0.0.1", "::1")))
    return resolver(hop.host) if hop.host else frozenset()


def _sockets(pid: int) -> Iterator[str]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since the folder was listed
            target = str(path.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]


def _table(pid: int, name: str) -> Iterator[Row]:
    """Yield the rows of the kernel's table of TCP sockets (proc(5), /proc/net/tcp)."""
    for line in Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()[1:]:
        words = line.split()
        address, _, port = words[2].partition(":")
        yield words[3], words[9], int(words[1].partition(":")[2], 16), _read_address(address), int(port, 16)


def _read_address(text: str) -> Address:
    """Parse an address: 32-bit words in the machine's byte order. An IPv4-mapped IPv6 address is returned as IPv4."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
