"""Ids onto a queue. Done when the broker has confirmed them: https://www.rabbitmq.com/docs/confirms."""

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from kombu.messaging import Producer

from pipeline.broker.connection import BrokerBackend, BrokerConnection, BrokerConnectionError, BrokerUnavailableError
from pipeline.broker.topology import Queue, Topology, write_messages

CONFIRM_SECONDS = 10.0


class Publisher:
    """Puts ids on the queues. A context manager; one thread's own. Without heartbeats, as it may be idle for days."""

    def __init__(self, place: BrokerBackend, topology: Topology) -> None:
        self._place, self._topology = place, topology
        self._line = BrokerConnection(place, topology, "publisher")
        self._confirms = Confirms()
        self._producer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._line.close()

    def publish(self, queue: Queue, ids: Sequence[str]) -> None:
        """Put these ids on the queue; returns when the broker has confirmed them all, as it does once they are stored.

        Raises BrokerDown if it is away, refuses a message, has no such queue or does not answer within CONFIRM_SECONDS.
        Then some may be queued and some not: publish all of them again, later.
        """
        if not ids:
            return
        reused = self._line.channel is not None
        try:
            self._send(queue, ids)
        except BrokerConnectionError:
            if not reused:
                raise
            self._send(queue, ids)  # the old connection had died while nobody looked

    def _send(self, queue: Queue, ids: Sequence[str]) -> None:
        with self._line.open_channel(self._prepare):
            for body in write_messages(ids):
                self._confirms.sent()
                self._producer.publish(
                    body,
                    routing_key=queue,
                    content_type="application/json",
                    content_encoding="utf-8",
                    delivery_mode=2,  # kept on disk
                    mandatory=True,  # or a message without a queue would be confirmed and dropped
                )
            if self._place.exclusive:
                self._place.notify()
            else:
                self._await_confirms()

    def _await_confirms(self) -> None:
        until = monotonic() + CONFIRM_SECONDS
        while self._confirms.missing and not self._confirms.refusal and (left := until - monotonic()) > 0:
            self._line.wait_for_event(left)
        if self._confirms.refusal:
            raise BrokerUnavailableError(
                f"{self._place} {self._confirms.refusal}. Publish again: the queues are declared anew."
            )
        if self._confirms.missing:
            raise BrokerUnavailableError(
                f"{self._place} did not confirm within {CONFIRM_SECONDS:g} s. It may be out of disk or memory: see "
                "`rabbitmq-diagnostics check_local_alarms`. Publish again later."
            )

    def _prepare(self, channel: Any) -> None:
        exchange = self._topology.exchange
        self._producer = Producer(channel, exchange, auto_declare=False)  # type: ignore[no-untyped-call]
        self._confirms = Confirms()
        if not self._place.exclusive:
            self._confirms.watch(channel)


class Confirms:
    """The messages of one channel that RabbitMQ has not answered for yet. It numbers them from 1."""

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self.refusal = ""
        self._last = 0

    def watch(self, channel: Any) -> None:
        channel.confirm_select()
        channel.events["basic_ack"].add(self._taken)
        channel.events["basic_nack"].add(self._refused)
        channel.events["basic_return"].add(self._returned)

    def sent(self) -> None:
        self._last += 1
        self.missing.add(self._last)

    def _taken(self, tag: int, multiple: bool) -> None:
        self.missing -= {number for number in self.missing if number <= tag} if multiple else {tag}

    def _refused(self, _tag: int, _multiple: bool) -> None:
        self.refusal = "refused a message (nack): a queue may be full or without a leader"

    def _returned(self, _error: Exception, _exchange: str, routing_key: str, _message: object) -> None:
        self.refusal = f"returned a message as unroutable: no queue for {routing_key}"
