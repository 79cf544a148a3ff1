"""What every command is given: the settings, and the parts it asks for, each opened at its first use.

Nothing heavy is imported before it is used, so `--help` is quick and a list does not wait for the mailer's libraries.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from pipeline.app.container import Parts
    from pipeline.billing.unit_of_work import Handler
    from pipeline.clock import Clock
    from pipeline.crypto.master_key import MasterKey
    from pipeline.db.engine import Database
    from pipeline.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="No more than so many, the newest.")]

NO_TABLES = "the database has no tables yet; run: smt-billing db upgrade"


class Call:
    """One call of the command line. Raises SettingsError and KeyProblem when what is asked for cannot be had."""

    def __init__(self, handlers: "Callable[[], Mapping[str, Handler]]") -> None:
        self._handlers = handlers

    @cached_property
    def settings(self) -> "Settings":
        from pipeline.settings import load

        return load()

    @cached_property
    def clock(self) -> "Clock":
        from pipeline.clock import SystemClock

        return SystemClock()

    @cached_property
    def database(self) -> "Database":
        """The database with the tables this program was written for. Never makes one."""
        from pipeline.db.engine import is_made
        from pipeline.settings import SettingsError

        if not is_made(self.settings.database):
            raise SettingsError(NO_TABLES)
        database = self.untouched_database
        _need_tables(database)
        return database

    @cached_property
    def untouched_database(self) -> "Database":
        """The database as it is, with whatever tables or none."""
        from pipeline.db.engine import Database

        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database(self.settings.database)

    @cached_property
    def master(self) -> "MasterKey":
        """The master key there is: a command that looks never makes one."""
        from pipeline.crypto.master_key import open_master_key

        return open_master_key(self.settings.master_key, create=False)

    @cached_property
    def parts(self) -> "Parts":
        """All parts of the pipeline, for commands that work."""
        return self.parts_with(self.settings)

    def close(self) -> None:
        """Close what was opened."""
        if "untouched_database" in self.__dict__:
            self.untouched_database.close()
        if "parts" in self.__dict__ and "database" in self.parts.__dict__:
            self.parts.database.close()

    def parts_with(self, settings: "Settings", clock: "Clock | None" = None) -> "Parts":
        """The parts with other settings than the operator's, as the demo has them."""
        from pipeline.app.container import Parts

        return Parts(settings, self._handlers(), clock)


def of(context: typer.Context) -> Call:
    """The call that a command belongs to."""
    return cast(Call, context.obj)


def version_of_program() -> str:
    """The installed version."""
    try:
        return metadata.version("smt-billing")
    except metadata.PackageNotFoundError:
        return "not installed, run from its sources"


def _need_tables(database: "Database") -> None:
    from pipeline.db import migrations
    from pipeline.settings import SettingsError

    found, newest = migrations.current(database), migrations.newest()
    if found is None:
        raise SettingsError(NO_TABLES)
    if found != newest:
        raise SettingsError(f"the tables are of revision {found}, not {newest}; run: smt-billing db upgrade")
