"""The audit log: a keyed hash chain that records which operator read which personal data, and for what purpose.

Each row holds a hash of itself and of the hash before it (HMAC-SHA-256 under a system key). So a change of the table
breaks the chain, and without the master key no one can compute a new one. Rows removed at the end show by comparison with
an earlier head, an anchor: the signature of each backup and each signed report of `policy check` contain one.
"""

import hashlib
import os
import pwd
import re
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.db.models import ReadAudit

ROOT = "0" * 64  # the previous hash of the first row
SEGMENT = "segment"  # action of the row that replaces the deleted, older rows
KEPT = timedelta(days=365, hours=6)  # a year
AUDIT = "smt:audit"  # key id of the key of the chain
_LOCK = 7_204_112_550_841_337_001  # PostgreSQL advisory lock: one writer at a time, so the chain never forks
_ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The head of the log at an earlier time, from a place that a writer of the table cannot change."""

    at: datetime
    head: str
    source: str  # the file that contains it


def record_read(
    session: Session, keyring: Keyring, now: datetime, *, actor: str, action: str, purpose: str, subject: str | None
) -> None:
    """Record a read of personal data in the caller's transaction. Commit it before showing the data.

    `subject` is a key id or another id, never a name; None for a list.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK})
    row = ReadAudit(
        at=now, actor=actor[:60], action=action[:60], purpose=purpose[:200], subject=subject and subject[:100]
    )
    row.previous_hash = chain_head(session)
    row.hash = _hash(row, _content_hash(row), keyring)
    session.add(row)
    session.flush()


def chain_head(session: Session) -> str:
    """Return the hash of the newest row; ROOT if there is none."""
    newest = select(ReadAudit.hash).order_by(ReadAudit.id.desc()).limit(1)
    return session.execute(newest).scalar_one_or_none() or ROOT


def count(session: Session) -> int:
    """Return the number of recorded reads."""
    return session.execute(select(func.count()).select_from(ReadAudit).where(ReadAudit.action != SEGMENT)).scalar_one()


def verify_chain(session: Session, keyring: Keyring, anchors: Sequence[Anchor] = ()) -> str | None:
    """Return a description of the first break in the chain, None if it is intact and contains the head of each anchor."""
    heads = {ROOT}
    rows = select(ReadAudit).order_by(ReadAudit.id).execution_options(yield_per=500)
    with closing(session.execute(rows).scalars()) as found:
        wrong = _find_break(found, keyring, heads)
    # A head that is older than the period of retention may be deleted.
    lost = [each for each in anchors if each.head not in heads and each.at >= keyring.now - KEPT]
    return wrong or (f"rows at the end are missing, which {lost[0].source} confirms" if lost else None)


def _find_break(rows: Iterable[ReadAudit], keyring: Keyring, heads: set[str]) -> str | None:
    """Return the first break, and add the hash of each row before it to `heads`."""
    previous: str | None = None
    for row in rows:
        is_segment = previous is None and row.action == SEGMENT and row.at < keyring.now - KEPT
        if not is_segment and row.previous_hash != (previous or ROOT):
            return f"a row before number {row.id} is missing"
        if row.hash != _hash(row, row.purpose if is_segment else _content_hash(row), keyring):
            return f"row number {row.id} was changed"
        previous = row.hash
        heads.add(previous)
    return None


def prune(session: Session, before: datetime) -> int:
    """Delete rows older than `before`, except the hashes of the last one. Return the number of deleted reads.

    The time of that row stays and is part of its hash, so `verify_chain` accepts no deletion of newer rows.
    """
    last = session.execute(select(func.max(ReadAudit.id)).where(ReadAudit.at < before)).scalar_one_or_none()
    if last is None:
        return 0
    old_reads = select(func.count()).select_from(ReadAudit).where(ReadAudit.id <= last, ReadAudit.action != SEGMENT)
    number = session.execute(old_reads).scalar_one()
    session.execute(delete(ReadAudit).where(ReadAudit.id < last).execution_options(synchronize_session=False))
    segment = session.execute(select(ReadAudit).where(ReadAudit.id == last)).scalar_one()
    if segment.action != SEGMENT:
        segment.purpose = _content_hash(segment)
        segment.actor, segment.action, segment.subject = "", SEGMENT, None
    session.flush()
    return number


def this_user() -> str:
    """Return the operating system account of this process.

    The account that used sudo is added as a claim: anyone can set SUDO_USER and SUDO_UID before they start a command.
    """
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"uid {number}"
    claims = [
        f"{variable}={value}"
        for variable in ("SUDO_USER", "SUDO_UID")
        if _ACCOUNT.fullmatch(value := os.environ.get(variable, ""))
    ]
    return f"{name} (unverified: {' '.join(claims)})" if claims else name


def _content_hash(row: ReadAudit) -> str:
    return hashlib.sha256(orjson.dumps([row.actor, row.action, row.purpose, row.subject])).hexdigest()


def _hash(row: ReadAudit, content_hash: str, keyring: Keyring) -> str:
    return keyring.digest(AUDIT, f"{row.previous_hash} {format_time(row.at)} {content_hash}").hex()
