"""Who of us read what of whom, and why: a chain in which each row holds the hash of the one before.

A row that is changed, or taken out of the middle, breaks the chain. That rows were cut off its end shows beside a head
that was written down elsewhere: each signed report of `policy check` holds one.
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

ROOT = "0" * 64  # what the first row of all follows
SEGMENT = "segment"  # the action of a row that stands for those before it, which were old enough to go
_LOCK = 7_204_112_550_841_337_001  # one writer at a time, so that no two rows follow the same one


def record_read(session: Session, now: datetime, *, actor: str, action: str, purpose: str, subject: str | None) -> None:
    """Write down a read of personal data, in the caller's transaction; it is to be committed before anything is shown.

    `subject` is a label or an id, never a name; None for a list of many.
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
    """The hash of the newest row."""
    newest = select(ReadAudit.hash).order_by(ReadAudit.id.desc()).limit(1)
    return session.execute(newest).scalar_one_or_none() or ROOT


def count(session: Session) -> int:
    """How many reads are written down."""
    return session.execute(select(func.count()).select_from(ReadAudit).where(ReadAudit.action != SEGMENT)).scalar_one()


def verify_chain(session: Session) -> str | None:
    """What is wrong with the chain, None if nothing is."""
    rows = select(ReadAudit).order_by(ReadAudit.id).execution_options(yield_per=500)
    with closing(session.execute(rows).scalars()) as found:
        return _wrong(found)


def _wrong(rows: Iterable[ReadAudit]) -> str | None:
    previous: str | None = None
    for row in rows:
        if previous is None and row.action == SEGMENT:  # what it stands for is gone; the next row vouches for its hash
            previous = row.hash
            continue
        if row.previous_hash != (previous or ROOT):
            return f"a row before number {row.id} is missing"
        if row.hash != _hash(row):
            return f"row number {row.id} was changed"
        previous = row.hash
    return None


def prune(session: Session, before: datetime) -> int:
    """Take away the rows older than that, as one segment of which only the root stays. How many reads went."""
    last = session.execute(select(func.max(ReadAudit.id)).where(ReadAudit.at < before)).scalar_one_or_none()
    if last is None:
        return 0
    gone = select(func.count()).select_from(ReadAudit).where(ReadAudit.id <= last, ReadAudit.action != SEGMENT)
    number = session.execute(gone).scalar_one()
    session.execute(delete(ReadAudit).where(ReadAudit.id < last).execution_options(synchronize_session=False))
    root = session.execute(select(ReadAudit).where(ReadAudit.id == last)).scalar_one()
    root.actor, root.action, root.purpose, root.subject, root.previous_hash = "", SEGMENT, "", None, ROOT
    session.flush()
    return number


def this_user() -> str:
    """The account of the machine that runs us, and who became it by sudo."""
    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"uid {number}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} ({behind})" if behind and behind != name else name


def _hash(row: ReadAudit) -> str:
    said = [row.previous_hash, format_time(row.at), row.actor, row.action, row.purpose, row.subject]
    return hashlib.sha256(orjson.dumps(said)).hexdigest()
