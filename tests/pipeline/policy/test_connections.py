"""Which hosts a process is connected to, as the kernel tells, and which of them the settings do not allow."""

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


def test_connections_made_are_told_from_those_taken(listener: socket.socket) -> None:
    made = Connection(ip_address("127.0.0.1"), listener.getsockname()[1])
    with socket.create_connection(listener.getsockname()) as ours, listener.accept()[0]:
        taken = Connection(ip_address("127.0.0.1"), ours.getsockname()[1])
        found = connections.open_connections(os.getpid())
        assert made in found
        assert taken not in found
    assert made not in connections.open_connections(os.getpid())


def test_a_connection_to_nobody_we_know_is_a_stranger(make_settings: Make) -> None:
    settings = make_settings(smtp_url="smtp://127.0.0.1:2525", broker_url="amqps://queue.example.com")
    theirs = ip_address("192.0.2.7")
    known = [Connection(ip_address("127.0.0.1"), 2525), Connection(theirs, 5671)]
    other = [
        Connection(ip_address("127.0.0.1"), 2526),
        Connection(theirs, 80),
        Connection(ip_address("192.0.2.8"), 5671),
    ]
    resolver = lambda host: frozenset({theirs} if host == "queue.example.com" else ())  # noqa: E731
    assert connections.unexpected_connections([*known, *other], settings, resolver) == other


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000000000000000000001000000", "::1"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="the table is written in the machine's own order")
def test_the_kernels_addresses_are_read(text: str, address: str) -> None:
    assert connections._read_address(text) == ip_address(address)
