"""Fixtures: the pipeline under test on each database, misbehaving relays, and mailers that send to them."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from pipeline.clock import MovableClock
from pipeline.mailer.smtp_relay import Relay
from tests.support.misbehaving_relay import MakeRelay, Serve, open_houses
from tests.support.outbox_fixtures import Make, mailers
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.servers import plain


@pytest.fixture(scope="session")
def kept_database(postgres: str) -> Iterator[str]:
    """A PostgreSQL database that many tests use one after the other, because creating one is slow."""
    name = f"pipeline_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(plain(postgres), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_url(postgres).set(database=name).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(params=["sqlite", "postgresql"])
def pipeline(request: pytest.FixtureRequest, data_dir: Path, clock: MovableClock) -> Iterator[PipelineUnderTest]:
    """The pipeline with empty tables and a new master key. The test runs on both databases."""
    yield from pipelines(request, request.param, data_dir, clock)


@pytest.fixture
def sqlite_pipeline(request: pytest.FixtureRequest, data_dir: Path, clock: MovableClock) -> Iterator[PipelineUnderTest]:
    """The pipeline on SQLite, for behaviour that does not depend on the database."""
    yield from pipelines(request, "sqlite", data_dir, clock)


@pytest.fixture
def postgresql_pipeline(
    request: pytest.FixtureRequest, kept_database: str, data_dir: Path, clock: MovableClock
) -> Iterator[PipelineUnderTest]:
    """The pipeline on PostgreSQL."""
    yield from pipelines(request, "postgresql", data_dir, clock)


def pipelines(
    request: pytest.FixtureRequest, kind: str, folder: Path, clock: MovableClock
) -> Iterator[PipelineUnderTest]:
    on_sqlite = kind == "sqlite"
    url = f"sqlite:///{folder / 'smt-billing.db'}" if on_sqlite else request.getfixturevalue("kept_database")
    pipeline = PipelineUnderTest(url, folder, clock)
    if not on_sqlite:
        pipeline.empty()
    yield pipeline
    pipeline.database.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a misbehaving relay. Return its URL."""
    async with open_houses() as serve:
        yield serve


@pytest.fixture
async def relay_to() -> AsyncIterator[MakeRelay]:
    relays: list[Relay] = []

    def make(url: str, connections: int = 1, timeout: float = 5, final: float = 5) -> Relay:
        relays.append(Relay(url, connections=connections, timeout_seconds=timeout, final_timeout_seconds=final))
        return relays[-1]

    yield make
    for relay in relays:
        await relay.close()


@pytest.fixture
async def make(pipeline: PipelineUnderTest) -> AsyncIterator[Make]:
    """Create mailers on the fixture's database, or on another one."""
    async with mailers(pipeline) as make:
        yield make
