"""What is kept how long, counted from what, and how it ends: the rules that `retention` sweeps by.

The policy, section 3: account data as long as a subscription is active plus two years, access logs ninety days. What the
law of SMT_COUNTRY wants longer is kept restricted, see `holds`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.db.models import (
    AccessLogEntry,
    Base,
    Consent,
    Customer,
    EncryptionKey,
    Erasure,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    PaypalLookup,
    PrivacyRequest,
    RateLimitCounter,
    ReadAudit,
    Redelivery,
    Refund,
    RetentionRun,
    StatusHistoryEntry,
    Subscription,
)
from pipeline.privacy import audit_log
from pipeline.privacy.data_categories import Category
from pipeline.privacy.retention.legal_holds import YEAR, keeps_since

TWO_YEARS = 2 * YEAR
ACCESS_LOG = timedelta(days=90)
REQUESTS_KEPT = 3 * YEAR  # after they were answered
BY_HOLD = "until the hold of SMT_COUNTRY ends"

Find = Callable[[datetime, str], Select[Any]]  # now and country -> the keys of what is due
End = Callable[[Session, Sequence[Any], datetime], None]  # what is done with these keys


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of data and its end. Without `end` it is a person, who is erased."""

    name: str
    category: Category
    anchor: str  # what the period is counted from
    period: str
    action: str
    find: Find
    end: End | None


def _aged(
    name: str, category: Category, anchor: InstrumentedAttribute[Any], period: timedelta, *where: ColumnElement[bool]
) -> Rule:
    """Rows that are deleted at an age."""
    table: Any = anchor.class_
    key: Any = table.__mapper__.primary_key[0]
    return Rule(
        name,
        category,
        f"{table.__tablename__}.{anchor.key}",
        _words(period),
        "deleted",
        lambda now, _: select(key).where(anchor < now - period, *where),
        lambda session, keys, _: _delete(session, table, key.in_(keys)),
    )


# -- people


def people(now: datetime, _: str) -> Select[Any]:
    """Customers whose last subscription ended two years ago, or who never had one and came two years ago."""
    since = now - TWO_YEARS
    theirs = Subscription.customer_id == Customer.id
    alive = exists().where(theirs, _is_recent(since))
    to_erase = or_(Customer.erased_at.is_(None), exists().where(theirs, Subscription.personal_data.is_not(None)))
    came_late = or_(Customer.created_at >= since, Customer.signed_up_at >= since)
    return select(Customer.id).where(to_erase, ~alive, ~func.coalesce(came_late, False)).order_by(Customer.id)


def strangers(now: datetime, _: str) -> Select[Any]:
    """Subscriptions of nobody we know by another name, ended two years ago."""
    holds_person = or_(Subscription.personal_data.is_not(None), _has_key(Subscription.id))
    return select(Subscription.id).where(Subscription.customer_id.is_(None), holds_person, ~_is_recent(now - TWO_YEARS))


def _is_recent(since: datetime) -> ColumnElement[bool]:
    """Active, or a sign of life after that moment: the end of a subscription is the last of them."""
    paid = exists().where(Payment.subscription_id == Subscription.id, Payment.occurred_at >= since)
    signs = [
        func.coalesce(column >= since, False)
        for column in (Subscription.status_at, Subscription.paid_through, Subscription.created_at)
    ]
    return or_(func.coalesce(Subscription.status == "ACTIVE", False), *signs, paid)


def _has_key(label: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    return exists().where(EncryptionKey.key_id == label, EncryptionKey.wrapped_key.is_not(None))


def _has_tombstone(label: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    return exists().where(EncryptionKey.key_id == label, EncryptionKey.erased_at.is_not(None))


# -- events


def _of_nobody(now: datetime, _: str) -> Select[Any]:
    """Events that tell of no customer and no subscription, and are still readable."""
    strange = ~exists().where(Subscription.id == Event.key_id)
    readable = or_(Event.body.is_not(None), Event.personal_data.is_not(None))
    return select(Event.id).where(
        Event.received_at < now - TWO_YEARS, Event.customer_id.is_(None), strange, readable, Event.state != "received"
    )


def _forget_events(session: Session, ids: Sequence[Any], now: datetime) -> None:
    """Those that moved the books leave their facts; the others go as a whole. Their keys go either way."""
    labels = list(session.execute(select(Event.key_id).where(Event.id.in_(ids))).scalars())
    _tombstone_keys(session, labels, now)
    _delete(session, Redelivery, Redelivery.event_id.in_(ids))
    _delete(session, Event, and_(Event.id.in_(ids), Event.state != "handled"))
    _change(session, Event, Event.id.in_(ids), personal_data=None, body=None, reason=None)


def _left_over(now: datetime, _: str) -> Select[Any]:
    """Events that were being stored while the keys of their person were destroyed: nothing opens them any more."""
    sealed = or_(Event.body.is_not(None), Event.personal_data.is_not(None))
    return select(Event.id).where(sealed, _has_tombstone(Event.key_id), Event.received_at < now)


# -- books of the erased


def _books(now: datetime, country: str) -> Select[Any]:
    """Subscriptions of erased people whose last sign of life is older than what the law wants kept."""
    since = keeps_since(now, country)
    return select(Subscription.id).where(_has_tombstone(Subscription.id), ~_is_recent(since))


def _close_books(session: Session, ids: Sequence[Any], _: datetime) -> None:
    sales = list(session.execute(select(Payment.id).where(Payment.subscription_id.in_(ids))).scalars())
    _delete(session, Mail, Mail.subscription_id.in_(ids))
    _delete(session, StatusHistoryEntry, StatusHistoryEntry.subscription_id.in_(ids))
    _delete(session, PaypalLookup, PaypalLookup.id.in_([*ids, *sales]))
    _delete_sales(session, sales)
    _delete_events(session, Event.key_id.in_(ids))
    _delete(session, Subscription, Subscription.id.in_(ids))


def _lone_sales(now: datetime, country: str) -> Select[Any]:
    return select(Payment.id).where(Payment.subscription_id.is_(None), Payment.occurred_at < keeps_since(now, country))


def _forget_sales(session: Session, ids: Sequence[Any], now: datetime) -> None:
    _tombstone_keys(session, list(ids), now)
    _delete_sales(session, ids)


def _delete_sales(session: Session, ids: Sequence[Any]) -> None:
    _delete(session, Refund, Refund.payment_id.in_(ids))
    _delete_events(session, Event.key_id.in_(ids))
    _delete(session, Payment, Payment.id.in_(ids))


def _delete_events(session: Session, where: ColumnElement[bool]) -> None:
    _delete(session, Redelivery, Redelivery.event_id.in_(select(Event.id).where(where)))
    _delete(session, Event, where)


def _empty_customers(now: datetime, country: str) -> Select[Any]:
    """Erased customers of whom nothing else is left."""
    left = [exists().where(table.customer_id == Customer.id) for table in (Subscription, Consent, PrivacyRequest)]
    return select(Customer.id).where(Customer.erased_at < keeps_since(now, country), *(~each for each in left))


def _consents(now: datetime, _: str) -> Select[Any]:
    kept = exists().where(Customer.id == Consent.customer_id, Customer.erased_at.is_(None))
    return select(Consent.id).where(Consent.at < now - 3 * YEAR, ~kept)


# -- the rest


def _visits(now: datetime, _: str) -> Select[Any]:
    """A day goes as a whole, when its first visit may be ninety days old: with it goes the day's key."""
    day = (now - ACCESS_LOG).replace(hour=0, minute=0, second=0, microsecond=0)
    return select(AccessLogEntry.id).where(AccessLogEntry.at < day + timedelta(days=1))


def _forget_visits(session: Session, ids: Sequence[Any], _: datetime) -> None:
    labels = list(session.execute(select(AccessLogEntry.key_id).where(AccessLogEntry.id.in_(ids)).distinct()).scalars())
    _delete(session, AccessLogEntry, AccessLogEntry.id.in_(ids))
    _delete_keys(session, labels)


def _letters(now: datetime, _: str) -> Select[Any]:
    return select(InboundMail.id).where(InboundMail.customer_id.is_(None), InboundMail.received_at < now - TWO_YEARS)


def _forget_letters(session: Session, ids: Sequence[Any], _: datetime) -> None:
    labels = list(session.execute(select(InboundMail.key_id).where(InboundMail.id.in_(ids)).distinct()).scalars())
    _delete(session, InboundMail, InboundMail.id.in_(ids))
    still = set(session.execute(select(InboundMail.key_id).where(InboundMail.key_id.in_(labels))).scalars())
    _delete_keys(session, [label for label in labels if label not in still])


def _requests(now: datetime, _: str) -> Select[Any]:
    return select(PrivacyRequest.id).where(PrivacyRequest.done_at < now - REQUESTS_KEPT)


def _forget_requests(session: Session, ids: Sequence[Any], _: datetime) -> None:
    _delete(session, PrivacyRequest, PrivacyRequest.id.in_(ids))
    _delete_keys(session, [f"request:{id}" for id in ids])


def _reads(now: datetime, _: str) -> Select[Any]:
    return select(ReadAudit.id).where(ReadAudit.at < now - YEAR, ReadAudit.action != audit_log.SEGMENT)


def _erasures(now: datetime, _: str) -> Select[Any]:
    return select(Erasure.id).where(Erasure.at < now - 12 * YEAR, Erasure.completed_at.is_not(None))


def _forget_erasures(session: Session, ids: Sequence[Any], _: datetime) -> None:
    labels = [label for row in session.execute(select(Erasure.key_ids).where(Erasure.id.in_(ids))) for label in row[0]]
    _delete(session, Erasure, Erasure.id.in_(ids))
    _delete(session, EncryptionKey, and_(EncryptionKey.key_id.in_(labels), EncryptionKey.wrapped_key.is_(None)))


# -- deeds


def _delete(session: Session, table: type[Base], where: ColumnElement[bool]) -> None:
    session.execute(delete(table).where(where).execution_options(synchronize_session=False))


def _change(session: Session, table: type[Base], where: ColumnElement[bool], **values: Any) -> None:
    session.execute(update(table).where(where).values(**values).execution_options(synchronize_session=False))


def _tombstone_keys(session: Session, labels: Sequence[str], now: datetime) -> None:
    """Destroy keys of labels that may be named again, leaving their tombstones."""
    _change(
        session,
        EncryptionKey,
        and_(EncryptionKey.key_id.in_(labels), EncryptionKey.wrapped_key.is_not(None)),
        wrapped_key=None,
        erased_at=now,
    )


def _delete_keys(session: Session, labels: Sequence[str]) -> None:
    """Keys of labels that are never named again go without a trace."""
    _delete(session, EncryptionKey, EncryptionKey.key_id.in_(labels))


def _forget_reads(session: Session, _: Sequence[Any], now: datetime) -> None:
    audit_log.prune(session, now - YEAR)


def _words(period: timedelta) -> str:
    if not period:
        return "none"
    count, unit = (period // YEAR, "year") if period >= YEAR else (period.days, "day")
    return f"{count} {unit}{'s' if count > 1 else ''}"


RULES: tuple[Rule, ...] = (
    Rule("accounts", "contact", "end of the last subscription, else sign-up", _words(TWO_YEARS), "erased", people, None),
    Rule("subscriptions of nobody known", "contact", "end of the subscription", _words(TWO_YEARS), "erased", strangers, None),
    Rule("events of nobody", "payment", "event.received_at", _words(TWO_YEARS), "key destroyed", _of_nobody, _forget_events),
    Rule("left over from erasures", "contact", "the erasure", "none", "emptied", _left_over, _forget_events),
    Rule("books of the erased", "payment", "last payment or change", BY_HOLD, "deleted", _books, _close_books),
    Rule("sales without subscription", "payment", "payment.occurred_at", BY_HOLD, "deleted", _lone_sales, _forget_sales),
    Rule(
        "proof of consent", "consent", "consent.at, once the person is erased", "3 years", "deleted", _consents,
        lambda session, ids, _: _delete(session, Consent, Consent.id.in_(ids)),
    ),
    Rule(
        "access log", "usage", "access_log.at, by whole days", _words(ACCESS_LOG), "day's key destroyed", _visits,
        _forget_visits,
    ),
    Rule(
        "letters of nobody", "communication", "inbound_mail.received_at", _words(TWO_YEARS), "deleted", _letters,
        _forget_letters,
    ),
    Rule(
        "answered requests", "request", "privacy_request.done_at", _words(REQUESTS_KEPT), "deleted", _requests,
        _forget_requests,
    ),
    Rule(
        "log of reads", "accountability", "read_audit.at", _words(YEAR), "deleted, the chain's root kept", _reads,
        _forget_reads,
    ),
    Rule("erasures", "accountability", "erasure.at", "12 years", "deleted", _erasures, _forget_erasures),
    Rule(
        "erased customers", "pseudonym", "customer.erased_at", BY_HOLD, "deleted", _empty_customers,
        lambda session, ids, _: _delete(session, Customer, Customer.id.in_(ids)),
    ),
    _aged(
        "mails to nobody's account", "communication", Mail.created_at, TWO_YEARS,
        Mail.subscription_id.is_(None), Mail.customer_id.is_(None), Mail.state.not_in(("queued", "sending")),
    ),
    _aged("transmissions", "security", Redelivery.received_at, TWO_YEARS),
    _aged("links", "security", Link.expires_at, timedelta(days=1)),
    _aged("knocks", "security", RateLimitCounter.expires_at, timedelta(0)),
    _aged("records of sweeps", "accountability", RetentionRun.at, 3 * YEAR),
)  # fmt: skip
