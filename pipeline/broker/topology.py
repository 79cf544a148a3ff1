"""What is declared on the broker, and what a message looks like."""

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from kombu.entity import Exchange
from kombu.entity import Queue as KombuQueue

Queue = Literal["events", "mails"]

IDS_PER_MESSAGE = 50  # a group of a hundred can still be shared by two workers
BODY_BYTES = 256 * 1024  # fifty ids are a few kilobytes; what is larger was not written here

# A worker that dies gives back all it held, so a low limit would bury innocents. RabbitMQ 4 takes 20 if none is said,
# 3.x does not know -1, and a queue can't be declared again with another value: one that is never reached suits all.
DELIVERY_LIMIT = 1_000_000
DEAD_KEPT = 10_000  # unreadable messages kept for a person to look at; the oldest go first


class Topology:
    """The names below one prefix: a direct exchange, the quorum queues `events` and `mails`, and `dead`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.exchange = _exchange(prefix, "direct")
        self.dead = _queue(f"{prefix}.dead", _exchange(f"{prefix}.dead", "fanout"), "", {"x-max-length": DEAD_KEPT})
        # Two threads that declare at once in kombu's memory transport can lose a binding, and every message with it.
        self._declaring = threading.Lock()

    def queue(self, name: Queue) -> Any:
        limits = {"x-dead-letter-exchange": self.dead.exchange.name, "x-delivery-limit": DELIVERY_LIMIT}
        return _queue(f"{self.prefix}.{name}", self.exchange, name, limits)

    def declare(self, channel: Any) -> None:
        with self._declaring:
            for queue in (self.dead, self.queue("events"), self.queue("mails")):
                queue(channel).declare()

    def count_dead(self, channel: Any) -> int:
        """How many unreadable messages wait for a person."""
        return int(self.dead(channel).queue_declare(passive=True).message_count)


def _exchange(name: str, kind: str) -> Any:
    return Exchange(name, type=kind, durable=True)  # type: ignore[no-untyped-call]


def _queue(name: str, exchange: Any, routing_key: str, limits: dict[str, object]) -> Any:
    arguments = {"x-queue-type": "quorum", **limits}
    return KombuQueue(name, exchange, routing_key, durable=True, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def write_messages(ids: Sequence[str]) -> Iterator[str]:
    """The bodies that carry these ids: JSON arrays."""
    for start in range(0, len(ids), IDS_PER_MESSAGE):
        yield json.dumps(list(ids[start : start + IDS_PER_MESSAGE]))


def read_message(body: str | bytes | None) -> list[str] | None:
    """The ids in a body, None if it is not one of ours. Unprintable characters have no place in a key or a table."""
    if not body or len(body) > BODY_BYTES:
        return None
    try:
        ids = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return ids if isinstance(ids, list) and ids and all(map(_is_id, ids)) else None


def _is_id(item: object) -> bool:
    return isinstance(item, str) and item != "" and item.isprintable()
