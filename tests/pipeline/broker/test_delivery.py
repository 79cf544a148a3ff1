"""A consumer receives the ids that a publisher publishes, in this process and on a real RabbitMQ."""

import sys
import threading
from collections.abc import Iterator

import pytest

from pipeline.broker import Broker
from pipeline.broker.topology import IDS_PER_MESSAGE
from tests.support.broker_fixtures import HUNDRED, LONG, SHORT, must_take, put, take_all, take_until


def test_published_group_arrives_once_in_one_batch(broker: Broker) -> None:
    with broker.consumer("events") as consumer:
        assert consumer.receive(100, SHORT) is None
        put(broker, HUNDRED)
        batch = must_take(consumer)
        assert batch.ids == HUNDRED
        batch.ack()
        assert consumer.receive(100, SHORT) is None


def test_acknowledged_ids_are_not_delivered_again(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        must_take(consumer).ack()
    with broker.consumer("events") as consumer:
        assert consumer.receive(100, SHORT) is None


def test_unacknowledged_ids_return_when_the_consumer_closes(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        assert must_take(consumer).ids == HUNDRED
    with broker.consumer("events") as consumer:
        assert sorted(take_all(consumer, 100)) == sorted(HUNDRED)


def test_requeued_ids_are_delivered_again(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        must_take(consumer).requeue()
        assert sorted(take_all(consumer, 100)) == sorted(HUNDRED)


def test_batch_is_settled_only_once(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        batch = must_take(consumer)
        for _ in range(2):
            batch.ack()
        batch.requeue()
        assert consumer.receive(100, SHORT) is None


def test_acknowledging_a_later_batch_does_not_acknowledge_an_earlier_one(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        first, second = must_take(consumer, IDS_PER_MESSAGE), must_take(consumer, IDS_PER_MESSAGE)
        second.ack()
    with broker.consumer("events") as consumer:
        assert take_all(consumer, 50) == first.ids


def test_two_held_batches_can_be_acknowledged_in_order(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        for batch in (must_take(consumer, IDS_PER_MESSAGE), must_take(consumer, IDS_PER_MESSAGE)):
            batch.ack()
    with broker.consumer("events") as consumer:
        assert consumer.receive(100, SHORT) is None


def test_batch_exceeds_the_limit_only_for_a_single_message(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        assert len(must_take(consumer, limit=IDS_PER_MESSAGE + 10).ids) == IDS_PER_MESSAGE
        assert len(must_take(consumer, limit=1).ids) == IDS_PER_MESSAGE


def test_consumer_at_its_prefetch_limit_receives_nothing(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as consumer:
        first = must_take(consumer, limit=1)
        assert consumer.receive(1, SHORT) is None
        first.ack()
        assert must_take(consumer, limit=1).ids == HUNDRED[IDS_PER_MESSAGE:]


def test_queues_are_separate(broker: Broker) -> None:
    put(broker, ["WH-1"], "events")
    put(broker, ["receipt:1"], "mails")
    with broker.consumer("mails") as mails, broker.consumer("events") as events:
        assert (take_all(mails, 1), take_all(events, 1)) == (["receipt:1"], ["WH-1"])


def test_two_consumers_share_one_group(broker: Broker) -> None:
    with broker.consumer("events") as one, broker.consumer("events") as other:
        for worker in (one, other):
            worker.receive(1, 0)
        put(broker, HUNDRED)
        batches = [must_take(worker, limit=1).ids for worker in (one, other)]
    assert sorted(batches) == [HUNDRED[:IDS_PER_MESSAGE], HUNDRED[IDS_PER_MESSAGE:]]


def test_publisher_in_another_thread_wakes_a_waiting_consumer(broker: Broker) -> None:
    batches: list[list[str]] = []

    def work() -> None:
        with broker.consumer("events") as consumer:
            batches.append(take_until(consumer, 3))

    worker = threading.Thread(target=work)
    worker.start()
    with broker.publisher() as publisher:
        for number in range(3):
            publisher.publish("events", [f"WH-{number}"])
    worker.join(LONG)
    assert batches == [["WH-0", "WH-1", "WH-2"]]


def test_ten_thousand_ids_in_groups_arrive_exactly_once(broker: Broker) -> None:
    ids = [f"WH-{number}" for number in range(10_000)]
    with broker.publisher() as publisher:
        for start in range(0, len(ids), 70):
            publisher.publish("events", ids[start : start + 70])
    with broker.consumer("events") as consumer:
        assert sorted(take_all(consumer, len(ids))) == sorted(ids)


def test_publishing_nothing_needs_no_broker() -> None:
    with Broker("amqp://127.0.0.1:1").publisher() as publisher:
        publisher.publish("events", [])


def test_ids_keep_every_character(broker: Broker) -> None:
    ids = ['WH-"quoted"', "receipt:Zoë\\", "renewal:I-1:2026-03-01T10:00:00Z:30", "客"]
    put(broker, ids)
    with broker.consumer("events") as consumer:
        assert take_all(consumer, 4) == ids


def test_only_the_memory_broker_is_exclusive() -> None:
    assert Broker("memory://").exclusive
    assert not Broker("amqp://broker.example.com").exclusive


def test_memory_brokers_are_separate() -> None:
    put(Broker("memory://"), ["WH-1"])
    with Broker("memory://").consumer("events") as consumer:
        assert consumer.receive(1, SHORT) is None


def test_threads_can_publish_at_once_in_memory(frequent_switches: None) -> None:
    for _ in range(20):
        broker, start = Broker("memory://"), threading.Barrier(8)

        def work(number: int, broker: Broker = broker, start: threading.Barrier = start) -> None:
            start.wait()
            put(broker, [f"WH-{number}"])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        with broker.consumer("events") as consumer:
            assert sorted(take_until(consumer, 8)) == [f"WH-{number}" for number in range(8)]


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Make threads switch after a microsecond, so that race conditions occur."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
