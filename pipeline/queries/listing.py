"""Look-ups for the lists: plain dicts in the JSON shapes the command line promises, newest first.

Times are ISO 8601 in UTC, money is minor units beside its currency, null is not known. What is sealed is opened where
its key is still there; a person who was erased leaves nulls. Rows come in chunks with one query each for what belongs
to them, never one for each row.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.header import decode_header, make_header
from typing import Any

import orjson
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pipeline.clock import write_time
from pipeline.crypto.keyring import Keyring, Seal
from pipeline.crypto.master_key import MasterKey
from pipeline.db import lww_map as register
from pipeline.db.models import Base, Event, Mail, Payment, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.inbox.parsing import UNREADABLE
from pipeline.inbox.store import is_conflict
from pipeline.mailer.recipients import Addressees
from pipeline.outbox import mail_kinds as purposes
from pipeline.outbox import store as outbox

CHUNK = 500  # rows that are in memory with what is sealed in them
Json = dict[str, Any]
Subject = Callable[[str, Mapping[str, Any]], str | None]  # of a mail's kind and facts, None if it cannot be written

_SUBJECT = re.compile(rb"^Subject: ?([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.MULTILINE | re.IGNORECASE)
EVENT = (Event.id, Event.type, Event.state, Event.source, Event.received_at, Event.reason)
PAYMENT = ("id", "amount", "currency", "status", "occurred_at")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a list is asked for: columns and the value each must have, no older than `since`, the newest `limit`."""

    where: Mapping[str, str | None]
    since: datetime | None = None
    limit: int | None = None


class Lens:
    """Opens what is sealed, with the keys there are; makes none. `master` is asked for when there is need of it."""

    def __init__(self, session: Session, master: Callable[[], MasterKey], now: datetime) -> None:
        self.session, self._master, self._now = session, master, now
        self._keyring: Keyring | None = None

    @property
    def keyring(self) -> Keyring:
        """The keys themselves; asking for it takes the master key."""
        self._keyring = self._keyring or Keyring(self._master(), self.session, self._now)
        return self._keyring

    def seals(self, labels: Sequence[str]) -> Mapping[str, Seal | None]:
        """The seals of these labels; an erased or unknown one is None or absent."""
        if not labels:
            return {}
        return self.keyring.fetch(labels, create=False)


# Events


def events(session: Session, asked: Asked) -> Iterator[Json]:
    """`id, type, state, source, received_at, reason`."""
    for chunk in _chunks(session, _asked(select(*EVENT), Event, Event.received_at, asked)):
        for row in chunk:
            yield {**row._asdict(), "received_at": write_time(row.received_at)}


def count(session: Session, table: type[Base], at: Any, asked: Asked) -> int:
    """How many rows there are of what is asked for, whatever the limit."""
    everything = Asked(asked.where, asked.since)
    statement = select(func.count()).select_from(table)
    return int(session.execute(_asked(statement, table, at, everything, sort=False)).scalar_one())


def event(lens: Lens, id: str) -> Json | None:
    """All of one event: the list's fields, its verdict, facts, person and body as far as they open, and its changes."""
    row = lens.session.get(Event, id)
    if row is None:
        return None
    seal = lens.seals([row.key_id]).get(row.key_id)
    return {
        **{name.key: getattr(row, name.key) for name in EVENT},
        "received_at": write_time(row.received_at),
        "occurred_at": _at(row.occurred_at),
        "due_at": _at(row.due_at),
        "done_at": _at(row.done_at),
        "attempts": row.attempts,
        "verdict": row.signature_verdict,
        "transmission_id": row.transmission_id,
        "label": row.key_id,
        "body_sha256": row.body_sha256,
        "facts": row.facts,
        "erased": seal is None,
        "person": seal.open_json("event.personal_data", row.personal_data) if seal else None,
        "body": _body(seal.open("event.body", row.body)) if seal and row.body else None,
        "changes": [_change(change) for change in _changes(lens.session, StatusHistoryEntry.event_id == id)],
    }


def why_not_again(session: Session, id: str) -> str:
    """Why this event was not put back."""
    row = session.execute(select(Event.type, Event.state).where(Event.id == id)).one_or_none()
    if row is None:
        return "there is no such event"
    if row.type == UNREADABLE:
        return (
            "its body could not be read, so there is nothing to handle; import it when PayPal's API shows it readable"
        )
    if is_conflict(id):
        return f"it is a second body under the id {id.partition('~')[0]}; only the first counts"
    if row.state == "handled":
        return "it was handled, and its effects are in the books; handling it again would change nothing"
    return f"it is {row.state} and will be handled"


# Mails


def mails(lens: Lens, asked: Asked, subject: Subject) -> Iterator[Json]:
    """`id, kind, key, to, subject, state, message_id, reason, attempts, created_at, due_at, sent_at, subscription`."""
    columns = [column for column in Mail.__table__.c if column.name not in ("claimed_by", "relay_reply")]
    for chunk in _chunks(lens.session, _asked(select(*columns), Mail, Mail.created_at, asked)):
        yield from _mails(lens, chunk, subject)


def mail(lens: Lens, id: str, subject: Subject) -> Json | None:
    """All of one mail: the list's fields, its facts, the relay's answer, and `frozen`, the finished bytes or None."""
    row: Any = lens.session.execute(select(*Mail.__table__.c).where(Mail.id == id)).one_or_none()
    if row is None:
        return None
    seal = lens.seals([row.key_id]).get(row.key_id)
    people = Addressees(lens.session, lens.keyring, [row])
    return {
        **_mail(row, seal, people, subject),
        "reply": row.relay_reply,
        "erased": seal is None,
        "facts": _facts(row, seal, people),
        "frozen": seal.open("mail.frozen", row.frozen) if seal and row.frozen else None,
    }


def _mails(lens: Lens, rows: Sequence[Any], subject: Subject) -> Iterator[Json]:
    seals = lens.seals([row.key_id for row in rows])
    people = Addressees(lens.session, lens.keyring, rows)
    for row in rows:
        yield _mail(row, seals.get(row.key_id), people, subject)


def _mail(row: Any, seal: Seal | None, people: Addressees, subject: Subject) -> Json:
    return {
        "id": row.id,
        "kind": row.kind,
        "key": row.idempotency_key,
        "to": _recipient(row, seal, people),
        "subject": _subject(row, seal, people, subject),
        "state": row.state,
        "message_id": row.message_id,
        "reason": row.reason,
        "attempts": row.attempts,
        "created_at": write_time(row.created_at),
        "due_at": _at(row.due_at),
        "sent_at": _at(row.sent_at),
        "subscription": row.subscription_id,
        "customer": row.customer_id,
    }


def _recipient(row: Any, seal: Seal | None, people: Addressees) -> str | None:
    """The address it was frozen for, else where it would go now; None is the operator, or nobody yet."""
    if seal is None:
        return None
    if row.recipient is not None:
        return seal.open("mail.recipient", row.recipient).decode()
    found = people.of(row, seal.open_json("mail.facts", row.facts) or {})
    return found.address or None if found else None


def _subject(row: Any, seal: Seal | None, people: Addressees, subject: Subject) -> str | None:
    if seal is None:
        return None
    if row.frozen is not None:
        return subject_of(seal.open("mail.frozen", row.frozen))
    facts = _facts(row, seal, people)
    return None if facts is None else subject(row.kind, facts)


def _facts(row: Any, seal: Seal | None, people: Addressees) -> Json | None:
    """What the mail says, with what the mailer would add."""
    facts = seal.open_json("mail.facts", row.facts) if seal else None
    if facts is None:
        return None
    found, to = people.of(row, facts), facts.pop(outbox.TO, None)
    added = {"customer_name": found.name if found else "", **({"to": to} if to else {})}
    return {"unsubscribe": "…", **facts, **added} if _can_be_declined(row.kind) else {**facts, **added}


def _can_be_declined(kind: str) -> bool:
    return kind in purposes.MAILS and purposes.is_optional(kind)


def subject_of(data: bytes) -> str | None:
    """The subject of finished bytes, decoded."""
    found = _SUBJECT.search(data.partition(b"\r\n\r\n")[0])
    if found is None:
        return None
    text = found[1].decode("utf-8", "replace").replace("\r\n", "")
    return str(make_header(decode_header(text))) if "=?" in text else text


def full_name(person: Mapping[str, Any]) -> str:
    """The name in a sealed `person` column, "" if none is known."""
    return " ".join(name for part in ("given_name", "surname") if (name := register.value(person, part)))


# Subscriptions


def subscriptions(session: Session, asked: Asked) -> Iterator[Json]:
    """`id, status, status_at, plan, plan_name, paid_through, next_billing_at, customer, created_at, payments`."""
    statement = select(*Subscription.__table__.c, Plan.name.label("plan_name"))
    statement = statement.outerjoin(Plan, Plan.id == Subscription.plan_id)
    for chunk in _chunks(session, _asked(statement, Subscription, Subscription.created_at, asked)):
        payments = _payments(session, [row.id for row in chunk])
        for row in chunk:
            yield _subscription(row, row.plan_name, payments.get(row.id, []))


def subscription(lens: Lens, id: str, subject: Subject) -> Json | None:
    """All of one subscription: the list's fields, its person, terms, refunds, changes and mails."""
    row = lens.session.get(Subscription, id)
    if row is None:
        return None
    plan = lens.session.get(Plan, row.plan_id) if row.plan_id else None
    payments = _payments(lens.session, [id]).get(id, [])
    seal = lens.seals([id]).get(id)
    person = (seal.open_json("subscription.personal_data", row.personal_data) if seal else None) or {}
    return {
        **_subscription(row, plan.name if plan else None, payments),
        "erased": seal is None,
        "name": full_name(person) or None,
        "email": register.value(person, "email"),
        "remind_at": _at(row.remind_at),
        "refunds": _refunds(lens.session, [payment["id"] for payment in payments]),
        "changes": [_change(change) for change in _changes(lens.session, StatusHistoryEntry.subscription_id == id)],
        "mails": list(mails(lens, Asked({"subscription_id": id}), subject)),
    }


def _subscription(row: Any, plan_name: str | None, payments: list[Json]) -> Json:
    return {
        "id": row.id,
        "status": row.status,
        "status_at": _at(row.status_at),
        "plan": row.plan_id,
        "plan_name": plan_name,
        "paid_through": _at(row.paid_through),
        "next_billing_at": _at(row.next_billing_at),
        "customer": row.customer_id,
        "created_at": write_time(row.created_at),
        "payments": payments,
    }


def _payments(session: Session, subscriptions: Sequence[str]) -> dict[str, list[Json]]:
    """Their payments by subscription, oldest first."""
    found: dict[str, list[Json]] = {}
    named = select(Payment).where(Payment.subscription_id.in_(subscriptions)).order_by(Payment.occurred_at, Payment.id)
    for row in session.execute(named).scalars():
        shown = {**{name: getattr(row, name) for name in PAYMENT}, "occurred_at": _at(row.occurred_at)}
        found.setdefault(row.subscription_id or "", []).append(shown | {"refunded": row.refunded, "fee": row.fee})
    return found


def _refunds(session: Session, payments: Sequence[str]) -> list[Json]:
    named = select(Refund).where(Refund.payment_id.in_(payments)).order_by(Refund.occurred_at, Refund.id)
    return [
        {
            "id": row.id,
            "payment": row.payment_id,
            "kind": row.kind,
            "amount": row.amount,
            "currency": row.currency,
            "occurred_at": write_time(row.occurred_at),
        }
        for row in session.execute(named).scalars()
    ]


def _changes(session: Session, where: ColumnElement[bool]) -> list[StatusHistoryEntry]:
    return list(session.execute(select(StatusHistoryEntry).where(where).order_by(StatusHistoryEntry.id)).scalars())


def _change(row: StatusHistoryEntry) -> Json:
    return {
        "subscription": row.subscription_id,
        "at": write_time(row.at),
        "old": row.old_status,
        "new": row.new_status,
        "reason": row.reason,
        "event": row.event_id,
    }


# How it is asked


def states(session: Session, table: type[Event] | type[Mail]) -> dict[str, int]:
    """How many rows are in which state."""
    return dict(session.execute(select(table.state, func.count()).group_by(table.state)).all())


def _asked(statement: Any, table: type[Base], at: Any, asked: Asked, *, sort: bool = True) -> Any:
    for name, value in asked.where.items():
        if value is not None:
            statement = statement.where(getattr(table, name) == value)
    if asked.since is not None:
        statement = statement.where(at >= asked.since)
    if sort:
        statement = statement.order_by(at.desc(), table.__table__.c.id)
    return statement if asked.limit is None else statement.limit(asked.limit)


def _chunks(session: Session, statement: Any) -> Iterator[Sequence[Any]]:
    yield from session.execute(statement.execution_options(yield_per=CHUNK)).partitions()


def _at(moment: datetime | None) -> str | None:
    return write_time(moment) if moment else None


def _body(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
