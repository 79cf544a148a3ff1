"""The database engine and its transactions. `Database.transaction()` is the only code that commits.

SQLite (WAL, synchronous=FULL, BEGIN IMMEDIATE) for one machine, PostgreSQL with psycopg 3 at scale. The rest of the
program uses the same code for both.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import DeclarativeBase, Session

from pipeline.dependencies import Observer, ignore
from pipeline.errors import OperatorError

BUSY_MILLISECONDS = 15_000  # maximum wait for another process's transaction on SQLite


class DatabaseUnavailableError(OperatorError):
    """The database cannot be reached, or it aborted the transaction. The caller may retry the work later."""


class Database:
    """One database: `transaction()` for changes, `reading()` for queries. `observe` gets the result of each."""

    def __init__(self, url: str, observe: Observer = ignore) -> None:
        self.url, self._observe = make_url(url), observe
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        # SQLite has one writer. Threads of this process wait for this lock, which is fairer and faster than its busy wait.
        self._one_writer: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a session that is committed at the end, or rolled back on an error. Raises DatabaseUnavailableError."""
        with (
            self._one_writer,
            self._observed(),
            Session(self.engine, expire_on_commit=False, autoflush=False) as session,
        ):
            yield session
            session.commit()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session for queries. It does not block writers and is rolled back at the end."""
        with self._observed(), Session(self.engine.execution_options(reading=True), autoflush=False) as session:
            if not self.is_sqlite:
                session.execute(text("SET LOCAL enable_seqscan = on"))
            yield session

    @contextlib.contextmanager
    def _observed(self) -> Iterator[None]:
        try:
            with translated_errors():
                yield
        except DatabaseUnavailableError:
            self._observe(False)
            raise
        self._observe(True)

    def close(self) -> None:
        self.engine.dispose()

    def truncate_wal(self) -> None:
        """Truncate SQLite's write-ahead log, which contains old page contents. Has no effect on parts that are being read."""
        if self.is_sqlite:
            with translated_errors(), contextlib.closing(self.engine.raw_connection()) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def holds_keys(self) -> bool:
        """Return whether the database contains any data key. Raises DatabaseUnavailableError."""
        with self._observed(), self.engine.execution_options(reading=True).connect() as connection:
            has_table = inspect(connection).has_table("encryption_key")
            return has_table and connection.execute(text("SELECT 1 FROM encryption_key LIMIT 1")).first() is not None


def exists(url: str) -> bool:
    """Return whether the SQLite file exists. Opening a missing file would create an empty database.

    Return True for a database server, without connecting to it.
    """
    path = file_of(url)
    return path is None or path.exists()


def file_of(url: str) -> Path | None:
    """Return the path of the SQLite file, or None for another database."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(parsed.database or "") if is_file else None


def lock_shared(session: Session, table: type[DeclarativeBase]) -> None:
    """Make `lock_after_writers` wait for the end of this transaction. Does nothing on SQLite, which has one writer."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text(f'LOCK TABLE "{table.__tablename__}" IN ROW EXCLUSIVE MODE'))


def lock_after_writers(session: Session, table: type[DeclarativeBase]) -> None:
    """Wait until every transaction that wrote to the table or called `lock_shared` on it has ended."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text(f'LOCK TABLE "{table.__tablename__}" IN SHARE MODE'))


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Raise DatabaseUnavailableError for errors that mean that the database is unreachable or aborted the transaction."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        # Only the driver's message: the parameters of the statement may be personal data.
        raise DatabaseUnavailableError(f"the database aborted the transaction: {_first_line(error.orig)}") from error
    except NoConnection as error:
        raise DatabaseUnavailableError("all connections to the database are in use") from error
    except DBAPIError as error:
        # SQLite raises a plain DatabaseError for a damaged file.
        if error.connection_invalidated or type(error) is DatabaseError:
            raise DatabaseUnavailableError(f"the database is unavailable: {_first_line(error.orig)}") from error
        raise


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


# PostgreSQL caches the plan of a repeated statement. A plan that was made while a table was small scans the whole table,
# until the statistics are updated minutes after it has grown. So transactions that change rows must use indexes.
_BY_INDEX = "-c enable_seqscan=off -c jit=off"


def _postgresql(url: str) -> Engine:
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=5,
        hide_parameters=True,
        # UTF-8 for any database encoding: otherwise a SQL_ASCII database returns bytes.
        connect_args={
            "connect_timeout": 5,
            "application_name": "smt-billing",
            "client_encoding": "utf8",
            **_timeouts(url),
        },
        json_serializer=_json,
        json_deserializer=orjson.loads,
    )


def _timeouts(url: str) -> dict[str, object]:
    """Return timeouts for both ends of the connection: 25 seconds for a lost peer, instead of the system's two hours.

    The server then releases the locks of the lost client, and with them its presence. A client that hangs inside a
    transaction keeps its rows locked for two minutes at most.

    https://www.postgresql.org/docs/15/libpq-connect.html, .../runtime-config-connection.html
    """
    defaults = (
        f"{_BY_INDEX} -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
        "-c tcp_user_timeout=25000 -c idle_in_transaction_session_timeout=120000"
    )
    url_options = make_url(url).query.get("options", "")  # options of the URL come later and override the defaults
    return {
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
        "options": " ".join(
            [defaults, *((url_options,) if isinstance(url_options, str) else url_options), "-c TimeZone=UTC"]
        ),
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
    connection.isolation_level = None  # `_begin_sqlite` sends BEGIN
    _switch_to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: Any) -> None:
    """Let readers and the writer work at the same time.

    While another process switches a new database, SQLite refuses at once, without its usual wait.
    """
    deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once. A transaction that starts by reading could fail at its first write.
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
