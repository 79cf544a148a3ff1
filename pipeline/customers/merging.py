"""Merge two accounts of the same person: one customer with the subscriptions of both.

Accounts are merged only if both are proved to be the same person's: both confirmed the same address by a link, or the same
PayPal account pays for both and reports the same address. The earlier account stays. The later one keeps its key and its
`custom_id`, under which later subscriptions are found.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, or_, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import links
from pipeline.db.models import Consent, Customer, InboundMail, Mail, PrivacyRequest, Subscription

OWNED = (Subscription, Mail, Consent, InboundMail, PrivacyRequest)


def merge_by_address(session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime) -> str:
    """Merge the accounts that confirmed this address by a link. Return the id of the remaining account."""
    same = Customer.email_hash == keyring.email_hash(email)
    return _merge(session, customer_id, session.execute(_mergeable().where(same)).scalars().all(), now)


def merge_by_payer(session: Session, keyring: Keyring, customer_id: str, email: str, now: datetime) -> str:
    """Merge the accounts that the same PayPal account pays for and that have this address. Return the remaining id."""
    digest, payer = keyring.email_hash(email), session.get_one(Customer, customer_id).payer_ref
    reported = select(Subscription.customer_id).where(Subscription.email_hash == digest)
    has_address = or_(Customer.email_hash == digest, Customer.id.in_(reported))
    same = has_address & or_(Customer.payer_ref == payer, Customer.id == payer)
    return _merge(session, customer_id, session.execute(_mergeable().where(same)).scalars().all(), now)


def _mergeable() -> Select[Customer]:
    return (
        select(Customer)
        .where(Customer.erased_at.is_(None), Customer.erase_at.is_(None), Customer.merged_into.is_(None))
        .order_by(Customer.created_at, Customer.id)
        .with_for_update()
    )


def _merge(session: Session, customer_id: str, accounts: Sequence[Customer], now: datetime) -> str:
    """Merge all these accounts into the earliest one, if this customer is among them."""
    if customer_id not in {row.id for row in accounts} or len(accounts) < 2:
        return customer_id
    kept = accounts[0]
    for row in accounts[1:]:
        row.merged_into, row.email_hash = kept.id, None
        links.end_sessions(session, row.id, now)
        for table in OWNED:
            moved = update(table).where(table.customer_id == row.id).values(customer_id=kept.id)
            session.execute(moved.execution_options(synchronize_session=False))
    session.flush()
    return kept.id
