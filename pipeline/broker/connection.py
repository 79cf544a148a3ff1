"""One connection with one channel to the broker, opened at first use and again after any error."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kombu.exceptions import KombuError
from kombu.transport.pyamqp import Transport

from pipeline.broker.topology import Topology
from pipeline.errors import OperatorError

# What py-amqp makes of a bad frame, or of some lost connections.
_BROKEN = (AttributeError, LookupError, UnicodeError, struct.error)
LOST: tuple[type[BaseException], ...] = (*Transport.connection_errors, *Transport.channel_errors, KombuError, *_BROKEN)


class BrokerUnavailableError(OperatorError):
    """The broker is away, refused or did not answer. Says which broker and what to do; never a password."""


class BrokerConnectionError(BrokerUnavailableError):
    """The connection failed: a fresh one may do better."""


class BrokerBackend(Protocol):
    """Where the queues are: RabbitMQ, or this process. `str()` of it says so to people."""

    @property
    def exclusive(self) -> bool:
        """Whether it serves this process only, and confirms nothing because nothing can be on its way."""

    def connection(self, name: str, heartbeat: float, /) -> Any:
        """A kombu connection, not open yet."""

    def drain(self, connection: Any, seconds: float, /) -> None:
        """Let kombu handle the next thing the broker sends. Raises TimeoutError if nothing comes."""

    def notify(self) -> None:
        """Wake the consumers of this process that wait: there may be something on their queues."""

    def describe(self, channel: Any, /) -> str:
        """Product, version and address, such as `RabbitMQ 3.10.8 at 127.0.0.1:5672`."""

    def explain(self, error: BaseException, /) -> str:
        """What went wrong and what to do, in a sentence or two."""


class BrokerConnection:
    """One connection with one channel. `channel` is None while it is cut; a new channel is another object."""

    def __init__(self, place: BrokerBackend, topology: Topology, role: str, heartbeat: float = 0) -> None:
        self.place = place
        self.channel: Any = None
        self._topology, self._name, self._heartbeat = topology, f"{topology.prefix} {role}", heartbeat
        self._connection: Any = None

    @contextmanager
    def open_channel(self, prepare: Callable[[Any], None] | None = None) -> Iterator[Any]:
        """The channel, with the queues declared; `prepare` is given each new one first.

        Any error inside cuts the line. Those of the connection leave as Lost, a BrokerDown.
        """
        try:
            if self.channel is None:
                self._open()
                if prepare:
                    prepare(self.channel)
            yield self.channel
        except BaseException as error:
            self._cut()
            if isinstance(error, LOST):
                raise BrokerConnectionError(self.place.explain(error)) from error
            raise

    def wait_for_event(self, seconds: float) -> bool:
        """Handle the next thing the broker sends; False if nothing comes, at the latest after `seconds`. Only inside
        `use`."""
        try:
            self.place.drain(self._connection, seconds)
        except TimeoutError:
            return False
        return True

    def send_heartbeat(self) -> None:
        """Send a heartbeat if one is due, and notice if the peer's are missing. Only inside `use`, and after reading:
        heartbeats that came while their reader was busy are not missing."""
        self._connection.heartbeat_check()

    def close(self) -> None:
        """Leave in good order: what was taken and not acknowledged goes back to its queue."""
        self._give_back()
        if self._connection is not None:
            self._connection.release()
        self._connection = self.channel = None

    def _open(self) -> None:
        self._connection = self.place.connection(self._name, self._heartbeat)
        # Without this kombu sleeps two seconds and tries again.
        self._connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        channel = self._connection.channel()
        self._topology.declare(channel)
        self.channel = channel

    def _cut(self) -> None:
        """Let go without a word: the peer may never answer."""
        self._give_back()
        if self._connection is not None:
            self._connection.collect()
        self._connection = self.channel = None

    def _give_back(self) -> None:
        """Requeue what was not acknowledged. RabbitMQ does so when a connection ends, kombu's memory transport does not."""
        if self.channel is not None and self.place.exclusive:
            self.channel.basic_recover(requeue=True)
            self.place.notify()
