"""The tables' history: up, down and up again on both databases, and at its end the tables that the models describe."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from pipeline.db import migrations
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Base
from tests.support.subprocesses import free_port

ROOT = Path(__file__).parents[3]
TABLES = {table.name for table in Base.metadata.sorted_tables}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_up_and_down_and_up_again(database: Database) -> None:
    assert migrations.current(database) is None
    migrations.upgrade(database)
    assert migrations.current(database) == migrations.newest()
    assert tables(database) == TABLES
    migrations.downgrade(database, "base")
    assert migrations.current(database) is None
    assert tables(database) == set()
    migrations.upgrade(database)
    assert tables(database) == TABLES


def test_an_upgrade_leaves_what_is_there(database: Database) -> None:
    migrations.upgrade(database)
    with database.transaction() as session:
        session.execute(text("INSERT INTO customer (id, created_at) VALUES ('ada', '2026-03-01 12:00:00')"))
    migrations.upgrade(database)
    with database.reading() as session:
        assert session.execute(text("SELECT id FROM customer")).scalars().all() == ["ada"]


def test_the_migrations_make_what_the_models_describe(database: Database) -> None:
    migrations.upgrade(database)
    with database.reading() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_the_migrations_make_the_same_indexes_as_the_models(database: Database) -> None:
    """Alembic compares the names of partial indexes, not their conditions."""
    migrations.upgrade(database)
    migrated = index_definitions(database)
    migrations.downgrade(database, "base")
    Base.metadata.create_all(database.engine)
    assert migrated == index_definitions(database)
    assert sum(" WHERE " in definition for definition in migrated.values()) == 8


def index_definitions(database: Database) -> dict[str, str]:
    query = (
        "SELECT name, coalesce(sql, '') FROM sqlite_master WHERE type = 'index' AND tbl_name <> 'alembic_version'"
        if database.is_sqlite
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    with database.reading() as session:
        return {str(name): str(definition) for name, definition in session.execute(text(query))}


def test_a_step_that_fails_leaves_the_tables_as_they_were(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE subscription (id INTEGER)"))  # in the way of the last table of the step
    with pytest.raises(Exception, match="subscription"):
        migrations.upgrade(database)
    assert tables(database) == {"subscription"}
    assert migrations.current(database) is None


def test_a_database_that_is_away_is_down() -> None:
    database = Database(f"postgresql+psycopg://127.0.0.1:{free_port()}/billing")
    with pytest.raises(DatabaseUnavailableError):
        migrations.current(database)
    with pytest.raises(DatabaseUnavailableError):
        migrations.upgrade(database)


UPGRADE = """
import sys
from pipeline.db import migrations
from pipeline.db.engine import Database
database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
migrations.upgrade(database)
"""


def test_processes_that_start_at_once_do_not_trip_over_each_other(database_url: str, database: Database) -> None:
    """Each role of a fresh installation may be the first."""
    command = [sys.executable, "-c", UPGRADE, database_url]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
    assert [process.returncode for process in started] == [0, 0, 0]
    assert tables(database) == TABLES
