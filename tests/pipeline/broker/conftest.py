"""Brokers to test: in this process, RabbitMQ, and RabbitMQ behind a proxy."""

from collections.abc import Iterator

import pytest

from pipeline.broker import Broker
from tests.support.broker_fixtures import Wire, demolish


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Run the test twice: with queues inside this process, and with a real RabbitMQ."""
    if request.param == "memory":
        return Broker("memory://")
    rabbit: Broker = request.getfixturevalue("rabbit")
    return rabbit


@pytest.fixture
def rabbit(broker_url: str, queue_prefix: str) -> Iterator[Broker]:
    """Return a RabbitMQ broker. What is declared with this test's prefix is deleted afterwards."""
    broker = Broker(broker_url, queue_prefix)
    yield broker
    demolish(broker)


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    with Wire(broker_url) as wire:
        yield wire


@pytest.fixture
def wired(wire: Wire, rabbit: Broker, broker_url: str, queue_prefix: str) -> Broker:
    """Return the same RabbitMQ behind a proxy whose connections the test can cut."""
    return Broker(wire.carry(broker_url), queue_prefix)
