"""A connection with one channel to the broker, opened at first use and reopened after any error."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kombu.exceptions import KombuError
from kombu.transport.pyamqp import Transport

from pipeline.broker.topology import Topology
from pipeline.dependencies import Observer, ignore
from pipeline.errors import OperatorError

# py-amqp raises these for a malformed frame and for some lost connections.
_BROKEN = (AttributeError, LookupError, UnicodeError, struct.error)
LOST: tuple[type[BaseException], ...] = (*Transport.connection_errors, *Transport.channel_errors, KombuError, *_BROKEN)


class BrokerUnavailableError(OperatorError):
    """The broker is down, refused or did not answer. The message names the broker and the remedy, never a password."""


class BrokerConnectionError(BrokerUnavailableError):
    """The connection failed. A new one may succeed."""


class BrokerBackend(Protocol):
    """The implementation of the queues: RabbitMQ or this process. `str()` names it for messages."""

    @property
    def exclusive(self) -> bool:
        """Return whether the queues exist in this process only. Such a backend sends no publisher confirms."""

    def connection(self, name: str, heartbeat: float, /) -> Any:
        """Return a kombu connection that is not open yet."""

    def drain(self, connection: Any, seconds: float, /) -> None:
        """Let kombu process the next frame from the broker. Raises TimeoutError if none arrives in time."""

    def notify(self) -> None:
        """Wake the waiting consumers of this process, because a queue has changed."""

    def describe(self, channel: Any, /) -> str:
        """Return product, version and address, such as `RabbitMQ 3.10.8 at 127.0.0.1:5672`."""

    def explain(self, error: BaseException, /) -> str:
        """Return what failed and what to do, in one or two sentences."""


class BrokerConnection:
    """A connection with one channel. `channel` is None while it is closed; each reopened channel is a new object."""

    def __init__(
        self,
        backend: BrokerBackend,
        topology: Topology,
        role: str,
        heartbeat: float = 0,
        *,
        observe: Observer = ignore,
    ) -> None:
        self.backend, self._observe = backend, observe
        self.channel: Any = None
        self._topology, self._name, self._heartbeat = topology, f"{topology.prefix} {role}", heartbeat
        self._connection: Any = None

    @contextmanager
    def open_channel(self, prepare: Callable[[Any], None] | None = None) -> Iterator[Any]:
        """Yield the channel, with the queues declared. `prepare` is called once with each new channel.

        Any exception in the block closes the connection. Connection errors are raised as BrokerConnectionError.
        """
        try:
            if self.channel is None:
                self._open()
                if prepare:
                    prepare(self.channel)
            yield self.channel
        except BaseException as error:
            self._drop()
            if isinstance(error, (*LOST, BrokerUnavailableError)):
                self._observe(False)
            if isinstance(error, LOST):
                raise BrokerConnectionError(self.backend.explain(error)) from error
            raise
        self._observe(True)

    def wait_for_event(self, seconds: float) -> bool:
        """Process the next frame from the broker. Return False if none arrives within `seconds`.

        Call it only inside `open_channel`.
        """
        try:
            self.backend.drain(self._connection, seconds)
        except TimeoutError:
            return False
        return True

    def send_heartbeat(self) -> None:
        """Send a heartbeat if one is due, and check that the broker's arrive.

        Call it only inside `open_channel` and after `wait_for_event`. Otherwise heartbeats that arrived but were not
        read yet count as missing.
        """
        self._connection.heartbeat_check()

    def close(self) -> None:
        """Close the connection in the regular way. Unacknowledged messages return to their queue."""
        self._requeue_unacknowledged()
        if self._connection is not None:
            self._connection.release()
        self._connection = self.channel = None

    def _open(self) -> None:
        self._connection = self.backend.connection(self._name, self._heartbeat)
        # Without max_retries=0 kombu sleeps two seconds and tries again.
        self._connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        channel = self._connection.channel()
        self._topology.declare(channel)
        self.channel = channel

    def _drop(self) -> None:
        """Drop the connection without a closing handshake, because the broker may never answer."""
        self._requeue_unacknowledged()
        if self._connection is not None:
            self._connection.collect()
        self._connection = self.channel = None

    def _requeue_unacknowledged(self) -> None:
        """Requeue unacknowledged messages. RabbitMQ does this itself; kombu's in-memory transport does not."""
        if self.channel is not None and self.backend.exclusive:
            self.channel.basic_recover(requeue=True)
            self.backend.notify()
