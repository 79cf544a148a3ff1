"""Versions of the policy text: which one is in force, which ones are planned, and the notices of each change.

A material change takes effect on its planned day, but never before every customer has been notified by mail and 30 days
have passed since the relay accepted the last notice. Until then the previous text stays in force.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from pipeline.clock import format_time
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Customer, Mail, Policy
from pipeline.errors import UsageError
from pipeline.outbox import store as outbox
from pipeline.policy import text as texts
from pipeline.policy.clauses import PolicyOwner, document
from pipeline.policy.stated_limits import NOTICE_DAYS

KIND = "policy_changed"
NOTICE = timedelta(days=NOTICE_DAYS)
BATCH = 200  # maximum number of notices per transaction
MAX_QUOTES = 12  # maximum number of removed sentences, and of added sentences, that a notice quotes


class PolicyRejectedError(UsageError):
    """A text cannot be proposed or withdrawn. The message says why and what is possible."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The state of one customer's notice."""

    customer: str
    mail: str
    state: str
    sent_at: datetime | None
    reply: str | None


def store_first_text(session: Session, vendor: PolicyOwner, effective: date, now: datetime) -> Policy | None:
    """Store the text of this version of the program as the first text. Return None if a text is stored already."""
    if session.execute(select(Policy.id).limit(1)).first():
        return None
    first = Policy(
        id=effective.isoformat(),
        text=texts.write(document(), vendor),
        material=False,
        proposed_at=now,
        effective_at=_midnight(effective),
    )
    session.add(first)
    session.flush()
    return first


def in_force(session: Session, at: datetime) -> Policy | None:
    """Return the text in force at a time, or None if no stored text has taken effect by then."""
    for row in session.execute(_texts().order_by(Policy.effective_at.desc(), Policy.id.desc())).scalars():
        moment = takes_effect(session, row)
        if moment is not None and moment <= at:
            return row
    return None


def takes_effect(session: Session, row: Policy) -> datetime | None:
    """Return when a text takes effect: on its day, or later if notices were late. None while notices are missing."""
    if not row.material:
        return row.effective_at
    if unnotified_count(session, row):
        return None
    last = session.execute(select(func.max(Mail.sent_at)).where(_notices_of(row), Mail.state == "sent")).scalar_one()
    return max(row.effective_at, last + NOTICE) if last else row.effective_at


def unnotified_count(session: Session, row: Policy) -> int:
    """Return how many customers still have to be notified. Customers without an address do not count."""
    waiting = (
        _notices_of(row),
        # A refused notice has told nobody. It is sent again (`mail resend`), or given up by hand (`mail dismiss`).
        or_(Mail.state.in_(("sending", "doubt", "failed")), (Mail.state == "queued") & Mail.due_at.is_not(None)),
    )
    unsent = session.execute(select(func.count()).select_from(Mail).where(*waiting)).scalar_one()
    without_notice = session.execute(select(func.count()).select_from(_unnotified(row).subquery())).scalar_one()
    return int(unsent + without_notice)


def upcoming(session: Session, now: datetime) -> list[Policy]:
    """Return the planned texts that are not in force yet, the next one first."""
    return [
        row
        for row in session.execute(_texts().order_by(Policy.effective_at)).scalars()
        if _is_planned(session, row, now)
    ]


def all_texts(session: Session) -> list[Policy]:
    """Return all past, present, planned and withdrawn texts, the newest first."""
    return list(session.execute(select(Policy).order_by(Policy.effective_at.desc())).scalars())


def propose(session: Session, text: str, effective: date, now: datetime, *, material: bool) -> Policy:
    """Plan a text. Raises PolicyRejectedError if the day is too early or has a text already, or if nothing changes."""
    begins, old = _midnight(effective), in_force(session, now)
    earliest = (now + NOTICE if material else now).date() + timedelta(days=1)
    if effective < earliest:
        reason = (
            f"a material change needs {NOTICE_DAYS} days' notice"
            if material
            else "a text cannot take effect in the past"
        )
        raise PolicyRejectedError(f"{reason}: {earliest} is the earliest day; use --effective {earliest} or later")
    if old is not None and texts.sentences(old.text) == texts.sentences(text):
        raise PolicyRejectedError("the new text is identical to the text in force")
    if session.get(Policy, effective.isoformat()) is not None:
        raise PolicyRejectedError(
            f"a text for {effective} already exists; choose another day, or see: smt-billing policy texts"
        )
    row = Policy(
        id=effective.isoformat(), text=text, material=material, proposed_at=now, effective_at=begins, withdrawn_at=None
    )
    session.add(row)
    session.flush()
    return row


def withdraw(session: Session, id: str, now: datetime) -> Policy:
    """Withdraw a planned text. Raises PolicyRejectedError if it is in force, withdrawn or unknown."""
    row = session.get(Policy, id)
    if row is None or row.withdrawn_at or not _is_planned(session, row, now):
        raise PolicyRejectedError(f"no text is planned for {id}; see: smt-billing policy texts")
    row.withdrawn_at = now
    return row


def changes(old: str, new: str) -> tuple[list[str], list[str]]:
    """Return the removed sentences and the added sentences."""
    found = list(difflib.ndiff(texts.sentences(old), texts.sentences(new)))
    return [line[2:] for line in found if line[0] == "-"], [line[2:] for line in found if line[0] == "+"]


# Notices


def queue_notices(session: Session, keyring: Keyring, now: datetime, page: Callable[[str], str]) -> int:
    """Queue notices of planned material texts for customers without one. Return how many were queued, at most `BATCH`.

    `page` returns the URL of the text with this id.
    """
    count = 0
    for row in (row for row in upcoming(session, now) if row.material):
        customers = list(session.execute(_unnotified(row).limit(BATCH - count)).scalars())
        old = in_force(session, now)
        facts = _facts(row, old.text if old else "", page(row.id))
        mails = [_notice_mail(session, keyring, row, id, facts) for id in customers]
        outbox.enqueue(session, keyring, mails, now)
        count += len(mails)
    return count


def notices(session: Session, row: Policy) -> Iterator[Notice]:
    """Return the notices of a text, with the relay's answer to each."""
    found = select(Mail).where(_notices_of(row)).order_by(Mail.created_at, Mail.id)
    for mail in session.execute(found).scalars():
        yield Notice(mail.customer_id or "", mail.id, mail.state, mail.sent_at, mail.relay_reply)


def _facts(row: Policy, old: str, page: str) -> dict[str, Any]:
    removed, added = changes(old, row.text)
    return {
        "effective_at": format_time(row.effective_at),
        "gone": removed[:MAX_QUOTES],
        "come": added[:MAX_QUOTES],
        "more": max(0, len(removed) - MAX_QUOTES) + max(0, len(added) - MAX_QUOTES),
        "page": page,
    }


def _notice_mail(
    session: Session, keyring: Keyring, row: Policy, customer_id: str, facts: dict[str, Any]
) -> outbox.NewMail:
    # `has_address` locks the customer's row, so it must run before PayPal's data is read.
    has_address = accounts.has_address(session, customer_id) or "email" in accounts.personal_data(
        session, keyring, customer_id
    )
    key = f"{_key_prefix(row)}{customer_id}"
    return outbox.NewMail(KIND, key, None, facts, has_address=has_address, customer_id=customer_id)


def _key_prefix(row: Policy) -> str:
    return f"{KIND}:{row.id}:"


def _notices_of(row: Policy) -> ColumnElement[bool]:
    return (Mail.kind == KIND) & Mail.idempotency_key.startswith(_key_prefix(row), autoescape=True)


def _unnotified(row: Policy) -> Select[Any]:
    """Select customers without a notice. Customers who signed up after the proposal have seen both texts."""
    notified = exists().where(Mail.idempotency_key == literal(_key_prefix(row)) + Customer.id)
    concerned = Customer.erased_at.is_(None), Customer.merged_into.is_(None), Customer.created_at <= row.proposed_at
    return select(Customer.id).where(*concerned, ~notified).order_by(Customer.id)


def _texts() -> Select[Policy]:
    return select(Policy).where(Policy.withdrawn_at.is_(None))


def _is_planned(session: Session, row: Policy, now: datetime) -> bool:
    moment = takes_effect(session, row)
    return moment is None or moment > now


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
