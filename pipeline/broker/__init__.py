"""How work is spread and woken: RabbitMQ, or a queue inside this one process. The only package that imports kombu.

A message carries ids and nothing else. The tables are the truth: whoever takes an id asks its table what is still to
be done, and a sweep finds what no message brings. So an id may come twice, and a broker that forgets loses nothing.

    publisher     puts ids on a queue and waits until the broker has confirmed them
    consumer      takes ids off a queue, in batches that are acknowledged after the commit
    topology      what is declared, and what a message looks like
    connection    one connection with one channel, opened again after any error
    rabbitmq      the URL, TLS, what the broker's refusals mean
    memory        kombu's in-memory transport

Plain synchronous code. Each Publisher, Inlet and Batch belongs to one thread; a Broker may be shared.
"""

from itertools import count

from pipeline.broker.connection import BrokerBackend, BrokerConnection, BrokerUnavailableError
from pipeline.broker.consumer import Batch, Consumer
from pipeline.broker.memory import Memory
from pipeline.broker.publisher import Publisher
from pipeline.broker.rabbitmq import RabbitMQ
from pipeline.broker.topology import Queue, Topology

_NUMBERS = count()

__all__ = ["Batch", "Broker", "BrokerUnavailableError", "Consumer", "Publisher", "Queue"]


class Broker:
    """Where the queues are. Making one connects to nothing.

    `url`: `memory://` keeps the queues inside this object, for the threads of one process.
    `amqp://user:password@host/vhost` is RabbitMQ; `amqps://` the same over TLS, certificate and host name checked, with
    `?cacertfile=`, `certfile=` and `keyfile=` as in https://www.rabbitmq.com/docs/uri-query-parameters.
    `prefix` begins the names of exchange and queues. Raises SettingsError for any other URL.
    """

    def __init__(self, url: str, prefix: str = "smt") -> None:
        in_memory = url.startswith("memory:")
        self._place: BrokerBackend = Memory() if in_memory else RabbitMQ(url)
        # kombu keeps the queues of all memory connections of a process together.
        self._topology = Topology(f"{prefix}.{next(_NUMBERS)}" if in_memory else prefix)

    @property
    def exclusive(self) -> bool:
        """Whether the queues serve this process only."""
        return self._place.exclusive

    def publisher(self) -> Publisher:
        return Publisher(self._place, self._topology)

    def consumer(self, queue: Queue) -> Consumer:
        return Consumer(self._place, self._topology, queue)

    def check(self) -> str:
        """Connect, declare the queues and say in a line what was found. Raises BrokerDown."""
        line = BrokerConnection(self._place, self._topology, "check")
        with line.open_channel() as channel:
            found = self._place.describe(channel)
            dead = self._topology.count_dead(channel)
        line.close()
        return found + (f"; unreadable messages in {self._topology.dead.name}: {dead}" if dead else "")

    def __repr__(self) -> str:
        return f"<Broker: {self._place}>"
