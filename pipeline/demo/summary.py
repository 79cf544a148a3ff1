"""Summary of a demo: counts of events, subscriptions, payments and mails from the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from pipeline.db.engine import Database
from pipeline.db.models import CAME, Event, Mail, Payment, Subscription
from pipeline.demo.data_folder import DemoRun


@dataclass(frozen=True, slots=True)
class PaymentTotals:
    """Received payments in one currency: their number, sum and refunded amount. Amounts are in minor units."""

    currency: str
    payments: int
    amount: int
    refunded: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of a demo: webhook events by state, subscriptions and payments by status, mails by kind and by state.

    `waiting` counts unhandled events of all sources, `without_address` the queued mails that wait for an address, `caught`
    the mails that arrived.
    """

    played: DemoRun
    events: Mapping[str, int]
    waiting: int
    subscriptions: Mapping[str, int]
    payments: Mapping[str, int]
    takings: tuple[PaymentTotals, ...]
    sent: Mapping[str, int]
    mails: Mapping[str, int]
    without_address: int
    caught: int
    worth_a_look: str | None
    refundable: str | None

    @property
    def accepted(self) -> int:
        return sum(self.events.values())

    @property
    def complete(self) -> bool:
        """Whether every delivery was answered 200, every event was handled, and every mail was sent and arrived.

        A mail that waits for an address, for example of a sign-up that was not paid, does not count.
        """
        unsent = sum(number for state, number in self.mails.items() if state not in ("sent", "withheld"))
        unsent -= self.without_address
        unfinished = self.waiting + self.events.get("parked", 0) + unsent
        return self.played.answered == self.played.posted and unfinished == 0 and self.caught >= sum(self.sent.values())


def summarize(database: Database, played: DemoRun, caught: Path) -> Summary:
    """Read the counts from the database, and count the caught mails."""
    with database.reading() as session:
        return Summary(
            played=played,
            events=_count(session, Event.state, Event.source == "webhook"),
            waiting=sum(_count(session, Event.state, Event.state == "received").values()),
            subscriptions=_count(session, func.coalesce(Subscription.status, "placeholder")),
            payments=_count(session, func.coalesce(Payment.status, "placeholder")),
            takings=_takings(session),
            sent=_count(session, Mail.kind, Mail.state == "sent"),
            mails=_count(session, Mail.state),
            without_address=sum(_count(session, Mail.state, Mail.state == "queued", Mail.due_at.is_(None)).values()),
            caught=sum(1 for _ in caught.glob("*.eml")),
            worth_a_look=_most_eventful(session),
            refundable=_newest_payment(session),
        )


def _newest_payment(session: Session) -> str | None:
    """Return the newest payment that nothing was paid back of."""
    completed = select(Payment.id).where(Payment.status == "completed", Payment.subscription_id.is_not(None))
    return session.execute(completed.order_by(Payment.occurred_at.desc()).limit(1)).scalar_one_or_none()


def as_json(summary: Summary) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    return {
        "events_posted": summary.played.posted,
        "events_accepted": summary.accepted,
        "duplicates": summary.played.duplicates,
        "events_handled": summary.events.get("handled", 0),
        "events_ignored": summary.events.get("ignored", 0),
        "events_parked": summary.events.get("parked", 0),
        "events_waiting": summary.waiting,
        "subscriptions": sum(summary.subscriptions.values()),
        "subscriptions_by_status": dict(summary.subscriptions),
        "payments": sum(summary.payments.values()),
        "payments_by_status": dict(summary.payments),
        "mails_sent": dict(summary.sent),
        "mails_sent_total": sum(summary.sent.values()),
        "mails_by_state": dict(summary.mails),
        "mails_caught": summary.caught,
        "months": summary.played.months,
        "subscribers": summary.played.subscribers,
        "seed": summary.played.seed,
        "complete": summary.complete,
    }


def _count(session: Session, column: Any, *where: Any) -> dict[str, int]:
    rows = session.execute(select(column, func.count()).where(*where).group_by(column).order_by(column))
    return dict(rows.all())


def _takings(session: Session) -> tuple[PaymentTotals, ...]:
    sums = (
        select(Payment.currency, func.count(), func.sum(Payment.amount), func.sum(Payment.refunded))
        .where(Payment.status.in_(CAME), Payment.amount.is_not(None))
        .group_by(Payment.currency)
        .order_by(Payment.currency)
    )
    rows: list[Any] = list(session.execute(sums))
    return tuple(PaymentTotals(row[0] or "", row[1], int(row[2]), int(row[3])) for row in rows)


def _most_eventful(session: Session) -> str | None:
    """Return the subscription with the most kinds of mail: the most interesting one to show."""
    kinds = func.count(Mail.kind.distinct()).desc()
    sent = func.sum(case((Mail.state == "sent", 1), else_=0)).desc()
    by_subscription = (
        select(Mail.subscription_id).where(Mail.subscription_id.is_not(None)).group_by(Mail.subscription_id)
    )
    return session.execute(by_subscription.order_by(kinds, sent, Mail.subscription_id).limit(1)).scalar_one_or_none()
