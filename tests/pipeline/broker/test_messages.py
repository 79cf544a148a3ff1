"""What a message looks like, and what becomes of one that was not written here."""

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
    """A message that this project would not write, on the queue of events."""
    line = BrokerConnection(broker._backend, broker._topology, "stranger")
    with line.open_channel() as channel:
        message = channel.prepare_message(body, headers=headers or {}, properties={"delivery_mode": 2})
        channel.basic_publish(message, exchange=broker._topology.exchange.name, routing_key="events")
    line.close()


def test_an_unreadable_message_takes_none_of_its_neighbours_along(broker: Broker) -> None:
    put(broker, ["WH-before"])
    for body in UNREADABLE:
        inject(broker, body)
    put(broker, ["WH-after"])
    with broker.consumer("events") as inlet, capture_logs() as logs:
        assert take_until(inlet, 2) == ["WH-before", "WH-after"]
        assert inlet.refused == len(UNREADABLE)
    assert [line["event"] for line in logs] == ["unreadable_message"] * len(UNREADABLE)


def test_an_unreadable_message_waits_among_the_dead_letters(rabbit: Broker) -> None:
    for body in UNREADABLE:
        inject(rabbit, body)
    with rabbit.consumer("events") as inlet:
        while inlet.refused < len(UNREADABLE):
            assert inlet.receive(100, SHORT) is None
    assert sorted(dead_letters(rabbit, len(UNREADABLE))) == sorted(UNREADABLE)
    with rabbit.consumer("events") as inlet:
        assert (inlet.receive(100, SHORT), inlet.refused) == (None, 0)


def test_check_tells_of_dead_letters(rabbit: Broker, queue_prefix: str) -> None:
    inject(rabbit, b"nonsense")
    with rabbit.consumer("events") as inlet:
        assert inlet.receive(1, SHORT) is None
    told = f"; unreadable messages in {queue_prefix}.dead: 1"
    until(lambda: rabbit.check().endswith(told), LONG, told)


def test_a_message_that_says_it_is_compressed_and_is_not_is_unreadable_too(rabbit: Broker) -> None:
    inject(rabbit, b'["WH-1"]', {"compression": "application/x-gzip"})
    put(rabbit, ["WH-2"])
    with rabbit.consumer("events") as inlet:
        assert take_until(inlet, 1) == ["WH-2"]
    assert dead_letters(rabbit, 1) == [b'["WH-1"]']


@given(st.lists(st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1), min_size=1, max_size=120))
def test_what_is_written_is_read(ids: list[str]) -> None:
    read = [read_message(body.encode()) for body in write_messages(ids)]
    assert [item for group in read for item in group or []] == ids
    assert max(len(group or []) for group in read) <= IDS_PER_MESSAGE


JSON = st.text() | st.integers() | st.none() | st.lists(st.text() | st.integers() | st.lists(st.text()))


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_read_is_a_list_of_printable_ids_or_nothing(body: bytes) -> None:
    ids = read_message(body)
    assert ids is None or (ids and all(type(item) is str and item.isprintable() and item for item in ids))
