"""Exchange and queues that are declared on the broker, and the message format."""

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from kombu.entity import Exchange
from kombu.entity import Queue as KombuQueue

Queue = Literal["events", "mails"]

IDS_PER_MESSAGE = 50  # small enough that two workers can share a group of a hundred
BODY_BYTES = 256 * 1024  # fifty ids are a few kilobytes; this program writes no larger message

# A worker that dies returns all messages that it held, so a low limit would discard good messages. RabbitMQ 4 uses 20
# by default, 3.x does not accept -1, and a queue cannot be declared again with another value. So this is never reached.
DELIVERY_LIMIT = 1_000_000
DEAD_KEPT = 10_000  # unreadable messages kept for the operator; the oldest are dropped first


class Topology:
    """A direct exchange, the quorum queues `events` and `mails`, and the dead-letter queue, all with one name prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.exchange = _exchange(prefix, "direct")
        self.dead = _queue(f"{prefix}.dead", _exchange(f"{prefix}.dead", "fanout"), "", {"x-max-length": DEAD_KEPT})
        # If two threads declare at once, kombu's in-memory transport can lose a binding, and with it every message.
        self._declaring = threading.Lock()

    def queue(self, name: Queue) -> Any:
        limits = {"x-dead-letter-exchange": self.dead.exchange.name, "x-delivery-limit": DELIVERY_LIMIT}
        return _queue(f"{self.prefix}.{name}", self.exchange, name, limits)

    def declare(self, channel: Any) -> None:
        with self._declaring:
            for queue in (self.dead, self.queue("events"), self.queue("mails")):
                queue(channel).declare()

    def count_dead(self, channel: Any) -> int:
        """Return the number of unreadable messages in the dead-letter queue."""
        return int(self.dead(channel).queue_declare(passive=True).message_count)


def _exchange(name: str, kind: str) -> Any:
    return Exchange(name, type=kind, durable=True)  # type: ignore[no-untyped-call]


def _queue(name: str, exchange: Any, routing_key: str, limits: dict[str, object]) -> Any:
    arguments = {"x-queue-type": "quorum", **limits}
    return KombuQueue(name, exchange, routing_key, durable=True, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def write_messages(ids: Sequence[str]) -> Iterator[str]:
    """Yield message bodies that contain these ids, as JSON arrays."""
    for start in range(0, len(ids), IDS_PER_MESSAGE):
        yield json.dumps(list(ids[start : start + IDS_PER_MESSAGE]))


def read_message(body: str | bytes | None) -> list[str] | None:
    """Return the ids in a body, None if it has another format. Ids with unprintable characters are refused."""
    if not body or len(body) > BODY_BYTES:
        return None
    try:
        ids = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return ids if isinstance(ids, list) and ids and all(map(_is_id, ids)) else None


def _is_id(item: object) -> bool:
    return isinstance(item, str) and item != "" and item.isprintable()
