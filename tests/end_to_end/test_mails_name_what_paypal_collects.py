"""A simulated year: each amount that a mail announces or confirms is the one that PayPal collects."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import MovableClock, SystemClock, parse_time
from pipeline.db.models import CAME, Event, Mail, Payment
from tests.support.command_line import Smt, smt
from tests.support.pipeline_under_test import PipelineUnderTest

__all__ = ["smt"]


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """A mail with its decrypted facts."""

    kind: str
    at: datetime
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Year:
    """The mails and the payments of a simulated year, oldest first."""

    mails: list[QueuedMail]
    payments: list[Payment]
    updated: list[tuple[str, datetime]]  # subscription and time of each change of quantity

    def of_kind(self, kind: str) -> list[QueuedMail]:
        return [mail for mail in self.mails if mail.kind == kind]

    def next_charge(self, subscription: str, after: datetime) -> tuple[datetime, dict[str, Any]] | None:
        """Return time and amount of the next charge of a subscription after this moment, successful or not."""
        failed = [
            (parse_time(mail.facts["failed_at"]), mail.facts["amount"])
            for mail in self.of_kind("payment_failed")
            if mail.facts["subscription"] == subscription
        ]
        paid = [
            (row.occurred_at, {"amount": row.amount, "currency": row.currency})
            for row in self.payments
            if row.subscription_id == subscription
        ]
        later = [(at, amount) for at, amount in failed + paid if at and at > after]
        return min(later, key=lambda charge: charge[0], default=None)

    def is_updated(self, subscription: str, since: datetime, until: datetime) -> bool:
        return any(id == subscription and since < at < until for id, at in self.updated)


def happened_at(payment: Payment) -> datetime:
    assert payment.occurred_at
    return payment.occurred_at


@pytest.fixture
def year(smt: Smt, data_dir: Path) -> Year:
    """Play a demo of twelve months, and return its mails and payments."""
    assert smt("demo", "--once", "--json", "--months", "12", "--subscribers", "11", "--seed", "5").code == 0
    pipeline = PipelineUnderTest(
        f"sqlite:///{data_dir / 'smt-billing.db'}", data_dir, MovableClock(SystemClock().now())
    )
    with closing(pipeline.database), pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        mails = [
            QueuedMail(row.kind, row.created_at, keyring.system_key(row.key_id).decrypt_json("mail.facts", row.facts))
            for row in pipeline.rows(Mail)
        ]
        payments, events = pipeline.rows(Payment), pipeline.rows(Event)
    updated = [
        (row.facts["subscription"], row.occurred_at)
        for row in events
        if row.type == "BILLING.SUBSCRIPTION.UPDATED" and row.occurred_at
    ]
    return Year(sorted(mails, key=lambda mail: mail.at), sorted(payments, key=happened_at), updated)


def test_mails_of_a_year_agree_with_the_payments(year: Year) -> None:
    assert_reminders_are_right(year)
    assert_receipts_add_up(year)


def assert_reminders_are_right(year: Year) -> None:
    """Check that the charge after each reminder has exactly the announced amount."""
    reminders = year.of_kind("renewal_reminder")
    compared = [
        (mail.facts, charge[1])
        for mail in reminders
        if mail.facts["amount"]
        and (charge := year.next_charge(mail.facts["subscription"], mail.at))
        and not year.is_updated(mail.facts["subscription"], mail.at, charge[0])
    ]
    assert [facts for facts, charged in compared if facts["amount"] != charged] == []
    assert len(compared) > 0.8 * len(reminders) > 20
    assert [facts for facts, _ in compared if facts["balance"]], "no reminder with an open balance"


def assert_receipts_add_up(year: Year) -> None:
    """Check that the lines of each receipt add up to the payment, and that some have lines."""
    with_lines = [mail.facts for mail in year.of_kind("receipt") if mail.facts["balance"]]
    assert with_lines
    for facts in with_lines:
        lines = [line["amount"] for line in (facts["regular"], facts["balance"]) if line]
        assert sum(lines) == facts["amount"]["amount"], facts
    confirmed = {mail.facts["payment"]: mail.facts["amount"]["amount"] for mail in year.of_kind("receipt")}
    received = {row.id: row.amount for row in year.payments if row.status in CAME}
    assert received.items() <= confirmed.items()
