"""The tables' history (Alembic). `upgrade` and `downgrade` run it on SQLite and on PostgreSQL."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from pipeline.db.engine import Database


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the tables to a revision, the newest unless told otherwise; what is there already stays."""
    command.upgrade(_config(database), revision)


def downgrade(database: Database, revision: str) -> None:
    """Take the tables back to a revision; `base` leaves none."""
    command.downgrade(_config(database), revision)


def current(database: Database) -> str | None:
    """The revision the tables are at, None if there are none. Raises StoreDown."""
    with database.reading() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def newest() -> str:
    """The revision this program was written for."""
    return str(ScriptDirectory(str(_folder())).get_current_head())


def _config(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def _folder() -> Path:
    return Path(__file__).parent
