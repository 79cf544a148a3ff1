"""Compare the amounts and dates of all mails that were not withheld with what was true when they were queued."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select

from pipeline.clock import parse_time
from pipeline.db.models import Mail
from pipeline.money import Money, parse_amount
from pipeline.simulator.random_life import Life
from pipeline.simulator.truth import Truth, truth_of
from tests.paypal_runs.population import Moment, TracedSubscription, traced
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.true_state import SAME_DAY

CHECKED = frozenset(
    {"account_setup", "receipt", "payment_failed", "refund_receipt", "renewal_reminder"}
    | {"subscription_suspended", "subscription_cancelled"}
)
PAGE = 2000


@dataclass(slots=True)
class MailResult:
    """Mails by kind, and the sentences about those with a wrong amount or date. `withheld` were not sent."""

    checked: Counter[str] = field(default_factory=Counter)
    withheld: int = 0
    wrong: list[str] = field(default_factory=list)


class MailCheck:
    """Knows the truth about every subscription."""

    def __init__(self, lives: Mapping[str, Life]) -> None:
        self._lives, self._truths = lives, dict[str, Truth]()

    def run(self, pipeline: PipelineUnderTest) -> MailResult:
        """Check all mails to customers."""
        result = MailResult()
        for row, facts in _opened(pipeline):
            if row.kind not in CHECKED or row.subscription_id not in self._lives:
                continue
            if row.state == "withheld":
                result.withheld += 1
                continue
            result.checked[row.kind] += 1
            found = list(self._problems(row, facts))
            result.wrong += [
                f"{row.kind} {row.idempotency_key} of {row.created_at:%Y-%m-%d %H:%M}: {each}" for each in found
            ]
        return result

    def _problems(self, row: Mail, facts: dict[str, Any]) -> Iterator[str]:
        subscription = traced(self._lives[str(row.subscription_id)])
        moment = subscription.at(row.created_at)
        if moment is None:
            yield "nothing had happened yet"
        elif row.kind == "renewal_reminder":
            yield from _reminder(facts, moment)
        elif row.kind == "account_setup":
            yield from _date(facts, "next_billing_at", moment.next_at)
        elif row.kind in ("subscription_suspended", "subscription_cancelled"):
            yield from _ended(facts, moment)
        elif row.kind == "payment_failed":
            yield from _failed(facts, subscription)
        else:
            yield from self._payment(row.kind, facts, subscription, moment)

    def _payment(
        self, kind: str, facts: dict[str, Any], subscription: TracedSubscription, moment: Moment
    ) -> Iterator[str]:
        truth = self._truths.setdefault(subscription.id, truth_of(subscription))
        sale = truth.transactions.get(facts["payment"])
        if sale is None:
            yield "no such payment"
            return
        if kind == "refund_receipt":
            refunds = {each.id: each for each in sale.refunds}
            yield from _amount(facts, "amount", Money(refunds[facts["refund"]].amount, sale.currency))
            yield from _amount(facts, "paid", Money(sale.gross, sale.currency))
            yield from _date(facts, "refunded_at", refunds[facts["refund"]].at)
            return
        yield from _amount(facts, "amount", Money(sale.gross, sale.currency))
        yield from _date(facts, "paid_at", sale.at)
        parts = [facts[name]["amount"] for name in ("regular", "balance") if facts.get(name)]
        if parts and sum(parts) != sale.gross and facts.get("balance"):
            yield f"parts {parts} of {sale.gross}"
        if facts.get("paid_through") and moment.paid_until:
            yield from _day(facts, "paid_through", moment.paid_until)


def _reminder(facts: dict[str, Any], moment: Moment) -> Iterator[str]:
    yield from _date(facts, "renews_at", moment.next_at)
    yield from _amount(facts, "amount", moment.next_charge)
    yield from _balance(facts, moment)


def _ended(facts: dict[str, Any], moment: Moment) -> Iterator[str]:
    yield from _balance(facts, moment)
    if facts.get("paid_through") and moment.paid_until:
        yield from _day(facts, "paid_through", moment.paid_until)


def _failed(facts: dict[str, Any], subscription: TracedSubscription) -> Iterator[str]:
    """Compare a mail about a failed charge with PayPal's events about it, or with the refused sale."""
    attempts = [_attempt(each.event["resource"]) for each in subscription.deliveries if each.type.endswith(".FAILED")]
    denied = [(each.amount, None, None) for each in subscription.sales.values() if each.resource["state"] == "denied"]
    amount = Money(**facts["amount"]) if facts.get("amount") else None
    named = amount, facts["failed_at"], facts["retry_at"]
    if named not in attempts and (amount, None, None) not in denied:
        yield f"no failed charge of {named}"


def _attempt(resource: dict[str, Any]) -> tuple[Money, str, str | None]:
    failed = resource["billing_info"]["last_failed_payment"]
    amount = parse_amount(failed["amount"]["value"], failed["amount"]["currency_code"])
    return amount, failed["time"], failed.get("next_payment_retry_time")


def _amount(facts: dict[str, Any], name: str, right: Money | None) -> Iterator[str]:
    """A figure may be missing, but a wrong one is a problem."""
    if facts.get(name) and Money(**facts[name]) != right:
        yield f"{name} {Money(**facts[name])}, not {right}"


def _balance(facts: dict[str, Any], moment: Moment) -> Iterator[str]:
    if facts.get("balance") and facts["balance"]["amount"] != moment.balance:
        yield f"balance {facts['balance']}, not {moment.balance}"


def _date(facts: dict[str, Any], name: str, right: datetime | None) -> Iterator[str]:
    if facts.get(name) and parse_time(facts[name]) != (right and right.replace(microsecond=0)):
        yield f"{name} {facts[name]}, not {right}"


def _day(facts: dict[str, Any], name: str, right: datetime) -> Iterator[str]:
    """PayPal's billing time and the charge itself may be a day apart."""
    found = parse_time(facts[name])
    if found is None or abs(found - right) > SAME_DAY:
        yield f"{name} {facts[name]}, not {right}"


def _opened(pipeline: PipelineUnderTest) -> Iterator[tuple[Mail, dict[str, Any]]]:
    """Yield all mails with their decrypted facts."""
    last = ""
    while True:
        with pipeline.database.transaction() as session:
            page = select(Mail).where(Mail.id > last).order_by(Mail.id).limit(PAGE)
            rows = list(session.execute(page).scalars())
            keyring = pipeline.keyring(session)
            keys = keyring.load({row.key_id for row in rows})
            opened = [
                (row, key.decrypt_json("mail.facts", row.facts))
                for row in rows
                if row.facts is not None and (key := keys[row.key_id]) is not None
            ]
            session.expunge_all()
        yield from opened
        if len(rows) < PAGE:
            return
        last = rows[-1].id
