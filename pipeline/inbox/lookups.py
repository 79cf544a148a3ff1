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
    """A look-up of one object, to be made at `due_at` or later. `requested_at`: when it was requested, None: at `due_at`."""

    kind: LookupKind
    id: str
    due_at: datetime
    requested_at: datetime | None = None


def enqueue(session: Session, wanted: Sequence[LookupRequest]) -> None:
    """Add look-ups. Requests for one object share a look-up, at the earliest of their times.

    One that is being made now is made again afterwards: its answer may be older than the request. One that was given up
    starts again.
    """
    requests = {(request.kind, request.id): request for request in wanted}
    rows = [
        {
            "kind": kind, "id": id, "due_at": each.due_at, "attempts": 0, "first_due_at": each.due_at,
            "requested_at": each.requested_at or each.due_at,
        }
        for (kind, id), each in requests.items()
    ]  # fmt: skip
    added = set(insert_new(session, PaypalLookup, rows, returning=PaypalLookup.id))
    for (kind, id), request in requests.items():
        if id not in added:
            _request_again(session, kind, id, request)


def _request_again(session: Session, kind: str, id: str, request: LookupRequest) -> None:
    row = session.get(PaypalLookup, (kind, id), with_for_update=True, populate_existing=True)
    if row is None:  # answered a moment ago
        enqueue(session, [request])
        return
    row.requested_at = max(row.requested_at, request.requested_at or request.due_at)
    if row.due_at is None:
        row.due_at, row.attempts, row.first_due_at, row.reason = request.due_at, 0, request.due_at, None
    elif row.attempts == 0 and row.due_at == row.first_due_at:  # not tried yet
        row.due_at = row.first_due_at = min(row.due_at, request.due_at)
    session.flush()


def is_given_up(session: Session, kind: str, id: str) -> bool:
    """Return whether this look-up was given up, as a rule because PayPal does not know the object."""
    row = session.get(PaypalLookup, (kind, id))
    return row is not None and row.due_at is None


def is_pending(session: Session, kind: str, id: str) -> bool:
    """Return whether this look-up is stored and has no answer yet."""
    return session.get(PaypalLookup, (kind, id)) is not None


def complete(session: Session, kind: str, id: str, asked_at: datetime, now: datetime) -> None:
    """Delete a look-up that was answered. It stays, due now, if it was requested again after `asked_at`.

    A request in the future comes from a process whose clock was ahead. It is due then: repeated at once, it would be
    repeated until then.
    One that was given up stays for the operator: its answer says that PayPal does not know the object.
    """
    row = session.get(PaypalLookup, (kind, id), with_for_update=True, populate_existing=True)
    if row is None or row.due_at is None:
        return
    if row.requested_at > asked_at:
        due_at = max(now, row.requested_at)
        row.due_at, row.attempts, row.first_due_at, row.reason = due_at, 0, due_at, None
    else:
        session.delete(row)


def delete_lookup(session: Session, kind: str, id: str) -> None:
    """Delete a look-up. The object can then be requested again."""
    session.execute(delete(PaypalLookup).where(PaypalLookup.kind == kind, PaypalLookup.id == id))


def waiting_reason(kind: str, id: str) -> str:
    """Return the reason stored with an event that waits for this look-up."""
    return f"waits for {kind} {id} from PayPal"
