"""Copies of everything a restore needs, encrypted with age for whoever keeps the identity; keys apart, and for fewer days.

    20260301T100000Z.sqlite-0002.age   the database without its keys: nothing personal in it can be opened
    20260301T100000Z.keys.age          the keys of labels and the master key that wraps them; only the newest few are kept
    erasures.json                      who was erased, by pseudonyms: played again by a restore, before it opens

With the age identity kept elsewhere, the machine that writes backups cannot read them. A rotation of the master key
leaves one file of keys, the newest: what was erased before it opens from no backup.
"""

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyrage
from sqlalchemy import insert, inspect, select, text

from pipeline import files
from pipeline.clock import format_time, parse_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import EncryptionKey, Erasure
from pipeline.operations.backup.database_dump import BackupError, dump, load, open_to_all
from pipeline.privacy.erasure.shredding import replay_erasures, replay_record

__all__ = ["BackupError", "BackupFiles", "BackupStore", "RestoreResult", "new_identity"]

KEYS = ".keys.age"
ERASURES = "erasures.json"
AT_ONCE = 1000  # keys of one statement


@dataclass(frozen=True, slots=True)
class BackupFiles:
    """The files of one backup."""

    data: Path
    keys: Path


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What came back, and how many people were erased once more because the copy was older than their erasure."""

    data: Path
    keys: Path
    erased_again: int


@dataclass(frozen=True, slots=True)
class BackupStore:
    """Where backups lie, for whom they are encrypted, how long they are kept."""

    folder: Path
    recipient: str
    keys_kept: timedelta = timedelta(days=7)
    data_kept: timedelta = timedelta(days=30)

    # -- making

    def create(self, database: Database, master: Path, now: datetime) -> BackupFiles:
        """Copy everything. Raises BackupProblem, StoreDown."""
        self._prepare()
        kind = "sqlite" if database.is_sqlite else "postgresql"
        data = self.folder / f"{_stamp(now)}.{kind}-{migrations.current(database)}.age"
        dump(database, data, self._recipients())
        made = BackupFiles(data, self.save_keys(database, master, now))
        self._expire(KEYS, now - self.keys_kept, made.keys)
        self._expire(".age", now - self.data_kept, made.data)
        return made

    def save_keys(self, database: Database, master: Path, now: datetime, *, only: bool = False) -> Path:
        """Copy keys, master key and erasures; with `only`, older copies of keys go. Raises BackupProblem, StoreDown."""
        self._prepare()
        self.save_erasures(database)
        with database.reading() as session:
            rows = [
                _key_record(row)
                for row in session.execute(select(EncryptionKey).order_by(EncryptionKey.key_id)).scalars()
            ]
        plain = orjson.dumps({"made_at": format_time(now), "master": master.read_text("ascii").strip(), "keys": rows})
        path = self.folder / f"{_stamp(now)}{KEYS}"
        with files.replace_atomically(path) as file:
            file.write(pyrage.encrypt(plain, self._recipients()))
        if only:
            for old in set(self.folder.glob(f"*{KEYS}")) - {path}:
                old.unlink()
        return path

    def save_erasures(self, database: Database) -> None:
        """Note beside the backups whom a restore has to erase once more. What was noted stays."""
        if not self.folder.is_dir():
            return
        with database.reading() as session:
            there = [replay_record(row) for row in session.execute(select(Erasure)).scalars()]
        known = {row["id"]: row for row in self.erasures()}
        if any(row["id"] not in known or row["labels"] != known[row["id"]]["labels"] for row in there):
            rows = sorted((known | {row["id"]: row for row in there}).values(), key=lambda row: (row["at"], row["id"]))
            with files.replace_atomically(self.folder / ERASURES) as file:
                file.write(b"[\n" + b",\n".join(orjson.dumps(row) for row in rows) + b"\n]\n")

    def erasures(self) -> list[dict[str, Any]]:
        """What is noted of erasures. Raises BackupProblem."""
        path = self.folder / ERASURES
        try:
            found: list[dict[str, Any]] = orjson.loads(path.read_bytes()) if path.exists() else []
        except ValueError:
            raise BackupError(
                f"{path} cannot be read, and without it a restore brings erased people back: take it from another copy"
            ) from None
        return found

    def _prepare(self) -> None:
        self._recipients()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _recipients(self) -> Sequence[pyrage.x25519.Recipient]:
        return [read_recipient(self.recipient)]

    def _expire(self, ending: str, before: datetime, newest: Path) -> None:
        for path in self.folder.glob(f"*{ending}"):
            is_keys = path.name.endswith(KEYS)
            if path != newest and is_keys == (ending == KEYS) and path.name < _stamp(before):
                path.unlink()

    # -- restoring

    def restore(
        self, database: Database, master: Path, identity: Path, now: datetime, *, data: Path | None = None
    ) -> RestoreResult:
        """Bring back the newest copy, or the one named, into an empty database, with the newest keys.

        Whoever was erased since the copy was made is erased once more before it opens. Raises BackupProblem, StoreDown.
        """
        opener = _identities(identity)
        kind = "sqlite" if database.is_sqlite else "postgresql"
        data, keys = data or _newest(self.folder, f"*.{kind}-*.age"), _newest(self.folder, f"*{KEYS}")
        revision, kept, erasures = _revision(data, kind), _opened(keys, opener), self.erasures()
        _need_empty(database)
        ring = _restore_master(master, kept)
        with contextlib.closing(load(database, data, opener)) as filled:
            with filled.transaction() as session:
                for start in range(0, len(kept["keys"]), AT_ONCE):
                    session.execute(insert(EncryptionKey), [_key(row) for row in kept["keys"][start : start + AT_ONCE]])
                again = replay_erasures(session, Keyring(ring, session, now), erasures)
                if not database.is_sqlite:  # a dump of SQLite holds it, and opens when it gets its name
                    session.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})
            open_to_all(database, filled)
        return RestoreResult(data, keys, again)


def read_recipient(text: str) -> pyrage.x25519.Recipient:
    """Who can open the backups. Raises BackupProblem."""
    try:
        return pyrage.x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError:
        raise BackupError(
            "SMT_BACKUP_RECIPIENT is no age recipient (age1…); make one: smt-billing backup identity FILE"
        ) from None


def new_identity(path: Path) -> str:
    """Write a new age identity to a file that is not there yet; the recipient to encrypt for. Raises BackupProblem."""
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    try:
        with files.create_private(path) as file:
            file.write(f"# public key: {recipient}\n{identity}\n".encode())
    except FileExistsError:
        raise BackupError(f"{path} is there already; name a new file") from None
    return recipient


def _identities(path: Path) -> Sequence[pyrage.x25519.Identity]:
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise BackupError(f"{path} holds no age identity: a line that begins with AGE-SECRET-KEY-1 was expected")
    return found


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise BackupError(f"there is no {pattern.lstrip('*.')} in {folder}: is SMT_BACKUP_DIR the right folder?")
    return found[-1]


def _revision(data: Path, kind: str) -> str:
    """The revision of its tables, told by its name."""
    middle = data.name.split(".")[1] if data.name.count(".") == 2 else ""
    if not middle.startswith(f"{kind}-"):
        raise BackupError(f"{data.name} is no backup of a {kind} database; SMT_DATABASE_URL says which kind is wanted")
    revision = middle.removeprefix(f"{kind}-")
    if revision > migrations.newest():
        raise BackupError(f"{data.name} was made by a newer version; install that one to restore it")
    return revision


def _opened(keys: Path, opener: Sequence[pyrage.x25519.Identity]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(pyrage.decrypt(keys.read_bytes(), opener))
    except (pyrage.DecryptError, ValueError) as error:
        raise BackupError(f"{keys.name} does not open with this identity, or is damaged") from error
    return found


def _need_empty(database: Database) -> None:
    with database.reading() as session:
        tables = inspect(session.connection()).get_table_names()
    if tables:
        raise BackupError(
            "the database is not empty, and a restore replaces nothing: move it away, or name another one"
        )


def _restore_master(path: Path, kept: Mapping[str, Any]) -> MasterKey:
    """The master key that wraps the restored keys; the one that is there stays."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.replace_atomically(path) as file:
            file.write(f"{kept['master']}\n".encode("ascii"))
    ring = open_master_key(path, create=False)
    row = next((row for row in kept["keys"] if row["wrapped"]), None)
    try:
        if row:
            ring.unwrap(row["label"], base64.b64decode(row["wrapped"]))
    except MasterKeyError:
        raise BackupError(
            f"{path} is another master key than that of the backup: move it away and restore again"
        ) from None
    return ring


def _key_record(row: EncryptionKey) -> dict[str, Any]:
    return {
        "label": row.key_id,
        "wrapped": row.wrapped_key and base64.b64encode(row.wrapped_key).decode(),
        "created_at": format_time(row.created_at),
        "erased_at": row.erased_at and format_time(row.erased_at),
    }


def _key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key_id": row["label"],
        "wrapped_key": row["wrapped"] and base64.b64decode(row["wrapped"]),
        "created_at": parse_time(row["created_at"]),
        "erased_at": parse_time(row["erased_at"]),
    }


def _stamp(now: datetime) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}"
