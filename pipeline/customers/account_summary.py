"""What we hold about a customer, in short, for their own page. The whole of it is in the export."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Event, InboundMail, Mail, Payment, Plan, Subscription


@dataclass(frozen=True, slots=True)
class SubscriptionSummary:
    """One subscription, as its owner wants to know it."""

    id: str
    plan: str
    status: str
    paid_through: datetime | None


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """What stands on the account page."""

    person: dict[str, str] = field(repr=False)
    subscriptions: Sequence[SubscriptionSummary]
    marketing: bool
    service: bool
    erase_at: datetime | None
    counts: dict[str, int]  # what there is, and how many


def summarize_account(session: Session, keyring: Keyring, customer_id: str) -> AccountSummary:
    """In short, what we hold about this customer. Raises NoSuchCustomer."""
    row, theirs = (
        accounts.require_customer(session, customer_id, lock=False),
        accounts.subscriptions_of(session, customer_id),
    )
    return AccountSummary(
        person={"name": "", "email": "", "company": "", "phone": ""}
        | accounts.personal_data(session, keyring, customer_id),
        subscriptions=[_subscribed(session, each) for each in theirs],
        marketing=row.wants_marketing,
        service=row.wants_service_mail,
        erase_at=row.erase_at,
        counts=_counts(session, customer_id, [each.id for each in theirs]),
    )


def _subscribed(session: Session, row: Subscription) -> SubscriptionSummary:
    plan = session.get(Plan, row.plan_id) if row.plan_id else None
    status = (row.status or "being set up").replace("_", " ").lower()
    return SubscriptionSummary(row.id, (plan and plan.name) or "", status, row.paid_through)


def _counts(session: Session, customer_id: str, subscriptions: Sequence[str]) -> dict[str, int]:
    labels = accounts.key_ids_of(session, customer_id)
    counted = {
        "payments": select(func.count()).where(Payment.subscription_id.in_(subscriptions)),
        "notices from PayPal": select(func.count()).where(Event.key_id.in_(labels)),
        "mails we sent you": select(func.count()).where(Mail.key_id.in_(labels), Mail.state == "sent"),
        "mails you sent us": select(func.count()).where(InboundMail.customer_id == customer_id),
    }
    return {name: session.execute(statement).scalar_one() for name, statement in counted.items()}
