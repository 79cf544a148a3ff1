"""Dump and load the database without its keys: SQLite with its online backup, PostgreSQL with pg_dump and pg_restore."""

import contextlib
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyrage
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from pipeline.child_environment import child_environment
from pipeline.db.engine import Database
from pipeline.errors import UsageError

# Tables that the restore fills itself, at the end. Until then no role starts on the database.
EXCLUDED_TABLES = ("encryption_key", "alembic_version")


class BackupError(UsageError):
    """A backup cannot be created or restored. The message says why and what to do."""


def dump(database: Database, writer: IO[bytes], recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    """Write the database without its keys, encrypted, to the file `writer`. Raises BackupError."""
    if database.is_sqlite:
        _dump_sqlite(database, writer, recipients)
    else:
        _dump_postgresql(database, writer, recipients)


def load(database: Database, dump: IO[bytes], name: str, identities: Sequence[pyrage.x25519.Identity]) -> Database:
    """Load an encrypted dump into an empty database that no role can use yet. Return the loaded one. Raises BackupError.

    `name` is the file's name for messages. The caller adds the missing rows to the database. On SQLite it is a separate
    file, which `activate` renames.
    """
    if not database.is_sqlite:
        _load_postgresql(database, dump, name, identities)
        return database
    draft = _draft(database)
    with draft.open("wb") as writer:
        draft.chmod(0o600)
        _decrypt(name, dump, writer, identities)
    return Database(f"sqlite:///{draft}")


def activate(database: Database, filled: Database) -> None:
    """Replace the database by the one that `load` returned, after the missing rows were added."""
    if not database.is_sqlite:
        return
    filled.truncate_wal()
    filled.close()
    database.close()
    target = Path(database.url.database or "")
    for ending in ("-wal", "-shm"):
        target.with_name(target.name + ending).unlink(missing_ok=True)
    _draft(database).replace(target)


def _draft(database: Database) -> Path:
    target = Path(database.url.database or "")
    return target.with_name(f"{target.name}.restoring")


def _dump_sqlite(database: Database, writer: IO[bytes], recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    # Next to the database and not next to the backups, because this copy is not encrypted yet.
    folder = Path(database.url.database or ".").parent
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as scratch:
        copy = Path(scratch) / "copy.db"
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
            with contextlib.closing(database.engine.raw_connection()) as source:
                source.driver_connection.backup(target)  # type: ignore[union-attr]
            target.execute("PRAGMA secure_delete=ON")
            target.execute("DELETE FROM encryption_key")
            target.execute("PRAGMA journal_mode=DELETE")
            target.execute("VACUUM")
        with copy.open("rb") as reader:
            pyrage.encrypt_io(reader, writer, recipients)


def _dump_postgresql(database: Database, writer: IO[bytes], recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges"]
    command += [f"--exclude-table-data={table}" for table in EXCLUDED_TABLES]
    with _running(command, database.url) as reader:
        pyrage.encrypt_io(reader, writer, recipients)


def _load_postgresql(
    database: Database, dump: IO[bytes], name: str, identities: Sequence[pyrage.x25519.Identity]
) -> None:
    command = ["pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    with (
        _running(command, database.url, feed=True) as writer,
        contextlib.suppress(BrokenPipeError),  # pg_restore ended early; its exit code and message are reported
    ):
        _decrypt(name, dump, writer, identities)
        writer.close()


def _decrypt(name: str, reader: IO[bytes], writer: IO[bytes], identities: Sequence[pyrage.x25519.Identity]) -> None:
    try:
        pyrage.decrypt_io(reader, writer, identities)
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # a system error: the disk is full, or the reader has ended
            raise
        raise BackupError(f"{name} cannot be decrypted with this identity, or is damaged") from error


@contextlib.contextmanager
def _running(command: Sequence[str], url: URL, *, feed: bool = False) -> Iterator[IO[bytes]]:
    """Run one of PostgreSQL's programs: yield its output, or its input with `feed`. Raises BackupError if it fails."""
    conninfo, environment = connection_parameters(url)
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is built in this module
                [*command, f"--dbname={conninfo}"],
                stdin=pipe if feed else none,
                stdout=none if feed else pipe,
                stderr=errors,
                env=child_environment("PG", "KRB5", **environment),
            )
        except FileNotFoundError:
            raise BackupError(
                f"{command[0]} is not installed; on Debian, run: apt-get install postgresql-client"
            ) from None
        with process:
            try:
                yield process.stdin if feed else process.stdout  # type: ignore[misc]
            except BaseException:
                process.kill()  # before it commits incomplete data
                raise
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise BackupError(f"{command[0]} failed: {lines[0][:200] if lines else process.returncode}")


def connection_parameters(url: URL) -> tuple[str, dict[str, str]]:
    """Return the connection string for a command line, and environment variables with all other parameters.

    Other users of the machine can read command lines. So every parameter that has a variable is passed in it, and a
    secret without a variable is refused. libpq itself says what is secret. Raises BackupError.
    """
    _, values = url.get_dialect()().create_connect_args(url)
    options = {option.keyword.decode(): option for option in pq.Conninfo.get_defaults()}
    shown, environment = {}, {}
    for name, value in values.items():
        option = options.get(name)
        if option and option.envvar and name != "dbname":
            environment[option.envvar.decode()] = _text(value)
        elif option and option.dispchar:
            raise BackupError(
                f"pg_dump and pg_restore accept {name} only on their command line; remove it from the URL"
            )
        else:
            shown[name] = _text(value)
    return make_conninfo("", **shown), environment


def _text(value: Any) -> str:
    """Return a parameter as text. A parameter that occurs twice in the URL, such as `options`, is a tuple."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
