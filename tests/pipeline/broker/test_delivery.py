"""What a publisher puts on a queue, an inlet takes off it: in this process and on a real RabbitMQ alike."""

import sys
import threading
from collections.abc import Iterator

import pytest

from pipeline.broker import Broker
from pipeline.broker.topology import IDS_PER_MESSAGE
from tests.support.broker_fixtures import HUNDRED, LONG, SHORT, must_take, put, take_all, take_until


def test_a_published_group_arrives_once_and_in_one_batch(broker: Broker) -> None:
    with broker.consumer("events") as inlet:
        assert inlet.receive(100, SHORT) is None
        put(broker, HUNDRED)
        batch = must_take(inlet)
        assert batch.ids == HUNDRED
        batch.ack()
        assert inlet.receive(100, SHORT) is None


def test_what_is_acknowledged_is_gone_after_a_new_connection(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        must_take(inlet).ack()
    with broker.consumer("events") as inlet:
        assert inlet.receive(100, SHORT) is None


def test_what_is_not_acknowledged_comes_back_when_its_consumer_goes(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        assert must_take(inlet).ids == HUNDRED
    with broker.consumer("events") as inlet:
        assert sorted(take_all(inlet, 100)) == sorted(HUNDRED)


def test_what_is_requeued_comes_again(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        must_take(inlet).requeue()
        assert sorted(take_all(inlet, 100)) == sorted(HUNDRED)


def test_a_batch_is_settled_once_however_often_it_is_said(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        batch = must_take(inlet)
        for _ in range(2):
            batch.ack()
        batch.requeue()
        assert inlet.receive(100, SHORT) is None


def test_acknowledging_a_later_batch_leaves_an_earlier_one_unacknowledged(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        first, second = must_take(inlet, IDS_PER_MESSAGE), must_take(inlet, IDS_PER_MESSAGE)
        second.ack()
    with broker.consumer("events") as inlet:
        assert take_all(inlet, 50) == first.ids


def test_two_held_batches_can_be_acknowledged_in_their_order(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        for batch in (must_take(inlet, IDS_PER_MESSAGE), must_take(inlet, IDS_PER_MESSAGE)):
            batch.ack()
    with broker.consumer("events") as inlet:
        assert inlet.receive(100, SHORT) is None


def test_a_batch_has_no_more_ids_than_asked_for_unless_one_message_has(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        assert len(must_take(inlet, limit=IDS_PER_MESSAGE + 10).ids) == IDS_PER_MESSAGE
        assert len(must_take(inlet, limit=1).ids) == IDS_PER_MESSAGE


def test_a_worker_that_holds_all_it_may_is_given_no_more(broker: Broker) -> None:
    put(broker, HUNDRED)
    with broker.consumer("events") as inlet:
        first = must_take(inlet, limit=1)
        assert inlet.receive(1, SHORT) is None
        first.ack()
        assert must_take(inlet, limit=1).ids == HUNDRED[IDS_PER_MESSAGE:]


def test_each_queue_has_its_own(broker: Broker) -> None:
    put(broker, ["WH-1"], "events")
    put(broker, ["receipt:1"], "mails")
    with broker.consumer("mails") as mails, broker.consumer("events") as events:
        assert (take_all(mails, 1), take_all(events, 1)) == (["receipt:1"], ["WH-1"])


def test_two_workers_share_one_group(broker: Broker) -> None:
    with broker.consumer("events") as one, broker.consumer("events") as other:
        for worker in (one, other):
            worker.receive(1, 0)
        put(broker, HUNDRED)
        shares = [must_take(worker, limit=1).ids for worker in (one, other)]
    assert sorted(shares) == [HUNDRED[:IDS_PER_MESSAGE], HUNDRED[IDS_PER_MESSAGE:]]


def test_a_waiting_worker_is_woken_by_a_publisher_in_another_thread(broker: Broker) -> None:
    taken: list[list[str]] = []

    def work() -> None:
        with broker.consumer("events") as inlet:
            taken.append(take_until(inlet, 3))

    worker = threading.Thread(target=work)
    worker.start()
    with broker.publisher() as publisher:
        for number in range(3):
            publisher.publish("events", [f"WH-{number}"])
    worker.join(LONG)
    assert taken == [["WH-0", "WH-1", "WH-2"]]


def test_ten_thousand_ids_in_groups_arrive_exactly_once(broker: Broker) -> None:
    ids = [f"WH-{number}" for number in range(10_000)]
    with broker.publisher() as publisher:
        for start in range(0, len(ids), 70):
            publisher.publish("events", ids[start : start + 70])
    with broker.consumer("events") as inlet:
        assert sorted(take_all(inlet, len(ids))) == sorted(ids)


def test_publishing_nothing_needs_no_broker() -> None:
    with Broker("amqp://127.0.0.1:1").publisher() as publisher:
        publisher.publish("events", [])


def test_ids_keep_every_letter(broker: Broker) -> None:
    ids = ['WH-"quoted"', "receipt:Zoë\\", "renewal:I-1:2026-03-01T10:00:00Z:30", "客"]
    put(broker, ids)
    with broker.consumer("events") as inlet:
        assert take_all(inlet, 4) == ids


def test_only_memory_serves_one_process_alone() -> None:
    assert Broker("memory://").exclusive
    assert not Broker("amqp://broker.example.com").exclusive


def test_a_broker_in_memory_sees_no_other() -> None:
    put(Broker("memory://"), ["WH-1"])
    with Broker("memory://").consumer("events") as inlet:
        assert inlet.receive(1, SHORT) is None


def test_many_threads_may_start_at_once_in_memory(few_switches: None) -> None:
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
        with broker.consumer("events") as inlet:
            assert sorted(take_until(inlet, 8)) == [f"WH-{number}" for number in range(8)]


@pytest.fixture
def few_switches() -> Iterator[None]:
    """Threads take turns after every few steps, so that what can go wrong between two of them does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
