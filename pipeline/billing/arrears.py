"""Decide whether a subscription is past due, and what is open.

A subscription is past due from the moment when one of these is true:
- PayPal reported a failed charge, and no payment has arrived since (ACTIVE or SUSPENDED).
- PayPal reports an outstanding balance, in any status: after a cancellation the vendor may still collect it.
- The paid-through date has passed (ACTIVE or SUSPENDED), and no payment is pending.

That moment is stored (`past_due_at`), because it depends on the facts only. `past_due_since` compares it with the time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pipeline.clock import parse_time
from pipeline.db import lww_map
from pipeline.db.models import CAME, Subscription
from pipeline.db.rows import PaymentRow, SubscriptionRow
from pipeline.money import Money

LIVE_STATUSES = frozenset({"ACTIVE", "SUSPENDED"})
# PayPal charges minutes to hours after the billing time, which is the paid-through date until the charge arrives.
CHARGE_DELAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Price:
    """Price of the next regular charge. `amount` is None unless it is certain.

    `collects_balance`: PayPal adds an outstanding balance to the next charge.
    """

    amount: Money | None = None
    collects_balance: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """Parts of a payment that collected an outstanding balance. `regular` is None if it collected the balance only."""

    regular: Money | None
    balance: Money


@dataclass(frozen=True, slots=True)
class Arrears:
    """`past_due_at`: the moment from which the subscription is past due, None if no fact implies one.

    `outstanding`: the balance, None if unknown. `failed_count`: the failures that PayPal counted since the last payment.
    """

    past_due_at: datetime | None
    outstanding: Money | None
    failed_count: int


def past_due_since(row: Subscription | SubscriptionRow, now: datetime) -> datetime | None:
    """Return since when a subscription is past due at the time `now`; None if it is not."""
    if row.past_due_at is None or row.past_due_at > now:
        return None
    return min(row.past_due_at, row.paid_through or row.past_due_at)


def open_balance(row: Subscription | SubscriptionRow) -> Money | None:
    """Return the outstanding balance; None if it is unknown or nothing is open."""
    return Money(row.outstanding, row.outstanding_currency) if row.outstanding and row.outstanding_currency else None


def compute_arrears(
    known: Mapping[str, Any],
    status: str | None,
    paid_through: datetime | None,
    payments: Sequence[PaymentRow],
    price: Price,
) -> Arrears:
    """Return the arrears that follow from a subscription's facts and payments. Their order of arrival does not matter."""
    paid_at = _last_paid_at(known, payments)
    outstanding = _outstanding(known, payments, price)
    moments = [lww_map.updated_at(known, "outstanding")] if outstanding and outstanding.amount > 0 else []
    if status in LIVE_STATUSES:
        moments += [at for at in _failures(known, payments) if paid_at is None or at > paid_at]
        moments.append(_unpaid_from(_due_again(known, paid_through, payments), payments))
    return Arrears(min(filter(None, moments), default=None), outstanding, _failed_count(known, paid_at))


def settlement(known: Mapping[str, Any], payment: PaymentRow, others: Sequence[PaymentRow], price: Price) -> (
    Settlement | None
):  # fmt: skip
    """Return how a payment divides into price and outstanding balance; None if it paid no balance or it is not certain.

    It is certain if PayPal reported the balance before the payment, no other payment came between, and the sum agrees.
    """
    balance, at = reported_balance(known)
    if balance is None or at is None or balance.amount <= 0 or not _is_after(payment, at):
        return None
    if any(_is_after(row, at) and not _is_after(row, payment.occurred_at) for row in others if row.id != payment.id):
        return None
    return _divide(payment, balance, price)


def reported_balance(known: Mapping[str, Any]) -> tuple[Money | None, datetime | None]:
    """Return the balance that PayPal reported last, and when."""
    reported = lww_map.value(known, "outstanding")
    return (Money(*reported) if reported else None), lww_map.updated_at(known, "outstanding")


def _outstanding(known: Mapping[str, Any], payments: Sequence[PaymentRow], price: Price) -> Money | None:
    """Return the balance, None if it is unknown: a payment since PayPal's report may have changed it."""
    balance, at = reported_balance(known)
    if balance is None or at is None or any(_refused_at(row, at) for row in payments):
        return None
    later = [row for row in payments if row.status != "denied" and _is_after(row, at)]
    if balance.amount == 0 or not later:
        return balance
    first = min(later, key=lambda row: (row.occurred_at or at, row.id))
    return Money(0, balance.currency) if settlement(known, first, payments, price) else None


def _divide(payment: PaymentRow, balance: Money, price: Price) -> Settlement | None:
    """Return the parts of a payment. A payment of the balance alone could be a regular charge of the same amount."""
    if payment.status not in CAME or payment.currency != balance.currency:
        return None
    regular = price.amount
    if regular and regular.currency == balance.currency and payment.amount == regular.amount + balance.amount:
        return Settlement(regular, balance)
    differs = price.collects_balance or (regular is not None and regular != balance)
    return Settlement(None, balance) if payment.amount == balance.amount and differs else None


def _failures(known: Mapping[str, Any], payments: Sequence[PaymentRow]) -> list[datetime]:
    """Return the times of failed charges: PayPal's last failed attempt, its counted failures, and refused payments."""
    counted = lww_map.updated_at(known, "failed_count") if lww_map.value(known, "failed_count") else None
    refused = [lww_map.updated_at(row.known, "status") for row in payments if row.status == "denied"]
    return [at for at in (parse_time(lww_map.value(known, "failed_at")), counted, *refused) if at]


def _failed_count(known: Mapping[str, Any], paid_at: datetime | None) -> int:
    """Return the failures that PayPal counted. It resets the count at each payment."""
    at = lww_map.updated_at(known, "failed_count")
    return 0 if at is None or (paid_at and paid_at > at) else int(lww_map.value(known, "failed_count"))


def _last_paid_at(known: Mapping[str, Any], payments: Sequence[PaymentRow]) -> datetime | None:
    """Return the time of the last payment that arrived here or that PayPal reported."""
    times = [row.occurred_at for row in payments if row.status in CAME]
    return max(filter(None, [*times, parse_time(lww_map.value(known, "last_payment_at"))]), default=None)


def _due_again(
    known: Mapping[str, Any], paid_through: datetime | None, payments: Sequence[PaymentRow]
) -> datetime | None:
    """Return when PayPal charges again. After a full refund that is later than the paid-through date: nothing is owed."""
    newest = max((row for row in payments if row.occurred_at), key=lambda row: (row.occurred_at, row.id), default=None)
    if newest is None or newest.status not in ("refunded", "reversed"):
        return paid_through
    return max(filter(None, (paid_through, parse_time(lww_map.value(known, "next_billing_at")))), default=None)


def _unpaid_from(paid_through: datetime | None, payments: Sequence[PaymentRow]) -> datetime | None:
    """Return when an ACTIVE or SUSPENDED subscription counts as unpaid; None while its next payment is pending."""
    if paid_through is None:
        return None
    from_here = paid_through - CHARGE_DELAY
    pending = any(row.status == "pending" and _is_after(row, from_here) for row in payments)
    return None if pending else paid_through + CHARGE_DELAY


def _refused_at(row: PaymentRow, since: datetime) -> bool:
    at = lww_map.updated_at(row.known, "status") if row.status == "denied" else None
    return at is not None and at > since


def _is_after(row: PaymentRow, moment: datetime | None) -> bool:
    return row.occurred_at is not None and moment is not None and row.occurred_at > moment
