"""Migrations upgrade and downgrade both databases, and create the tables that the models describe."""

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


def test_tables_are_upgraded_downgraded_and_upgraded_again(database: Database) -> None:
    assert migrations.current(database) is None
    migrations.upgrade(database)
    assert migrations.current(database) == migrations.newest()
    assert tables(database) == TABLES
    migrations.downgrade(database, "base")
    assert migrations.current(database) is None
    assert tables(database) == set()
    migrations.upgrade(database)
    assert tables(database) == TABLES


def test_upgrade_keeps_existing_rows(database: Database) -> None:
    migrations.upgrade(database)
    with database.transaction() as session:
        session.execute(text("INSERT INTO customer (id, created_at) VALUES ('ada', '2026-03-01 12:00:00')"))
    migrations.upgrade(database)
    with database.reading() as session:
        assert session.execute(text("SELECT id FROM customer")).scalars().all() == ["ada"]


def test_migrations_match_models(database: Database) -> None:
    migrations.upgrade(database)
    with database.reading() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_create_indexes_of_models(database: Database) -> None:
    """Alembic compares the names of partial indexes, not their conditions."""
    migrations.upgrade(database)
    migrated = index_definitions(database)
    migrations.downgrade(database, "base")
    Base.metadata.create_all(database.engine)
    assert migrated == index_definitions(database)
    assert sum(" WHERE " in definition for definition in migrated.values()) == 11


def index_definitions(database: Database) -> dict[str, str]:
    query = (
        "SELECT name, coalesce(sql, '') FROM sqlite_master WHERE type = 'index' AND tbl_name <> 'alembic_version'"
        if database.is_sqlite
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    with database.reading() as session:
        return {str(name): str(definition) for name, definition in session.execute(text(query))}


def test_failed_migration_changes_no_table(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE subscription (id INTEGER)"))  # conflicts with a table of the migration
    with pytest.raises(Exception, match="subscription"):
        migrations.upgrade(database)
    assert tables(database) == {"subscription"}
    assert migrations.current(database) is None


def test_unreachable_server_raises_unavailable() -> None:
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


def test_concurrent_upgrades_all_succeed(database_url: str, database: Database) -> None:
    """In a new installation, any role can be the first to upgrade."""
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
