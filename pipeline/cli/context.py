"""The context of a command: settings, clock, database and master key, each opened on first use.

The whole pipeline is in `pipeline.cli.container`, so that a list does not import the libraries of web and mail.
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
from pipeline.demo.vendor import in_demo_folder, with_demo_paypal, with_demo_vendor
from pipeline.queries.listing import Decryptor
from pipeline.settings import Settings, SettingsError, load

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of rows (newest first).")]

NO_TABLES = "the database has no tables yet; run: smt-billing db upgrade"


class CommandContext:
    """Opens what one command needs, when it needs it. Raises SettingsError, MasterKeyError and DatabaseUnavailableError."""

    def __init__(self, handlers: Callable[[], Mapping[str, Handler]]) -> None:
        self.handlers = handlers
        self._opened = ExitStack()

    @cached_property
    def settings(self) -> Settings:
        """The settings of the operator. In a demo's data folder, the demo's vendor replaces those that are missing."""
        settings = load()
        return with_demo_vendor(with_demo_paypal(settings)) if in_demo_folder(settings) else settings

    @cached_property
    def clock(self) -> Clock:
        return SystemClock()

    @cached_property
    def database(self) -> Database:
        """The database. It must exist and have the tables of this version; a command that reads creates nothing."""
        if not exists(self.settings.database):
            raise SettingsError(NO_TABLES)
        database = self.unchecked_database
        _require_current_tables(database)
        return database

    @cached_property
    def unchecked_database(self) -> Database:
        """The database, with tables of any version or without tables. Created if it does not exist."""
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(self.settings.database)
        self.on_close(database.close)
        return database

    @cached_property
    def master_key(self) -> MasterKey:
        """The master key. It must exist."""
        return open_master_key(self.settings.master_key, create=False)

    @contextmanager
    def decryptor(self) -> Iterator[Decryptor]:
        """Open a read-only session that can decrypt stored data."""
        with self.database.reading() as session:
            yield Decryptor(session, lambda: self.master_key, self.clock.now())

    def on_close(self, close: Callable[[], object]) -> None:
        """Call `close` when the command ends."""
        self._opened.callback(close)

    def close(self) -> None:
        """Close everything that was opened."""
        self._opened.close()


def context_of(ctx: typer.Context) -> CommandContext:
    """Return the context of this command. It is created on first use and closed when the program exits."""
    context = ctx.find_object(CommandContext)
    if context is None:
        root = ctx.find_root()
        context = root.obj = root.with_resource(closing(CommandContext(root.obj)))
    return context


def _require_current_tables(database: Database) -> None:
    found, newest = migrations.current(database), migrations.newest()
    if found is None:
        raise SettingsError(NO_TABLES)
    if found != newest:
        raise SettingsError(
            f"the tables have revision {found}, but this version needs {newest}; run: smt-billing db upgrade"
        )
