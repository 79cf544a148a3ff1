"""The database itself, out and in: SQLite by its online backup, PostgreSQL by pg_dump and pg_restore. Keys stay out."""

import contextlib
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pyrage
from sqlalchemy import URL

from pipeline.db.engine import Database
from pipeline.errors import UsageError
from pipeline.files import replace_atomically

# What a restore puts in itself, last: until then no role starts on the database.
WITHOUT = ("encryption_key", "alembic_version")


class BackupError(UsageError):
    """A backup cannot be made or restored. The message says why and what to do."""


def dump(database: Database, path: Path, recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    """Write the database without its keys to a new file, encrypted. Raises BackupProblem."""
    if database.is_sqlite:
        _dump_sqlite(database, path, recipients)
    else:
        _dump_postgresql(database, path, recipients)


def load(database: Database, path: Path, identities: Sequence[pyrage.x25519.Identity]) -> Database:
    """Put a dump into an empty database, without opening it to anybody. Raises BackupProblem.

    For SQLite a file beside it, which `open_to_all` renames. Gives the database to be filled with what is missing.
    """
    if not database.is_sqlite:
        _load_postgresql(database, path, identities)
        return database
    draft = _draft(database)
    with path.open("rb") as reader, draft.open("wb") as writer:
        draft.chmod(0o600)
        _decrypt(path, reader, writer, identities)
    return Database(f"sqlite:///{draft}")


def open_to_all(database: Database, filled: Database) -> None:
    """What `load` gave and is filled now becomes the database."""
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


def _dump_sqlite(database: Database, path: Path, recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    # Beside the database, not beside the backups: it is not encrypted yet.
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
        with copy.open("rb") as reader, replace_atomically(path) as writer:
            pyrage.encrypt_io(reader, writer, recipients)


def _dump_postgresql(database: Database, path: Path, recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    words = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges"]
    words += [f"--exclude-table-data={table}" for table in WITHOUT]
    with replace_atomically(path) as writer, _running([*words, *_to(database.url)], database.url) as reader:
        pyrage.encrypt_io(reader, writer, recipients)


def _load_postgresql(database: Database, path: Path, identities: Sequence[pyrage.x25519.Identity]) -> None:
    words = ["pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    with (
        path.open("rb") as reader,
        _running([*words, *_to(database.url)], database.url, feed=True) as writer,
        contextlib.suppress(BrokenPipeError),  # it ended early, and says why itself
    ):
        _decrypt(path, reader, writer, identities)
        writer.close()


def _decrypt(path: Path, reader: IO[bytes], writer: IO[bytes], identities: Sequence[pyrage.x25519.Identity]) -> None:
    try:
        pyrage.decrypt_io(reader, writer, identities)
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's own: the disk is full, the reader has ended
            raise
        raise BackupError(f"{path.name} does not open with this identity, or is damaged") from error


@contextlib.contextmanager
def _running(words: Sequence[str], url: URL, *, feed: bool = False) -> Iterator[IO[bytes]]:
    """One of PostgreSQL's programs: what it says, or with `feed` where it is told. Raises BackupProblem if it fails.

    The password goes by its environment: other users of the machine can read a command line.
    """
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # noqa: S603 - words of ours
                words, stdin=pipe if feed else none, stdout=none if feed else pipe, stderr=said, env=environment
            )
        except FileNotFoundError:
            raise BackupError(f"{words[0]} is not installed; on Debian: apt-get install postgresql-client") from None
        with process:
            try:
                yield process.stdin if feed else process.stdout  # type: ignore[misc]
            except BaseException:
                process.kill()  # before it commits the half that it has
                raise
        if process.returncode:
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
            raise BackupError(f"{words[0]} failed: {lines[0][:200] if lines else process.returncode}")


def _to(url: URL) -> list[str]:
    plain = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    return [f"--dbname={plain}"]
