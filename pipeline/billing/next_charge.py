"""The next charge of a subscription: its date, its amount and the parts of it. What is not certain is None.

A figure is certain only if PayPal's newest snapshot of the subscription supports it: the terms of its plan, the cycles
that are left, and the outstanding balance.
"""

from dataclasses import dataclass
from datetime import datetime

from pipeline.billing.arrears import Price, open_balance
from pipeline.billing.terms import (
    AnyPlan,
    AnySubscription,
    Charge,
    may_be_in_trial,
    next_trial,
    regular_charge,
    terms_of,
    trial_charge,
)
from pipeline.db import lww_map
from pipeline.money import Money


@dataclass(frozen=True, slots=True)
class NextCharge:
    """`at`: when PayPal charges next, None if it does not. `total`: what it will collect, None if that is not certain.

    `charge`: the parts for the cycle itself. `balance`: the outstanding balance that is open, None if nothing is.
    `period`: unit and count of the cycle that the charge pays for, None if that is not certain.
    """

    at: datetime | None
    total: Money | None
    charge: Charge | None
    balance: Money | None
    period: tuple[str, int] | None


def next_charge(row: AnySubscription, plan: AnyPlan | None) -> NextCharge:
    """Return the next charge as PayPal's newest report implies it."""
    charge, balance = _cycle_charge(row, plan), open_balance(row)
    total = _total(charge, balance, collects_balance=bool(terms_of(row, plan).get("bills_balance")))
    # PayPal charges nothing for a free trial cycle: its next charge is one that follows.
    is_free = total is not None and total.amount == 0
    if row.outstanding is None or _may_include_setup_fee(row, plan) or is_free:
        total = None
    return NextCharge(row.next_billing_at, total, charge, balance, None if is_free else _period(row, plan))


def next_price(row: AnySubscription, plan: AnyPlan | None) -> Price:
    """Return the price of the next regular charge. It is not certain during a trial."""
    charge = None if may_be_in_trial(row, plan) else regular_charge(row, plan)
    return Price(charge.total if charge else None, bool(terms_of(row, plan).get("bills_balance")))


def _cycle_charge(row: AnySubscription, plan: AnyPlan | None) -> Charge | None:
    return trial_charge(row, plan) if may_be_in_trial(row, plan) else regular_charge(row, plan)


def _total(charge: Charge | None, balance: Money | None, *, collects_balance: bool) -> Money | None:
    if charge is None or balance is None:
        return charge.total if charge else None
    if not collects_balance or charge.total.currency != balance.currency:
        return None
    return Money(charge.total.amount + balance.amount, balance.currency)


def _may_include_setup_fee(row: AnySubscription, plan: AnyPlan | None) -> bool:
    """Return whether the set-up fee may come with this charge: nothing has been paid yet."""
    return bool(terms_of(row, plan).get("setup_fee")) and lww_map.value(row.known, "last_payment_at") is None


def _period(row: AnySubscription, plan: AnyPlan | None) -> tuple[str, int] | None:
    if may_be_in_trial(row, plan):
        trial = next_trial(row, plan)
        return (trial["unit"], trial["count"]) if trial and "unit" in trial else None
    terms = terms_of(row, plan)
    return (terms["unit"], terms["count"]) if terms else None
