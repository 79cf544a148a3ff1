"""What the tests of the broker do again and again, and a wire that can be cut."""

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

LONG = 30.0  # seconds, for what must come
SHORT = 0.05  # seconds, for what must not
HUNDRED = [f"WH-{number}" for number in range(100)]


def put(broker: Broker, ids: list[str], queue: Queue = "events") -> None:
    with broker.publisher() as publisher:
        publisher.publish(queue, ids)


def take_all(inlet: Consumer, count: int) -> list[str]:
    """This many ids, and whatever else there is, acknowledged."""
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
    """This many ids, acknowledged."""
    ids: list[str] = []
    while len(ids) < count:
        batch = must_take(inlet)
        ids += batch.ids
        batch.ack()
    return ids


def dead_letters(broker: Broker, count: int) -> list[bytes]:
    """The bodies of all dead letters, as soon as there are so many; they are gone then."""
    found: list[bytes] = []

    def look() -> bool:
        while message := channel.basic_get(broker._topology.dead.name, no_ack=True):
            found.append(message.body if isinstance(message.body, bytes) else message.body.encode())
        return len(found) >= count

    line = BrokerConnection(broker._backend, broker._topology, "coroner")
    with line.open_channel() as channel:
        until(look, LONG, f"{count} dead letters")
    line.close()
    return found


def demolish(broker: Broker) -> None:
    """Delete all that was declared: a node with some hundred quorum queues has no files left for connections."""
    topology, line = broker._topology, BrokerConnection(broker._backend, broker._topology, "demolition")
    with line.open_channel() as channel:
        for queue in (topology.dead, topology.queue("events"), topology.queue("mails")):
            queue(channel).delete()
            channel.exchange_delete(queue.exchange.name)
    line.close()


def delete_queue(broker: Broker) -> None:
    """As an operator might, behind the broker's back."""
    line = BrokerConnection(broker._backend, broker._topology, "vandal")
    with line.open_channel() as channel:
        broker._topology.queue("events")(channel).delete()
    line.close()


class Wire:
    """A TCP proxy on loopback. Cut it, or alter what the broker says on its way; `heard` is all that it was told."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._tls, self._sockets, self._threads = tls, list[socket.socket](), list[threading.Thread]()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        self.alter: Callable[[bytes], bytes] = lambda said: said

    def carry(self, url: str) -> str:
        """The URL by way of this wire."""
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
            self._start(self._pump, client, broker, self._hear)
            self._start(self._pump, broker, client, self._say)

    def _hear(self, told: bytes) -> bytes:
        self.heard += told
        return told

    def _say(self, said: bytes) -> bytes:
        return self.alter(said)

    def _pump(self, source: socket.socket, target: socket.socket, through: Callable[[bytes], bytes]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(through(data))
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
