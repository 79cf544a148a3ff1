"""Fixtures for every test: real servers, a clock that the test moves, and settings without a developer's own values.

A test that needs PostgreSQL, RabbitMQ or Postfix uses a fixture of the first part. The server is the one that
SMT_TEST_DATABASE_URL, SMT_TEST_BROKER_URL, or SMT_TEST_SMTP_URL with SMT_TEST_MAILDIR name, else a private one. If its
program is not installed, the test is skipped; with SMT_TEST_REQUIRE_SERVICES=1 it fails.

Every process of a parallel run (pytest-xdist) starts its own PostgreSQL. All tests of a slower server run in one process.
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
from tests.support import compiled_statements  # noqa: F401 - switches on what its docstring says
from tests.support.recorded_samples import NOT_HERE, recorded
from tests.support.servers import Missing, Postfix, Postgres, RabbitMQ, Relay, Server, plain

ONE_PROCESS = ("rabbitmq", "postfix", "chromium")  # servers that take seconds to start
SLOW_FOLDERS = ("tests/chaos/", "tests/end_to_end/", "tests/soak/")
SERVICES = frozenset({"postgres", *ONE_PROCESS})
# Safe for what a test does to a server, killing it included: only the machine must not lose power.
WITHOUT_SYNC = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
AnyServer = TypeVar("AnyServer", bound=Server)
MORNING = datetime(2026, 3, 1, 12, tzinfo=UTC)


# Servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server as one who may create databases. Most tests want `postgres_url`."""
    if url := os.environ.get("SMT_TEST_DATABASE_URL"):
        yield make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    for server in private(lambda: Postgres(settings=WITHOUT_SYNC)):
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


def private(make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """Start a server and stop it when the run ends. If its program is missing, skip the test or let it fail."""
    try:
        with make() as server:
            yield server
    except Missing as reason:
        do_without(str(reason))


def do_without(reason: str) -> None:
    """Skip the test, or let it fail if SMT_TEST_REQUIRE_SERVICES=1."""
    if must_run():
        pytest.fail(f"{reason}, and SMT_TEST_REQUIRE_SERVICES=1 forbids to skip", pytrace=False)
    pytest.skip(reason)


def must_run() -> bool:
    return os.environ.get("SMT_TEST_REQUIRE_SERVICES") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With SMT_TEST_REQUIRE_SERVICES=1, a test that needs a server fails when it is skipped, unless samples are missing."""
    report = yield
    needs_server = item.get_closest_marker("services") and NOT_HERE not in str(report.longrepr)
    if report.skipped and must_run() and needs_server:
        report.outcome, report.longrepr = (
            "failed",
            f"skipped, which SMT_TEST_REQUIRE_SERVICES=1 forbids: {report.longrepr}",
        )
    return report


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups and pytest the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, keep together what shares one, and start the slow tests first."""
    for item in items:
        on_postgres = getattr(getattr(item, "callspec", None), "params", {}).get("database_url") == "postgresql"
        if on_postgres or SERVICES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("services")
        if item.nodeid.startswith(SLOW_FOLDERS):
            item.add_marker("slow")
        if group := one_process(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def one_process(item: pytest.Item) -> str | None:
    """The group of tests that must run in one process of a parallel run: those that share an expensive fixture."""
    needs = getattr(item, "fixturenames", ())
    if server := next((name for name in ONE_PROCESS if name in needs), None):
        return server
    known: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    shares = any(fixtures[-1].scope == "module" for fixtures in known.values())
    return item.nodeid.partition("::")[0] if shares else None


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
    """The folder of samples recorded from PayPal. A test that uses it is skipped where it is missing."""
    return recorded("paypal")
