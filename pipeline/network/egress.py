"""Whom this program may contact: PayPal, and what the settings name as its own. The one place that decides.

`guard` makes it so for a whole process, whichever library wants out; `connections` reads from the kernel whom a process
is in fact connected to. Addresses and ports are the system's to limit: deploy/systemd, docker-compose.yml.
"""

import ast
import ipaddress
import socket
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from sqlalchemy import make_url

from pipeline.network.smtp_url import SmtpConfigError, is_on_this_machine, read_url
from pipeline.settings import Settings, SettingsError

# PayPal's API and its certificates (https://developer.paypal.com/api/rest/requests/#link-apiserviceendpoints).
PAYPAL = frozenset({"api.paypal.com", "api-m.paypal.com", "api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})
HTTPS = 443
HANDSHAKE_SECONDS = 5.0
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], frozenset[Address]]

# Which library can open a connection, and which modules of ours use it for that; everybody else is handed one.
OPENERS = {
    "socket": "network cli app simulator",
    "ssl": "network broker paypal",
    "http.client": "paypal customers cli simulator",
    "urllib.request": "customers",
    "requests": "paypal",
    "asyncio.open_connection": "",
    "asyncio.open_unix_connection": "",
    **dict.fromkeys(("smtplib", "ftplib", "imaplib", "poplib", "xmlrpc.client", "httpx", "urllib3", "aiohttp"), ""),
}

log = structlog.get_logger(__name__)


class Forbidden(ConnectionRefusedError):
    """This program has no business with that host."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One way that data takes from here to somebody else's port; `host` is "" for a socket in the file system."""

    name: str
    host: str
    port: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection that a process of ours has made."""

    address: Address
    port: int


def hops(settings: Settings) -> list[Hop]:
    """Every way out that the settings name. What cannot be read is left to those who use it to complain about."""
    found = [_database(settings.database), _broker(settings.broker_url), _relay(settings.smtp_url)]
    paypal = [_web("PayPal's API", settings.paypal_base_url)] if settings.reads_paypal else []
    own = [Hop("PayPal's certificates", host, HTTPS, encrypted=True) for host in sorted(PAYPAL)]
    return [hop for hop in (*found, *paypal, _web("product", settings.product_url), *own) if hop]


def allowed(settings: Settings) -> frozenset[str]:
    """The host names that may be contacted."""
    return frozenset(hop.host.lower() for hop in hops(settings) if hop.host)


def judge_api(base_url: str) -> None:
    """Raises SettingsError unless it is PayPal's API, or a simulator on this machine."""
    host = urlsplit(base_url).hostname or ""
    if host not in PAYPAL and not is_on_this_machine(host):
        raise SettingsError(
            f"SMT_PAYPAL_BASE_URL names {host or 'no host'}, which is not PayPal's: nobody else is ever contacted. "
            "Use https://api-m.paypal.com or https://api-m.sandbox.paypal.com"
        )


def judge(host: str) -> None:
    """Raises Forbidden unless it is one of PayPal's hosts, or this machine. For what the settings name, see `guard`."""
    if host not in PAYPAL and not is_on_this_machine(host):
        raise Forbidden(f"{host} is not PayPal's, and nobody else is contacted")


def guard(settings: Settings) -> None:
    """From now on this process looks up no host but those, for whichever library. It cannot be undone."""
    names = allowed(settings) | {settings.web_host.lower()}  # where web listens, which is looked up too

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.getaddrinfo" and not _permitted(arguments[0], names):
            log.error("egress_refused", host=str(arguments[0])[:200])
            raise Forbidden(f"{arguments[0]} is not among the hosts that may be contacted")

    sys.addaudithook(watch)


def _permitted(host: object, names: frozenset[str]) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return not isinstance(name, str) or name == "" or name.lower() in names or is_on_this_machine(name)


def resolve(host: str) -> frozenset[Address]:
    """The addresses of a host, none if it has none now."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)


def stays_here(hop: Hop, private: Iterable[str], resolver: Resolve = resolve) -> bool:
    """Whether a way ends on this machine: a socket, a loopback address, or the containers' own network."""
    if not hop.host or is_on_this_machine(hop.host):
        return True
    networks = [ipaddress.ip_network(network) for network in private]
    addresses = resolver(hop.host)
    return bool(addresses) and all(any(address in network for network in networks) for address in addresses)


# Whom a process is connected to


def connections(pid: int) -> list[Connection]:
    """The TCP connections that a process has made, less those that were made to it. Raises OSError if it is gone."""
    sockets = set(_sockets(pid))
    rows = [row for name in ("tcp", "tcp6") for row in _table(pid, name)]
    listening = {port for state, _, port, _, _ in rows if state == _LISTEN}
    return [
        Connection(address, remote)
        for state, inode, local, address, remote in rows
        if state == _ESTABLISHED and inode in sockets and local not in listening
    ]


def strangers(found: Iterable[Connection], settings: Settings, resolver: Resolve = resolve) -> list[Connection]:
    """Those connections that lead to nobody the settings allow."""
    known = {(address, hop.port) for hop in hops(settings) for address in _addresses(hop, resolver)}
    return [each for each in found if (each.address, each.port) not in known and not is_paypal(each)]


def is_paypal(found: Connection) -> bool:
    """Whether who answers there can prove to be PayPal: its addresses change while a connection lasts."""
    if found.port != HTTPS or found.address.is_loopback:
        return False
    return any(_proves(found, host) for host in sorted(PAYPAL))


def _proves(found: Connection, host: str) -> bool:
    where, context = (str(found.address), found.port), ssl.create_default_context()
    try:
        with (
            socket.create_connection(where, HANDSHAKE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except OSError:
        return False


def _addresses(hop: Hop, resolver: Resolve) -> frozenset[Address]:
    if is_on_this_machine(hop.host):
        return frozenset(map(ipaddress.ip_address, ("127.0.0.1", "::1")))
    return resolver(hop.host) if hop.host else frozenset()


_ESTABLISHED, _LISTEN = "01", "0A"  # include/net/tcp_states.h
Row = tuple[str, str, int, Address, int]  # state, inode, local port, remote address and port


def _sockets(pid: int) -> Iterator[str]:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = str(path.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]


def _table(pid: int, name: str) -> Iterator[Row]:
    """The rows of the kernel's table of TCP sockets (proc(5), /proc/net/tcp)."""
    for line in Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()[1:]:
        words = line.split()
        address, _, port = words[2].partition(":")
        yield words[3], words[9], int(words[1].partition(":")[2], 16), _read_address(address), int(port, 16)


def _read_address(text: str) -> Address:
    """Words of 32 bits, each as the machine orders it. An IPv4 address inside an IPv6 one is told as IPv4."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))
    inside = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return inside or address


# Who of us can open a connection


def unknown_openers() -> list[str]:
    """Modules of this program that could contact somebody and are not known to."""
    package = Path(__file__).parents[1]
    sources = [(path.relative_to(package).with_suffix("").parts[0], path) for path in sorted(package.rglob("*.py"))]
    return [
        f"{path.relative_to(package.parent)} by {way}"
        for module, path in sources
        for way in sorted(openers(path.read_text("utf-8")))
        if module not in OPENERS[way].split()
    ]


def openers(source: str) -> set[str]:
    """The ways to open a connection that a source names."""
    return {name for node in ast.walk(ast.parse(source)) for name in _names(node) if name in OPENERS}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [ast.unparse(node)] if isinstance(node, ast.Attribute) else []


# What the settings say


def _database(url: str) -> Hop | None:
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        return None
    host = parts.query.get("host") or parts.host or ""
    host = host if isinstance(host, str) and not host.startswith("/") else ""
    mode = parts.query.get("sslmode", "prefer")
    return Hop("database", host, parts.port or 5432, encrypted=mode in ("require", "verify-ca", "verify-full"))


def _broker(url: str) -> Hop | None:
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps"):
        return None
    safe = parts.scheme == "amqps"
    return Hop("broker", parts.hostname or "localhost", parts.port or (5671 if safe else 5672), encrypted=safe)


def _relay(url: str) -> Hop | None:
    if not url:
        return None
    with suppress(SmtpConfigError):
        route = read_url(url)
        return Hop("relay", route.host, route.port, encrypted=route.use_tls or route.start_tls)
    return None


def _web(name: str, url: str) -> Hop | None:
    parts = urlsplit(url)
    safe = parts.scheme == "https"
    return Hop(name, parts.hostname, parts.port or (HTTPS if safe else 80), encrypted=safe) if parts.hostname else None
