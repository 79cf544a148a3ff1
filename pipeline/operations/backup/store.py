"""Create and restore backups, encrypted with age and signed. Keys are in separate files, which are kept for fewer days.

    20260301T100000Z.sqlite-0002.age   the database without its keys; its personal data cannot be decrypted
    20260301T100000Z.keys.age          data keys and the master key that wraps them; only the newest files are kept
    ….age.sig                          signature of each of these files, see `signatures`
    erasures.json                      pseudonyms of erased customers, and a signature; a restore repeats these erasures
                                       before roles can start

Store the age identity on another machine: then the machine that writes backups cannot read them. A rotation of the
master key keeps only the newest file of keys, so data that was erased before it cannot be restored from any backup.
"""

import base64
import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import orjson
import pyrage
from sqlalchemy import insert, inspect, select, text

from pipeline import files
from pipeline.clock import format_time, parse_time
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError, open_master_key
from pipeline.crypto.signing import PublicKey
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import EncryptionKey, Erasure
from pipeline.operations.backup import signatures
from pipeline.operations.backup.database_dump import BackupError, activate, dump, load
from pipeline.operations.backup.signatures import BackupSigner, HashingWriter
from pipeline.privacy.erasure.shredding import replay_erasures, replay_record

__all__ = ["BackupError", "BackupFiles", "BackupStore", "RestoreResult", "new_identity"]

KEYS = ".keys.age"
ERASURES = "erasures.json"
SIGNER_LINE = "# signer: "
BATCH = 1000  # keys per INSERT


@dataclass(frozen=True, slots=True)
class BackupFiles:
    """The files of one backup."""

    data: Path
    keys: Path


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The restored files, and the number of customers erased again because the backup was older than their erasure."""

    data: Path
    keys: Path
    erased_again: int


@dataclass(frozen=True, slots=True)
class BackupStore:
    """A folder of backups, its age recipient ("" if nothing is created), and the retention periods."""

    folder: Path
    recipient: str
    keys_kept: timedelta = timedelta(days=7)
    data_kept: timedelta = timedelta(days=30)

    # -- create

    def create(self, database: Database, master: Path, now: datetime) -> BackupFiles:
        """Create a backup and delete expired ones. Raises BackupError, MasterKeyError and DatabaseUnavailableError."""
        self._prepare()
        signer = BackupSigner.open(database, master, now)
        kind = "sqlite" if database.is_sqlite else "postgresql"
        name = f"{_stamp(now)}.{kind}-{migrations.current(database)}.age"
        data = self._write_signed(name, lambda file: dump(database, file, self._recipients()), signer)
        created = BackupFiles(data, self.save_keys(database, master, now))
        self._expire(KEYS, now - self.keys_kept, created.keys)
        self._expire(".age", now - self.data_kept, created.data)
        return created

    def save_keys(self, database: Database, master: Path, now: datetime, *, only: bool = False) -> Path:
        """Save data keys, master key and erasures. With `only`, delete all older files of keys.

        Raises BackupError, MasterKeyError and DatabaseUnavailableError.
        """
        self._prepare()
        self.save_erasures(database, master, now)
        signer = BackupSigner.open(database, master, now)
        erasures = [row["id"] for row in self.erasures(signer.public)]
        with database.reading() as session:
            rows = [
                _key_record(row)
                for row in session.execute(select(EncryptionKey).order_by(EncryptionKey.key_id)).scalars()
            ]
        secret = {"made_at": format_time(now), "master": master.read_text("ascii").strip(), "keys": rows}
        encrypted = pyrage.encrypt(orjson.dumps(secret | {"erasures": erasures}), self._recipients())
        path = self._write_signed(f"{_stamp(now)}{KEYS}", lambda file: file.write(encrypted), signer)
        if only:
            for old in set(self.folder.glob(f"*{KEYS}*")) - {path, signatures.signature_of(path)}:
                old.unlink()
        return path

    def _write_signed(self, name: str, write: Callable[[IO[bytes]], object], signer: BackupSigner) -> Path:
        """Write a file and its signature. The file appears under its name only after its signature.

        The bytes are hashed on their way to the file: others may be able to replace it before it would be read again.
        """
        path = self.folder / name
        with files.replace_atomically(path) as file:
            hashed = HashingWriter(file)
            with io.BufferedWriter(hashed) as writer:
                write(writer)
            files.write_atomically(signatures.signature_of(path), signer.sign_file(name, hashed.sha256))
        return path

    def save_erasures(self, database: Database, master: Path, now: datetime) -> None:
        """Add the erasures to `erasures.json`, so that a restore repeats them. Existing entries are kept.

        Raises BackupError, MasterKeyError and DatabaseUnavailableError.
        """
        if not self.folder.is_dir():
            return
        with database.reading() as session:
            current = [replay_record(row) for row in session.execute(select(Erasure)).scalars()]
        known = {row["id"]: row for row in self.erasures(None)}
        if any(row["id"] not in known or row["labels"] != known[row["id"]]["labels"] for row in current):
            signer = BackupSigner.open(database, master, now)
            known = {row["id"]: row for row in self.erasures(signer.public)} | {row["id"]: row for row in current}
            rows = sorted(known.values(), key=lambda row: (row["at"], row["id"]))
            signed = {"erasures": rows, "signature": signer.sign(_erasures_statement(rows))}
            files.write_atomically(self.folder / ERASURES, orjson.dumps(signed, option=orjson.OPT_INDENT_2))

    def erasures(self, public: PublicKey | None) -> list[dict[str, Any]]:
        """Return the entries of `erasures.json`, which this key must have signed; None: do not check.

        Raises BackupError if the file cannot be read, or if its signature is not valid.
        """
        path = self.folder / ERASURES
        try:
            found = orjson.loads(path.read_bytes()) if path.exists() else None
            rows: list[dict[str, Any]] = found["erasures"] if found else []
            is_valid = not (found and public) or _is_signed(rows, found["signature"], public)
        except (ValueError, TypeError, KeyError):
            raise BackupError(
                f"{path} cannot be read. A restore without it brings erased customers back; copy it from another backup"
            ) from None
        if not is_valid:
            raise BackupError(
                f"{path} was changed: it is not signed with the key of this installation. Copy it from another backup, or "
                "move it away where the database still exists: the next backup writes it again"
            )
        return rows

    def _prepare(self) -> None:
        self._recipients()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _recipients(self) -> Sequence[pyrage.x25519.Recipient]:
        return [read_recipient(self.recipient)]

    def _expire(self, ending: str, before: datetime, newest: Path) -> None:
        for path in self.folder.glob("*.age*"):
            name = path.name.removesuffix(signatures.ENDING)
            if name != newest.name and name.endswith(KEYS) == (ending == KEYS) and name < _stamp(before):
                path.unlink()

    # -- restore

    def restore(
        self,
        database: Database,
        master: Path,
        identity: Path,
        now: datetime,
        *,
        signer: str | None = None,
        data: Path | None = None,
    ) -> RestoreResult:
        """Restore the newest backup, or `data`, into an empty database, with the newest keys.

        All files must be signed with the key `signer`, by default the one in the identity's file.

        Customers who were erased after the backup are erased again before any role can use the database.
        Raises BackupError and DatabaseUnavailableError.
        """
        identities, public = _identities(identity), signatures.read_signer(signer or _signer_in(identity))
        kind = "sqlite" if database.is_sqlite else "postgresql"
        data, keys = data or _newest(self.folder, f"*.{kind}-*.age"), _newest(self.folder, f"*{KEYS}")
        revision, erasures = _revision(data, kind), self.erasures(public)
        master.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # private, so the copies are stored there
        with signatures.open_signed(keys, public, master.parent) as file:
            kept = _decrypt_keys(file.read(), keys.name, identities)
        _require_all_erasures(kept, erasures)
        with signatures.open_signed(data, public, master.parent) as file:
            _require_empty(database)
            master_key = _restore_master(master, kept)
            loaded = load(database, file, data.name, identities)
        with contextlib.closing(loaded) as filled:
            with filled.transaction() as session:
                for start in range(0, len(kept["keys"]), BATCH):
                    session.execute(insert(EncryptionKey), [_key(row) for row in kept["keys"][start : start + BATCH]])
                again = replay_erasures(session, Keyring(master_key, session, now), erasures)
                if not database.is_sqlite:  # a dump of SQLite contains it; that file is renamed at the end
                    session.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})
            activate(database, filled)
        return RestoreResult(data, keys, again)


def read_recipient(text: str) -> pyrage.x25519.Recipient:
    """Parse an age recipient. Raises BackupError."""
    try:
        return pyrage.x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError:
        raise BackupError(
            "SMT_BACKUP_RECIPIENT is not an age recipient (age1…); to create one, run: smt-billing backup identity FILE"
        ) from None


def new_identity(path: Path) -> str:
    """Write a new age identity to a new file. Return its recipient. Raises BackupError if the file exists."""
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    try:
        with files.create_private(path) as file:
            file.write(f"# public key: {recipient}\n{identity}\n".encode())
    except FileExistsError:
        raise BackupError(f"{path} already exists; choose a new file name") from None
    return recipient


def _identities(path: Path) -> Sequence[pyrage.x25519.Identity]:
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise BackupError(f"{path} contains no age identity: expected a line that starts with AGE-SECRET-KEY-1")
    return found


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise BackupError(f"no file {pattern} in {folder}; check SMT_BACKUP_DIR")
    return found[-1]


def _signer_in(identity: Path) -> str:
    """Return the key in the line `# signer: …` of the identity's file. Raises BackupError."""
    lines = [line.strip() for line in identity.read_text("utf-8").splitlines()]
    found = [line.removeprefix(SIGNER_LINE) for line in lines if line.startswith(SIGNER_LINE)]
    if not found:
        raise BackupError(
            f"{identity} names no signer. Add the line that `smt-billing backup signer` prints on the machine that creates the "
            "backups, or give the key with --signer. If both are lost, see docs/operations.md"
        )
    return found[-1]


def _require_all_erasures(kept: Mapping[str, Any], erasures: Sequence[Mapping[str, Any]]) -> None:
    """Raise BackupError if the file of erasures is older than the file of keys."""
    missing = set(kept["erasures"]) - {row["id"] for row in erasures}
    if missing:
        raise BackupError(
            f"{ERASURES} is older than the keys: {len(missing)} erasures are missing, so erased customers would come back. "
            "Copy the newest one from where you keep backups"
        )


def _erasures_statement(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return ERASURES.encode() + b"\n" + orjson.dumps(rows)


def _is_signed(rows: Sequence[Mapping[str, Any]], signature: str, public: PublicKey) -> bool:
    return signatures.is_statement_signed(_erasures_statement(rows), signature, public)


def _revision(data: Path, kind: str) -> str:
    """Return the revision of the tables, which is part of the file name."""
    middle = data.name.split(".")[1] if data.name.count(".") == 2 else ""
    if not middle.startswith(f"{kind}-"):
        raise BackupError(f"{data.name} is not a backup of a {kind} database; check SMT_DATABASE_URL")
    revision = middle.removeprefix(f"{kind}-")
    if revision > migrations.newest():
        raise BackupError(
            f"{data.name} was created by a newer version of this program; install that version to restore it"
        )
    return revision


def _decrypt_keys(encrypted: bytes, name: str, identities: Sequence[pyrage.x25519.Identity]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = orjson.loads(pyrage.decrypt(encrypted, identities))
    except (pyrage.DecryptError, ValueError) as error:
        raise BackupError(f"{name} cannot be decrypted with this identity, or is damaged") from error
    return found


def _require_empty(database: Database) -> None:
    with database.reading() as session:
        tables = inspect(session.connection()).get_table_names()
    if tables:
        raise BackupError(
            "the database is not empty, and a restore does not overwrite data; move it away or set another SMT_DATABASE_URL"
        )


def _restore_master(path: Path, kept: Mapping[str, Any]) -> MasterKey:
    """Write the master key of the backup, unless a master key exists. Raises BackupError if that is a different one."""
    if not path.exists():
        with files.replace_atomically(path) as file:
            file.write(f"{kept['master']}\n".encode("ascii"))
    master_key = open_master_key(path, create=False)
    row = next((row for row in kept["keys"] if row["wrapped"]), None)
    try:
        if row:
            master_key.unwrap(row["label"], base64.b64decode(row["wrapped"]))
    except MasterKeyError:
        raise BackupError(f"{path} is not the master key of the backup; move it away and restore again") from None
    return master_key


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
