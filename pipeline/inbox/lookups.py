"""Pending PayPal look-ups: the table of objects that PayPal is to be asked for."""

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
    """A look-up of one object, not before `due_at`."""

    kind: LookupKind
    id: str
    due_at: datetime


def enqueue(session: Session, wanted: Sequence[LookupRequest]) -> None:
    """Add look-ups; one that is already pending stays as it was."""
    rows = [
        {"kind": kind, "id": id, "due_at": due_at, "attempts": 0}
        for (kind, id), due_at in {(want.kind, want.id): want.due_at for want in wanted}.items()
    ]
    insert_new(session, PaypalLookup, rows, returning=PaypalLookup.id)


def is_known_missing(session: Session, kind: str, id: str) -> bool:
    """Return whether PayPal has answered that it knows no such object."""
    row = session.get(PaypalLookup, (kind, id))
    return row is not None and row.due_at is None


def is_pending(session: Session, kind: str, id: str) -> bool:
    """Return whether this look-up still waits for its answer."""
    return session.get(PaypalLookup, (kind, id)) is not None


def delete_lookup(session: Session, kind: str, id: str) -> None:
    """Delete a look-up, so that the next request for the object asks PayPal again."""
    session.execute(delete(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id))


def waiting_reason(kind: str, id: str) -> str:
    """Return the reason that an event shows while it waits for this look-up."""
    return f"waits for {kind} {id} from PayPal"
