"""A pipeline for one test: a database with tables, a master key, a stopped clock, and components wired as in production.

pipeline.store(delivery(happened("WH-1")))
pipeline.worker({"TEST.HAPPENED": handler}).handle(["WH-1"])
assert pipeline.states() == {"WH-1": "handled"}
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson
from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session
from starlette.routing import BaseRoute

from pipeline.app.container import Container
from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.unit_of_work import Handler
from pipeline.clock import Clock, MovableClock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import open_master_key
from pipeline.db.engine import Database
from pipeline.db.models import Base, Event, Mail
from pipeline.inbox import store as inbox
from pipeline.inbox.parsing import parse_webhook
from pipeline.inbox.store import NewEvent, StoreResult
from pipeline.outbox import store as outbox
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.errors import PaypalUnavailableError
from pipeline.settings import Settings, load
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.server.signing import SLACK, Signer
from pipeline.web.problem import Lost, on_http_error
from pipeline.worker.worker import Worker
from tests.support.vendor import VENDOR

Row = TypeVar("Row", bound=Base)
HAPPENED = "TEST.HAPPENED"  # An event type that no handler knows.
WEBHOOK_ID = "8PT597110X687430L"


class PipelineUnderTest:
    """One database with its tables, one master key, one clock."""

    def __init__(self, url: str, folder: Path, clock: MovableClock) -> None:
        self.url, self.folder, self.clock = url, folder, clock
        self.database = Database(url)
        create_tables(self.database)
        self.master = open_master_key(folder / "keys" / "master.key")

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def keyring(self, session: Session) -> Keyring:
        return Keyring(self.master, session, self.now)

    def store(self, *deliveries: NewEvent) -> list[StoreResult]:
        """As the committer does."""
        with self.database.transaction() as session:
            return inbox.store(session, self.keyring(session), deliveries, self.now)

    def owe(self, *mails: outbox.NewMail) -> list[str]:
        with self.database.transaction() as session:
            return outbox.enqueue(session, self.keyring(session), mails, self.now)

    def worker(
        self,
        handlers: Mapping[str, Handler],
        *,
        may_read: bool = False,
        max_ahead: timedelta = timedelta(days=1),
        on_mail: Callable[[list[str]], None] = lambda ids: None,
    ) -> Worker:
        return Worker(
            self.database, self.master, self.clock, handlers,
            reminders=ReminderPolicy(), may_read=may_read, max_ahead=max_ahead, on_mail=on_mail,
        )  # fmt: skip

    def rows(self, table: type[Row]) -> list[Row]:
        """Return all rows, ordered by primary key."""
        with self.database.reading() as session:
            return list(session.execute(select(table).order_by(*inspect(table).primary_key)).scalars())

    def count(self, table: type[Base]) -> int:
        with self.database.reading() as session:
            return session.execute(select(func.count()).select_from(table)).scalar_one()

    def event(self, id: str) -> Event:
        with self.database.reading() as session:
            return session.execute(select(Event).where(Event.id == id)).scalar_one()

    def states(self) -> dict[str, str]:
        """Return the state of every event by event id."""
        return {row.id: row.state for row in self.rows(Event)}

    def mails(self) -> dict[str, Mail]:
        """Return every mail by its idempotency key."""
        return {row.idempotency_key: row for row in self.rows(Mail)}

    def set(self, row: Base, **values: Any) -> None:
        """Change columns of a row directly in the database."""
        with self.database.transaction() as session:
            kept = session.merge(row)
            for name, value in values.items():
                setattr(kept, name, value)

    def empty(self, *kept: type[Base]) -> None:
        """Delete all rows except those of the tables in `kept`; on PostgreSQL in one round trip."""
        names = [table.name for table in reversed(Base.metadata.sorted_tables)]
        deletes = [f'DELETE FROM "{name}"' for name in names if name not in {table.__tablename__ for table in kept}]
        with self.database.transaction() as session:
            for statement in deletes if self.database.is_sqlite else ["; ".join(deletes)]:
                session.connection().exec_driver_sql(statement)


def create_tables(database: Database) -> None:
    """Create the tables unless they exist. SQLite gets a copy of an empty database, which is ten times faster."""
    with database.transaction() as session:
        is_empty = not inspect(session.connection()).has_table(Event.__tablename__)
        if is_empty and not database.is_sqlite:
            Base.metadata.create_all(session.connection())
    if is_empty and database.is_sqlite:
        with closing(sqlite3.connect(":memory:")) as source, closing(database.engine.raw_connection()) as target:
            source.deserialize(_empty_sqlite())
            assert isinstance(target.driver_connection, sqlite3.Connection)
            source.backup(target.driver_connection)


@cache
def _empty_sqlite() -> bytes:
    """Return the bytes of an SQLite database with empty tables."""
    database = Database("sqlite:///:memory:")
    with database.transaction() as session:
        Base.metadata.create_all(session.connection())
    with closing(database.engine.raw_connection()) as connection:
        assert isinstance(connection.driver_connection, sqlite3.Connection)
        content = connection.driver_connection.serialize()
    database.close()
    return content


def happened(id: str = "WH-1", kind: str = HAPPENED, **more: Any) -> dict[str, Any]:
    """Return the smallest event that PayPal could send."""
    return {"id": id, "event_type": kind, "create_time": "2026-03-01T11:59:30Z", "resource": {}, **more}


def delivery(
    body: Mapping[str, Any] | bytes,
    transmission: str | None = None,
    source: Literal["webhook", "import", "read"] = "webhook",
) -> NewEvent:
    """Return a body as the receiver stores it after the signature check."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return NewEvent(parse_webhook(raw), source, "signed for webhook TEST", transmission)


def outcomes(pipeline: PipelineUnderTest, *deliveries: NewEvent) -> list[str]:
    """Store the deliveries together and return the outcome of each."""
    return [item.outcome for item in pipeline.store(*deliveries)]


@cache
def signer(year: int = 2026) -> Signer:
    """Return a simulated PayPal's keys, valid during that year. They are cached, because generating them is slow."""
    start = datetime.fromisoformat(f"{year}-01-01T00:00:00+00:00")
    return Signer(since=start - SLACK, until=start.replace(year=year + 1) + SLACK)


def make_parts(
    url: str,
    folder: Path,
    clock: Clock,
    handlers: Mapping[str, Handler] | None = None,
    *,
    by: Signer | None = None,
    fetch: Callable[[str], bytes] | None = None,
    **settings: Any,
) -> Container:
    """Return a container wired as in production that trusts the test signer. `fetch` downloads certificates instead."""
    values = {"paypal_webhook_id": WEBHOOK_ID, **settings}
    container = Container(made(data_dir=folder, database_url=url, **values), handlers or {}, clock)
    container.certificates = CertificateStore(folder=None, anchors=None, clock=clock, fetch=fetch or nothing_comes)
    if fetch is None:
        by = by or signer()
        container.certificates.add(by.cert_url, by.leaf_pem)
    return container


def nothing_comes(url: str) -> bytes:
    raise PaypalUnavailableError(f"{url} cannot be fetched")


def made(**values: Any) -> Settings:
    """Return settings with the tests' vendor, without an .env file. Tests run in parallel: none uses the fixed port."""
    return load(_env_file=None, **{**VENDOR, "metrics_host": "", **values})


@contextmanager
def open_door(container: Container, routes: Sequence[BaseRoute] = (), lost: Lost = on_http_error) -> Iterator[str]:
    """Serve the web application as the web role does. Yield its base URL."""
    container.event_publisher.start()
    container.group_committer.start()
    try:
        with serve(container.web().app(routes, lost)) as base:
            yield base
    finally:
        container.group_committer.stop()
        container.event_publisher.stop()


def sign(body: bytes, webhook_id: str = WEBHOOK_ID, at: datetime | None = None) -> dict[str, str]:
    """Return the signature headers of a new transmission of this body."""
    return signer().sign(body, webhook_id, at or datetime.fromisoformat("2026-03-01T12:00:00+00:00"))
