"""What every test may ask for: real servers, a clock that is moved by hand, and settings that are nobody's own.

A test that needs PostgreSQL, RabbitMQ or Postfix names a fixture of the first part. The server is the one that
SMT_TEST_DATABASE_URL, SMT_TEST_BROKER_URL, or SMT_TEST_SMTP_URL with SMT_TEST_MAILDIR reach, else a private one; where
its program is missing the test is skipped, or fails if SMT_TEST_REQUIRE_SERVICES=1.
"""

import os
import uuid
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from pipeline.clock import MovableClock
from pipeline.settings import Settings, load
from tests.support.servers import Missing, Postfix, Postgres, RabbitMQ, Relay, Server, plain

SERVICES = frozenset({"postgres", "rabbitmq", "postfix", "chromium"})
AnyServer = TypeVar("AnyServer", bound=Server)
MORNING = datetime(2026, 3, 1, 12, tzinfo=UTC)


# Servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server as one who may create databases. Most tests want `postgres_url`."""
    if url := os.environ.get("SMT_TEST_DATABASE_URL"):
        yield make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    for server in private(Postgres):
        yield server.url


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that is this test's alone."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(plain(postgres), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield make_url(postgres).set(database=name.as_string().strip('"')).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """Runs the test twice: on a SQLite file that does not exist yet, and on an empty PostgreSQL database."""
    if request.param == "sqlite":
        return f"sqlite:///{data_dir / 'smt-billing.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ | str]:
    """A RabbitMQ node for the whole run, or the URL of the one that is reached. Most tests want `broker_url`."""
    if url := os.environ.get("SMT_TEST_BROKER_URL"):
        yield url
        return
    yield from private(RabbitMQ)


@pytest.fixture
def broker_url(rabbitmq: RabbitMQ | str) -> str:
    """The amqp:// URL of a node that other tests use too: name what is declared with `queue_prefix`."""
    return rabbitmq if isinstance(rabbitmq, str) else rabbitmq.url


@pytest.fixture
def empty_broker_url(rabbitmq: RabbitMQ | str) -> Iterator[str]:
    """The amqp:// URL of a virtual host that is this test's alone, for programs that name the queues themselves."""
    if isinstance(rabbitmq, str):
        yield rabbitmq
        return
    name = f"test-{uuid.uuid4().hex[:12]}"
    with rabbitmq.vhost(name) as url:
        yield url


@pytest.fixture
def queue_prefix() -> str:
    """Begins the names of this test's exchange and queues, so that no other test reads them."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def postfix() -> Iterator[Relay]:
    """A Postfix, for the whole run. Most tests want `mailbox`, the same one emptied."""
    if url := os.environ.get("SMT_TEST_SMTP_URL"):
        yield Relay(url, Path(os.environ["SMT_TEST_MAILDIR"]))
        return
    yield from private(Postfix)


@pytest.fixture
def mailbox(postfix: Relay) -> Relay:
    """Postfix with an empty Maildir: send to `mailbox.smtp_url`, then read `mailbox.wait_for(1)`."""
    postfix.clear()
    return postfix


def private(kind: type[AnyServer]) -> Iterator[AnyServer]:
    """Start a server of this kind, stop it when the run ends; skip or fail where its program is missing."""
    try:
        with kind() as server:
            yield server
    except Missing as reason:
        do_without(str(reason))


def do_without(reason: str) -> None:
    """Skip the test; or fail it, where every test has to run."""
    if must_run():
        pytest.fail(f"{reason}, and SMT_TEST_REQUIRE_SERVICES=1 forbids to skip", pytrace=False)
    pytest.skip(reason)


def must_run() -> bool:
    return os.environ.get("SMT_TEST_REQUIRE_SERVICES") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every test has to run, one that needs a server and skips for whatever reason has failed."""
    report = yield
    if report.skipped and must_run() and item.get_closest_marker("services"):
        report.outcome, report.longrepr = (
            "failed",
            f"skipped, which SMT_TEST_REQUIRE_SERVICES=1 forbids: {report.longrepr}",
        )
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark who needs a server, so that `-m "not services"` is the quick run."""
    for item in items:
        on_postgres = getattr(getattr(item, "callspec", None), "params", {}).get("database_url") == "postgresql"
        if on_postgres or SERVICES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("services")


# Files, time and settings


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty folder that only we may enter, as SMT_DATA_DIR has to be."""
    folder = tmp_path / "var"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def clock() -> MovableClock:
    """Stands at noon of 1 March 2026, UTC, until it is moved."""
    return MovableClock(MORNING)


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own SMT_... must not change what a test does."""
    for name in [name for name in os.environ if name.startswith("SMT_") and not name.startswith("SMT_TEST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_settings(data_dir: Path) -> Callable[..., Settings]:
    """Settings as an operator has them who sets only what is given here; reads no environment and no .env file."""

    def make(**given: Any) -> Settings:
        return load(_env_file=None, **{"data_dir": data_dir, **given})

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with what PayPal really sends, beside the checkout. Where it is missing, tests that read it skip."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "paypal"
    if not folder.is_dir():
        reason = "PayPal's recorded payloads are not at ../shared/paypal"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return folder
