"""The retention rules: for each kind of data its period, the time it counts from, and how it is deleted.

Policy, section 3: account data is kept while a subscription is active and two years longer, access logs 90 days. Data
that the law of SMT_COUNTRY requires longer is kept restricted, see `legal_holds`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.crypto.key_ids import REQUEST, SALE, require_destroyable
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
ACCESS_LOG = timedelta(days=90)  # policy, section 3
REQUESTS_KEPT = 3 * YEAR  # after the answer
ABANDONED = timedelta(days=7)  # after a sign-up or an approval page that led to no subscription
BY_HOLD = "legal period of SMT_COUNTRY"
# Beginnings of the event types that report money.
MONEY_EVENTS = ("PAYMENT.", "CUSTOMER.DISPUTE.", "INVOICING.INVOICE.", "CHECKOUT.ORDER.")

Find = Callable[[datetime, str], Select[Any]]  # (now, country) -> SELECT of the primary keys that are due
End = Callable[[Session, Sequence[Any], datetime], None]  # (session, primary keys, now): deletes or empties these rows


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule for one kind of data. `end` is None if the keys are those of customers or subscriptions to erase."""

    name: str
    category: Category
    anchor: str  # the time that the period counts from
    period: str
    action: str
    find: Find
    end: End | None


def _delete_after(
    name: str, category: Category, anchor: InstrumentedAttribute[Any], period: timedelta, *where: ColumnElement[bool]
) -> Rule:
    """Return a rule that deletes rows when `anchor` is older than `period`."""
    table: Any = anchor.class_
    key: Any = table.__mapper__.primary_key[0]
    return Rule(
        name,
        category,
        f"{table.__tablename__}.{anchor.key}",
        _format_period(period),
        "deleted",
        lambda now, _: select(key).where(anchor < now - period, *where),
        lambda session, keys, _: _delete(session, table, key.in_(keys)),
    )


# -- customers and subscriptions, which are erased


def _inactive_customers(now: datetime, _: str) -> Select[Any]:
    """Select customers whose last subscription ended two years ago, or who signed up or became known then and never had one."""
    since = now - TWO_YEARS
    owned = Subscription.customer_id == Customer.id
    active = exists().where(owned, _is_recent(since))
    to_erase = or_(Customer.erased_at.is_(None), exists().where(owned, Subscription.personal_data.is_not(None)))
    created_recently = or_(Customer.created_at >= since, Customer.signed_up_at >= since)
    inactive = to_erase, ~active, ~func.coalesce(created_recently, False), Customer.merged_into.is_(None)
    return select(Customer.id).where(*inactive).order_by(Customer.id)


def _abandoned_sign_ups(now: datetime, _: str) -> Select[Any]:
    """Select customers who signed up, whose address was never confirmed, and who never had a subscription."""
    subscribed = exists().where(Subscription.customer_id == Customer.id)
    is_unknown = Customer.email_hash.is_(None) & Customer.merged_into.is_(None) & Customer.payer_ref.is_(None)
    return select(Customer.id).where(
        Customer.signed_up_at < now - ABANDONED, Customer.erased_at.is_(None), is_unknown, ~subscribed
    )


def _pending_subscriptions(now: datetime, _: str) -> Select[Any]:
    """Select old subscriptions that were never active or paid and whose events are still readable."""
    paid = exists().where(Payment.subscription_id == Subscription.id)
    is_pending = Subscription.is_established.is_(False) & Subscription.status.is_not(None) & ~paid
    has_data = or_(Subscription.personal_data.is_not(None), _has_key(Subscription.id))
    return select(Subscription.id).where(is_pending, has_data, Subscription.created_at < now - ABANDONED)


def _empty_subscriptions(session: Session, ids: Sequence[Any], _: datetime) -> None:
    """Delete the personal data. No tombstone: if the buyer approves later, PayPal reports the data again."""
    _update(session, Event, Event.key_id.in_(ids), personal_data=None, body=None, reason=None)
    _update(session, Subscription, Subscription.id.in_(ids), personal_data=None, email_hash=None)
    _delete_keys(session, list(ids))


def _inactive_subscriptions(now: datetime, _: str) -> Select[Any]:
    """Select subscriptions without a customer that ended two years ago."""
    has_personal_data = or_(Subscription.personal_data.is_not(None), _has_key(Subscription.id))
    return select(Subscription.id).where(
        Subscription.customer_id.is_(None), has_personal_data, ~_is_recent(now - TWO_YEARS)
    )


def _is_recent(since: datetime) -> ColumnElement[bool]:
    """Condition for subscriptions that are active or had a status change, payment or paid time after `since`."""
    paid = exists().where(Payment.subscription_id == Subscription.id, Payment.occurred_at >= since)
    recent = [
        func.coalesce(column >= since, False)
        for column in (Subscription.status_at, Subscription.paid_through, Subscription.created_at)
    ]
    return or_(func.coalesce(Subscription.status == "ACTIVE", False), *recent, paid)


def _has_key(key_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    return exists().where(EncryptionKey.key_id == key_id, EncryptionKey.wrapped_key.is_not(None))


def _has_tombstone(key_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    return exists().where(EncryptionKey.key_id == key_id, EncryptionKey.erased_at.is_not(None))


# -- events


def _events_without_customer(now: datetime, _: str) -> Select[Any]:
    """Select old events without customer and subscription that are still readable."""
    without_subscription = ~exists().where(Subscription.id == Event.key_id)
    readable = or_(Event.body.is_not(None), Event.personal_data.is_not(None))
    return select(Event.id).where(
        Event.received_at < now - TWO_YEARS,
        Event.customer_id.is_(None),
        without_subscription,
        readable,
        Event.state != "received",
    )


def _erase_events(session: Session, ids: Sequence[Any], now: datetime) -> None:
    """Destroy the keys of these events. Handled events and those that contain money keep their facts; others are deleted."""
    key_ids = list(session.execute(select(Event.key_id).where(Event.id.in_(ids))).scalars())
    _tombstone_keys(session, key_ids, now)
    _delete(session, Redelivery, Redelivery.event_id.in_(ids))
    _delete(session, Event, and_(Event.id.in_(ids), Event.state != "handled", ~_contains_money()))
    _update(session, Event, Event.id.in_(ids), personal_data=None, body=None, reason=None)


def _contains_money() -> ColumnElement[bool]:
    """Condition for the event types that report money. Accounting law keeps their facts, handled or not."""
    return or_(*(Event.type.startswith(prefix, autoescape=True) for prefix in MONEY_EVENTS))


def _old_money_events(now: datetime, country: str) -> Select[Any]:
    """Select events about money whose keys were destroyed and that belong to no stored payment or subscription."""
    of_payment = exists().where(Event.key_id == SALE + Payment.id)
    of_subscription = exists().where(Event.key_id == Subscription.id)
    return select(Event.id).where(
        _contains_money(),
        Event.received_at < keeps_since(now, country),
        Event.customer_id.is_(None),
        _has_tombstone(Event.key_id),
        ~of_payment,
        ~of_subscription,
    )


def _delete_money_events(session: Session, ids: Sequence[Any], _: datetime) -> None:
    _delete_events(session, Event.id.in_(ids))


def _events_with_destroyed_key(now: datetime, _: str) -> Select[Any]:
    """Select events that were stored while their keys were destroyed: they can no longer be decrypted."""
    encrypted = or_(Event.body.is_not(None), Event.personal_data.is_not(None))
    return select(Event.id).where(encrypted, _has_tombstone(Event.key_id), Event.received_at < now)


# -- billing records of erased customers


def _old_billing_records(now: datetime, country: str) -> Select[Any]:
    """Select subscriptions of erased customers whose last activity is older than the legal period."""
    since = keeps_since(now, country)
    return select(Subscription.id).where(_has_tombstone(Subscription.id), ~_is_recent(since))


def _delete_billing_records(session: Session, ids: Sequence[Any], _: datetime) -> None:
    payments = list(session.execute(select(Payment.id).where(Payment.subscription_id.in_(ids))).scalars())
    _delete(session, Mail, Mail.subscription_id.in_(ids))
    _delete(session, StatusHistoryEntry, StatusHistoryEntry.subscription_id.in_(ids))
    _delete(session, PaypalLookup, PaypalLookup.id.in_([*ids, *payments]))
    _delete_payments(session, payments)
    _delete_events(session, Event.key_id.in_(ids))
    _delete(session, Subscription, Subscription.id.in_(ids))


def _old_lone_payments(now: datetime, country: str) -> Select[Any]:
    return select(Payment.id).where(Payment.subscription_id.is_(None), Payment.occurred_at < keeps_since(now, country))


def _erase_payments(session: Session, ids: Sequence[Any], now: datetime) -> None:
    _tombstone_keys(session, [f"{SALE}{id}" for id in ids], now)
    _delete_payments(session, ids)


def _delete_payments(session: Session, ids: Sequence[Any]) -> None:
    _delete(session, Refund, Refund.payment_id.in_(ids))
    _delete_events(session, Event.key_id.in_([f"{SALE}{id}" for id in ids]))
    _delete(session, Payment, Payment.id.in_(ids))


def _delete_events(session: Session, where: ColumnElement[bool]) -> None:
    _delete(session, Redelivery, Redelivery.event_id.in_(select(Event.id).where(where)))
    _delete(session, Event, where)


def _empty_customers(now: datetime, country: str) -> Select[Any]:
    """Select erased customers that no other row refers to."""
    left = [exists().where(table.customer_id == Customer.id) for table in (Subscription, Consent, PrivacyRequest)]
    return select(Customer.id).where(Customer.erased_at < keeps_since(now, country), *(~each for each in left))


def _old_consents(now: datetime, _: str) -> Select[Any]:
    """Select consents of customers who were erased three years ago: the proof counts from the end, not from the consent.

    California requires three years, or one year after the contract ends, whichever is longer (Bus. & Prof. Code 17602).
    """
    since = now - 3 * YEAR
    kept = exists().where(
        Customer.id == Consent.customer_id, or_(Customer.erased_at.is_(None), Customer.erased_at >= since)
    )
    return select(Consent.id).where(Consent.at < since, ~kept)


# -- other data


def _old_access_log(now: datetime, _: str) -> Select[Any]:
    """Select whole days whose first entry may be 90 days old, because each day has one key."""
    day = (now - ACCESS_LOG).replace(hour=0, minute=0, second=0, microsecond=0)
    return select(AccessLogEntry.id).where(AccessLogEntry.at < day + timedelta(days=1))


def _delete_access_log(session: Session, ids: Sequence[Any], _: datetime) -> None:
    key_ids = list(
        session.execute(select(AccessLogEntry.key_id).where(AccessLogEntry.id.in_(ids)).distinct()).scalars()
    )
    _delete(session, AccessLogEntry, AccessLogEntry.id.in_(ids))
    _delete_keys(session, key_ids)


def _old_inbound_mail(now: datetime, _: str) -> Select[Any]:
    return select(InboundMail.id).where(InboundMail.customer_id.is_(None), InboundMail.received_at < now - TWO_YEARS)


def _delete_inbound_mail(session: Session, ids: Sequence[Any], _: datetime) -> None:
    key_ids = list(session.execute(select(InboundMail.key_id).where(InboundMail.id.in_(ids)).distinct()).scalars())
    _delete(session, InboundMail, InboundMail.id.in_(ids))
    still_used = set(session.execute(select(InboundMail.key_id).where(InboundMail.key_id.in_(key_ids))).scalars())
    _delete_keys(session, [key_id for key_id in key_ids if key_id not in still_used])


def _closed_requests(now: datetime, _: str) -> Select[Any]:
    return select(PrivacyRequest.id).where(PrivacyRequest.done_at < now - REQUESTS_KEPT)


def _delete_requests(session: Session, ids: Sequence[Any], _: datetime) -> None:
    _delete(session, PrivacyRequest, PrivacyRequest.id.in_(ids))
    _delete_keys(session, [f"{REQUEST}{id}" for id in ids])


def _old_audit_rows(now: datetime, _: str) -> Select[Any]:
    return select(ReadAudit.id).where(ReadAudit.at < now - audit_log.KEPT, ReadAudit.action != audit_log.SEGMENT)


def _old_erasures(now: datetime, _: str) -> Select[Any]:
    return select(Erasure.id).where(Erasure.at < now - 12 * YEAR, Erasure.completed_at.is_not(None))


def _delete_erasures(session: Session, ids: Sequence[Any], _: datetime) -> None:
    key_ids = [
        key_id for row in session.execute(select(Erasure.key_ids).where(Erasure.id.in_(ids))) for key_id in row[0]
    ]
    _delete(session, Erasure, Erasure.id.in_(ids))
    _delete(session, EncryptionKey, and_(EncryptionKey.key_id.in_(key_ids), EncryptionKey.wrapped_key.is_(None)))


# -- statements


def _delete(session: Session, table: type[Base], where: ColumnElement[bool]) -> None:
    session.execute(delete(table).where(where).execution_options(synchronize_session=False))


def _update(session: Session, table: type[Base], where: ColumnElement[bool], **values: Any) -> None:
    session.execute(update(table).where(where).values(**values).execution_options(synchronize_session=False))


def _tombstone_keys(session: Session, key_ids: Sequence[str], now: datetime) -> None:
    """Destroy keys whose ids may appear again in later events, leaving tombstones. Raises ProtectedKeyError."""
    require_destroyable(key_ids)
    _update(
        session,
        EncryptionKey,
        and_(EncryptionKey.key_id.in_(key_ids), EncryptionKey.wrapped_key.is_not(None)),
        wrapped_key=None,
        erased_at=now,
    )


def _delete_keys(session: Session, key_ids: Sequence[str]) -> None:
    """Delete keys whose ids never appear again; no tombstone is needed. Raises ProtectedKeyError."""
    require_destroyable(key_ids)
    _delete(session, EncryptionKey, EncryptionKey.key_id.in_(key_ids))


def _prune_audit_log(session: Session, _: Sequence[Any], now: datetime) -> None:
    audit_log.prune(session, now - audit_log.KEPT)


def _format_period(period: timedelta) -> str:
    if not period:
        return "none"
    count, unit = (period // YEAR, "year") if period >= YEAR else (period.days, "day")
    return f"{count} {unit}{'s' if count > 1 else ''}"


RULES: tuple[Rule, ...] = (
    Rule(
        "accounts", "contact", "end of the last subscription, else sign-up", _format_period(TWO_YEARS), "erased",
        _inactive_customers, None,
    ),
    Rule(
        "abandoned sign-ups", "contact", "customer.signed_up_at", _format_period(ABANDONED), "erased",
        _abandoned_sign_ups, None,
    ),
    Rule(
        "pending subscriptions", "contact", "subscription.created_at", _format_period(ABANDONED), "emptied",
        _pending_subscriptions, _empty_subscriptions,
    ),
    Rule(
        "subscriptions without customer", "contact", "end of the subscription", _format_period(TWO_YEARS), "erased",
        _inactive_subscriptions, None,
    ),
    Rule(
        "events without customer", "payment", "event.received_at", _format_period(TWO_YEARS), "key destroyed",
        _events_without_customer, _erase_events,
    ),
    Rule(
        "money events without payment", "payment", "event.received_at", BY_HOLD, "deleted",
        _old_money_events, _delete_money_events,
    ),
    Rule(
        "events stored during an erasure", "contact", "the erasure", "none", "emptied",
        _events_with_destroyed_key, _erase_events,
    ),
    Rule(
        "billing records of erased customers", "payment", "last payment or change", BY_HOLD, "deleted",
        _old_billing_records, _delete_billing_records,
    ),
    Rule(
        "payments without subscription", "payment", "payment.occurred_at", BY_HOLD, "deleted",
        _old_lone_payments, _erase_payments,
    ),
    Rule(
        "proof of consent", "consent", "the erasure of the customer", "3 years", "deleted", _old_consents,
        lambda session, ids, _: _delete(session, Consent, Consent.id.in_(ids)),
    ),
    Rule(
        "access log", "usage", "access_log.at, by whole days", _format_period(ACCESS_LOG), "day's key destroyed",
        _old_access_log, _delete_access_log,
    ),
    Rule(
        "inbound mail of unknown senders", "communication", "inbound_mail.received_at", _format_period(TWO_YEARS), "deleted",
        _old_inbound_mail, _delete_inbound_mail,
    ),
    Rule(
        "answered requests", "request", "privacy_request.done_at", _format_period(REQUESTS_KEPT), "deleted",
        _closed_requests, _delete_requests,
    ),
    Rule(
        "audit log", "accountability", "read_audit.at", _format_period(audit_log.KEPT), "deleted, last hash kept",
        _old_audit_rows, _prune_audit_log,
    ),
    Rule("erasure receipts", "accountability", "erasure.at", "12 years", "deleted", _old_erasures, _delete_erasures),
    Rule(
        "erased customers", "pseudonym", "customer.erased_at", BY_HOLD, "deleted", _empty_customers,
        lambda session, ids, _: _delete(session, Customer, Customer.id.in_(ids)),
    ),
    _delete_after(
        "mails without customer", "communication", Mail.created_at, TWO_YEARS,
        Mail.subscription_id.is_(None), Mail.customer_id.is_(None), Mail.state.not_in(("queued", "sending")),
    ),
    _delete_after("redeliveries", "security", Redelivery.received_at, TWO_YEARS),
    _delete_after("links", "security", Link.expires_at, timedelta(days=1)),
    _delete_after("rate limit counters", "security", RateLimitCounter.expires_at, timedelta(0)),
    _delete_after("retention runs", "accountability", RetentionRun.at, 3 * YEAR),
)  # fmt: skip
