"""Brokers to test: in this process, on RabbitMQ, and on RabbitMQ at the end of a wire."""

from collections.abc import Iterator

import pytest

from pipeline.broker import Broker
from tests.pipeline.broker.steps import Wire


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest, queue_prefix: str) -> Broker:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("broker_url")
    return Broker(url, queue_prefix)


@pytest.fixture
def rabbit(broker_url: str, queue_prefix: str) -> Broker:
    return Broker(broker_url, queue_prefix)


@pytest.fixture
def wire(broker_url: str) -> Iterator["Wire"]:
    with Wire(broker_url) as wire:
        yield wire


@pytest.fixture
def wired(wire: "Wire", broker_url: str, queue_prefix: str) -> Broker:
    """A broker behind a wire that the test can cut."""
    return Broker(wire.carry(broker_url), queue_prefix)
