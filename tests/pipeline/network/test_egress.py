"""Outbound connections: the allow-list of hosts, and the guard that enforces it."""

import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from pipeline.network import egress
from pipeline.network.egress import OutboundRoute
from pipeline.settings import Settings, SettingsError

ROOT = Path(__file__).parents[3]
Make = Callable[..., Settings]
SERVERS = {
    "database_url": "postgresql://smt@db.example.com/smt?sslmode=verify-full",
    "broker_url": "amqps://smt@queue.example.com",
    "smtp_url": "smtp+starttls://relay.example.com",
}


def test_outbound_routes_have_port_and_encryption(make_settings: Make) -> None:
    found = {route.name: route for route in egress.outbound_routes(make_settings(**SERVERS))}
    assert found["database"] == OutboundRoute("database", "db.example.com", 5432, encrypted=True)
    assert found["broker"] == OutboundRoute("broker", "queue.example.com", 5671, encrypted=True)
    assert found["relay"] == OutboundRoute("relay", "relay.example.com", 587, encrypted=True)
    plain = {"database_url": "postgresql://db.example.com/smt", "broker_url": "amqp://queue.example.com"}
    assert not any(
        route.encrypted
        for route in egress.outbound_routes(make_settings(**plain))
        if route.host.endswith("example.com")
    )
    assert egress.allowed_hosts(make_settings()) == egress.PAYPAL


def test_database_socket_stays_private(make_settings: Make) -> None:
    [route] = [
        route
        for route in egress.outbound_routes(make_settings(database_url="postgresql:///smt?host=/run/postgresql"))
        if not route.host
    ]
    assert egress.stays_private(route, [])


@pytest.mark.parametrize(
    ("host", "is_private"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", True), ("10.0.0.5", False)],
)
def test_only_local_addresses_stay_private(host: str, is_private: bool) -> None:
    route = OutboundRoute("relay", host, 25, encrypted=False)
    assert egress.stays_private(route, []) is is_private


def test_container_network_stays_private() -> None:
    route = OutboundRoute("relay", "postfix", 2525, encrypted=False)
    inside, outside = (lambda _: frozenset({ip_address("10.1.2.3")}), lambda _: frozenset({ip_address("10.9.9.9")}))
    assert egress.stays_private(route, ["10.1.2.0/24"], inside)
    assert not egress.stays_private(route, ["10.1.2.0/24"], outside)
    assert not egress.stays_private(route, ["10.1.2.0/24"], lambda _: frozenset())


def test_api_of_other_host_is_refused() -> None:
    for url in ("https://api-m.paypal.com", "https://api-m.sandbox.paypal.com/", "http://127.0.0.1:8001"):
        egress.require_paypal_api(url)
    for url in ("https://api.example.com", "https://api-m.paypal.com.example.com", "https://paypal.com"):
        with pytest.raises(SettingsError, match="SMT_PAYPAL_BASE_URL"):
            egress.require_paypal_api(url)


GUARDED = """
import asyncio, socket, sys, urllib.request
from pipeline.network import egress
from pipeline.settings import load
egress.install_guard(load(_env_file=None, smtp_url="smtps://relay.example.com"))

def attempt(name, call):
    try:
        call()
    except egress.EgressForbiddenError:
        print(f"{name}: refused")
    except Exception as error:
        print(f"{name}:", "refused" if "EgressForbiddenError" in repr(error) or "may be contacted" in str(error) else "allowed")
    else:
        print(f"{name}: allowed")

attempt("a library", lambda: urllib.request.urlopen("http://tracker.example.com/x"))
attempt("an address", lambda: socket.create_connection(("192.0.2.1", 80), 0.1))
attempt("asyncio", lambda: asyncio.run(asyncio.open_connection("tracker.example.com", 80)))
attempt("local server", lambda: socket.create_server(("127.0.0.1", 0)))
attempt("the relay", lambda: socket.getaddrinfo("relay.example.com", 465))
"""


def test_guarded_process_resolves_no_other_host(tmp_path: Path) -> None:
    run = [sys.executable, "-c", GUARDED]
    done = subprocess.run(
        run, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    results = dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line and "egress" not in line)
    assert results == {
        "a library": "refused", "an address": "refused", "asyncio": "refused", "local server": "allowed", "the relay": "allowed",
    }, done.stderr  # fmt: skip
