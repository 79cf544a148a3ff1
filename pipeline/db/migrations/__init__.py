"""Run the Alembic migrations of the tables, on SQLite and on PostgreSQL."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from pipeline.db.engine import Database


def upgrade(database: Database, revision: str = "head") -> None:
    """Upgrade the tables to a revision, by default the newest. Existing rows are kept."""
    command.upgrade(_config(database), revision)


def downgrade(database: Database, revision: str) -> None:
    """Downgrade the tables to a revision; `base` removes all tables."""
    command.downgrade(_config(database), revision)


def current(database: Database) -> str | None:
    """Return the revision of the tables, or None if there are none. Raises DatabaseUnavailableError."""
    with database.reading() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def newest() -> str:
    """Return the revision that this version of the program requires."""
    return str(ScriptDirectory(str(_folder())).get_current_head())


def _config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def _folder() -> Path:
    return Path(__file__).parent
