"""Differences between PayPal and the database, for the command line."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.db.models import ReconciliationException
from pipeline.queries.listing import Json, ListQuery, chunks, matching

NEXT_STEPS = {
    "sale": "compare it with the payment in PayPal's dashboard; smt-billing lookups retry ID asks PayPal again",
    "refund": "compare it with the refund in PayPal's dashboard; smt-billing lookups retry ID asks PayPal again",
    "dispute": "ask PayPal's support for the money of this dispute",
}
OTHERWISE = "compare it in PayPal's dashboard"


def exceptions(session: Session, query: ListQuery) -> Iterator[Json]:
    """Yield `kind, id, reason, found_at, looked_up_at, resolved_at, ignored_reason, next_step`."""
    statement = matching(
        select(ReconciliationException), ReconciliationException, ReconciliationException.found_at, query
    )
    for chunk in chunks(session, statement):
        for (row,) in chunk:
            yield {
                "kind": row.kind,
                "id": row.id,
                "reason": row.reason,
                "found_at": format_time(row.found_at),
                "looked_up_at": write_optional(row.looked_up_at),
                "resolved_at": write_optional(row.resolved_at),
                "ignored_reason": row.ignored_reason,
                "next_step": "" if row.resolved_at else NEXT_STEPS.get(row.kind, OTHERWISE),
            }
