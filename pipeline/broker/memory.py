"""Queues inside this process: kombu's in-memory transport, with a condition that wakes waiting consumers."""

import threading
from typing import Any

from kombu.connection import Connection

from pipeline.error_texts import describe


class Memory:
    """In-process backend: the queues of one Broker.

    kombu's transport polls for messages, which is slow or wastes CPU. Here each change of a queue notifies `_changed`,
    and a consumer polls only then.
    """

    exclusive = True

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._changes = 0

    def __str__(self) -> str:
        return "the queue inside this process"

    def connection(self, _name: str, _heartbeat: float) -> Any:
        return Connection("memory://")  # type: ignore[no-untyped-call]

    def drain(self, connection: Any, seconds: float) -> None:
        seen = self._changes
        try:
            connection.drain_events(timeout=0)
        except TimeoutError:
            with self._changed:
                self._changed.wait_for(lambda: self._changes != seen, seconds)
            connection.drain_events(timeout=0)

    def notify(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def describe(self, _channel: Any) -> str:
        return "queues inside this process (memory://)"

    def explain(self, error: BaseException) -> str:
        return f"{self} failed: {str(error) or describe(error)}. Restart the program."
