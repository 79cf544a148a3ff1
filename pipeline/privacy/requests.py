"""Privacy requests under section 6 of the policy: open, answer and close them, and compute their deadlines.

States: received -> (waiting, running) -> done, refused or cancelled. The deadline is the earlier of 30 days (policy) and
one calendar month (GDPR article 12(3)): a request of 31 January is due on 28 February.
"""

import calendar
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.key_ids import REQUEST
from pipeline.crypto.keyring import Keyring
from pipeline.db.models import PrivacyRequest
from pipeline.errors import UsageError
from pipeline.outbox import store as outbox

Kind = Literal["access", "correct", "erase", "opt_out", "child", "other"]
State = Literal["received", "waiting", "running", "done", "refused", "cancelled"]
Source = Literal["page", "mail", "operator"]

ANSWER_WITHIN = timedelta(days=30)  # promised by the policy
ALERT_DAYS = (7, 14, 21, 25)  # ages in days at which the operator is alerted to an open request
LIMIT = 500  # requests checked per run

# The request in words for mails to the customer and the operator; follows "asked for".
ASKED: dict[str, str] = {
    "access": "a copy of your data",
    "correct": "a correction of your data",
    "erase": "the deletion of your account and data",
    "opt_out": "an end to optional mail",
    "child": "the deletion of a child's data",
    "other": "an answer to a message",
}


class RequestNotFoundError(UsageError):
    """There is no open request with this id."""


class ErasureInProgressError(UsageError):
    """The request is a deletion in progress; it is closed by its completion, not by an answer."""


def deadline(received_at: datetime) -> datetime:
    """Return 30 days later or the same day of the next month, whichever is earlier."""
    year, month = received_at.year + received_at.month // 12, received_at.month % 12 + 1
    day = min(received_at.day, calendar.monthrange(year, month)[1])
    return min(received_at + ANSWER_WITHIN, received_at.replace(year=year, month=month, day=day))


def open_request(
    session: Session,
    keyring: Keyring,
    kind: Kind,
    customer_id: str | None,
    source: Source,
    now: datetime,
    *,
    details: Mapping[str, Any] | None = None,
    act_at: datetime | None = None,
) -> PrivacyRequest:
    """Store a request and return it. An open request of the same kind by the same customer is returned unchanged.

    Requests of kind `other` are always stored, because they may concern different things. `details` are stored as JSON,
    encrypted with the key of the customer, or of the request if there is no customer. `act_at` ends a waiting period.
    """
    known = customer_id and kind != "other" and find_open(session, customer_id, kind)
    if known:
        return known
    id = secrets.token_hex(13)
    key_id = customer_id or f"{REQUEST}{id}"
    data_key = keyring.get(key_id) if details else None
    row = PrivacyRequest(
        id=id,
        customer_id=customer_id,
        key_id=key_id,
        kind=kind,
        state="waiting" if act_at else "received",
        source=source,
        details=data_key and data_key.encrypt_json("privacy_request.details", dict(details or {})),
        received_at=now,
        due_at=deadline(now),
        waiting_ends_at=act_at,
        last_alarm_day=0,
    )
    session.add(row)
    session.flush()
    return row


def find_open(session: Session, customer_id: str, kind: Kind) -> PrivacyRequest | None:
    """Return the customer's open request of this kind, None if there is none."""
    found = select(PrivacyRequest).where(
        PrivacyRequest.customer_id == customer_id, PrivacyRequest.kind == kind, PrivacyRequest.done_at.is_(None)
    )
    return session.execute(found.limit(1)).scalar_one_or_none()


def answer_request(
    session: Session, keyring: Keyring, request_id: str, state: State, now: datetime, reason: str | None
) -> bool:
    """Close a request that an operator has handled. Return whether a refusal is mailed with its reason to the customer.

    GDPR article 12(4): who refuses must say why, and name the right to complain and to go to court. A request of nobody
    that is known has no proved address. Raises RequestNotFoundError and ErasureInProgressError.
    """
    row = session.get(PrivacyRequest, request_id)
    if row is not None and row.state in ("waiting", "running"):
        raise ErasureInProgressError(
            f"deletion {request_id} closes automatically when everything is erased; to cancel it while it waits, run: "
            f"smt-billing customers erase {row.customer_id} --cancel"
        )
    closed = close_request(session, request_id, state, now, reason)
    if state != "refused" or closed.customer_id is None:
        return False
    outbox.enqueue(session, keyring, [_refusal(closed)], now)
    return True


def _refusal(row: PrivacyRequest) -> outbox.NewMail:
    facts = {
        "request": row.id,
        "asked": ASKED[row.kind],
        "received_at": format_time(row.received_at),
        "reason": row.reason or "",
    }
    return outbox.NewMail("request_refused", f"request_refused:{row.id}", None, facts, customer_id=row.customer_id)


def close_request(
    session: Session, request_id: str, state: State, now: datetime, reason: str | None = None
) -> PrivacyRequest:
    """Set the outcome of an open request. `reason` must not contain personal data. Raises RequestNotFoundError."""
    row = session.get(PrivacyRequest, request_id)
    if row is None or row.done_at is not None:
        raise RequestNotFoundError(f"there is no open request {request_id}; see: smt-billing customers requests --open")
    row.state, row.reason = state, reason
    row.done_at = now if state in ("done", "refused", "cancelled") else None
    return row


def receipt(row: PrivacyRequest, *, page: str, to: str | None = None) -> outbox.NewMail:
    """Return the mail that acknowledges a request and states its deadline.

    `page` is the URL of the account page; `to` is the address if the sender is not a customer.
    """
    facts = {
        "request": row.id,
        "asked": ASKED[row.kind],
        "received_at": format_time(row.received_at),
        "due_at": format_time(row.due_at),
        "page": page,
    }
    key = f"privacy_request_received:{row.id}"
    return outbox.NewMail(
        "privacy_request_received", key, None, facts, customer_id=row.customer_id, to=to, label=row.key_id
    )


def reminder(row: PrivacyRequest, days: int) -> outbox.NewMail:
    """Return the mail that alerts the operator to a request that has been open for `days` days (0: just received)."""
    facts = {
        "request": row.id,
        "asked": ASKED[row.kind],
        "days": days,
        "received_at": format_time(row.received_at),
        "due_at": format_time(row.due_at),
        "message": "",
        "text": [],
    }
    return outbox.NewMail("request_due", f"request_due:{row.id}:{days}", None, facts)


def queue_due_alerts(session: Session, keyring: Keyring, now: datetime) -> int:
    """Queue alerts for open requests that have reached an age of ALERT_DAYS, each once. Return the number of alerts."""
    open_requests = (
        select(PrivacyRequest)
        .where(PrivacyRequest.done_at.is_(None), PrivacyRequest.received_at <= now - timedelta(days=ALERT_DAYS[0]))
        .order_by(PrivacyRequest.received_at)
        .limit(LIMIT)
        .with_for_update(skip_locked=True)
    )
    mails = [mail for row in session.execute(open_requests).scalars() if (mail := _alert(row, now))]
    session.flush()
    outbox.enqueue(session, keyring, mails, now)
    return len(mails)


def _alert(row: PrivacyRequest, now: datetime) -> outbox.NewMail | None:
    age = (now - row.received_at).days
    reached = max(day for day in ALERT_DAYS if day <= age)
    if reached <= row.last_alarm_day:
        return None
    row.last_alarm_day = reached
    return reminder(row, reached)
