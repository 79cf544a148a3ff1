"""The background publisher publishes ids in batches and survives errors of the broker."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from pipeline.broker import Broker, BrokerUnavailableError, Publisher, Queue
from pipeline.broker.background_publisher import MAX_BATCH, BackgroundPublisher
from tests.support.broker_fixtures import LONG
from tests.support.subprocesses import until


def test_waiting_ids_are_published_in_one_message_before_the_end() -> None:
    broker = Broker("memory://")
    background_publisher = BackgroundPublisher(broker, "events")
    for number in range(30):
        background_publisher.publish_later([f"WH-{number}"])
    background_publisher.publish_later([])
    background_publisher.start()
    background_publisher.stop()
    with broker.consumer("events") as consumer:
        batch = consumer.receive(100, LONG)
        assert batch
        assert batch.ids == [f"WH-{number}" for number in range(30)]
        assert len(batch._messages) == 1


def test_outage_is_waited_for_only_once() -> None:
    background_publisher = BackgroundPublisher(Broker("memory://"), "events")
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        for _each in range(3 * MAX_BATCH):
            background_publisher.publish_later(["WH-MORE"])  # these arrive while the first call waits
        raise BrokerUnavailableError("it does not answer")

    background_publisher._publisher = SimpleNamespace(publish=fail)  # type: ignore[assignment]
    background_publisher.publish_later(["WH-1"])
    background_publisher._process(background_publisher._next()[0])
    assert (calls, background_publisher._waiting.qsize()) == ([1], 0)


def test_publisher_survives_any_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, publish = Broker("memory://"), Publisher.publish
    published: list[Sequence[str]] = []

    def failing_once(publisher: Publisher, queue: Queue, ids: Sequence[str]) -> None:
        published.append(ids)
        if len(published) == 1:
            raise ValueError("invalid data from the broker")
        publish(publisher, queue, ids)

    monkeypatch.setattr(Publisher, "publish", failing_once)
    with BackgroundPublisher(broker, "events") as background_publisher, broker.consumer("events") as consumer:
        background_publisher.publish_later(["WH-1"])
        until(lambda: bool(published), 10, "the first publish has failed")
        background_publisher.publish_later(["WH-2"])
        batch = consumer.receive(100, LONG)
    assert batch
    assert batch.ids == ["WH-2"]
