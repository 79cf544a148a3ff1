"""Queues inside this process, for its threads: kombu's in-memory transport, made private, quick and forgiving."""

import threading
from collections import defaultdict
from queue import Queue as ThreadQueue
from typing import Any

from kombu.connection import Connection
from kombu.transport import memory, virtual


class Memory:
    """The queues of one Broker. kombu's own are shared by the whole process, whatever the virtual host."""

    exclusive = True

    def __init__(self) -> None:
        self.state: Any = virtual.BrokerState()  # type: ignore[no-untyped-call]
        self.queues: dict[str, ThreadQueue[Any]] = {}
        self.bell = threading.Condition()

    def __str__(self) -> str:
        return "the queue inside this process"

    def connection(self, name: str, _heartbeat: float) -> Any:
        return Connection(name, transport=Transport, transport_options={"place": self})  # type: ignore[no-untyped-call]

    def describe(self, _channel: Any) -> str:
        return "queues inside this process (memory://)"

    def explain(self, error: BaseException) -> str:
        return f"{self} failed: {str(error) or type(error).__name__}. Start the program again."


class Channel(memory.Channel):
    """kombu's, but what a consumer held comes back when it goes, and each arrival rings the bell."""

    do_restore = True
    body_encoding: Any = None  # Base64 is for stores that cannot keep bytes

    def __init__(self, connection: "Transport", **options: Any) -> None:
        self.place, self.queues, self.events = connection.place, connection.place.queues, defaultdict(set)
        super().__init__(connection, **options)  # type: ignore[no-untyped-call]

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        super()._put(queue, message, **options)  # type: ignore[no-untyped-call]
        with self.place.bell:
            self.place.bell.notify_all()


class Transport(memory.Transport):
    """kombu's, but woken by the bell: its own consumer sleeps up to a second between two looks."""

    Channel = Channel

    def __init__(self, client: Any, **options: Any) -> None:
        self.place: Memory = client.transport_options["place"]
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        self.state = self.place.state

    def drain_events(self, connection: Any, timeout: Any = None, **_: Any) -> None:
        with self.place.bell:
            self.place.bell.wait_for(self._something, timeout)
        super().drain_events(connection, timeout=0)  # type: ignore[no-untyped-call]

    def _something(self) -> bool:
        wanted = all(channel.qos.can_consume() for channel in self.channels)
        return wanted and any(self.place.queues[name].qsize() for name in self._callbacks)
