"""Ids off a queue, in batches that are acknowledged after the commit."""

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

HEARTBEAT_SECONDS = 60.0  # RabbitMQ gives up a worker that is silent for twice this: busy with one batch, or dead
LOOK_SECONDS = 1.0  # between two looks at the heartbeats while waiting
MORE_SECONDS = 0.001  # how long the next message of one group may be in coming
GATHER_SECONDS = 0.005  # how long a batch may be gathered in all

log = structlog.get_logger(__name__)


class Batch:
    """Ids taken together. Acknowledge after the commit; what is neither acknowledged nor requeued comes again."""

    def __init__(self, ids: list[str], messages: list[Any], held: dict[object, None], line: BrokerConnection) -> None:
        self.ids = ids
        self._messages, self._held, self._line, self._channel = messages, held, line, line.channel
        held.update((message.delivery_tag, None) for message in messages)

    def ack(self) -> None:
        """Take these ids off the queue. Raises BrokerDown if the connection they came on is gone: they come again."""
        with self._settling():
            for message, multiple in self._acknowledgements():
                message.ack(multiple=multiple)

    def requeue(self) -> None:
        """Give these ids back, for any worker and at once: wait a little before. Raises BrokerDown as `ack` does."""
        with self._settling():
            for message in self._messages:
                message.requeue()
            self._line.place.notify()

    def _acknowledgements(self) -> list[tuple[Any, bool]]:
        """One that covers all earlier messages is enough if those are all ours. kombu's memory transport has none."""
        oldest = next(iter(self._held), None)
        if self._messages and self._messages[0].delivery_tag == oldest and not self._line.place.exclusive:
            return [(self._messages[-1], True)]
        return [(message, False) for message in self._messages]

    @contextmanager
    def _settling(self) -> Iterator[None]:
        # Delivery tags mean other messages, or none, on another channel than their own.
        if self._channel is None or self._channel is not self._line.channel:
            raise BrokerUnavailableError(
                f"The connection to {self._line.place} on which these ids came is gone. They come again."
            )
        with self._line.open_channel():
            yield
        for message in self._messages:
            self._held.pop(message.delivery_tag, None)
        self._messages = []


class Consumer:
    """Takes ids from one queue. A context manager; one thread's own. `refused` counts messages that can't be read."""

    def __init__(self, place: BrokerBackend, topology: Topology, queue: Queue) -> None:
        self._topology, self._queue = topology, queue
        self._line = BrokerConnection(place, topology, f"{queue} inlet", HEARTBEAT_SECONDS)
        self._arrived: deque[tuple[Any, list[str]]] = deque()
        self._held: dict[object, None] = {}  # delivery tags of batches not settled yet, oldest first
        self._prefetch = 1
        self._heard_at = monotonic()
        self.refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._line.close()

    def receive(self, limit: int, wait_seconds: float) -> Batch | None:
        """At most `limit` ids, though at least one message's; None if nothing comes in `wait_seconds`.

        Waits for the first message only, then takes what is there. Ten messages, or a tenth of the first call's `limit`,
        may be held unsettled, in one batch or several: a message may carry fifty ids, and what one worker holds no
        other can have. Raises BrokerDown; the next call connects again.
        """
        self._prefetch = max(limit // 10, min(limit, 10), 1)
        with self._line.open_channel(self._prepare):
            self._await_first(monotonic() + wait_seconds)
            self._gather(limit)
            return self._batch(limit) if self._arrived else None

    def idle_seconds(self) -> float:
        """How long no message has come. May be asked by any thread."""
        return monotonic() - self._heard_at

    def _await_first(self, until: float) -> None:
        while not self._arrived:
            left = until - monotonic()
            self._line.wait_for_event(min(max(left, MORE_SECONDS), LOOK_SECONDS))
            self._line.send_heartbeat()
            if left <= 0:
                return

    def _gather(self, limit: int) -> None:
        until = monotonic() + GATHER_SECONDS
        while 0 < sum(len(ids) for _, ids in self._arrived) < limit and monotonic() < until:
            if not self._line.wait_for_event(MORE_SECONDS):
                return

    def _batch(self, limit: int) -> Batch:
        first, ids = self._arrived.popleft()
        messages, ids = [first], list(ids)
        while self._arrived and len(ids) + len(self._arrived[0][1]) <= limit:
            message, more = self._arrived.popleft()
            messages.append(message)
            ids += more
        return Batch(ids, messages, self._held, self._line)

    def _prepare(self, channel: Any) -> None:
        self._arrived, self._held = deque(), {}  # what came on an older channel comes again
        consumer = KombuConsumer(  # type: ignore[no-untyped-call]
            channel,
            queues=[self._topology.queue(self._queue)],
            auto_declare=False,
            prefetch_count=self._prefetch,
            on_message=self._arrive,
            on_decode_error=lambda message, _error: self._refuse(message),
        )
        consumer.consume()  # type: ignore[no-untyped-call]

    def _arrive(self, message: Any) -> None:
        self._heard_at = monotonic()
        ids = read_message(message.body)
        if ids:
            self._arrived.append((message, ids))
        else:
            self._refuse(message)

    def _refuse(self, message: Any) -> None:
        """To the dead letters, for a person to look at: an acknowledgement would drop it."""
        self.refused += 1
        log.warning("unreadable_message", queue=self._queue, bytes=len(message.body or ""), refused=self.refused)
        message.reject()
