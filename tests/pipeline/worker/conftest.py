"""RabbitMQ for the worker tests, and a check that no thread outlives its test."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.broker import Broker
from tests.support.subprocesses import until


@pytest.fixture
def broker(broker_url: str, queue_prefix: str) -> Broker:
    return Broker(broker_url, queue_prefix)


@pytest.fixture(autouse=True)
def _check_that_threads_end() -> Iterator[None]:
    before = threading.active_count()
    yield
    until(lambda: threading.active_count() <= before, 10, "the threads of a test end with it")
