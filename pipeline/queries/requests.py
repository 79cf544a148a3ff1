"""Privacy requests and erasure receipts for the command line."""

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time, write_optional
from pipeline.db.models import Erasure, Mail, PrivacyRequest
from pipeline.privacy.erasure.workflow import confirmation_key
from pipeline.queries.listing import Json


def requests(session: Session, *, only_open: bool = False, kind: str | None = None) -> list[Json]:
    """Return `id, kind, state, source, customer, received_at, due_at, done_at, reason`: open ones first, then by due date."""
    found = select(PrivacyRequest).order_by(PrivacyRequest.done_at.is_not(None), PrivacyRequest.due_at)
    found = found.where(PrivacyRequest.done_at.is_(None)) if only_open else found
    found = found.where(PrivacyRequest.kind == kind) if kind else found
    return [_request(row) for row in session.execute(found).scalars()]


def receipts(session: Session, id: str) -> list[Json]:
    """Return `id, customer, at, complete_at, receipt` of this customer's erasures, or of the erasure with this id."""
    found = select(Erasure).where(or_(Erasure.customer_id == id, Erasure.id == id)).order_by(Erasure.at)
    return [_receipt(row) for row in session.execute(found).scalars()]


def is_confirmed(session: Session, request_id: str) -> bool:
    """Return whether a confirmation of this erasure is queued or sent. There is none if no address was known."""
    mail = select(Mail.state).where(Mail.idempotency_key == confirmation_key(request_id))
    return session.execute(mail).scalar_one_or_none() in ("queued", "sending", "sent")


def _request(row: PrivacyRequest) -> Json:
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "source": row.source,
        "customer": row.customer_id,
        "received_at": format_time(row.received_at),
        "due_at": format_time(row.due_at),
        "done_at": write_optional(row.done_at),
        "reason": row.reason,
    }


def _receipt(row: Erasure) -> Json:
    at: dict[str, Any] = {"at": write_optional(row.at), "complete_at": write_optional(row.completed_at)}
    return {"id": row.id, "customer": row.customer_id, **at, "receipt": row.receipt}
