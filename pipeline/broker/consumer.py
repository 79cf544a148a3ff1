"""Receive ids from a queue, in batches that are acknowledged after the commit."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Self

import structlog
from kombu.messaging import Consumer as KombuConsumer

from pipeline.broker.connection import BrokerBackend, BrokerConnection, BrokerUnavailableError
from pipeline.broker.topology import Queue, Topology, read_message
from pipeline.dependencies import Observer, ignore

HEARTBEAT_SECONDS = 60.0  # RabbitMQ closes a connection that is silent for twice this, so a batch must take less
HEARTBEAT_CHECK_SECONDS = 1.0  # between two heartbeat checks while waiting
MORE_SECONDS = 0.001  # longest wait for the next message of a batch
GATHER_SECONDS = 0.005  # longest time to gather a batch

log = structlog.get_logger(__name__)


class Batch:
    """Ids received together. Acknowledge them after the commit, or requeue them; otherwise they are delivered again."""

    def __init__(
        self, ids: list[str], messages: list[Any], held: dict[object, None], connection: BrokerConnection
    ) -> None:
        self.ids = ids
        self._messages, self._held, self._connection, self._channel = messages, held, connection, connection.channel
        held.update((message.delivery_tag, None) for message in messages)

    def ack(self) -> None:
        """Remove these ids from the queue.

        Raises BrokerUnavailableError if the connection on which they arrived is closed: they are delivered again.
        """
        with self._settling():
            for message, multiple in self._acknowledgements():
                message.ack(multiple=multiple)

    def requeue(self) -> None:
        """Return these ids to the queue. They are delivered again at once, so wait before you call it.

        Raises BrokerUnavailableError as `ack` does.
        """
        with self._settling():
            for message in self._messages:
                message.requeue()
            self._connection.backend.notify()

    def _acknowledgements(self) -> list[tuple[Any, bool]]:
        """Return the messages to acknowledge, each with its flag `multiple`.

        A single multiple acknowledgement is enough if no other batch holds an earlier message. kombu's in-memory
        transport does not support it.
        """
        oldest = next(iter(self._held), None)
        if self._messages and self._messages[0].delivery_tag == oldest and not self._connection.backend.exclusive:
            return [(self._messages[-1], True)]
        return [(message, False) for message in self._messages]

    @contextmanager
    def _settling(self) -> Iterator[None]:
        # A delivery tag is valid only on the channel on which the message arrived.
        if self._channel is None or self._channel is not self._connection.channel:
            raise BrokerUnavailableError(
                f"The connection to {self._connection.backend} on which these ids arrived is closed. They are delivered again."
            )
        with self._connection.open_channel():
            yield
        for message in self._messages:
            self._held.pop(message.delivery_tag, None)
        self._messages = []


class Consumer:
    """Receives ids from one queue. A context manager; use it from one thread only.

    `refused` counts unreadable messages.
    """

    def __init__(self, backend: BrokerBackend, topology: Topology, queue: Queue, observe: Observer = ignore) -> None:
        self._topology, self._queue = topology, queue
        self._connection = BrokerConnection(backend, topology, f"{queue} consumer", HEARTBEAT_SECONDS, observe=observe)
        self._arrived: deque[tuple[Any, list[str]]] = deque()
        self._held: dict[object, None] = {}  # delivery tags of unsettled batches, oldest first
        self._prefetch = 1
        self._last_message_at = monotonic()
        self.refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def receive(self, limit: int, wait_seconds: float) -> Batch | None:
        """Return a batch of at most `limit` ids, but at least one message. None if none arrives in `wait_seconds`.

        Waits for the first message only, then takes those that are available. The prefetch count, ten messages or a
        tenth of the first call's `limit`, bounds the unsettled messages: each may contain fifty ids, and a message held
        by one worker is not available to others.
        Raises BrokerUnavailableError; the next call connects again.
        """
        self._prefetch = max(limit // 10, min(limit, 10), 1)
        with self._connection.open_channel(self._prepare):
            self._await_first(monotonic() + wait_seconds)
            self._gather(limit)
            return self._batch(limit) if self._arrived else None

    def idle_seconds(self) -> float:
        """Return the seconds since the last message. May be called from any thread."""
        return monotonic() - self._last_message_at

    def _await_first(self, until: float) -> None:
        while not self._arrived:
            left = until - monotonic()
            self._connection.wait_for_event(min(max(left, MORE_SECONDS), HEARTBEAT_CHECK_SECONDS))
            self._connection.send_heartbeat()
            if left <= 0:
                return

    def _gather(self, limit: int) -> None:
        until = monotonic() + GATHER_SECONDS
        while 0 < sum(len(ids) for _, ids in self._arrived) < limit and monotonic() < until:
            if not self._connection.wait_for_event(MORE_SECONDS):
                return

    def _batch(self, limit: int) -> Batch:
        first, ids = self._arrived.popleft()
        messages, ids = [first], list(ids)
        while self._arrived and len(ids) + len(self._arrived[0][1]) <= limit:
            message, more = self._arrived.popleft()
            messages.append(message)
            ids += more
        return Batch(ids, messages, self._held, self._connection)

    def _prepare(self, channel: Any) -> None:
        self._arrived, self._held = deque(), {}  # messages of an older channel are delivered again
        consumer = KombuConsumer(  # type: ignore[no-untyped-call]
            channel,
            queues=[self._topology.queue(self._queue)],
            auto_declare=False,
            prefetch_count=self._prefetch,
            on_message=self._on_message,
            on_decode_error=lambda message, _error: self._refuse(message),
        )
        consumer.consume()  # type: ignore[no-untyped-call]

    def _on_message(self, message: Any) -> None:
        self._last_message_at = monotonic()
        ids = read_message(message.body)
        if ids:
            self._arrived.append((message, ids))
        else:
            self._refuse(message)

    def _refuse(self, message: Any) -> None:
        """Reject a message, so that RabbitMQ moves it to the dead-letter queue. An acknowledgement would delete it."""
        self.refused += 1
        log.warning("message_refused", queue=self._queue, bytes=len(message.body or ""), refused=self.refused)
        message.reject()
