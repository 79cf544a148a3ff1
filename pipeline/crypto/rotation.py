"""Rotate the master key while all roles run, and destroy the previous key.

    1. link the current key file as `….previous`, and rename a new key file to its place
    2. wait for transactions that wrap with the old key; all later ones wrap with the new key
    3. wrap every data key again, in batches
    4. overwrite and remove the previous key; keys that it wrapped in old pages and copies can no longer be unwrapped

If a rotation is interrupted, the next one resumes it. Roles detect the new key by the files, see `MasterKey`.
An erasure is complete when the master key that wrapped the destroyed keys is destroyed (NIST SP 800-88 rev. 2, section
on cryptographic erase: every copy of the key).
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.master_key import MasterKey, MasterKeyError, new_secret, open_master_key, previous_key_path
from pipeline.db.engine import Database, lock_after_writers
from pipeline.db.models import EncryptionKey, Erasure, PrivacyRequest
from pipeline.files import sync_folder

BATCH = 500  # data keys wrapped again per transaction
GRACE_SECONDS = 2.0  # time for other processes to unwrap keys that they have just read


@dataclass(frozen=True, slots=True)
class RotationResult:
    """Result of a rotation: number of keys wrapped again, ids of both master keys, number of completed erasures."""

    keys: int
    old_id: str
    new_id: str
    completed: int


def rotate(
    database: Database,
    path: Path,
    now: datetime,
    *,
    save: Callable[[MasterKey], object] = lambda _: None,
    grace_seconds: float = GRACE_SECONDS,
) -> RotationResult:
    """Replace the master key at this path, or resume an interrupted rotation.

    `save` is called after all keys are wrapped again and before the old key is destroyed, to copy what a restore needs.
    Raises MasterKeyError; the old key then still exists and nothing is lost. Raises DatabaseUnavailableError.
    """
    with _exclusive(path):
        old_id = _begin(path)
        with database.transaction() as session:
            lock_after_writers(session, EncryptionKey)
        master = open_master_key(path, create=False)
        keys = _wrap_all(database, master)
        save(master)
        time.sleep(grace_seconds)
        _destroy(previous_key_path(path))
    master.refresh()
    with database.transaction() as session:
        completed = complete_erasures(session, path, master, now)
    database.truncate_wal()
    return RotationResult(keys, old_id, master.id, completed)


def complete_erasures(session: Session, path: Path, master_key: MasterKey, now: datetime) -> int:
    """Mark erasures as complete if the master key that wrapped their keys is destroyed. Return how many."""
    if previous_key_path(path).exists():
        return 0
    result = session.execute(
        update(Erasure)
        .where(
            Erasure.completed_at.is_(None),
            Erasure.master_key_id != master_key.id,
            Erasure.id.not_in(_unfinished_erasures()),
        )
        .values(completed_at=now)
        .returning(Erasure.id)
        .execution_options(synchronize_session=False)
    )
    return len(result.all())


def is_pending(session: Session) -> bool:
    """Return whether an erasure waits for a rotation of the master key."""
    waiting = select(Erasure.id).where(Erasure.completed_at.is_(None), Erasure.id.not_in(_unfinished_erasures()))
    return session.execute(waiting.limit(1)).first() is not None


def _unfinished_erasures() -> Select[str]:
    """Select erasures whose confirmation is not sent yet. The key of the confirmation exists until then."""
    return select(PrivacyRequest.id).where(PrivacyRequest.state == "running")


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise MasterKeyError("another process is replacing the master key; wait until it has finished") from None
    finally:
        os.close(folder)


def _begin(path: Path) -> str:
    """Replace the current key file by a new one, unless an interrupted rotation did that. Return the id of the old key."""
    old = previous_key_path(path)
    try:
        if not old.exists():
            open_master_key(path, create=False)  # raises if the file is not a key
            os.link(path, old)
            sync_folder(path.parent)
        if old.samefile(path):
            _write(path.with_name(f"{path.name}.next"), new_secret()).replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise MasterKeyError(
            f"cannot replace the master key {path}: {error.strerror}. A key file that is mounted into a container cannot be "
            "replaced from inside: store it in a folder that smt-billing can write to, and set SMT_MASTER_KEY_FILE"
        ) from error
    return open_master_key(old, create=False).id


def _wrap_all(database: Database, master_key: MasterKey) -> int:
    """Wrap every key again. Keys that are created during the rotation use the new master key. Raises MasterKeyError."""
    count, after = 0, ""
    while True:
        with database.transaction() as session:
            last, changed = _wrap_some(session, master_key, after)
        count += changed
        if not last:
            return count
        after = last


def _wrap_some(session: Session, master_key: MasterKey, after: str) -> tuple[str, int]:
    """Wrap one batch in the order of key ids. Return the last key id ("" if none) and the number of changed keys."""
    batch = select(EncryptionKey.key_id, EncryptionKey.wrapped_key).where(
        EncryptionKey.key_id > after, EncryptionKey.wrapped_key.is_not(None)
    )
    rows = session.execute(batch.order_by(EncryptionKey.key_id).limit(BATCH)).all()
    changed = [(key_id, old, new) for key_id, old in rows if old and (new := master_key.rewrap(key_id, old))]
    for key_id, old, new in changed:
        # Only if the value is unchanged: a key that was destroyed since then stays destroyed.
        session.execute(
            update(EncryptionKey)
            .where(EncryptionKey.key_id == key_id, EncryptionKey.wrapped_key == old)
            .values(wrapped_key=new)
        )
    return (rows[-1][0] if rows else ""), len(changed)


def _destroy(path: Path) -> None:
    """Overwrite the file, then remove it. On a file system that writes in place, this destroys the bytes."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)


def _write(path: Path, text: bytes) -> Path:
    """Write a file under a fixed name, so that a later rotation overwrites the rest of an interrupted one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path
