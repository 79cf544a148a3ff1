"""Connections of a process are read from the kernel, and connections that the settings do not allow are found."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from pipeline.policy.evidence import connections
from pipeline.policy.evidence.connections import Connection
from pipeline.settings import Settings

Make = Callable[..., Settings]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_only_outgoing_connections_are_listed(listener: socket.socket) -> None:
    outgoing = Connection(ip_address("127.0.0.1"), listener.getsockname()[1])
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
        accepted = Connection(ip_address("127.0.0.1"), client.getsockname()[1])
        found = connections.open_connections(os.getpid())
        assert outgoing in found
        assert accepted not in found
    assert outgoing not in connections.open_connections(os.getpid())


def test_connection_to_unlisted_host_is_unexpected(make_settings: Make) -> None:
    settings = make_settings(smtp_url="smtp://127.0.0.1:2525", broker_url="amqps://queue.example.com")
    broker = ip_address("192.0.2.7")
    allowed = [Connection(ip_address("127.0.0.1"), 2525), Connection(broker, 5671)]
    other = [
        Connection(ip_address("127.0.0.1"), 2526),
        Connection(broker, 80),
        Connection(ip_address("192.0.2.8"), 5671),
    ]
    resolver = lambda host: frozenset({broker} if host == "queue.example.com" else ())  # noqa: E731
    assert connections.unexpected_connections([*allowed, *other], settings, resolver) == other


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="the example addresses are little-endian")
def test_kernel_address_is_parsed(text: str, address: str) -> None:
    assert connections._read_address(text) == ip_address(address)
