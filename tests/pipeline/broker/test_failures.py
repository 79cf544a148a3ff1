"""No id is lost and each failure is reported: killed workers, broken connections, deleted queues, broker outages."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.broker import Broker, BrokerUnavailableError, publisher
from pipeline.broker import consumer as consumer_module
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
with Broker(sys.argv[1], sys.argv[2]).consumer("events") as consumer:
    print(len(consumer.receive(100, 30).ids), flush=True)
    time.sleep(600)
"""


def test_ids_of_a_killed_worker_are_delivered_again(rabbit: Broker, broker_url: str, queue_prefix: str) -> None:
    put(rabbit, HUNDRED)
    command = [sys.executable, "-c", CONSUMER, broker_url, queue_prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == "100\n"
        worker.kill()
    with rabbit.consumer("events") as consumer:
        assert sorted(take_until(consumer, 100)) == sorted(HUNDRED)


def test_ids_of_many_killed_workers_are_not_dead_lettered(rabbit: Broker) -> None:
    put(rabbit, HUNDRED)
    for _ in range(25):
        with rabbit.consumer("events") as consumer:
            must_take(consumer)
    with rabbit.consumer("events") as consumer:
        assert sorted(take_until(consumer, 100)) == sorted(HUNDRED)
    assert dead_letters(rabbit, 0) == []


def test_unroutable_message_is_reported_and_next_publish_declares_the_queue(rabbit: Broker) -> None:
    with rabbit.publisher() as publisher:
        publisher.publish("events", ["WH-1"])
        delete_queue(rabbit)
        with pytest.raises(BrokerUnavailableError, match="unroutable"):
            publisher.publish("events", ["WH-2"])
        publisher.publish("events", ["WH-3"])
    with rabbit.consumer("events") as consumer:
        assert take_all(consumer, 1) == ["WH-3"]


def test_deleted_queue_is_reported_to_the_consumer_and_declared_again(rabbit: Broker) -> None:
    with rabbit.consumer("events") as consumer:
        assert consumer.receive(1, SHORT) is None
        delete_queue(rabbit)
        with pytest.raises(BrokerUnavailableError):
            consumer.receive(1, LONG)
        assert consumer.receive(1, SHORT) is None
        put(rabbit, ["WH-1"])
        assert take_all(consumer, 1) == ["WH-1"]


def test_queue_with_other_options_is_reported(rabbit: Broker, queue_prefix: str) -> None:
    delete_queue(rabbit)
    connection = BrokerConnection(rabbit._backend, _EmptyTopology(queue_prefix), "predecessor")
    with connection.open_channel() as channel:
        channel.queue_declare(f"{queue_prefix}.events", durable=True, auto_delete=False)
    with pytest.raises(BrokerUnavailableError, match="delete them"), rabbit.publisher() as publisher:
        publisher.publish("events", ["WH-1"])
    with connection.open_channel() as channel:
        channel.queue_delete(f"{queue_prefix}.events")
    connection.close()


class _EmptyTopology(Topology):
    """A topology that declares nothing."""

    def declare(self, channel: object) -> None:
        pass


def test_publisher_replaces_a_lost_idle_connection(wired: Broker, wire: Wire) -> None:
    with wired.publisher() as publisher, wired.consumer("events") as consumer:
        publisher.publish("events", ["WH-1"])
        wire.cut()
        publisher.publish("events", ["WH-2"])
        assert take_until(consumer, 2) == ["WH-1", "WH-2"]


def test_lost_connection_is_reported_and_ids_are_delivered_again(wired: Broker, wire: Wire) -> None:
    put(wired, HUNDRED)
    with wired.consumer("events") as consumer:
        lost = must_take(consumer)
        wire.cut()
        with pytest.raises(BrokerUnavailableError):
            consumer.receive(100, LONG)
        again = must_take(consumer)
        together = min(len(lost.ids), len(again.ids))  # one of them may have been received in two parts
        assert together > 0
        assert again.ids[:together] == lost.ids[:together]
        with pytest.raises(BrokerUnavailableError, match="delivered again"):
            lost.ack()
        with pytest.raises(BrokerUnavailableError, match="delivered again"):
            lost.requeue()
        again.ack()
        assert [*again.ids, *take_all(consumer, 100 - len(again.ids))] == HUNDRED
        assert consumer.receive(100, SHORT) is None


def test_prefetched_ids_of_a_lost_connection_are_delivered_once(wired: Broker, wire: Wire) -> None:
    for start in (0, 30, 60):
        put(wired, HUNDRED[start : start + 30])
    with wired.consumer("events") as consumer:
        assert len(must_take(consumer, limit=40).ids) == 30  # the next thirty ids have been prefetched too
        wire.cut()
        with pytest.raises(BrokerUnavailableError):
            consumer.receive(100, LONG)
        assert sorted(take_all(consumer, 90)) == sorted(HUNDRED[:90])


def test_acknowledgement_on_a_lost_connection_loses_nothing(wired: Broker, wire: Wire) -> None:
    put(wired, HUNDRED)
    with wired.consumer("events") as consumer:
        batch = must_take(consumer)
        wire.cut()
        with suppress(BrokerUnavailableError):  # a first write to a cut connection may seem to succeed
            batch.ack()
            consumer.receive(100, LONG)
        assert sorted(take_until(consumer, 100)) == sorted(HUNDRED)


ACK, NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"  # class 60, methods 80 and 120: both carry tag and a flag


@pytest.mark.parametrize("malformed", [b"\x01\x00\x05\x00\x00\x00\x04\x00\x0a\x00\x0a\xce", b"\x00" * 12])
def test_malformed_frame_counts_as_an_outage(rabbit: Broker, wired: Broker, wire: Wire, malformed: bytes) -> None:
    with wired.consumer("events") as consumer:
        assert consumer.receive(1, SHORT) is None
        wire.alter = lambda _: malformed
        put(rabbit, ["WH-1"])
        with pytest.raises(BrokerUnavailableError):
            consumer.receive(1, LONG)
        wire.alter = lambda sent: sent
        assert must_take(consumer).ids == ["WH-1"]


def test_refused_message_is_reported(wired: Broker, wire: Wire) -> None:
    with wired.publisher() as publisher:
        publisher.publish("events", ["WH-1"])
        wire.alter = lambda sent: sent.replace(ACK, NACK)
        with pytest.raises(BrokerUnavailableError, match="nack"):
            publisher.publish("events", ["WH-2"])
        wire.alter = lambda sent: sent
        publisher.publish("events", ["WH-2"])


def test_missing_confirmation_is_reported(wired: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with wired.publisher() as writer:
        writer.publish("events", ["WH-1"])
        monkeypatch.setattr(publisher, "CONFIRM_SECONDS", SHORT)
        wire.alter = lambda sent: sent.replace(ACK, b"\x00\x3c\x00\x00") and b""
        with pytest.raises(BrokerUnavailableError, match="did not confirm"):
            writer.publish("events", ["WH-2"])


def test_waiting_consumer_sends_heartbeats(wired: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "HEARTBEAT_SECONDS", 2.0)
    monkeypatch.setattr(consumer_module, "HEARTBEAT_CHECK_SECONDS", 0.1)
    with wired.consumer("events") as reader:
        until(lambda: reader.receive(1, SHORT) is None and HEARTBEAT in wire.heard, LONG, "a heartbeat is sent")


def test_consumer_detects_missing_heartbeats(wired: Broker, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr(consumer_module, "HEARTBEAT_CHECK_SECONDS", 0.1)
    with wired.consumer("events") as reader:
        assert reader.receive(1, SHORT) is None
        wire.alter = lambda _: b""
        with pytest.raises(BrokerUnavailableError, match="heartbeats"):
            reader.receive(1, LONG)


def test_publisher_and_consumer_recover_after_an_outage(rabbit: Broker, broker_url: str, queue_prefix: str) -> None:
    with Wire(broker_url) as closed:
        port = closed.port
    broker = Broker(closed.carry(broker_url), queue_prefix)
    with broker.publisher() as publisher, broker.consumer("events") as consumer:
        for _ in range(2):
            with pytest.raises(BrokerUnavailableError, match=f"127.0.0.1:{port}.*refused.*SMT_BROKER_URL"):
                publisher.publish("events", ["WH-1"])
            with pytest.raises(BrokerUnavailableError):
                consumer.receive(1, SHORT)
        with Wire(broker_url, port=port):
            publisher.publish("events", ["WH-1"])
            assert must_take(consumer).ids == ["WH-1"]


def test_other_server_on_the_port_counts_as_an_outage() -> None:
    for answer in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=_answer, args=(server, answer)).start()
            with pytest.raises(BrokerUnavailableError):
                Broker(f"amqp://127.0.0.1:{server.getsockname()[1]}").check()


def _answer(server: socket.socket, answer: bytes) -> None:
    client, _ = server.accept()
    with client:
        client.recv(64)
        client.sendall(answer)
