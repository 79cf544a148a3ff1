"""A teller for one test: events in, rows and mails out, on SQLite, as in production."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import MovableClock
from tests.river import River
from tests.teller import Teller

BEFORE = datetime(2026, 1, 1, tzinfo=UTC)  # all samples; the clock follows what is told


@pytest.fixture
def tellers(data_dir: Path) -> Iterator[Callable[..., Teller]]:
    """Makes the test's teller, to whom PayPal's API answers what it is given."""
    river = River(f"sqlite:///{data_dir / 'smt-billing.db'}", data_dir, MovableClock(BEFORE))
    yield lambda knows=None: Teller(river, knows)
    river.database.close()


@pytest.fixture
def teller(tellers: Callable[..., Any]) -> Teller:
    """A teller without API credentials."""
    made: Teller = tellers()
    return made
