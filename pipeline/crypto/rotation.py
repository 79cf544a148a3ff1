"""The master key is replaced while everything runs, and its predecessor destroyed.

    1. the present key gets a second name, `….previous`; a new key takes its place, in one rename
    2. whoever was about to wrap with the old one is waited for; from then on everybody wraps with the new one
    3. every key of a label is wrapped anew, in batches
    4. the predecessor is overwritten and removed; what it had wrapped, in old pages and copies, opens no more

A rotation that was killed anywhere is taken up again by the next. Roles notice by looking at the files, see `MasterKey`.
An erasure is complete when the master key that had wrapped the destroyed keys is gone (NIST SP 800-88 rev. 2, section
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

BATCH = 500  # keys wrapped anew in one transaction
GRACE_SECONDS = 2.0  # for who has read a wrapped key a moment ago and is about to open it


@dataclass(frozen=True, slots=True)
class RotationResult:
    """What a rotation came to: keys wrapped anew, ids of both master keys, erasures that it completed."""

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
    """Replace the master key at this path, or finish what an earlier call began.

    `save` is called when everything is wrapped anew, before the old key goes: for the copies that a restore needs.
    Raises KeyProblem: then the old key is still there, and nothing is lost. Raises StoreDown.
    """
    with _alone(path):
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
    """Note as complete the erasures whose keys were wrapped by a master key that is gone. How many."""
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
    """Whether an erasure waits for the master key to be replaced."""
    waiting = select(Erasure.id).where(Erasure.completed_at.is_(None), Erasure.id.not_in(_unfinished_erasures()))
    return session.execute(waiting.limit(1)).first() is not None


def _unfinished_erasures() -> Select[str]:
    """Erasures whose confirmation is still to be sent: its key lives on until then, so they have their end before them."""
    return select(PrivacyRequest.id).where(PrivacyRequest.state == "running")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise MasterKeyError(
            "the master key is being replaced by another process right now; wait until it is done"
        ) from None
    finally:
        os.close(folder)


def _begin(path: Path) -> str:
    """Put a new key in the place of the present one, unless a rotation had got that far. The id of the old one."""
    old = previous_key_path(path)
    try:
        if not old.exists():
            open_master_key(path, create=False)  # raises for a file that is no key
            os.link(path, old)
            sync_folder(path.parent)
        if old.samefile(path):
            _write(path.with_name(f"{path.name}.next"), new_secret()).replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise MasterKeyError(
            f"cannot replace the master key {path}: {error.strerror}. A key that is mounted into a container cannot be "
            "replaced from inside: keep it in a folder that smt-billing may write to, and name it in SMT_MASTER_KEY_FILE"
        ) from error
    return open_master_key(old, create=False).id


def _wrap_all(database: Database, master_key: MasterKey) -> int:
    """Wrap every key anew. What was made meanwhile is wrapped by the new key already. Raises KeyProblem."""
    count, after = 0, ""
    while True:
        with database.transaction() as session:
            last, changed = _wrap_some(session, master_key, after)
        count += changed
        if not last:
            return count
        after = last


def _wrap_some(session: Session, master_key: MasterKey, after: str) -> tuple[str, int]:
    """One batch in the order of labels. The last label, "" if there was none, and how many were changed."""
    chosen = select(EncryptionKey.key_id, EncryptionKey.wrapped_key).where(
        EncryptionKey.key_id > after, EncryptionKey.wrapped_key.is_not(None)
    )
    rows = session.execute(chosen.order_by(EncryptionKey.key_id).limit(BATCH)).all()
    anew = [(label, old, new) for label, old in rows if old and (new := master_key.rewrap(label, old))]
    for label, old, new in anew:
        # Only if it is still the same: a key that was destroyed meanwhile stays destroyed.
        session.execute(
            update(EncryptionKey)
            .where(EncryptionKey.key_id == label, EncryptionKey.wrapped_key == old)
            .values(wrapped_key=new)
        )
    return (rows[-1][0] if rows else ""), len(anew)


def _destroy(path: Path) -> None:
    """Overwrite, then remove: on a plain file system the bytes themselves are gone."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)


def _write(path: Path, text: bytes) -> Path:
    """Under a name of its own, so that who was killed here leaves nothing that the next does not write over."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path
