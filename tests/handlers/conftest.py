"""Fixtures that feed events to the handlers and read the resulting rows and mails, on SQLite."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.clock import MovableClock
from tests.support.event_feeder import EventFeeder
from tests.support.pipeline_under_test import PipelineUnderTest

BEFORE = datetime(2026, 1, 1, tzinfo=UTC)  # earlier than all samples; the clock follows the events


@pytest.fixture(scope="session")
def pipeline_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineUnderTest]:
    """Return one pipeline for all handler tests, because creating tables and statements is slower than most tests."""
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline = PipelineUnderTest(f"sqlite:///{folder / 'smt-billing.db'}", folder, MovableClock(BEFORE))
    yield pipeline
    pipeline.database.close()


@pytest.fixture
def feeders(pipeline_on_sqlite: PipelineUnderTest) -> Callable[..., EventFeeder]:
    """Return a function that creates a `EventFeeder` on empty tables. Its argument is what PayPal's API answers."""
    pipeline_on_sqlite.empty()
    pipeline_on_sqlite.clock.move_to(BEFORE)
    return lambda knows=None: EventFeeder(pipeline_on_sqlite, knows)


@pytest.fixture
def feeder(feeders: Callable[..., Any]) -> EventFeeder:
    """Return a `EventFeeder` without API credentials."""
    made: EventFeeder = feeders()
    return made
