"""Disputes for the command line."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pipeline.clock import write_optional
from pipeline.db.models import Dispute
from pipeline.queries.listing import Json, ListQuery, chunks, matching

COLUMNS = ("id", "status", "stage", "reason", "amount", "currency", "outcome")


def disputes(session: Session, query: ListQuery) -> Iterator[Json]:
    """Yield `id, payment, status, stage, reason, amount, currency, due_at, outcome, opened_at, resolved_at`."""
    for chunk in chunks(session, matching(select(Dispute), Dispute, Dispute.opened_at, query)):
        for (row,) in chunk:
            yield _dispute(row)


def dispute(session: Session, id: str) -> Json | None:
    """Return one dispute, None if it is unknown."""
    row = session.get(Dispute, id)
    return _dispute(row) if row else None


def is_open() -> ColumnElement[bool]:
    """Return the SQL condition of a dispute that has not ended."""
    return Dispute.resolved_at.is_(None)


def _dispute(row: Dispute) -> Json:
    times = {name: write_optional(getattr(row, name)) for name in ("due_at", "opened_at", "resolved_at")}
    return {**{name: getattr(row, name) for name in COLUMNS}, "payment": row.payment_id, **times}
