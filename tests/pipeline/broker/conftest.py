"""Brokers to test: in this process, on RabbitMQ, and on RabbitMQ at the end of a wire."""

from collections.abc import Iterator

import pytest

from pipeline.broker import Broker
from tests.support.broker_fixtures import Wire, demolish


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Runs the test twice: on the queue inside this process, and on a real RabbitMQ."""
    if request.param == "memory":
        return Broker("memory://")
    rabbit: Broker = request.getfixturevalue("rabbit")
    return rabbit


@pytest.fixture
def rabbit(broker_url: str, queue_prefix: str) -> Iterator[Broker]:
    """A RabbitMQ; all that was declared with this test's prefix is deleted afterwards."""
    broker = Broker(broker_url, queue_prefix)
    yield broker
    demolish(broker)


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    with Wire(broker_url) as wire:
        yield wire


@pytest.fixture
def wired(wire: Wire, rabbit: Broker, broker_url: str, queue_prefix: str) -> Broker:
    """The same RabbitMQ, behind a wire that the test can cut."""
    return Broker(wire.carry(broker_url), queue_prefix)
