"""Look-ups in PayPal's API for the command line: those that have no answer yet, and those that were given up."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.db.models import PaypalLookup
from pipeline.inbox.lookups import LookupRequest, enqueue
from pipeline.paypal.requests import LookupKind
from pipeline.queries.listing import Json, ListQuery, chunks, matching

LookupState = Literal["pending", "given-up"]
COLUMNS = (
    PaypalLookup.kind, PaypalLookup.id, PaypalLookup.due_at, PaypalLookup.attempts, PaypalLookup.first_due_at,
    PaypalLookup.reason,
)  # fmt: skip


def lookups(session: Session, query: ListQuery) -> Iterator[Json]:
    """Yield `kind, id, state, due_at, attempts, waiting_since, reason`."""
    for chunk in chunks(session, matching(select(*COLUMNS), PaypalLookup, PaypalLookup.first_due_at, query)):
        for row in chunk:
            yield {
                "kind": row.kind,
                "id": row.id,
                "state": "given-up" if row.due_at is None else "pending",
                "due_at": write_optional(row.due_at),
                "attempts": row.attempts,
                "waiting_since": format_time(row.first_due_at),
                "reason": row.reason,
            }


def retry(session: Session, ids: Sequence[str], now: datetime) -> list[str]:
    """Make the look-ups of these objects due now. Return the ids that have a look-up."""
    rows = session.execute(select(PaypalLookup).where(PaypalLookup.id.in_(ids))).scalars().all()
    requests = [LookupRequest(_kind(row), row.id, now) for row in rows if row.due_at is None]
    for row in rows:
        row.due_at = now if row.due_at else None  # one that was given up starts again below
    session.flush()
    enqueue(session, requests)
    return sorted({row.id for row in rows})


def _kind(row: PaypalLookup) -> LookupKind:
    return row.kind  # type: ignore[return-value] # the column contains only what `enqueue` wrote
