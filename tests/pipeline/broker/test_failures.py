"""Dying workers, cut and falsified connections, deleted queues, a broker that is away: told, and nothing is lost."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.broker import Broker, BrokerUnavailableError, publisher
from pipeline.broker import consumer as inlet
from pipeline.broker.connection import BrokerConnection
from pipeline.broker.topology import Topology
from tests.support.broker_fixtures import (
    HUNDRED,
    LONG,
    SHORT,
    Wire,
    dead_letters,
    delete_queue,
    must_take,
    put,
    take_all,
    take_until,
)
from tests.support.subprocesses import until

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
CONSUMER = """
import sys, time
from pipeline.broker import Broker
with Broker(sys.argv[1], sys.argv[2]).inlet("events") as inlet:
    print(len(inlet.take(100, 30).ids), flush=True)
    time.sleep(600)
"""


def test_what_a_killed_worker_held_comes_back(rabbit: Broker, broker_url: str, queue_prefix: str) -> None:
    put(rabbit, HUNDRED)
    command = [sys.executable, "-c", CONSUMER, broker_url, queue_prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == "100\n"
        worker.kill()
    with rabbit.consumer("events") as inlet:
        assert sorted(take_until(inlet, 100)) == sorted(HUNDRED)


def test_ids_that_many_dying_workers_held_are_not_buried(rabbit: Broker) -> None:
    put(rabbit, HUNDRED)
    for _ in range(25):
        with rabbit.consumer("events") as inlet:
            must_take(inlet)
    with rabbit.consumer("events") as inlet:
        assert sorted(take_until(inlet, 100)) == sorted(HUNDRED)
    assert dead_letters(rabbit, 0) == []


def test_an_unroutable_message_is_told_and_the_next_publish_declares_the_queue_again(rabbit: Broker) -> None:
    with rabbit.publisher() as publisher:
        publisher.publish("events", ["WH-1"])
        delete_queue(rabbit)
        with pytest.raises(BrokerUnavailableError, match="unroutable"):
            publisher.publish("events", ["WH-2"])
        publisher.publish("events", ["WH-3"])
    with rabbit.consumer("events") as inlet:
        assert take_all(inlet, 1) == ["WH-3"]


def test_a_worker_whose_queue_is_deleted_is_told_and_finds_it_declared_again(rabbit: Broker) -> None:
    with rabbit.consumer("events") as inlet:
        assert inlet.receive(1, SHORT) is None
        delete_queue(rabbit)
        with pytest.raises(BrokerUnavailableError):
            inlet.receive(1, LONG)
        assert inlet.receive(1, SHORT) is None
        put(rabbit, ["WH-1"])
        assert take_all(inlet, 1) == ["WH-1"]


def test_a_queue_that_was_declared_otherwise_is_told(rabbit: Broker, queue_prefix: str) -> None:
    delete_queue(rabbit)
    line = BrokerConnection(rabbit._backend, _Nothing(queue_prefix), "predecessor")
    with line.open_channel() as channel:
        channel.queue_declare(f"{queue_prefix}.events", durable=True, auto_delete=False)
    with pytest.raises(BrokerUnavailableError, match="delete them"), rabbit.publisher() as publisher:
        publisher.publish("events", ["WH-1"])
    with line.open_channel() as channel:
        channel.queue_delete(f"{queue_prefix}.events")
    line.close()


class _Nothing(Topology):
    """Declares nothing."""

    def declare(self, channel: object) -> None:
        pass


def test_a_publisher_whose_idle_connection_died_publishes_in_the_same_call(wired: Broker, wire: Wire) -> None:
    with wired.publisher() as publisher, wired.consumer("events") as inlet:
        publisher.publish("events", ["WH-1"])
        wire.cut()
        publisher.publish("events", ["WH-2"])
        assert take_until(inlet, 2) == ["WH-1", "WH-2"]


def test_a_worker_whose_connection_is_cut_is_told_and_takes_again(wired: Broker, wire: Wire) -> None:
    put(wired, HUNDRED)
    with wired.consumer("events") as inlet:
        lost = must_take(inlet)
        wire.cut()
        with pytest.raises(BrokerUnavailableError):
            inlet.receive(100, LONG)
        again = must_take(inlet)
        assert again.ids == lost.ids
        with pytest.raises(BrokerUnavailableError, match="come again"):
            lost.ack()
        with pytest.raises(BrokerUnavailableError, match="come again"):
            lost.requeue()
        again.ack()
        assert inlet.receive(100, SHORT) is None


def test_what_had_arrived_on_a_connection_that_is_cut_comes_only_once(wired: Broker, wire: Wire) -> None:
    for start in (0, 30, 60):
        put(wired, HUNDRED[start : start + 30])
    with wired.consumer("events") as inlet:
        assert len(must_take(inlet, limit=40).ids) == 30  # the next thirty have arrived too
        wire.cut()
        with pytest.raises(BrokerUnavailableError):
            inlet.receive(100, LONG)
        assert sorted(take_all(inlet, 90)) == sorted(HUNDRED[:90])


def test_an_acknowledgement_after_the_connection_was_cut_loses_nothing(wired: Broker, wire: Wire) -> None:
    put(wired, HUNDRED)
    with wired.consumer("events") as inlet:
        batch = must_take(inlet)
        wire.cut()
        with suppress(BrokerUnavailableError):  # a first write to a cut connection may seem to succeed
            batch.ack()
            inlet.receive(100, LONG)
        assert sorted(take_until(inlet, 100)) == sorted(HUNDRED)


ACK, NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"  # class 60, methods 80 and 120: both carry tag and a flag


@pytest.mark.parametrize("nonsense", [b"\x01\x00\x05\x00\x00\x00\x04\x00\x0a\x00\x0a\xce", b"\x00" * 12])
def test_nonsense_on_the_wire_is_a_broker_that_is_down(
    rabbit: Broker, wired: Broker, wire: Wire, nonsense: bytes
) -> None:
    with wired.consumer("events") as inlet:
        assert inlet.receive(1, SHORT) is None
        wire.alter = lambda _: nonsense
        put(rabbit, ["WH-1"])
        with pytest.raises(BrokerUnavailableError):
            inlet.receive(1, LONG)
        wire.alter = lambda said: said
        assert must_take(inlet).ids == ["WH-1"]


def test_a_refused_message_is_told(wired: Broker, wire: Wire) -> None:
    with wired.publisher() as publisher:
        publisher.publish("events", ["WH-1"])
        wire.alter = lambda said: said.replace(ACK, NACK)
        with pytest.raises(BrokerUnavailableError, match="nack"):
            publisher.publish("events", ["WH-2"])
        wire.alter = lambda said: said
        publisher.publish("events", ["WH-2"])


def test_a_publish_that_is_never_confirmed_is_told(wired: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with wired.publisher() as writer:
        writer.publish("events", ["WH-1"])
        monkeypatch.setattr(publisher, "CONFIRM_SECONDS", SHORT)
        wire.alter = lambda said: said.replace(ACK, b"\x00\x3c\x00\x00") and b""
        with pytest.raises(BrokerUnavailableError, match="did not confirm"):
            writer.publish("events", ["WH-2"])


def test_a_worker_that_waits_keeps_its_connection_with_heartbeats(
    wired: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inlet, "HEARTBEAT_SECONDS", 2.0)
    monkeypatch.setattr(inlet, "LOOK_SECONDS", 0.1)
    with wired.consumer("events") as reader:
        until(lambda: reader.receive(1, SHORT) is None and HEARTBEAT in wire.heard, LONG, "a heartbeat is heard")


def test_a_worker_notices_a_broker_that_fell_silent(wired: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlet, "HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr(inlet, "LOOK_SECONDS", 0.1)
    with wired.consumer("events") as reader:
        assert reader.receive(1, SHORT) is None
        wire.alter = lambda _: b""
        with pytest.raises(BrokerUnavailableError, match="heartbeats"):
            reader.receive(1, LONG)


def test_a_publisher_works_again_when_its_broker_is_back(rabbit: Broker, broker_url: str, queue_prefix: str) -> None:
    with Wire(broker_url) as gone:
        port = gone.port
    broker = Broker(gone.carry(broker_url), queue_prefix)
    with broker.publisher() as publisher, broker.consumer("events") as inlet:
        for _ in range(2):
            with pytest.raises(BrokerUnavailableError, match=f"127.0.0.1:{port}.*refused.*SMT_BROKER_URL"):
                publisher.publish("events", ["WH-1"])
            with pytest.raises(BrokerUnavailableError):
                inlet.receive(1, SHORT)
        with Wire(broker_url, port=port):
            publisher.publish("events", ["WH-1"])
            assert must_take(inlet).ids == ["WH-1"]


def test_something_else_that_listens_there_is_a_broker_that_is_down() -> None:
    for answer in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            threading.Thread(target=_answer, args=(stranger, answer)).start()
            with pytest.raises(BrokerUnavailableError):
                Broker(f"amqp://127.0.0.1:{stranger.getsockname()[1]}").check()


def _answer(stranger: socket.socket, answer: bytes) -> None:
    client, _ = stranger.accept()
    with client:
        client.recv(64)
        client.sendall(answer)
