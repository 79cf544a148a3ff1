"""No more of this kind of mail: by the link that each mail which can be declined carries (RFC 8058)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Customer, Mail, Subscription
from pipeline.outbox.mail_kinds import info
from pipeline.outbox.tokens import read_unsubscribe_token

TEXT = "one-click"  # the sentence they declined with is the button of the mail program, or of our page


@dataclass(frozen=True, slots=True)
class OptOut:
    """Whose choice it is, and about which class of mail."""

    customer_id: str
    kind: Literal["service", "marketing"]


def find_opt_out(session: Session, keyring: Keyring, token: str) -> OptOut | None:
    """What the link of a mail declines; None if it is no link of ours, or declines nothing any more."""
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
    """Note the choice, which holds from now on; what `look` found. Repeated, it is noted once more and changes nothing."""
    found = find_opt_out(session, keyring, token)
    if found:
        accounts.record_consent(
            session, found.customer_id, found.kind, given=False, source=source, text_version=TEXT, now=now
        )
    return found


def _subscriber(session: Session, subscription_id: str | None) -> str | None:
    row = session.get(Subscription, subscription_id) if subscription_id else None
    return row.customer_id if row else None
