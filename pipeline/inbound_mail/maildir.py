"""Read a Maildir: store each new message in its own transaction, then delete its file: it is in plain text.

A message that fails is tried again for a day. Then it is moved to `failed`, where the operator looks at it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from pipeline.clock import Clock
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.error_texts import describe
from pipeline.inbound_mail import intake
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.parser import LARGEST

FAILED = "failed"  # folder of the Maildir for messages that could not be stored
RETRIED = timedelta(days=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UnfiledMail:
    """A message that could not be stored. `is_final`: it was moved to `failed`, otherwise the next run tries it again."""

    file: str
    reason: str
    is_final: bool = False


def read_maildir(
    folder: Path, database: Database, master_key: MasterKey, clock: Clock, page: str, *, show_text: bool = False
) -> Iterator[FiledMail | UnfiledMail]:
    """Store the new messages and yield the result of each. A message that fails does not stop the others.

    Raises DatabaseUnavailableError if the database cannot be reached.
    """
    done = (_file_one(path, database, master_key, clock, page, show_text=show_text) for path in _new(folder))
    return (each for each in done if each is not None)


def _file_one(
    path: Path, database: Database, master_key: MasterKey, clock: Clock, page: str, *, show_text: bool
) -> FiledMail | UnfiledMail | None:
    """Store one message and return the result; None if another reader has moved it already."""
    try:
        filed = intake.store_mail(_bytes(path), database, master_key, clock, page, show_text=show_text)
        path.unlink()
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - the error text may quote the message, so only its type is logged
        if isinstance(error, DatabaseUnavailableError):
            database.holds_keys()  # raises if the database is down, not only this message's query
        reason = describe(error)
        is_final = _set_aside_old(path, clock)
        log.error("message_set_aside" if is_final else "message_failed", file=path.name, reason=reason)
        return UnfiledMail(path.name, reason, is_final)
    return filed


def _set_aside_old(path: Path, clock: Clock) -> bool:
    """Move a message that is older than RETRIED to `failed`, and return whether it was moved."""
    try:
        if clock.now().timestamp() - path.lstat().st_mtime < RETRIED.total_seconds():
            return False
        target = path.parents[1] / FAILED / path.name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        path.rename(target)
    except OSError:
        return False
    return True


def _new(folder: Path) -> Sequence[Path]:
    return sorted(path for path in (folder / "new").glob("*") if path.is_file()) if folder.is_dir() else []


def _bytes(path: Path) -> bytes:
    """Return the message, truncated to the size that is stored. Raises OSError, also for a symbolic link."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
        return opened.read(LARGEST)
