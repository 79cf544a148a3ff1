"""Differences between PayPal and our data. The first time a look-up is requested; if it stays, it is an open exception.

A difference is resolved when a later run does not find it any more, or when the operator ignores it with a reason.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pipeline.db.models import ReconciliationException
from pipeline.inbox import lookups
from pipeline.inbox.lookups import LookupRequest
from pipeline.paypal.requests import GET_REQUESTS

GRACE = timedelta(
    hours=1
)  # a look-up and its event are done by then; a difference that is younger may vanish by itself


@dataclass(frozen=True, slots=True)
class Difference:
    """PayPal's object differs from ours, or we do not have it. `reason` is a sentence without personal data."""

    kind: str
    id: str
    reason: str


def record(session: Session, differences: Iterable[Difference], now: datetime) -> int:
    """Store the differences and request a look-up of each new one. Return how many are new."""
    new = 0
    for each in differences:
        row = session.get(ReconciliationException, (each.kind, each.id))
        if row is None:
            new += 1
            row = ReconciliationException(kind=each.kind, id=each.id, reason=each.reason, found_at=now)
            session.add(row)
            session.flush()  # PayPal may list the object twice
            _look_up(session, row, now)
        elif row.resolved_at is not None and row.ignored_reason is None:
            row.resolved_at, row.found_at = None, now
            _look_up(session, row, now)
        row.reason = each.reason
    session.flush()
    return new


def resolve_others(
    session: Session, kinds: Collection[str], checked: Collection[str], found: Collection[str], now: datetime
) -> int:
    """Resolve the open exceptions of these kinds whose ids were checked and are equal now. Return how many."""
    rows = session.execute(
        select(ReconciliationException).where(is_open(), ReconciliationException.kind.in_(kinds))
    ).scalars()
    gone = [row for row in rows if row.id in checked and row.id not in found]
    for row in gone:
        row.resolved_at = now
    return len(gone)


def resolve_missing(session: Session, kind: str, found: Collection[str], now: datetime) -> int:
    """Resolve the open exceptions of a kind that this run did not find. Return how many."""
    rows = session.execute(
        select(ReconciliationException).where(is_open(), ReconciliationException.kind == kind)
    ).scalars()
    return resolve_others(session, (kind,), {row.id for row in rows}, found, now)


def ignore(session: Session, id: str, reason: str, now: datetime) -> int:
    """Close the open exceptions about this object with the operator's reason. Return how many."""
    rows = (
        session.execute(select(ReconciliationException).where(is_open(), ReconciliationException.id == id))
        .scalars()
        .all()
    )
    for row in rows:
        row.resolved_at, row.ignored_reason = now, reason
    return len(rows)


def is_open() -> ColumnElement[bool]:
    """Return the SQL condition of an exception that nobody has closed."""
    return ReconciliationException.resolved_at.is_(None)


def is_due(now: datetime) -> ColumnElement[bool]:
    """Return the SQL condition of an open exception that a look-up had the time to remove."""
    return is_open() & (ReconciliationException.found_at <= now - GRACE)


def _look_up(session: Session, row: ReconciliationException, now: datetime) -> None:
    if row.kind in GET_REQUESTS:
        lookups.enqueue(session, [LookupRequest(row.kind, row.id, now, now)])
        row.looked_up_at = now
