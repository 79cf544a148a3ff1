"""Summary of a customer's data for the account page. The export contains all of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Event, InboundMail, Mail, Payment, Plan, Subscription
from pipeline.money import Money

# Returns since when a subscription is past due (None: it is not), its outstanding balance, and since when it is disputed.
Standing = Callable[[Subscription], tuple[datetime | None, Money | None, datetime | None]]


@dataclass(frozen=True, slots=True)
class SubscriptionSummary:
    """One subscription as the account page shows it. `past_due_since` is None if it is not past due."""

    id: str
    plan: str
    status: str
    paid_through: datetime | None
    past_due_since: datetime | None
    outstanding: Money | None
    disputed_since: datetime | None


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """The data that the account page shows."""

    person: dict[str, str] = field(repr=False)
    subscriptions: Sequence[SubscriptionSummary]
    marketing: bool
    service: bool
    erase_at: datetime | None
    email_change_at: datetime | None  # when the requested address `person["new_email"]` takes effect
    counts: dict[str, int]  # kind of record, in words for the page -> number of rows


def summarize_account(session: Session, keyring: Keyring, customer_id: str, standing: Standing) -> AccountSummary:
    """Return a summary of the customer's data. Raises CustomerNotFoundError."""
    row = accounts.require_customer(session, customer_id, lock=False)
    subscriptions = accounts.subscriptions_of(session, customer_id)
    return AccountSummary(
        person={"name": "", "email": "", "company": "", "phone": ""}
        | accounts.personal_data(session, keyring, customer_id),
        subscriptions=[_summarize_subscription(session, each, standing) for each in subscriptions],
        marketing=row.wants_marketing,
        service=row.wants_service_mail,
        erase_at=row.erase_at,
        email_change_at=row.email_change_at,
        counts=_count_records(session, customer_id, [each.id for each in subscriptions]),
    )


def _summarize_subscription(session: Session, row: Subscription, standing: Standing) -> SubscriptionSummary:
    plan = session.get(Plan, row.plan_id) if row.plan_id else None
    status = (row.status or "being set up").replace("_", " ").lower()
    return SubscriptionSummary(row.id, (plan and plan.name) or "", status, row.paid_through, *standing(row))


def _count_records(session: Session, customer_id: str, subscriptions: Sequence[str]) -> dict[str, int]:
    key_ids = accounts.key_ids_of(session, customer_id)
    statements = {
        "payments": select(func.count()).where(Payment.subscription_id.in_(subscriptions)),
        "events from PayPal": select(func.count()).where(Event.key_id.in_(key_ids)),
        "e-mails we sent you": select(func.count()).where(Mail.key_id.in_(key_ids), Mail.state == "sent"),
        "e-mails you sent us": select(func.count()).where(InboundMail.customer_id == customer_id),
    }
    return {name: session.execute(statement).scalar_one() for name, statement in statements.items()}
