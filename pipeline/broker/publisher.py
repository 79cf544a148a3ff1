"""Publish ids to a queue, and wait for the broker's confirmation: https://www.rabbitmq.com/docs/confirms."""

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from kombu.messaging import Producer

from pipeline.broker.connection import BrokerBackend, BrokerConnection, BrokerConnectionError, BrokerUnavailableError
from pipeline.broker.topology import Queue, Topology, write_messages
from pipeline.dependencies import Observer, ignore

CONFIRM_SECONDS = 10.0


class Publisher:
    """Publishes ids. A context manager; use it from one thread only. It sends no heartbeats, as it may idle for days."""

    def __init__(self, backend: BrokerBackend, topology: Topology, observe: Observer = ignore) -> None:
        self._backend, self._topology = backend, topology
        self._connection = BrokerConnection(backend, topology, "publisher", observe=observe)
        self._confirms = Confirms()
        self._producer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def publish(self, queue: Queue, ids: Sequence[str]) -> None:
        """Publish these ids, and return when the broker has confirmed that all are stored.

        Raises BrokerUnavailableError if the broker is down, refuses a message, has no such queue, or does not answer
        within CONFIRM_SECONDS. Some ids may then be queued and some not: publish all of them again later.
        """
        if not ids:
            return
        reused = self._connection.channel is not None
        try:
            self._send(queue, ids)
        except BrokerConnectionError:
            if not reused:
                raise
            self._send(queue, ids)  # the old connection was lost while it was idle

    def _send(self, queue: Queue, ids: Sequence[str]) -> None:
        with self._connection.open_channel(self._prepare):
            for body in write_messages(ids):
                self._confirms.sent()
                self._producer.publish(
                    body,
                    routing_key=queue,
                    content_type="application/json",
                    content_encoding="utf-8",
                    delivery_mode=2,  # persistent
                    mandatory=True,  # otherwise the broker confirms and drops a message that has no queue
                )
            if self._backend.exclusive:
                self._backend.notify()
            else:
                self._await_confirms()

    def _await_confirms(self) -> None:
        until = monotonic() + CONFIRM_SECONDS
        while self._confirms.missing and not self._confirms.refusal and (left := until - monotonic()) > 0:
            self._connection.wait_for_event(left)
        if self._confirms.refusal:
            raise BrokerUnavailableError(
                f"{self._backend} {self._confirms.refusal}. Publish again: that declares the queues again."
            )
        if self._confirms.missing:
            raise BrokerUnavailableError(
                f"{self._backend} did not confirm within {CONFIRM_SECONDS:g} s. It may be out of disk or memory: run "
                "`rabbitmq-diagnostics check_local_alarms`. Publish again later."
            )

    def _prepare(self, channel: Any) -> None:
        exchange = self._topology.exchange
        self._producer = Producer(channel, exchange, auto_declare=False)  # type: ignore[no-untyped-call]
        self._confirms = Confirms()
        if not self._backend.exclusive:
            self._confirms.watch(channel)


class Confirms:
    """The numbers of the messages of one channel that RabbitMQ has not confirmed yet, counted from 1."""

    def __init__(self) -> None:
        self.missing: set[int] = set()
        self.refusal = ""
        self._last = 0

    def watch(self, channel: Any) -> None:
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def sent(self) -> None:
        self._last += 1
        self.missing.add(self._last)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self.missing -= {number for number in self.missing if number <= tag} if multiple else {tag}

    def _on_nack(self, _tag: int, _multiple: bool) -> None:
        self.refusal = "refused a message (nack): a queue may be full or without a leader"

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, _message: object) -> None:
        self.refusal = f"returned a message as unroutable: no queue for {routing_key}"
