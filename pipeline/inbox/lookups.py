"""Pending PayPal API look-ups: the table `paypal_lookup`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from pipeline.db.bulk import insert_new
from pipeline.db.models import PaypalLookup
from pipeline.paypal.requests import LookupKind


@dataclass(frozen=True, slots=True)
class LookupRequest:
    """A look-up of one object, to be made at `due_at` or later."""

    kind: LookupKind
    id: str
    due_at: datetime


def enqueue(session: Session, wanted: Sequence[LookupRequest]) -> None:
    """Add look-ups. One that is already pending is not changed."""
    rows = [
        {"kind": kind, "id": id, "due_at": due_at, "attempts": 0, "first_due_at": due_at}
        for (kind, id), due_at in {(request.kind, request.id): request.due_at for request in wanted}.items()
    ]
    insert_new(session, PaypalLookup, rows, returning=PaypalLookup.id)


def is_known_missing(session: Session, kind: str, id: str) -> bool:
    """Return whether PayPal has refused this look-up, as a rule because it does not know the object."""
    row = session.get(PaypalLookup, (kind, id))
    return row is not None and row.due_at is None


def is_pending(session: Session, kind: str, id: str) -> bool:
    """Return whether this look-up is stored and has no answer yet."""
    return session.get(PaypalLookup, (kind, id)) is not None


def delete_lookup(session: Session, kind: str, id: str) -> None:
    """Delete a look-up. The object can then be requested again."""
    session.execute(delete(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id))


def waiting_reason(kind: str, id: str) -> str:
    """Return the reason stored with an event that waits for this look-up."""
    return f"waits for {kind} {id} from PayPal"
