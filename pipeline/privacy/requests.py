"""What a person asked for under the policy's section 6, and by when it has to be answered.

States: received -> (waiting, running) -> done, refused or cancelled. The deadline is the earlier of the policy's thirty
days and the law's calendar month (GDPR article 12(3)): what is asked on 31 January is due on 28 February.
"""

import calendar
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.db.models import PrivacyRequest
from pipeline.errors import UsageError
from pipeline.outbox import store as outbox

Kind = Literal["access", "correct", "erase", "opt_out", "child", "other"]
State = Literal["received", "waiting", "running", "done", "refused", "cancelled"]
Source = Literal["page", "mail", "operator"]

ANSWER_WITHIN = timedelta(days=30)
ALARMS = (7, 14, 21, 25)  # days after which the operator is told of what is still open
LIMIT = 500  # requests per look

# What was asked for, as the person and the operator read it.
ASKED: dict[str, str] = {
    "access": "a copy of your data",
    "correct": "a correction of your data",
    "erase": "the deletion of your account and data",
    "opt_out": "no more mail that you can do without",
    "child": "the deletion of a child's data",
    "other": "an answer to a mail",
}


class RequestNotFoundError(UsageError):
    """There is no open request of this id."""


class ErasureInProgressError(UsageError):
    """A deletion is under way: no word of anybody's makes it done."""


def deadline(received_at: datetime) -> datetime:
    """Thirty days later, or the same day of the next month, whichever comes first."""
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
    """Note a request; one of the same kind by the same customer that is still open is given back as it is.

    Two of the kind `other` may be about two things, so each is noted.

    `details` are JSON and sealed with the key of the customer, or of the request itself where there is none. `act_at` is
    the end of a waiting period.
    """
    known = customer_id and kind != "other" and find_open(session, customer_id, kind)
    if known:
        return known
    id = secrets.token_hex(13)
    label = customer_id or f"request:{id}"
    seal = keyring.get(label) if details else None
    row = PrivacyRequest(
        id=id,
        customer_id=customer_id,
        key_id=label,
        kind=kind,
        state="waiting" if act_at else "received",
        source=source,
        details=seal and seal.encrypt_json("privacy_request.details", dict(details or {})),
        received_at=now,
        due_at=deadline(now),
        waiting_ends_at=act_at,
        last_alarm_day=0,
    )
    session.add(row)
    session.flush()
    return row


def find_open(session: Session, customer_id: str, kind: Kind) -> PrivacyRequest | None:
    """The customer's open request of this kind."""
    asked = select(PrivacyRequest).where(
        PrivacyRequest.customer_id == customer_id, PrivacyRequest.kind == kind, PrivacyRequest.done_at.is_(None)
    )
    return session.execute(asked.limit(1)).scalar_one_or_none()


def answer_request(session: Session, request_id: str, state: State, now: datetime, reason: str | None) -> None:
    """What an operator says became of a request they looked after. Raises NoSuchRequest, EndsByItself."""
    row = session.get(PrivacyRequest, request_id)
    if row is not None and row.state in ("waiting", "running"):
        raise ErasureInProgressError(
            f"the deletion {request_id} ends by itself, when everything is erased; while it waits, it is called off by: "
            f"smt-billing customers erase {row.customer_id} --cancel"
        )
    close_request(session, request_id, state, now, reason)


def close_request(
    session: Session, request_id: str, state: State, now: datetime, reason: str | None = None
) -> PrivacyRequest:
    """Say what became of an open request. Raises NoSuchRequest. The reason names nobody."""
    row = session.get(PrivacyRequest, request_id)
    if row is None or row.done_at is not None:
        raise RequestNotFoundError(f"there is no open request {request_id}; see: smt-billing customers requests --open")
    row.state, row.reason = state, reason
    row.done_at = now if state in ("done", "refused", "cancelled") else None
    return row


def receipt(row: PrivacyRequest, *, page: str, to: str | None = None) -> outbox.NewMail:
    """The mail that tells the person that their request has arrived, and by when it is answered.

    `page` is where they can do it themselves; `to` the address of somebody who is no customer of ours.
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
    """The mail that tells the operator of a request, when it came and each time it has waited so many days."""
    facts = {
        "request": row.id,
        "asked": ASKED[row.kind],
        "days": days,
        "received_at": format_time(row.received_at),
        "due_at": format_time(row.due_at),
    }
    return outbox.NewMail("request_due", f"request_due:{row.id}:{days}", None, facts)


def queue_due_alerts(session: Session, keyring: Keyring, now: datetime) -> int:
    """Tell the operator of open requests that have reached day 7, 14, 21 or 25; each day once. How many were told."""
    open_requests = (
        select(PrivacyRequest)
        .where(PrivacyRequest.done_at.is_(None), PrivacyRequest.received_at <= now - timedelta(days=ALARMS[0]))
        .order_by(PrivacyRequest.received_at)
        .limit(LIMIT)
        .with_for_update(skip_locked=True)
    )
    mails = [mail for row in session.execute(open_requests).scalars() if (mail := _alarm(row, now))]
    session.flush()
    outbox.enqueue(session, keyring, mails, now)
    return len(mails)


def _alarm(row: PrivacyRequest, now: datetime) -> outbox.NewMail | None:
    age = (now - row.received_at).days
    reached = max(day for day in ALARMS if day <= age)
    if reached <= row.last_alarm_day:
        return None
    row.last_alarm_day = reached
    return reminder(row, reached)
