"""Which text of the policy is in force, which one is to come, and who was told of it.

A material change takes effect on its day, but never before every customer has been told by mail and thirty days have
passed since the relay accepted the last of these notices: until then the old text stays in force, whatever was planned.
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
AT_ONCE = 200  # notices of one transaction
SHOWN = 12  # changed sentences that a notice quotes


class PolicyRejectedError(UsageError):
    """A text cannot take effect as proposed. Says why, and what is possible."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What became of one customer's notice."""

    customer: str
    mail: str
    state: str
    sent_at: datetime | None
    reply: str | None


def store_first_text(session: Session, vendor: PolicyOwner, effective: date, now: datetime) -> Policy | None:
    """Keep the first text, that of this version of the program, unless there is one already."""
    if session.execute(select(Policy.id).limit(1)).first():
        return None
    first = Policy(
        id=effective.isoformat(),
        text=texts.write(document(), vendor),
        material=False,
        proposed_at=now,
        effective_at=_begins(effective),
    )
    session.add(first)
    session.flush()
    return first


def in_force(session: Session, at: datetime) -> Policy | None:
    """The text in force at a moment; None before the first one was kept."""
    for row in session.execute(_texts().order_by(Policy.effective_at.desc(), Policy.id.desc())).scalars():
        moment = takes_effect(session, row)
        if moment is not None and moment <= at:
            return row
    return None


def takes_effect(session: Session, row: Policy) -> datetime | None:
    """When a text takes effect, or did: its day, or later if notices are late. None as long as some are not out."""
    if not row.material:
        return row.effective_at
    if unnotified_count(session, row):
        return None
    last = session.execute(select(func.max(Mail.sent_at)).where(_notices_of(row), Mail.state == "sent")).scalar_one()
    return max(row.effective_at, last + NOTICE) if last else row.effective_at


def unnotified_count(session: Session, row: Policy) -> int:
    """How many customers have not been told yet, though they can be. Who has no address waits, and holds up nobody."""
    waiting = (
        _notices_of(row),
        or_(Mail.state.in_(("sending", "doubt")), (Mail.state == "queued") & Mail.due_at.is_not(None)),
    )
    on_their_way = session.execute(select(func.count()).select_from(Mail).where(*waiting)).scalar_one()
    untold = session.execute(select(func.count()).select_from(_untold(row).subquery())).scalar_one()
    return int(on_their_way + untold)


def upcoming(session: Session, now: datetime) -> list[Policy]:
    """Texts that are proposed and not in force yet, the next first."""
    return [
        row for row in session.execute(_texts().order_by(Policy.effective_at)).scalars() if _waits(session, row, now)
    ]


def all_texts(session: Session) -> list[Policy]:
    """All texts there were and will be, withdrawn ones too, the newest first."""
    return list(session.execute(select(Policy).order_by(Policy.effective_at.desc())).scalars())


def propose(session: Session, text: str, effective: date, now: datetime, *, material: bool) -> Policy:
    """Plan a text. Raises Refused if it cannot take effect on that day, changes nothing, or the day is taken."""
    begins, old = _begins(effective), in_force(session, now)
    earliest = (now + NOTICE if material else now).date() + timedelta(days=1)
    if effective < earliest:
        kind = (
            f"a material change needs {NOTICE_DAYS} days' notice, so"
            if material
            else "a text cannot begin in the past:"
        )
        raise PolicyRejectedError(f"{kind} {earliest} is the earliest day; say --effective {earliest} or later")
    if old is not None and texts.sentences(old.text) == texts.sentences(text):
        raise PolicyRejectedError("this is the text in force, word for word: there is nothing to change")
    if session.get(Policy, effective.isoformat()) is not None:
        raise PolicyRejectedError(
            f"there is a text for {effective} already; see: smt-billing policy texts, or choose another day"
        )
    row = Policy(
        id=effective.isoformat(), text=text, material=material, proposed_at=now, effective_at=begins, withdrawn_at=None
    )
    session.add(row)
    session.flush()
    return row


def withdraw(session: Session, id: str, now: datetime) -> Policy:
    """Give up a text before it takes effect. Raises Refused afterwards."""
    row = session.get(Policy, id)
    if row is None or row.withdrawn_at or not _waits(session, row, now):
        raise PolicyRejectedError(f"there is no text to come for {id}; see: smt-billing policy texts")
    row.withdrawn_at = now
    return row


def changes(old: str, new: str) -> tuple[list[str], list[str]]:
    """The sentences that go, and those that come."""
    found = list(difflib.ndiff(texts.sentences(old), texts.sentences(new)))
    return [line[2:] for line in found if line[0] == "-"], [line[2:] for line in found if line[0] == "+"]


# Notices


def queue_notices(session: Session, keyring: Keyring, now: datetime, page: Callable[[str], str]) -> int:
    """Owe notices of material texts to come to who lacks one, some hundred at a time; how many. `page` is a text's URL."""
    count = 0
    for row in (row for row in upcoming(session, now) if row.material):
        customers = list(session.execute(_untold(row).limit(AT_ONCE - count)).scalars())
        old = in_force(session, now)
        facts = _facts(row, old.text if old else "", page(row.id))
        mails = [_owed(session, keyring, row, id, facts) for id in customers]
        outbox.enqueue(session, keyring, mails, now)
        count += len(mails)
    return count


def notices(session: Session, row: Policy) -> Iterator[Notice]:
    """Who was told of a text, and how the relay answered."""
    found = select(Mail).where(_notices_of(row)).order_by(Mail.created_at, Mail.id)
    for mail in session.execute(found).scalars():
        yield Notice(mail.customer_id or "", mail.id, mail.state, mail.sent_at, mail.relay_reply)


def _facts(row: Policy, old: str, page: str) -> dict[str, Any]:
    gone, come = changes(old, row.text)
    return {
        "effective_at": format_time(row.effective_at),
        "gone": gone[:SHOWN],
        "come": come[:SHOWN],
        "more": max(0, len(gone) - SHOWN) + max(0, len(come) - SHOWN),
        "page": page,
    }


def _owed(session: Session, keyring: Keyring, row: Policy, customer_id: str, facts: dict[str, Any]) -> outbox.NewMail:
    # What they told is locked before it is asked what PayPal told.
    has_address = accounts.has_address(session, customer_id) or "email" in accounts.personal_data(
        session, keyring, customer_id
    )
    key = f"{_key_of(row)}{customer_id}"
    return outbox.NewMail(KIND, key, None, facts, has_address=has_address, customer_id=customer_id)


def _key_of(row: Policy) -> str:
    return f"{KIND}:{row.id}:"


def _notices_of(row: Policy) -> ColumnElement[bool]:
    return (Mail.kind == KIND) & Mail.idempotency_key.startswith(_key_of(row), autoescape=True)


def _untold(row: Policy) -> Select[Any]:
    """Customers of the day it was proposed; who came later was shown both texts."""
    told = exists().where(Mail.idempotency_key == literal(_key_of(row)) + Customer.id)
    there = Customer.erased_at.is_(None), Customer.created_at <= row.proposed_at
    return select(Customer.id).where(*there, ~told).order_by(Customer.id)


def _texts() -> Select[Policy]:
    return select(Policy).where(Policy.withdrawn_at.is_(None))


def _waits(session: Session, row: Policy, now: datetime) -> bool:
    moment = takes_effect(session, row)
    return moment is None or moment > now


def _begins(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
