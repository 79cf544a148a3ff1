"""Queues of event ids and mail ids: RabbitMQ, or queues inside this process. Only this package imports kombu.

Messages contain ids only. The tables are the source of truth: a consumer looks each id up in its table, and recovery
finds rows without a message. So an id may be delivered twice, and a lost message loses no work.

    publisher               publishes ids and waits for the broker's confirmation
    consumer                receives ids in batches, which are acknowledged after the commit
    background_publisher    a thread that publishes ids, so that callers do not wait for the broker
    topology                exchange, queues and message format
    connection              one connection with one channel, reopened after any error
    rabbitmq                RabbitMQ backend: URL, TLS, error messages
    memory                  in-process backend: kombu's in-memory transport

The code is synchronous. A Publisher, Consumer or Batch belongs to one thread; a Broker may be shared.
"""

from itertools import count

from pipeline.broker.connection import BrokerBackend, BrokerConnection, BrokerUnavailableError
from pipeline.broker.consumer import Batch, Consumer
from pipeline.broker.memory import Memory
from pipeline.broker.publisher import Publisher
from pipeline.broker.rabbitmq import RabbitMQ
from pipeline.broker.topology import Queue, Topology
from pipeline.dependencies import Observer, ignore

_NUMBERS = count()

__all__ = ["Batch", "Broker", "BrokerUnavailableError", "Consumer", "Publisher", "Queue"]


class Broker:
    """Creates publishers and consumers for one broker URL. The constructor does not connect.

    `memory://` keeps the queues inside this object, for the threads of one process.
    `amqp://user:password@host/vhost` is RabbitMQ. `amqps://` is the same over TLS, with certificate and host name
    checked; `?cacertfile=`, `certfile=` and `keyfile=` as in https://www.rabbitmq.com/docs/uri-query-parameters.
    The names of exchange and queues start with `prefix`. `observe` gets the result of each operation.
    Raises SettingsError for any other URL.
    """

    def __init__(self, url: str, prefix: str = "smt", observe: Observer = ignore) -> None:
        self._observe = observe
        in_memory = url.startswith("memory:")
        self._backend: BrokerBackend = Memory() if in_memory else RabbitMQ(url)
        # kombu shares queues between all memory connections of a process, so each Broker needs its own names.
        self._topology = Topology(f"{prefix}.{next(_NUMBERS)}" if in_memory else prefix)

    @property
    def exclusive(self) -> bool:
        """Return whether the queues exist in this process only."""
        return self._backend.exclusive

    def publisher(self) -> Publisher:
        return Publisher(self._backend, self._topology, self._observe)

    def consumer(self, queue: Queue) -> Consumer:
        return Consumer(self._backend, self._topology, queue, self._observe)

    def check(self) -> str:
        """Connect, declare the queues and describe the broker in one line. Raises BrokerUnavailableError."""
        found, dead = self._examine()
        return found + (f"; unreadable messages in {self._topology.dead.name}: {dead}" if dead else "")

    def count_dead_letters(self) -> int:
        """Connect, and return the number of unreadable messages. Raises BrokerUnavailableError."""
        return self._examine()[1]

    def _examine(self) -> tuple[str, int]:
        connection = BrokerConnection(self._backend, self._topology, "check", observe=self._observe)
        with connection.open_channel() as channel:
            found = self._backend.describe(channel), self._topology.count_dead(channel)
        connection.close()
        return found

    def __repr__(self) -> str:
        return f"<Broker: {self._backend}>"
