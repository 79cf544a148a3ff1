"""The database: one engine, and `transaction()`, the only caller of commit.

SQLite (WAL, synchronous=FULL, BEGIN IMMEDIATE) for one machine, PostgreSQL by psycopg 3 at scale; one code for both.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import DeclarativeBase, Session

from pipeline.errors import OperatorError

BUSY_MILLISECONDS = 15_000  # how long SQLite waits for another process's transaction


class DatabaseUnavailableError(OperatorError):
    """The database cannot be reached, or gave up this transaction; the same work may be tried again later."""


class Database:
    """One engine. `transaction()` to change things, `reading()` to look at them."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        # SQLite has one writer. Threads of this process queue here, which is fairer and quicker than its busy wait.
        self._one_writer: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that is committed at the end, or rolled back whole. Raises StoreDown when the database gave up."""
        with (
            self._one_writer,
            translated_errors(),
            Session(self.engine, expire_on_commit=False, autoflush=False) as session,
        ):
            yield session
            session.commit()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A session to look only: it holds no writer back and is rolled back at the end."""
        with translated_errors(), Session(self.engine.execution_options(reading=True), autoflush=False) as session:
            if not self.is_sqlite:
                session.execute(text("SET LOCAL enable_seqscan = on"))
            yield session

    def close(self) -> None:
        self.engine.dispose()

    def truncate_wal(self) -> None:
        """Empty SQLite's write-ahead file, where old contents of pages lie; as far as nobody reads from it right now."""
        if self.is_sqlite:
            with translated_errors(), contextlib.closing(self.engine.raw_connection()) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def holds_keys(self) -> bool:
        """Whether anything was sealed in it yet. Raises StoreDown."""
        with translated_errors(), self.engine.execution_options(reading=True).connect() as connection:
            there = inspect(connection).has_table("encryption_key")
            return there and connection.execute(text("SELECT 1 FROM encryption_key LIMIT 1")).first() is not None


def exists(url: str) -> bool:
    """Whether there is a database to look into: to open an SQLite file that is not there makes an empty one.

    A server's is taken to be there; to connect will tell.
    """
    path = file_of(url)
    return path is None or path.exists()


def file_of(url: str) -> Path | None:
    """SQLite's file; None for a database that is no file."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(parsed.database or "") if is_file else None


def lock_shared(session: Session, table: type[DeclarativeBase]) -> None:
    """Make `lock_after_writers` wait for the end of this transaction. On SQLite the one writer is alone anyway."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text(f'LOCK TABLE "{table.__tablename__}" IN ROW EXCLUSIVE MODE'))


def lock_after_writers(session: Session, table: type[DeclarativeBase]) -> None:
    """Return when every transaction that has written to the table, or shares it, has ended."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text(f'LOCK TABLE "{table.__tablename__}" IN SHARE MODE'))


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raise StoreDown for an error that means that the database is away or gave up."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        # Only the driver's own words: the statement's parameters may be personal data.
        raise DatabaseUnavailableError(f"the database gave up: {_first_line(error.orig)}") from error
    except NoConnection as error:
        raise DatabaseUnavailableError("the database gave up: all connections are in use") from error
    except DBAPIError as error:
        # A plain DatabaseError is SQLite's word for a file that is broken.
        if error.connection_invalidated or type(error) is DatabaseError:
            raise DatabaseUnavailableError(f"the database went away: {_first_line(error.orig)}") from error
        raise


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


# PostgreSQL keeps the plan of a statement that comes again. One made while a table was small reads it from end to end, and
# does so until the statistics are renewed, minutes after the table has grown. What changes things finds its rows by index.
_BY_INDEX = "-c enable_seqscan=off -c jit=off"


def _postgresql(url: str) -> Engine:
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=5,
        hide_parameters=True,
        # UTF-8 whatever the database was made with: one made without an encoding answers in bytes otherwise.
        connect_args={
            "connect_timeout": 5,
            "application_name": "smt-billing",
            "client_encoding": "utf8",
            **_noticed_soon(url),
        },
        json_serializer=_json,
        json_deserializer=orjson.loads,
    )


def _noticed_soon(url: str) -> dict[str, object]:
    """A way that goes silent is noticed by both ends in half a minute instead of two hours: the server frees the locks,
    and so the presence, of who is gone. What is frozen amid a transaction holds its rows for two minutes at most.

    https://www.postgresql.org/docs/15/libpq-connect.html, .../runtime-config-connection.html
    """
    ours = (
        f"{_BY_INDEX} -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
        "-c tcp_user_timeout=25000 -c idle_in_transaction_session_timeout=120000"
    )
    given = make_url(url).query.get("options", "")  # what the URL says comes after ours, and wins
    return {
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
        "options": " ".join([ours, *((given,) if isinstance(given, str) else given), "-c TimeZone=UTC"]),
    }


def _sqlite(url: str) -> Engine:
    if path := file_of(url):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": BUSY_MILLISECONDS / 1000, "check_same_thread": False},
        json_serializer=_json,
        json_deserializer=orjson.loads,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the writer's place at once: a transaction that began by reading could fail when it comes to write.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
