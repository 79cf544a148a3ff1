"""Allow-list of the hosts that this program may contact: PayPal's hosts and those that the settings name.

`install_guard` enforces the list for the whole process, for every library. It checks host names; systemd and Docker
restrict addresses and ports (deploy/systemd, docker-compose.yml).
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
    """The host is not on the allow-list."""


@dataclass(frozen=True, slots=True)
class OutboundRoute:
    """One outbound connection that the settings allow. `host` is "" for a socket in the file system."""

    name: str
    host: str
    port: int
    encrypted: bool


def outbound_routes(settings: Settings) -> list[OutboundRoute]:
    """Return all outbound connections that the settings allow. An invalid URL is skipped: its user reports it."""
    services = [_database(settings.database), _broker(settings.broker_url), _relay(settings.smtp_url)]
    paypal = [_web("PayPal's API", settings.paypal_base_url)] if settings.has_paypal_credentials else []
    certificates = [OutboundRoute("PayPal's certificates", host, HTTPS, encrypted=True) for host in sorted(PAYPAL)]
    routes = (*services, *paypal, _web("product", settings.product_url), *certificates)
    return [route for route in routes if route]


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the host names that may be contacted, in lower case."""
    return frozenset(route.host.lower() for route in outbound_routes(settings) if route.host)


def require_paypal_api(base_url: str) -> None:
    """Raise SettingsError unless the URL is PayPal's API or a simulator on this machine."""
    host = urlsplit(base_url).hostname or ""
    if host not in PAYPAL and not is_on_this_machine(host):
        raise SettingsError(
            f"SMT_PAYPAL_BASE_URL names {host or 'no host'}, which is not a PayPal host. "
            "Use https://api-m.paypal.com or https://api-m.sandbox.paypal.com"
        )


def require_paypal_host(host: str) -> None:
    """Raise EgressForbiddenError unless the host is one of PayPal's or this machine."""
    if host not in PAYPAL and not is_on_this_machine(host):
        raise EgressForbiddenError(f"{host} is not a PayPal host; it must not be contacted")


def install_guard(settings: Settings) -> None:
    """Make this process refuse to resolve any other host name, in every library. This cannot be undone."""
    names = allowed_hosts(settings) | {settings.web_host.lower()}  # the web role resolves its own listening address

    def check(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.getaddrinfo" and not _is_allowed(arguments[0], names):
            log.error("egress_refused", host=str(arguments[0])[:200])
            raise EgressForbiddenError(
                f"{arguments[0]} is not among the hosts that may be contacted; the settings name them"
            )

    sys.addaudithook(check)


def _is_allowed(host: object, names: frozenset[str]) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return not isinstance(name, str) or name == "" or name.lower() in names or is_on_this_machine(name)


def resolve(host: str) -> frozenset[Address]:
    """Return the addresses of a host; an empty set if it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)


def stays_private(route: OutboundRoute, private: Iterable[str], resolver: Resolve = resolve) -> bool:
    """Return whether a connection stays on this machine or in the `private` networks, such as a container network."""
    if not route.host or is_on_this_machine(route.host):
        return True
    networks = [ipaddress.ip_network(network) for network in private]
    addresses = resolver(route.host)
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
    encrypted = parts.scheme == "amqps"
    return OutboundRoute(
        "broker", parts.hostname or "localhost", parts.port or (5671 if encrypted else 5672), encrypted=encrypted
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
    encrypted = parts.scheme == "https"
    return (
        OutboundRoute(name, parts.hostname, parts.port or (HTTPS if encrypted else 80), encrypted=encrypted)
        if parts.hostname
        else None
    )
