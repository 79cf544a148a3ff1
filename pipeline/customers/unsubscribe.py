"""Unsubscribe from a class of mail by the signed link that each optional mail carries (RFC 8058)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Customer, Mail, Subscription
from pipeline.outbox.mail_kinds import info
from pipeline.outbox.tokens import read_unsubscribe_token

TEXT = "one-click"  # text version stored with the choice: a button, on the page or in the mail program


@dataclass(frozen=True, slots=True)
class OptOut:
    """The customer who unsubscribes, and the class of mail."""

    customer_id: str
    kind: Literal["service", "marketing"]


def find_opt_out(session: Session, keyring: Keyring, token: str) -> OptOut | None:
    """Return the customer and class that this link unsubscribes.

    None if the token is invalid, the mail is not optional, or the customer is erased.
    """
    mail_id = read_unsubscribe_token(keyring, token)
    mail = session.get(Mail, mail_id) if mail_id else None
    customer_id = mail and (mail.customer_id or _subscriber(session, mail.subscription_id))
    customer = session.get(Customer, customer_id) if customer_id else None
    if mail is None or customer is None or customer.erased_at:
        return None
    match info(mail.kind).mail_class:
        case "service" | "marketing" as kind:
            return OptOut(customer.id, kind)
    return None


def opt_out(session: Session, keyring: Keyring, token: str, now: datetime, source: str) -> OptOut | None:
    """Store the choice and return it, as `find_opt_out` does. A repeated call stores another proof and changes nothing."""
    found = find_opt_out(session, keyring, token)
    if found:
        accounts.record_consent(
            session, found.customer_id, found.kind, given=False, source=source, text_version=TEXT, now=now
        )
    return found


def _subscriber(session: Session, subscription_id: str | None) -> str | None:
    row = session.get(Subscription, subscription_id) if subscription_id else None
    return row.customer_id if row else None
