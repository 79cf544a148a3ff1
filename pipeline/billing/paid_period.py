"""Decide which paid-through date a mail may name: only one that is certain when the mail is queued.

A receipt is queued before PayPal was asked again. After a failed charge, a capture by the vendor or a change of plan, only
PayPal's answer tells what a payment paid for.
"""

from datetime import datetime, timedelta

from pipeline.billing.arrears import CHARGE_DELAY
from pipeline.billing.entitlement import SHORTEST_MONTH_DAYS
from pipeline.billing.next_charge import next_price
from pipeline.billing.subscription import (
    DOUBTFUL_BILLING_TIME,
    compute_paid_through,
    stored_confirmation,
    was_in_arrears,
)
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.clock import parse_time
from pipeline.db import lww_map
from pipeline.db.rows import PaymentRow, SubscriptionRow
from pipeline.money import Money

SAME_CHANGE = timedelta(hours=1)  # PayPal reports one change in several events, whose times differ by seconds


def period_paid_by(uow: UnitOfWork, row: SubscriptionRow, payment: PaymentRow) -> datetime | None:
    """Return the end of the period that this payment pays for; None if that is not certain, or not days after it."""
    until, at = row.paid_through, payment.occurred_at
    if until is None or at is None or until - at <= DOUBTFUL_BILLING_TIME:
        return None
    return until if _is_confirmed(row, at) or _is_regular_charge(uow, row, payment, at) else None


def paid_period_at_end(row: SubscriptionRow, at: datetime) -> datetime | None:
    """Return the paid-through date when the subscription was paused or ended at `at`.

    A past date that PayPal did not report results from refunds and unpaid charges, and may change again: None.
    """
    if row.paid_through is None or row.paid_through > at:
        return row.paid_through
    confirmed = stored_confirmation(row)
    return row.paid_through if confirmed and confirmed.until == row.paid_through else None


def _is_confirmed(row: SubscriptionRow, at: datetime) -> bool:
    """Return whether PayPal reported the paid-through date after this payment, or together with it."""
    confirmed = stored_confirmation(row)
    if confirmed is None or confirmed.until != row.paid_through or at > confirmed.at + SAME_CHANGE:
        return False
    return confirmed.last_payment_at is None or at <= confirmed.last_payment_at + SAME_CHANGE


def _is_regular_charge(uow: UnitOfWork, row: SubscriptionRow, payment: PaymentRow, at: datetime) -> bool:
    """Return whether this is the regular price, charged when it was due, and nothing was ever unpaid."""
    payments = uow.payments_of(row.id)
    if payment.amount is None or payment.currency is None or was_in_arrears(row, payments):
        return False
    due = compute_paid_through(uow, row, [each for each in payments if each.id != payment.id])
    if due is not None and due.day >= SHORTEST_MONTH_DAYS and due.day != _start_day(row):
        return False  # after a short month the next date depends on the day on which the subscription or plan started
    price = next_price(row, uow.plan(row.plan_id)).amount
    return due is not None and abs(at - due) <= CHARGE_DELAY and Money(payment.amount, payment.currency) == price


def _start_day(row: SubscriptionRow) -> int | None:
    start = parse_time(lww_map.value(row.known, "start_at"))
    return start.day if start else None
