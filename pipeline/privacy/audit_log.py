"""The audit log: a hash chain that records which operator read which personal data, and for what purpose.

Each row holds the hash of the row before, so changing or removing a row breaks the chain. Rows removed at the end show
by comparison with an earlier head: each signed report of `policy check` contains one.
"""

import hashlib
import os
import pwd
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime

import orjson
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.db.models import ReadAudit

ROOT = "0" * 64  # the previous hash of the first row
SEGMENT = "segment"  # action of the row that replaces the deleted, older rows
_LOCK = 7_204_112_550_841_337_001  # PostgreSQL advisory lock: one writer at a time, so the chain never forks


def record_read(session: Session, now: datetime, *, actor: str, action: str, purpose: str, subject: str | None) -> None:
    """Record a read of personal data in the caller's transaction. Commit it before showing the data.

    `subject` is a key id or another id, never a name; None for a list.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK})
    row = ReadAudit(
        at=now, actor=actor[:60], action=action[:60], purpose=purpose[:200], subject=subject and subject[:100]
    )
    row.previous_hash = chain_head(session)
    row.hash = _hash(row)
    session.add(row)
    session.flush()


def chain_head(session: Session) -> str:
    """Return the hash of the newest row; ROOT if there is none."""
    newest = select(ReadAudit.hash).order_by(ReadAudit.id.desc()).limit(1)
    return session.execute(newest).scalar_one_or_none() or ROOT


def count(session: Session) -> int:
    """Return the number of recorded reads."""
    return session.execute(select(func.count()).select_from(ReadAudit).where(ReadAudit.action != SEGMENT)).scalar_one()


def verify_chain(session: Session) -> str | None:
    """Return a description of the first break in the chain, None if it is intact."""
    rows = select(ReadAudit).order_by(ReadAudit.id).execution_options(yield_per=500)
    with closing(session.execute(rows).scalars()) as found:
        return _find_break(found)


def _find_break(rows: Iterable[ReadAudit]) -> str | None:
    previous: str | None = None
    for row in rows:
        if previous is None and row.action == SEGMENT:  # its own rows are deleted; the next row confirms its hash
            previous = row.hash
            continue
        if row.previous_hash != (previous or ROOT):
            return f"a row before number {row.id} is missing"
        if row.hash != _hash(row):
            return f"row number {row.id} was changed"
        previous = row.hash
    return None


def prune(session: Session, before: datetime) -> int:
    """Delete rows older than `before`, keeping one row with their last hash. Return the number of deleted reads."""
    last = session.execute(select(func.max(ReadAudit.id)).where(ReadAudit.at < before)).scalar_one_or_none()
    if last is None:
        return 0
    old_reads = select(func.count()).select_from(ReadAudit).where(ReadAudit.id <= last, ReadAudit.action != SEGMENT)
    number = session.execute(old_reads).scalar_one()
    session.execute(delete(ReadAudit).where(ReadAudit.id < last).execution_options(synchronize_session=False))
    segment = session.execute(select(ReadAudit).where(ReadAudit.id == last)).scalar_one()
    segment.actor, segment.action, segment.purpose, segment.subject, segment.previous_hash = "", SEGMENT, "", None, ROOT
    session.flush()
    return number


def this_user() -> str:
    """Return the operating system account of this process, and in parentheses the account that used sudo."""
    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"uid {number}"
    sudo_user = os.environ.get("SUDO_USER", "")
    return f"{name} ({sudo_user})" if sudo_user and sudo_user != name else name


def _hash(row: ReadAudit) -> str:
    content = [row.previous_hash, format_time(row.at), row.actor, row.action, row.purpose, row.subject]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()
