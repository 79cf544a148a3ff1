"""Which hosts this program may contact: PayPal's, and those that the settings name. The one place that decides.

`guard` enforces it for a whole process, whichever library opens a connection. Addresses and ports are limited by the
system: deploy/systemd, docker-compose.yml.
"""

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from sqlalchemy import make_url

from pipeline.network.hosts import is_on_this_machine
from pipeline.network.smtp_url import SmtpConfigError, parse_smtp_url
from pipeline.settings import Settings, SettingsError

# PayPal's API and its certificates (https://developer.paypal.com/api/rest/requests/#link-apiserviceendpoints).
PAYPAL = frozenset({"api.paypal.com", "api-m.paypal.com", "api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})
HTTPS = 443
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], frozenset[Address]]

log = structlog.get_logger(__name__)


class EgressForbiddenError(ConnectionRefusedError):
    """This program has no business with that host."""


@dataclass(frozen=True, slots=True)
class OutboundRoute:
    """One way that data takes from here to somebody else's port; `host` is "" for a socket in the file system."""

    name: str
    host: str
    port: int
    encrypted: bool


def outbound_routes(settings: Settings) -> list[OutboundRoute]:
    """Every way out that the settings name. What cannot be read is left to those who use it to complain about."""
    found = [_database(settings.database), _broker(settings.broker_url), _relay(settings.smtp_url)]
    paypal = [_web("PayPal's API", settings.paypal_base_url)] if settings.has_paypal_credentials else []
    own = [OutboundRoute("PayPal's certificates", host, HTTPS, encrypted=True) for host in sorted(PAYPAL)]
    return [hop for hop in (*found, *paypal, _web("product", settings.product_url), *own) if hop]


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """The host names that may be contacted."""
    return frozenset(hop.host.lower() for hop in outbound_routes(settings) if hop.host)


def require_paypal_api(base_url: str) -> None:
    """Raises SettingsError unless it is PayPal's API, or a simulator on this machine."""
    host = urlsplit(base_url).hostname or ""
    if host not in PAYPAL and not is_on_this_machine(host):
        raise SettingsError(
            f"SMT_PAYPAL_BASE_URL names {host or 'no host'}, which is not PayPal's: nobody else is ever contacted. "
            "Use https://api-m.paypal.com or https://api-m.sandbox.paypal.com"
        )


def require_paypal_host(host: str) -> None:
    """Raises Forbidden unless it is one of PayPal's hosts, or this machine. For what the settings name, see `guard`."""
    if host not in PAYPAL and not is_on_this_machine(host):
        raise EgressForbiddenError(f"{host} is not PayPal's, and nobody else is contacted")


def install_guard(settings: Settings) -> None:
    """From now on this process looks up no host but those, for whichever library. It cannot be undone."""
    names = allowed_hosts(settings) | {settings.web_host.lower()}  # where web listens, which is looked up too

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.getaddrinfo" and not _permitted(arguments[0], names):
            log.error("egress_refused", host=str(arguments[0])[:200])
            raise EgressForbiddenError(f"{arguments[0]} is not among the hosts that may be contacted")

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


def stays_private(hop: OutboundRoute, private: Iterable[str], resolver: Resolve = resolve) -> bool:
    """Whether a way ends on this machine: a socket, a loopback address, or the containers' own network."""
    if not hop.host or is_on_this_machine(hop.host):
        return True
    networks = [ipaddress.ip_network(network) for network in private]
    addresses = resolver(hop.host)
    return bool(addresses) and all(any(address in network for network in networks) for address in addresses)


def _database(url: str) -> OutboundRoute | None:
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        return None
    host = parts.query.get("host") or parts.host or ""
    host = host if isinstance(host, str) and not host.startswith("/") else ""
    mode = parts.query.get("sslmode", "prefer")
    return OutboundRoute(
        "database", host, parts.port or 5432, encrypted=mode in ("require", "verify-ca", "verify-full")
    )


def _broker(url: str) -> OutboundRoute | None:
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps"):
        return None
    safe = parts.scheme == "amqps"
    return OutboundRoute(
        "broker", parts.hostname or "localhost", parts.port or (5671 if safe else 5672), encrypted=safe
    )


def _relay(url: str) -> OutboundRoute | None:
    if not url:
        return None
    with suppress(SmtpConfigError):
        route = parse_smtp_url(url)
        return OutboundRoute("relay", route.host, route.port, encrypted=route.use_tls or route.start_tls)
    return None


def _web(name: str, url: str) -> OutboundRoute | None:
    parts = urlsplit(url)
    safe = parts.scheme == "https"
    return (
        OutboundRoute(name, parts.hostname, parts.port or (HTTPS if safe else 80), encrypted=safe)
        if parts.hostname
        else None
    )
