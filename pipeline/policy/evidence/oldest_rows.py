"""The oldest row of each class of data, against the longest time that it may be kept. Stated here in words of its own.

The policy: account data while a subscription is active and two years longer, access logs 90 days. The law keeps books for
up to ten years (DE: AO 147) and proof of requests for three (docs/privacy.md).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.db.models import (
    Customer,
    EncryptionKey,
    Erasure,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    PrivacyRequest,
    RateLimitCounter,
    ReadAudit,
    Redelivery,
    RetentionRun,
    Subscription,
)

YEAR = timedelta(days=366)
GRACE = timedelta(days=2)  # the retention run may fail once


@dataclass(frozen=True, slots=True)
class Kept:
    """A class of rows: its name, the time that its period counts from, the period, and which rows belong to it."""

    name: str
    since: InstrumentedAttribute[Any]
    period: timedelta
    where: tuple[ColumnElement[bool], ...] = ()


_OF_NOBODY = Event.customer_id.is_(None), ~exists().where(Subscription.id == Event.key_id)
_ERASED = exists().where(EncryptionKey.key_id == Payment.subscription_id, EncryptionKey.wrapped_key.is_(None))
_UNKNOWN = Customer.email_hash.is_(None), Customer.payer_ref.is_(None), Customer.merged_into.is_(None)
_NEVER_SUBSCRIBED = ~exists().where(Subscription.customer_id == Customer.id)
CLASSES = (
    Kept("messages of unknown senders", InboundMail.received_at, 2 * YEAR, (InboundMail.customer_id.is_(None),)),
    Kept("answered requests", PrivacyRequest.done_at, 3 * YEAR),
    Kept(
        "mails to nobody", Mail.created_at, 2 * YEAR,
        (Mail.subscription_id.is_(None), Mail.customer_id.is_(None), Mail.state.not_in(("queued", "sending"))),
    ),
    Kept(
        "readable events of nobody", Event.received_at, 2 * YEAR,
        (*_OF_NOBODY, Event.body.is_not(None), Event.state != "received"),
    ),
    Kept("repeated deliveries", Redelivery.received_at, 2 * YEAR),
    Kept("links", Link.expires_at, timedelta(days=1)),
    Kept("rate limits", RateLimitCounter.expires_at, timedelta(0)),
    Kept("records of retention", RetentionRun.at, 3 * YEAR),
    Kept("reads of personal data", ReadAudit.at, YEAR, (ReadAudit.action != "segment",)),
    Kept("receipts of erasures", Erasure.at, 12 * YEAR, (Erasure.completed_at.is_not(None),)),
    Kept("payments of erased customers", Payment.occurred_at, 11 * YEAR, (_ERASED,)),
    Kept("payments of nobody", Payment.occurred_at, 11 * YEAR, (Payment.subscription_id.is_(None),)),
    Kept(
        "abandoned sign-ups", Customer.signed_up_at, timedelta(days=7),
        (Customer.erased_at.is_(None), *_UNKNOWN, _NEVER_SUBSCRIBED),
    ),
)  # fmt: skip


def overdue_classes(session: Session, now: datetime) -> dict[str, datetime]:
    """Return the classes whose oldest row is kept too long, with its time."""
    found = {}
    for each in CLASSES:
        oldest = session.execute(select(func.min(each.since)).where(*each.where)).scalar_one_or_none()
        if oldest is not None and oldest < now - each.period - GRACE:
            found[each.name] = oldest
    return found
