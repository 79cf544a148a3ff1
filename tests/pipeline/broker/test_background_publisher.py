"""Ids that are published in the background: in batches, and whatever happens to the broker."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from pipeline.broker import Broker, BrokerUnavailableError, Publisher, Queue
from pipeline.broker.background_publisher import MAX_BATCH, BackgroundPublisher
from tests.support.broker_fixtures import LONG
from tests.support.subprocesses import until


def test_an_announcer_publishes_in_groups_and_what_waits_at_its_end() -> None:
    broker = Broker("memory://")
    announcer = BackgroundPublisher(broker, "events")
    for number in range(30):
        announcer.publish_later([f"WH-{number}"])
    announcer.publish_later([])
    announcer.start()
    announcer.stop()
    with broker.consumer("events") as inlet:
        batch = inlet.receive(100, LONG)
        assert batch
        assert batch.ids == [f"WH-{number}" for number in range(30)]
        assert len(batch._messages) == 1


def test_a_broker_that_is_away_is_waited_for_once_and_not_for_all_that_was_announced() -> None:
    announcer = BackgroundPublisher(Broker("memory://"), "events")
    asked: list[int] = []

    def away(*_: object) -> None:
        asked.append(1)
        for _each in range(3 * MAX_BATCH):
            announcer.publish_later(["WH-MORE"])  # they come while it is waited for
        raise BrokerUnavailableError("it does not answer")

    announcer._publisher = SimpleNamespace(publish=away)  # type: ignore[assignment]
    announcer.publish_later(["WH-1"])
    announcer._do(announcer._next()[0])
    assert (asked, announcer._waiting.qsize()) == ([1], 0)


def test_an_announcer_outlives_whatever_is_raised_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, publish = Broker("memory://"), Publisher.publish
    told: list[Sequence[str]] = []

    def failing_once(publisher: Publisher, queue: Queue, ids: Sequence[str]) -> None:
        told.append(ids)
        if len(told) == 1:
            raise ValueError("nonsense from the wire")
        publish(publisher, queue, ids)

    monkeypatch.setattr(Publisher, "publish", failing_once)
    with BackgroundPublisher(broker, "events") as announcer, broker.consumer("events") as inlet:
        announcer.publish_later(["WH-1"])
        until(lambda: bool(told), 10, "it has met the error")
        announcer.publish_later(["WH-2"])
        batch = inlet.receive(100, LONG)
    assert batch
    assert batch.ids == ["WH-2"]
