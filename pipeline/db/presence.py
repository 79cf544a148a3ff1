"""Presence: a named lock that shows that a process is alive. It ends with the process or its connection, not by a timer.

SQLite: a file lock in the folder `run` next to the database. PostgreSQL: an advisory lock on a separate connection.
"""

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from pipeline.db.engine import Database, translated_errors


class Presence:
    """A lock that is held until `release()`, the end of the process, or the loss of its connection."""

    def still_held(self) -> bool:
        """Return whether the lock is still held. On PostgreSQL this queries the server."""
        raise NotImplementedError

    def release(self) -> None:
        """Release the lock. It cannot be taken again."""
        raise NotImplementedError


def hold(database: Database, name: str) -> Presence:
    """Acquire the presence of this name. Raises DatabaseUnavailableError."""
    if database.is_sqlite:
        return _FilePresence(_lock_file(database, name))
    return _LockPresence(database.engine, name)


def is_held(database: Database, name: str) -> bool:
    """Return whether the holder of this presence is still alive. Raises DatabaseUnavailableError."""
    if database.is_sqlite:
        return _FilePresence.is_held(_lock_file(database, name))
    with translated_errors(), database.engine.connect() as connection:
        free = connection.execute(text("SELECT pg_try_advisory_xact_lock(:n)"), {"n": _number(name)}).scalar_one()
        return not free


def _lock_file(database: Database, name: str) -> Path:
    folder = Path(database.url.database or ".").parent / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{name}.lock"


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


class _FilePresence(Presence):
    """A file lock. The kernel releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def still_held(self) -> bool:
        return True

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    @staticmethod
    def is_held(path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)  # the holder is dead, and names are never reused
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)


class _LockPresence(Presence):
    """A PostgreSQL advisory lock on a separate connection. The server releases it when the connection ends."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._lost = False
        with translated_errors():
            self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connection.execute(text("SELECT pg_advisory_lock(:n)"), {"n": _number(name)})

    def still_held(self) -> bool:
        if not self._lost:
            try:
                self._connection.execute(text("SELECT 1"))
            except SQLAlchemyError:
                self._lost = True  # permanently: SQLAlchemy would reconnect without the lock
        return not self._lost

    def release(self) -> None:
        self._lost = True
        with contextlib.suppress(SQLAlchemyError):
            self._connection.invalidate()
        with contextlib.suppress(SQLAlchemyError):
            self._connection.close()
