"""What every command works with: settings, clock, database and master key, each opened at its first use.

The rest of the pipeline is in `pipeline.cli.container`, so that a list does not wait for the libraries of web and mail.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from typing import Annotated

import typer

from pipeline.billing.unit_of_work import Handler
from pipeline.clock import Clock, SystemClock
from pipeline.crypto.master_key import MasterKey, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import Database, exists
from pipeline.queries.listing import Decryptor
from pipeline.settings import Settings, SettingsError, load

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many, the newest.")]

NO_TABLES = "the database has no tables yet; run: smt-billing db upgrade"


class CommandContext:
    """The context of one command. Raises SettingsError and KeyProblem when something cannot be opened."""

    def __init__(self, handlers: Callable[[], Mapping[str, Handler]]) -> None:
        self.handlers = handlers
        self._opened = ExitStack()

    @cached_property
    def settings(self) -> Settings:
        return load()

    @cached_property
    def clock(self) -> Clock:
        return SystemClock()

    @cached_property
    def database(self) -> Database:
        """The database, with the tables of this version. Never created here."""
        if not exists(self.settings.database):
            raise SettingsError(NO_TABLES)
        database = self.unchecked_database
        _need_tables(database)
        return database

    @cached_property
    def unchecked_database(self) -> Database:
        """The database with tables of any version, or none."""
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(self.settings.database)
        self.on_close(database.close)
        return database

    @cached_property
    def master_key(self) -> MasterKey:
        """The existing master key. Never created here."""
        return open_master_key(self.settings.master_key, create=False)

    @contextmanager
    def decryptor(self) -> Iterator[Decryptor]:
        """Read the database, and decrypt what it holds."""
        with self.database.reading() as session:
            yield Decryptor(session, lambda: self.master_key, self.clock.now())

    def on_close(self, close: Callable[[], object]) -> None:
        """Call this when the command has ended."""
        self._opened.callback(close)

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()


def context_of(context: typer.Context) -> CommandContext:
    """The context of this command. Made when it is first needed, as `health` needs none; closed when the program ends."""
    call = context.find_object(CommandContext)
    if call is None:
        root = context.find_root()
        call = root.obj = root.with_resource(closing(CommandContext(root.obj)))
    return call


def _need_tables(database: Database) -> None:
    found, newest = migrations.current(database), migrations.newest()
    if found is None:
        raise SettingsError(NO_TABLES)
    if found != newest:
        raise SettingsError(f"the tables are of revision {found}, not {newest}; run: smt-billing db upgrade")
