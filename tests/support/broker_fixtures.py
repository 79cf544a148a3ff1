"""Helpers for broker tests: publish and receive ids, read dead letters, and a TCP proxy that can be cut."""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit

from pipeline.broker import Batch, Broker, Consumer, Queue
from pipeline.broker.connection import BrokerConnection
from tests.support.subprocesses import until

LONG = 30.0  # Seconds to wait for something that must happen.
SHORT = 0.05  # Seconds to wait for something that must not happen.
HUNDRED = [f"WH-{number}" for number in range(100)]


def put(broker: Broker, ids: list[str], queue: Queue = "events") -> None:
    with broker.publisher() as publisher:
        publisher.publish(queue, ids)


def take_all(inlet: Consumer, count: int) -> list[str]:
    """Receive and acknowledge at least this many ids and everything else in the queue."""
    ids = take_until(inlet, count)
    while batch := inlet.receive(100, SHORT):
        ids += batch.ids
        batch.ack()
    return ids


def must_take(inlet: Consumer, limit: int = 100) -> Batch:
    batch = inlet.receive(limit, LONG)
    assert batch
    return batch


def take_until(inlet: Consumer, count: int) -> list[str]:
    """Receive and acknowledge at least this many ids."""
    ids: list[str] = []
    while len(ids) < count:
        batch = must_take(inlet)
        ids += batch.ids
        batch.ack()
    return ids


def dead_letters(broker: Broker, count: int) -> list[bytes]:
    """Wait for this many dead letters, remove them from the queue and return their bodies."""
    found: list[bytes] = []

    def look() -> bool:
        while message := channel.basic_get(broker._topology.dead.name, no_ack=True):
            found.append(message.body if isinstance(message.body, bytes) else message.body.encode())
        return len(found) >= count

    line = BrokerConnection(broker._backend, broker._topology, "dead-letter reader")
    with line.open_channel() as channel:
        until(look, LONG, f"{count} dead letters")
    line.close()
    return found


def demolish(broker: Broker) -> None:
    """Delete all queues and exchanges. A node with some hundred quorum queues has no file handles left for connections."""
    topology, line = broker._topology, BrokerConnection(broker._backend, broker._topology, "cleanup")
    with line.open_channel() as channel:
        for queue in (topology.dead, topology.queue("events"), topology.queue("mails")):
            queue(channel).delete()
            channel.exchange_delete(queue.exchange.name)
    line.close()


def delete_queue(broker: Broker) -> None:
    """Delete the events queue with another connection, as an operator might."""
    line = BrokerConnection(broker._backend, broker._topology, "queue deleter")
    with line.open_channel() as channel:
        broker._topology.queue("events")(channel).delete()
    line.close()


class Wire:
    """TCP proxy on loopback. It can be cut and can alter the broker's bytes; `heard` has all bytes of the client."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._tls, self._sockets, self._threads = tls, list[socket.socket](), list[threading.Thread]()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        self.alter: Callable[[bytes], bytes] = lambda data: data

    def carry(self, url: str) -> str:
        """Return the URL with this proxy's port."""
        return url.replace(f":{self._target[1]}", f":{self.port}")

    def cut(self) -> None:
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(LONG)
        for end in (self._listener, *self._sockets):
            end.close()

    def _start(self, work: Callable[..., None], *words: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=words, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
                self._sockets.append(plain)
                client = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            except ssl.SSLError:
                continue
            except OSError:
                return
            broker = socket.create_connection(self._target)
            self._sockets += [client, broker]
            self._start(self._pump, client, broker, self._from_client)
            self._start(self._pump, broker, client, self._from_broker)

    def _from_client(self, data: bytes) -> bytes:
        self.heard += data
        return data

    def _from_broker(self, data: bytes) -> bytes:
        return self.alter(data)

    def _pump(self, source: socket.socket, target: socket.socket, through: Callable[[bytes], bytes]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(through(data))
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
