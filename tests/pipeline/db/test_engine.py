"""Transactions, translation of database errors, and the configuration of SQLite and PostgreSQL."""

import ast
import os
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from pipeline.clock import MovableClock
from pipeline.db import engine, presence
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Base, Customer
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.servers import Postgres
from tests.support.subprocesses import free_port, running

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def customer(name: str) -> Customer:
    return Customer(id=name, created_at=NOON)


def names(pipeline: PipelineUnderTest) -> list[str]:
    return [row.id for row in pipeline.rows(Customer)]


# Transactions


def test_transaction_is_committed(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        session.add(customer("ada"))
    assert names(pipeline) == ["ada"]


def test_failed_transaction_is_rolled_back(pipeline: PipelineUnderTest) -> None:
    def fail() -> None:
        with pipeline.database.transaction() as session:
            session.add(customer("ada"))
            session.flush()
            raise ValueError("failed on purpose")

    with pytest.raises(ValueError, match="failed on purpose"):
        fail()
    assert names(pipeline) == []
    with pipeline.database.transaction() as session:  # and blocks no later transaction
        session.add(customer("bea"))
    assert names(pipeline) == ["bea"]


def test_reading_session_changes_nothing(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.reading() as session:
        session.add(customer("ada"))
        session.flush()
    assert names(pipeline) == []


def test_reading_and_writing_do_not_block_each_other(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        session.add(customer("ada"))
        session.flush()
        assert names(pipeline) == []
    with pipeline.database.reading() as reader:
        assert len(reader.execute(select(Customer.id)).all()) == 1
        with pipeline.database.transaction() as session:
            session.add(customer("bea"))
        assert len(reader.execute(select(Customer.id)).all()) in (1, 2)  # a snapshot, or the committed rows
    assert names(pipeline) == ["ada", "bea"]


def test_times_are_returned_in_utc(pipeline: PipelineUnderTest) -> None:
    pacific = timezone(timedelta(hours=-7))
    with pipeline.database.transaction() as session:
        session.add(Customer(id="ada", created_at=datetime(2026, 3, 1, 5, 0, 0, 123456, tzinfo=pacific)))
    assert pipeline.rows(Customer)[0].created_at == NOON.replace(microsecond=123456)
    assert pipeline.rows(Customer)[0].created_at.tzinfo is UTC


def test_only_database_module_commits() -> None:
    """`transaction()` is the only code that commits."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("pipeline", "handlers")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("commit", "begin_nested"))
        or (isinstance(node, ast.Constant) and str(node.value).strip().upper() == "COMMIT")
    ]
    assert [line.partition(":")[0] for line in found] == ["pipeline/db/engine.py"]


# Translation of errors


def test_unreachable_server_raises_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql+psycopg://ada:hush@127.0.0.1:{free_port()}/billing")
    for open_session in (database.transaction, database.reading):
        with pytest.raises(DatabaseUnavailableError, match="refused") as error, open_session() as session:
            session.execute(text("SELECT 1"))
        assert "hush" not in str(error.value)
    with pytest.raises(DatabaseUnavailableError):
        presence.hold(database, "mailer-1")
    with pytest.raises(DatabaseUnavailableError):
        presence.is_held(database, "mailer-1")


def test_damaged_file_raises_unavailable(tmp_path: Path) -> None:
    (tmp_path / "billing.db").write_bytes(b"not a database, but long enough to be opened as if it were one" * 99)
    with pytest.raises(DatabaseUnavailableError), Database(f"sqlite:///{tmp_path}/billing.db").transaction() as session:
        session.execute(text("SELECT 1"))


def test_locked_database_raises_unavailable(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.db.engine.BUSY_MILLISECONDS", 50)
    impatient = Database(sqlite_pipeline.url)
    with sqlite_pipeline.database.transaction() as slow:
        slow.connection()
        with pytest.raises(DatabaseUnavailableError, match="locked"), impatient.transaction() as session:
            session.connection()
    impatient.close()


def test_error_message_contains_no_parameters(pipeline: PipelineUnderTest) -> None:
    """The message contains the driver's first line and no parameters of the statement."""
    with pipeline.database.transaction() as session:
        session.add(customer("ada@example.com"))

    def insert_again() -> None:
        with pipeline.database.transaction() as session:
            session.execute(insert(Customer), {"id": "ada@example.com", "created_at": NOON})

    with pytest.raises(IntegrityError) as error:
        insert_again()
    lines = [line for line in str(error.value).splitlines() if not line.startswith("DETAIL")]  # added by PostgreSQL
    assert "ada@example.com" not in "".join(lines)


def test_lost_connection_raises_unavailable_and_next_transaction_works(postgresql_pipeline: PipelineUnderTest) -> None:
    def cut() -> None:
        with postgresql_pipeline.database.transaction() as session:
            session.add(customer("ada"))
            session.flush()
            backend = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with postgresql_pipeline.database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
            session.execute(select(Customer))

    with pytest.raises(DatabaseUnavailableError) as error:
        cut()
    assert "ada" not in str(error.value)
    with postgresql_pipeline.database.transaction() as session:
        session.add(customer("bea"))
    assert names(postgresql_pipeline) == ["bea"]


def test_deadlock_raises_unavailable_in_one_transaction(postgresql_pipeline: PipelineUnderTest) -> None:
    for name in ("ada", "bea"):
        postgresql_pipeline.set(customer(name))
    locked, outcomes = threading.Barrier(2, timeout=30), []

    def lock(first: str, second: str) -> None:
        try:
            with postgresql_pipeline.database.transaction() as session:
                session.execute(select(Customer).where(Customer.id == first).with_for_update())
                locked.wait()
                session.execute(select(Customer).where(Customer.id == second).with_for_update())
            outcomes.append("done")
        except DatabaseUnavailableError as error:
            outcomes.append("unavailable" if "deadlock" in str(error) else str(error))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lock, ("ada", "bea"), ("bea", "ada")))
    assert sorted(outcomes) == ["done", "unavailable"]


def hold_all_connections(database: Database, opened: ExitStack) -> None:
    for _ in range(100):
        opened.enter_context(database.reading()).execute(text("SELECT 1"))


def test_exhausted_connection_pool_raises_unavailable(
    postgresql_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_pipeline.database.engine.pool, "_timeout", 0.05)
    with pytest.raises(DatabaseUnavailableError, match="connections"), ExitStack() as opened:
        hold_all_connections(postgresql_pipeline.database, opened)


def test_postgresql_connection_has_timeouts_on_both_ends(postgres_url: str) -> None:
    database = Database(f"{postgres_url}?options=-c%20idle_in_transaction_session_timeout%3D60000")
    with database.reading() as session:
        names = ("tcp_keepalives_idle", "tcp_user_timeout", "idle_in_transaction_session_timeout")
        assert [session.execute(text(f"SHOW {name}")).scalar_one() for name in names] == ["10", "25000", "1min"]
        driver = session.connection().connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["tcp_user_timeout"] == "25000"
    database.close()


def test_postgresql_plans_use_indexes_for_small_tables(postgresql_pipeline: PipelineUnderTest) -> None:
    explain = text("EXPLAIN SELECT * FROM customer WHERE id = ANY (ARRAY['ada', 'bob'])")
    with postgresql_pipeline.database.transaction() as session:
        assert "Seq Scan" not in "\n".join(session.execute(explain).scalars())
    with postgresql_pipeline.database.reading() as session:  # a report may scan whole tables
        assert session.execute(text("SHOW enable_seqscan")).scalar_one() == "on"


def test_database_works_again_after_postgresql_restart(
    tmp_path: Path, clock: MovableClock, postgres: str, data_dir: Path
) -> None:
    with Postgres() as server:
        pipeline = PipelineUnderTest(server.url, data_dir, clock)
        held = presence.hold(pipeline.database, "mailer-1")
        server.stop()
        with pytest.raises(DatabaseUnavailableError), pipeline.database.transaction():
            pipeline.database.engine.connect()
        server.start()
        pipeline.set(customer("ada"))
        assert names(pipeline) == ["ada"]
        assert not held.still_held()
        assert not presence.is_held(pipeline.database, "mailer-1")
        held.release()
        pipeline.database.close()


# SQLite


def test_sqlite_has_required_pragmas(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.reading() as session:
        found = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_sqlite_takes_write_lock_when_transaction_begins(sqlite_pipeline: PipelineUnderTest) -> None:
    other = sqlite3.connect(sqlite_pipeline.url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    with sqlite_pipeline.database.transaction() as session:
        session.connection()  # nothing is written yet
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    with sqlite_pipeline.database.reading() as session:
        session.execute(select(Customer.id))
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_sqlite_files_are_private(tmp_path: Path, clock: MovableClock) -> None:
    old_umask = os.umask(0)
    try:
        pipeline = PipelineUnderTest(f"sqlite:///{tmp_path}/var/deep/billing.db", tmp_path / "var", clock)
        with pipeline.database.transaction() as session:
            session.add(customer("ada"))
            session.flush()
            held = presence.hold(pipeline.database, "mailer-1")
            modes = {
                str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) & 0o077
                for path in (tmp_path / "var").rglob("*")
            }
        held.release()
    finally:
        os.umask(old_umask)
    assert {name.rpartition("billing.db")[2] for name in modes if "billing.db" in name} == {"", "-wal", "-shm"}
    assert {name: mode for name, mode in modes.items() if mode} == {}
    pipeline.database.close()


def test_concurrent_threads_lose_no_write(pipeline: PipelineUnderTest) -> None:
    def write(number: int) -> None:
        with pipeline.database.transaction() as session:
            session.add(customer(f"c{number:03}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(names(pipeline)) == 100


ADD = """
import sys
from pipeline.db.engine import Database
from pipeline.db.models import Customer
from datetime import datetime, UTC
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    with database.transaction() as session:
        session.add(Customer(id=f"{sys.argv[2]}-{number}", created_at=datetime(2026, 3, 1, tzinfo=UTC)))
"""


def test_concurrent_processes_lose_no_write(sqlite_pipeline: PipelineUnderTest) -> None:
    with (
        running(ADD, sqlite_pipeline.url, "a") as one,
        running(ADD, sqlite_pipeline.url, "b") as two,
        running(ADD, sqlite_pipeline.url, "c") as three,
    ):
        for writer in (one, two, three):
            assert writer.stdin
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [writer.wait(60) for writer in (one, two, three)] == [0, 0, 0]
    assert len(names(sqlite_pipeline)) == 150


def test_killed_process_leaves_nothing_of_its_transaction(pipeline: PipelineUnderTest) -> None:
    with running(HOLD_A_TRANSACTION, pipeline.url) as holder:
        holder.kill()
        holder.wait()
    assert names(pipeline) == []
    pipeline.set(customer("bea"))
    assert names(pipeline) == ["bea"]


HOLD_A_TRANSACTION = """
import sys, time
from pipeline.db.engine import Database
from pipeline.db.models import Customer
from datetime import datetime, UTC
with Database(sys.argv[1]).transaction() as session:
    session.add(Customer(id="ada", created_at=datetime(2026, 3, 1, tzinfo=UTC)))
    session.flush()
    print("ready", flush=True)
    time.sleep(600)
"""


def test_test_database_has_tables_of_models(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            assert session.execute(select(table)).all() == []


@pytest.mark.parametrize(("refusals", "code"), [(0, 5), (2, 5), (1, 10)], ids=["free", "busy twice", "disk error"])
def test_new_database_that_another_process_switches_to_wal_is_tried_again(refusals: int, code: int) -> None:
    class Refusing:
        calls = 0

        def execute(self, _: str) -> None:
            self.calls += 1
            if self.calls <= refusals:
                error = sqlite3.OperationalError("refused")
                error.sqlite_errorcode = code  # https://www.sqlite.org/rescode.html
                raise error

    connection = Refusing()
    if code == sqlite3.SQLITE_BUSY:
        engine._switch_to_wal(connection)
        assert connection.calls == refusals + 1
    else:
        with pytest.raises(sqlite3.OperationalError):
            engine._switch_to_wal(connection)
