"""The message format, and unreadable messages from other programs."""

import json

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pipeline.broker import Broker
from pipeline.broker.connection import BrokerConnection
from pipeline.broker.topology import BODY_BYTES, IDS_PER_MESSAGE, read_message, write_messages
from tests.support.broker_fixtures import LONG, SHORT, dead_letters, put, take_until
from tests.support.subprocesses import until

UNREADABLE = [
    b"",
    b"WH-1",
    b"{}",
    b"[]",
    b"[1]",
    b'[""]',
    b'["a\\u0000b"]',
    b'["\\ud800"]',
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    json.dumps(["x" * BODY_BYTES]).encode(),
]


def inject(broker: Broker, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Publish a message with any body to the event queue."""
    connection = BrokerConnection(broker._backend, broker._topology, "stranger")
    with connection.open_channel() as channel:
        message = channel.prepare_message(body, headers=headers or {}, properties={"delivery_mode": 2})
        channel.basic_publish(message, exchange=broker._topology.exchange.name, routing_key="events")
    connection.close()


def test_unreadable_message_does_not_affect_others(broker: Broker) -> None:
    put(broker, ["WH-before"])
    for body in UNREADABLE:
        inject(broker, body)
    put(broker, ["WH-after"])
    with broker.consumer("events") as consumer, capture_logs() as logs:
        assert take_until(consumer, 2) == ["WH-before", "WH-after"]
        assert consumer.refused == len(UNREADABLE)
    assert [line["event"] for line in logs] == ["message_refused"] * len(UNREADABLE)


def test_unreadable_message_is_dead_lettered(rabbit: Broker) -> None:
    for body in UNREADABLE:
        inject(rabbit, body)
    with rabbit.consumer("events") as consumer:
        while consumer.refused < len(UNREADABLE):
            assert consumer.receive(100, SHORT) is None
    assert sorted(dead_letters(rabbit, len(UNREADABLE))) == sorted(UNREADABLE)
    with rabbit.consumer("events") as consumer:
        assert (consumer.receive(100, SHORT), consumer.refused) == (None, 0)


def test_check_reports_dead_letters(rabbit: Broker, queue_prefix: str) -> None:
    inject(rabbit, b"nonsense")
    with rabbit.consumer("events") as consumer:
        assert consumer.receive(1, SHORT) is None
    expected = f"; unreadable messages in {queue_prefix}.dead: 1"
    until(lambda: rabbit.check().endswith(expected), LONG, expected)


def test_wrongly_declared_compression_is_dead_lettered(rabbit: Broker) -> None:
    inject(rabbit, b'["WH-1"]', {"compression": "application/x-gzip"})
    put(rabbit, ["WH-2"])
    with rabbit.consumer("events") as consumer:
        assert take_until(consumer, 1) == ["WH-2"]
    assert dead_letters(rabbit, 1) == [b'["WH-1"]']


@given(st.lists(st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1), min_size=1, max_size=120))
def test_written_messages_can_be_read(ids: list[str]) -> None:
    read = [read_message(body.encode()) for body in write_messages(ids)]
    assert [item for group in read for item in group or []] == ids
    assert max(len(group or []) for group in read) <= IDS_PER_MESSAGE


JSON = st.text() | st.integers() | st.none() | st.lists(st.text() | st.integers() | st.lists(st.text()))


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_gives_printable_ids_or_none(body: bytes) -> None:
    ids = read_message(body)
    assert ids is None or (ids and all(type(item) is str and item.isprintable() and item for item in ids))
