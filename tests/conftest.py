"""Fixtures for all tests: real servers, a clock that the test moves, and settings without a developer's own values.

A test that needs PostgreSQL, RabbitMQ or Postfix uses a fixture of the first section. SMT_TEST_DATABASE_URL,
SMT_TEST_BROKER_URL, or SMT_TEST_SMTP_URL with SMT_TEST_MAILDIR select an existing server. Without them a private server
is started. If its program is not installed, the test is skipped; with SMT_TEST_REQUIRE_SERVICES=1 it fails.

In a parallel run (pytest-xdist), each process starts its own PostgreSQL. All tests of a slower server run in one process.
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
from pipeline.simulator.server.api import FakePaypalApi
from tests.support.engines import closed_afterwards
from tests.support.paypal_openapi import FOLDER, Judged, OpenApiJudge
from tests.support.recorded_samples import NOT_HERE, recorded
from tests.support.servers import Missing, Postfix, Postgres, RabbitMQ, Relay, Server, plain
from tests.support.vendor import VENDOR

ONE_PROCESS = ("rabbitmq", "postfix", "chromium")  # servers that take seconds to start
SLOW_FOLDERS = ("tests/chaos/", "tests/end_to_end/", "tests/paypal_runs/", "tests/soak/")
SERVICES = frozenset({"postgres", "postgresql", *ONE_PROCESS})  # fixtures, and parameters that select a server
# These settings are safe even when a test kills the server. Data is lost only if the machine loses power.
WITHOUT_SYNC = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
AnyServer = TypeVar("AnyServer", bound=Server)
MORNING = datetime(2026, 3, 1, 12, tzinfo=UTC)


# Servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server, for a user that may create databases. Most tests use `postgres_url` instead."""
    if url := os.environ.get("SMT_TEST_DATABASE_URL"):
        yield make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    for server in private(lambda: Postgres(settings=WITHOUT_SYNC)):
        yield server.url


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database that only this test uses."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(plain(postgres), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield make_url(postgres).set(database=name.as_string().strip('"')).render_as_string(hide_password=False)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """Database URL. The test runs twice: with a SQLite file that does not exist yet, and with an empty PostgreSQL database."""
    if request.param == "sqlite":
        return f"sqlite:///{data_dir / 'smt-billing.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ | str]:
    """RabbitMQ node for the whole run, or the URL in SMT_TEST_BROKER_URL. Most tests use `broker_url` instead."""
    if url := os.environ.get("SMT_TEST_BROKER_URL"):
        yield url
        return
    yield from private(RabbitMQ)


@pytest.fixture
def broker_url(rabbitmq: RabbitMQ | str) -> str:
    """URL (amqp://) of a node that other tests use too. Prefix the names of queues and exchanges with `queue_prefix`."""
    return rabbitmq if isinstance(rabbitmq, str) else rabbitmq.url


@pytest.fixture
def empty_broker_url(rabbitmq: RabbitMQ | str) -> Iterator[str]:
    """URL (amqp://) of a virtual host that only this test uses, for programs with fixed queue names."""
    if isinstance(rabbitmq, str):
        yield rabbitmq
        return
    name = f"test-{uuid.uuid4().hex[:12]}"
    with rabbitmq.vhost(name) as url:
        yield url


@pytest.fixture
def queue_prefix() -> str:
    """Prefix for the names of this test's exchange and queues, so that no other test reads them."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def postfix() -> Iterator[Relay]:
    """Postfix for the whole run. Most tests use `mailbox` instead, which empties its Maildir first."""
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
    """Start a server and stop it at the end of the run. If its program is missing, skip or fail as `do_without` does."""
    try:
        with make() as server:
            yield server
    except Missing as reason:
        do_without(str(reason))


def do_without(reason: str) -> None:
    """Skip the test, or fail it if SMT_TEST_REQUIRE_SERVICES=1."""
    if must_run():
        pytest.fail(f"{reason}, and SMT_TEST_REQUIRE_SERVICES=1 does not allow skipping", pytrace=False)
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
            f"skipped, but SMT_TEST_REQUIRE_SERVICES=1 does not allow skipping: {report.longrepr}",
        )
    return report


@pytest.hookimpl(tryfirst=True)  # Must run before pytest-xdist reads the groups and pytest the markers.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, group the tests that share a slow server, and put the slow tests first."""
    for item in items:
        if SERVICES.intersection(used(item)):
            item.add_marker("services")
        if item.nodeid.startswith(SLOW_FOLDERS):
            item.add_marker("slow")
        if group := one_process(item):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def used(item: pytest.Item) -> list[str]:
    """Return the fixtures of a test, and the servers that its parameters name."""
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    return [*getattr(item, "fixturenames", ()), *(each for each in parameters if isinstance(each, str))]


def one_process(item: pytest.Item) -> str | None:
    """Return the xdist group of a test. Tests that share an expensive fixture must run in one process."""
    needs = used(item)
    if server := next((name for name in ONE_PROCESS if name in needs), None):
        return server
    known: dict[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    shares = any(fixtures[-1].scope == "module" for fixtures in known.values())
    return item.nodeid.partition("::")[0] if shares else None


# Files, time and settings


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Empty folder with mode 0700, as SMT_DATA_DIR requires."""
    folder = tmp_path / "var"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def clock() -> MovableClock:
    """Clock that stands at noon UTC on 1 March 2026 until the test moves it."""
    return MovableClock(MORNING)


@pytest.fixture(scope="session")
def openapi_problems() -> Iterator[list[str]]:
    """Problems found in the exchanges with any simulated PayPal of this process. Empty without PayPal's OpenAPI files."""
    problems: list[str] = []
    if not FOLDER.is_dir():
        yield problems
        return
    judge, initialise = OpenApiJudge(), FakePaypalApi.__init__

    def initialise_judged(api: FakePaypalApi, *args: Any, **options: Any) -> None:
        initialise(api, *args, **options)
        api.app = Judged(api.app, lambda exchange: problems.extend(judge.compare(exchange)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakePaypalApi, "__init__", initialise_judged)
        yield problems


@pytest.fixture(autouse=True)
def _match_openapi(openapi_problems: list[str]) -> Iterator[None]:
    """Fail the test if what it asked PayPal, or what the simulator answered, does not match PayPal's OpenAPI files."""
    openapi_problems.clear()
    yield
    assert openapi_problems == []


@pytest.fixture(autouse=True)
def _close_engines() -> Iterator[None]:
    with closed_afterwards():
        yield


@pytest.fixture(autouse=True)
def _remove_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's own SMT_… variables, so they do not affect a test."""
    for name in [name for name in os.environ if name.startswith("SMT_") and not name.startswith("SMT_TEST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_settings(data_dir: Path) -> Callable[..., Settings]:
    """Function that creates settings from the given values and the tests' vendor. No environment variable is set."""

    def make(**values: Any) -> Settings:
        return load(_env_file=None, **{**VENDOR, "data_dir": data_dir, **values})

    return make


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the samples recorded from PayPal. A test that uses it is skipped if the folder is missing."""
    return recorded("paypal")
