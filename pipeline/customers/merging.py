"""Merge two accounts of the same person: one customer with the subscriptions of both.

Accounts are merged only if both are proved to be the same person's: both confirmed the same address by a link, or the same
PayPal account pays for both and the same address counts in both. The earlier account stays, with the data and choices of
both. The later one keeps its key and its `custom_id`, under which later subscriptions are found. No row belongs to it.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Update, exists, or_, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links
from pipeline.db.models import Consent, Customer, InboundMail, Mail, PrivacyRequest, Subscription

MERGED = "the account was merged with an earlier one"
LINK_MAILS = ("account_link", "news_confirmation")
OWNED = (Subscription, Mail, Consent, InboundMail, PrivacyRequest)


def merge_by_address(session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime) -> str:
    """Merge the accounts that confirmed this address by a link. Return the id of the remaining account."""
    same = Customer.email_hash == keyring.email_hash(email)
    return _merge(session, keyring, customer_id, session.execute(_mergeable().where(same)).scalars().all(), now)


def merge_by_payer(session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime) -> str:
    """Merge the accounts that the same PayPal account pays for and in which this address counts. Return the remaining id."""
    digest, payer = keyring.email_hash(email), session.get_one(Customer, customer_id).payer_ref
    if payer is None:
        return customer_id
    reported = select(Subscription.customer_id).where(Subscription.email_hash == digest)
    counts = or_(Customer.email_hash == digest, Customer.email_hash.is_(None) & Customer.id.in_(reported))
    same = counts & or_(Customer.payer_ref == payer, Customer.id == payer)
    return _merge(session, keyring, customer_id, session.execute(_mergeable().where(same)).scalars().all(), now)


def _mergeable() -> Select[Customer]:
    """Select accounts that nothing is about to change: no erasure, and no change of the address."""
    open_erasure = exists().where(
        PrivacyRequest.customer_id == Customer.id,
        PrivacyRequest.kind.in_(("erase", "child")),
        PrivacyRequest.done_at.is_(None),
    )
    return (
        select(Customer)
        .where(Customer.erased_at.is_(None), Customer.erase_at.is_(None), Customer.merged_into.is_(None))
        .where(Customer.email_change_at.is_(None), ~open_erasure)
        .order_by(Customer.created_at, Customer.id)
        .with_for_update()
    )


def _merge(session: Session, keyring: Keyring, customer_id: str, found: Sequence[Customer], now: datetime) -> str:
    """Merge all these accounts into the earliest one, if this customer is among them."""
    if customer_id not in {row.id for row in found} or len(found) < 2:
        return customer_id
    kept = found[0]
    for row in found[1:]:
        accounts.absorb(keyring, kept, row)
        _move_rows(session, row.id, kept.id, now)
        row.merged_into = kept.id
    session.flush()
    _apply_newest_choices(session, kept)
    return kept.id


def _move_rows(session: Session, merged: str, kept: str, now: datetime) -> None:
    """Let everything of the merged account belong to the remaining one. Links of the merged account end."""
    links.end_sessions(session, merged, now)
    _update(session, update(Mail).where(*_is_queued_link(merged)).values(state="withheld", due_at=None, reason=MERGED))
    for table in OWNED:
        _update(session, update(table).where(table.customer_id == merged).values(customer_id=kept))
    _update(session, update(Customer).where(Customer.merged_into == merged).values(merged_into=kept))


def _is_queued_link(customer_id: str) -> tuple[ColumnElement[bool], ...]:
    return Mail.customer_id == customer_id, Mail.kind.in_(LINK_MAILS), Mail.state == "queued"


def _update(session: Session, statement: Update) -> None:
    session.execute(statement.execution_options(synchronize_session=False))


def _apply_newest_choices(session: Session, kept: Customer) -> None:
    """Let the newest choice of each kind count, in whichever account it was made."""
    for kind, column in accounts.CHOICES.items():
        made = select(Consent.given).where(Consent.customer_id == kept.id, Consent.kind == kind)
        newest = session.execute(made.order_by(Consent.at.desc(), Consent.id.desc()).limit(1)).scalar_one_or_none()
        if newest is not None:
            setattr(kept, column.key, newest)
    session.flush()
