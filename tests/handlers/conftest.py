"""A teller for one test: events in, rows and mails out, on SQLite, as in production."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.clock import MovableClock
from tests.support.event_feeder import Teller
from tests.support.pipeline_under_test import River

BEFORE = datetime(2026, 1, 1, tzinfo=UTC)  # all samples; the clock follows what is told


@pytest.fixture(scope="session")
def flowing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[River]:
    """One river for all these tests: making its tables and preparing its statements takes longer than most of them."""
    folder = tmp_path_factory.mktemp("river")
    river = River(f"sqlite:///{folder / 'smt-billing.db'}", folder, MovableClock(BEFORE))
    yield river
    river.database.close()


@pytest.fixture
def tellers(flowing: River) -> Callable[..., Teller]:
    """Makes the test's teller on empty tables, to whom PayPal's API answers what it is given."""
    flowing.empty()
    flowing.clock.move_to(BEFORE)
    return lambda knows=None: Teller(flowing, knows)


@pytest.fixture
def teller(tellers: Callable[..., Any]) -> Teller:
    """A teller without API credentials."""
    made: Teller = tellers()
    return made
