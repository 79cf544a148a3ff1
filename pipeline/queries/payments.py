"""Payments for the command line: the list, and one with its refunds and the actions on it."""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pipeline.clock import write_optional
from pipeline.db.models import Action, Payment
from pipeline.queries.listing import Json, ListQuery, chunks, matching
from pipeline.queries.subscriptions import refunds_of

COLUMNS = ("id", "amount", "currency", "status", "refunded", "fee")


def payments(session: Session, query: ListQuery) -> Iterator[Json]:
    """Yield `id, subscription, amount, currency, status, refunded, fee, occurred_at`, the newest first."""
    for chunk in chunks(session, matching(select(Payment), Payment, Payment.occurred_at, query)):
        for (row,) in chunk:
            yield _payment(row)


def payment(session: Session, id: str) -> Json | None:
    """Return one payment: the list's fields, its refunds, and the actions that were ordered for it."""
    row = session.get(Payment, id)
    if row is None:
        return None
    return {**_payment(row), "refunds": refunds_of(session, [id]), "actions": actions_on(session, id)}


def actions_on(session: Session, object_id: str) -> list[Json]:
    """Return the actions that were ordered for an object, oldest first."""
    ordered = select(Action).where(Action.object_id == object_id).order_by(Action.requested_at, Action.id)
    return [
        {
            "id": row.id,
            "kind": row.kind,
            "state": row.state,
            "outcome": row.outcome,
            "actor": row.actor,
            "requested_at": write_optional(row.requested_at),
            "done_at": write_optional(row.done_at),
        }
        for row in session.execute(ordered).scalars()
    ]


def without_subscription() -> ColumnElement[bool]:
    """Return the SQL condition of a payment that belongs to no subscription."""
    return Payment.subscription_id.is_(None)


def _payment(row: Payment) -> Json:
    named = {name: getattr(row, name) for name in COLUMNS}
    return {**named, "subscription": row.subscription_id, "occurred_at": write_optional(row.occurred_at)}
