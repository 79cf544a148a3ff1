"""Transactions, what becomes of the driver's errors, how SQLite is set up."""

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
from pipeline.db import presence
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Base, Customer
from tests.support.pipeline_under_test import River
from tests.support.servers import Postgres
from tests.support.subprocesses import free_port, running

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def customer(name: str) -> Customer:
    return Customer(id=name, created_at=NOON)


def names(river: River) -> list[str]:
    return [row.id for row in river.rows(Customer)]


# Transactions


def test_what_a_transaction_did_is_there_afterwards(river: River) -> None:
    with river.database.transaction() as session:
        session.add(customer("ada"))
    assert names(river) == ["ada"]


def test_a_transaction_that_fails_leaves_nothing(river: River) -> None:
    def fail() -> None:
        with river.database.transaction() as session:
            session.add(customer("ada"))
            session.flush()
            raise ValueError("no such luck")

    with pytest.raises(ValueError, match="no such luck"):
        fail()
    assert names(river) == []
    with river.database.transaction() as session:  # and holds nobody back
        session.add(customer("bea"))
    assert names(river) == ["bea"]


def test_reading_changes_nothing(river: River) -> None:
    with river.database.reading() as session:
        session.add(customer("ada"))
        session.flush()
    assert names(river) == []


def test_reading_neither_waits_for_a_writer_nor_holds_one_back(river: River) -> None:
    with river.database.transaction() as session:
        session.add(customer("ada"))
        session.flush()
        assert names(river) == []
    with river.database.reading() as looking:
        assert len(looking.execute(select(Customer.id)).all()) == 1
        with river.database.transaction() as session:
            session.add(customer("bea"))
        assert len(looking.execute(select(Customer.id)).all()) in (1, 2)  # a snapshot, or what is committed
    assert names(river) == ["ada", "bea"]


def test_times_come_back_in_utc_whatever_zone_they_went_in(river: River) -> None:
    there = timezone(timedelta(hours=-7))
    with river.database.transaction() as session:
        session.add(Customer(id="ada", created_at=datetime(2026, 3, 1, 5, 0, 0, 123456, tzinfo=there)))
    assert river.rows(Customer)[0].created_at == NOON.replace(microsecond=123456)
    assert river.rows(Customer)[0].created_at.tzinfo is UTC


def test_only_the_database_module_commits() -> None:
    """`transaction()` is the one place where anything becomes durable."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("pipeline", "handlers")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("commit", "begin_nested"))
        or (isinstance(node, ast.Constant) and str(node.value).strip().upper() == "COMMIT")
    ]
    assert [line.partition(":")[0] for line in found] == ["pipeline/db/engine.py"]


# What becomes of errors


def test_a_database_that_is_away_is_down(tmp_path: Path) -> None:
    database = Database(f"postgresql+psycopg://ada:hush@127.0.0.1:{free_port()}/billing")
    for way in (database.transaction, database.reading):
        with pytest.raises(DatabaseUnavailableError, match="refused") as error, way() as session:
            session.execute(text("SELECT 1"))
        assert "hush" not in str(error.value)
    with pytest.raises(DatabaseUnavailableError):
        presence.hold(database, "mailer-1")
    with pytest.raises(DatabaseUnavailableError):
        presence.is_held(database, "mailer-1")


def test_a_file_that_is_no_database_is_down(tmp_path: Path) -> None:
    (tmp_path / "billing.db").write_bytes(
        b"not a database, but quite long enough to be looked at as if it were one" * 99
    )
    with pytest.raises(DatabaseUnavailableError), Database(f"sqlite:///{tmp_path}/billing.db").transaction() as session:
        session.execute(text("SELECT 1"))


def test_a_table_that_another_process_keeps_locked_is_down(brook: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.db.engine.BUSY_MILLISECONDS", 50)
    hasty = Database(brook.url)
    with brook.database.transaction() as slow:
        slow.connection()
        with pytest.raises(DatabaseUnavailableError, match="locked"), hasty.transaction() as session:
            session.connection()
    hasty.close()


def test_what_the_transaction_held_is_not_in_the_message(river: River) -> None:
    """The driver's first line is kept, the parameters of the statement never."""
    with river.database.transaction() as session:
        session.add(customer("ada@example.com"))

    def twice() -> None:
        with river.database.transaction() as session:
            session.execute(insert(Customer), {"id": "ada@example.com", "created_at": NOON})

    with pytest.raises(IntegrityError) as fault:
        twice()
    told = [line for line in str(fault.value).splitlines() if not line.startswith("DETAIL")]  # PostgreSQL's own
    assert "ada@example.com" not in "".join(told)


def test_a_transaction_whose_connection_is_cut_is_down_and_the_next_one_works(stream: River) -> None:
    def cut() -> None:
        with stream.database.transaction() as session:
            session.add(customer("ada"))
            session.flush()
            own = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with stream.database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
            session.execute(select(Customer))

    with pytest.raises(DatabaseUnavailableError) as error:
        cut()
    assert "ada" not in str(error.value)
    with stream.database.transaction() as session:
        session.add(customer("bea"))
    assert names(stream) == ["bea"]


def test_two_transactions_that_wait_for_each_other_end_with_one_down(stream: River) -> None:
    for name in ("ada", "bea"):
        stream.set(customer(name))
    locked, outcomes = threading.Barrier(2, timeout=30), []

    def lock(first: str, second: str) -> None:
        try:
            with stream.database.transaction() as session:
                session.execute(select(Customer).where(Customer.id == first).with_for_update())
                locked.wait()
                session.execute(select(Customer).where(Customer.id == second).with_for_update())
            outcomes.append("done")
        except DatabaseUnavailableError as error:
            outcomes.append("down" if "deadlock" in str(error) else str(error))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lock, ("ada", "bea"), ("bea", "ada")))
    assert sorted(outcomes) == ["done", "down"]


def hold_all(database: Database, opened: ExitStack) -> None:
    for _ in range(100):
        opened.enter_context(database.reading()).execute(text("SELECT 1"))


def test_more_at_once_than_there_are_connections_wait_or_are_told_so(
    stream: River, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.database.engine.pool, "_timeout", 0.05)
    with pytest.raises(DatabaseUnavailableError, match="connections"), ExitStack() as opened:
        hold_all(stream.database, opened)


def test_a_way_to_postgresql_that_goes_silent_is_noticed_by_both_ends(postgres_url: str) -> None:
    database = Database(f"{postgres_url}?options=-c%20idle_in_transaction_session_timeout%3D60000")
    with database.reading() as session:
        names = ("tcp_keepalives_idle", "tcp_user_timeout", "idle_in_transaction_session_timeout")
        assert [session.execute(text(f"SHOW {name}")).scalar_one() for name in names] == ["10", "25000", "1min"]
        driver = session.connection().connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["tcp_user_timeout"] == "25000"
    database.close()


def test_a_plan_of_postgresql_is_made_for_the_day_the_table_is_full(stream: River) -> None:
    looked = text("EXPLAIN SELECT * FROM customer WHERE id = ANY (ARRAY['ada', 'bob'])")
    with stream.database.transaction() as session:
        assert "Seq Scan" not in "\n".join(session.execute(looked).scalars())
    with stream.database.reading() as session:  # a report may read all there is
        assert session.execute(text("SHOW enable_seqscan")).scalar_one() == "on"


def test_postgresql_may_restart(tmp_path: Path, clock: MovableClock, postgres: str, data_dir: Path) -> None:
    with Postgres() as server:
        river = River(server.url, data_dir, clock)
        held = presence.hold(river.database, "mailer-1")
        server.stop()
        with pytest.raises(DatabaseUnavailableError), river.database.transaction():
            river.database.engine.connect()
        server.start()
        river.set(customer("ada"))
        assert names(river) == ["ada"]
        assert not held.still_held()
        assert not presence.is_held(river.database, "mailer-1")
        held.release()
        river.database.close()


# SQLite


def test_sqlite_is_durable_and_has_its_own_rules_for_readers(brook: River) -> None:
    with brook.database.reading() as session:
        found = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_sqlite_takes_the_writers_place_when_a_transaction_begins(brook: River) -> None:
    other = sqlite3.connect(brook.url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    with brook.database.transaction() as session:
        session.connection()  # nothing written yet
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    with brook.database.reading() as session:
        session.execute(select(Customer.id))
        other.execute("BEGIN IMMEDIATE")
    other.close()


def test_nobody_else_may_read_the_files_of_sqlite(tmp_path: Path, clock: MovableClock) -> None:
    was = os.umask(0)
    try:
        river = River(f"sqlite:///{tmp_path}/var/deep/billing.db", tmp_path / "var", clock)
        with river.database.transaction() as session:
            session.add(customer("ada"))
            session.flush()
            held = presence.hold(river.database, "mailer-1")
            modes = {
                str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) & 0o077
                for path in (tmp_path / "var").rglob("*")
            }
        held.release()
    finally:
        os.umask(was)
    assert {name.rpartition("billing.db")[2] for name in modes if "billing.db" in name} == {"", "-wal", "-shm"}
    assert {name: mode for name, mode in modes.items() if mode} == {}
    river.database.close()


def test_many_threads_write_at_once_and_nothing_is_lost(river: River) -> None:
    def write(number: int) -> None:
        with river.database.transaction() as session:
            session.add(customer(f"c{number:03}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(names(river)) == 100


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


def test_many_processes_write_at_once_and_nothing_is_lost(brook: River) -> None:
    with (
        running(ADD, brook.url, "a") as one,
        running(ADD, brook.url, "b") as two,
        running(ADD, brook.url, "c") as three,
    ):
        for writer in (one, two, three):
            assert writer.stdin
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [writer.wait(60) for writer in (one, two, three)] == [0, 0, 0]
    assert len(names(brook)) == 150


def test_a_process_killed_in_a_transaction_leaves_nothing_of_it(river: River) -> None:
    with running(HOLD_A_TRANSACTION, river.url) as holder:
        holder.kill()
        holder.wait()
    assert names(river) == []
    river.set(customer("bea"))
    assert names(river) == ["bea"]


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


def test_the_tables_of_a_river_are_those_of_the_models(river: River) -> None:
    with river.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            assert session.execute(select(table)).all() == []
