"""Until when a customer has paid. Access is decided by this, never by status.

A pure function of what is known, so the order in which it became known does not matter: the newest date that PayPal
vouched for, moved on by the renewals paid since, and back by the last payments if they were given back in full or, after
PayPal had counted on them, refused. One that is pending neither buys time nor takes any: PayPal's date stands meanwhile.
"""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from pipeline.money import Money

# PayPal snaps the billing time to 10:00Z and charges minutes to hours later; a charge this much earlier than the date
# is still the renewal due on it.
EARLY_CHARGE_WINDOW = timedelta(days=1)
SHORTEST = 28  # days of the shortest month
# Where reckoning ends: no date we are told leads beyond, only amounts that no plan has.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BillingCycle:
    """A plan's regular cycle: every `count` `unit`s, `price` for each (None if not known).

    `day` is the day of the month it began on: a 31st that February made a 28th is a 31st again in March.
    """

    unit: str
    count: int
    price: Money | None = None
    day: int = 0


@dataclass(frozen=True, slots=True)
class PaidCharge:
    """One payment that was completed; `refunded_at` if all of it was refunded or reversed since.

    `refused`: it did not come after all, as an eCheck may not, and `refunded_at` is when that was known.
    """

    at: datetime
    money: Money
    refunded_at: datetime | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmedUntil:
    """PayPal said at `at` that the next charge is due at `until`, with nothing unpaid."""

    until: datetime
    at: datetime


def paid_through(
    confirmed: ConfirmedUntil | None, cycle: BillingCycle | None, payments: Sequence[PaidCharge]
) -> datetime | None:
    """UTC, or None where nothing paid is known, or money came and neither plan nor date is known yet."""
    payments = sorted(payments, key=_order)
    if confirmed is None:
        return (
            None if cycle is None else _extend_by_payments(None, cycle, [paid for paid in payments if not paid.refused])
        )
    edge = confirmed.until - _early_window(confirmed.until, cycle)
    later = [paid for paid in payments if paid.at >= edge and paid.at > confirmed.at]
    renewals = [paid for paid in later if not paid.refused]
    if all(paid.refunded_at for paid in renewals):
        covered = [paid for paid in payments if paid not in later]
        return _shorten_by_refunds(confirmed, cycle, covered)
    return _extend_by_payments(confirmed.until, cycle, renewals) if cycle else confirmed.until


def add_cycles(moment: datetime, terms: BillingCycle, cycles: int) -> datetime:
    """So many cycles later, or earlier if negative. A day that the month lacks is its last."""
    number = terms.count * cycles
    try:
        if terms.unit in ("DAY", "WEEK"):
            return moment + timedelta(days=number * (7 if terms.unit == "WEEK" else 1))
        return _add_months(moment, number * (12 if terms.unit == "YEAR" else 1), terms.day)
    except (OverflowError, ValueError):
        return LATEST if number > 0 else EARLIEST


def cycles_paid_by(terms: BillingCycle, money: Money) -> int:
    """How many cycles an amount pays: a failed one is added to the next charge. At least one."""
    if terms.price is None or terms.price.amount <= 0 or terms.price.currency != money.currency:
        return 1
    return max(1, money.amount // terms.price.amount)


def _order(paid: PaidCharge) -> tuple[datetime, int, datetime, bool]:
    return paid.at, paid.money.amount, paid.refunded_at or LATEST, paid.refused


def _add_months(moment: datetime, number: int, day: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + number, 12)
    if moment.day < SHORTEST:
        return moment.replace(year=year, month=month + 1)
    cut_short = moment.day == calendar.monthrange(moment.year, moment.month)[1]
    wanted = max(moment.day, day) if cut_short else moment.day
    return moment.replace(year=year, month=month + 1, day=min(wanted, calendar.monthrange(year, month + 1)[1]))


def _extend_by_payments(start: datetime | None, terms: BillingCycle, payments: Sequence[PaidCharge]) -> datetime | None:
    """Each payment adds its cycles; counted from the start at once, so that short months leave no trace.

    One that was given back keeps its place among them: the periods after it begin when they did, it buys none itself.
    """
    base, count, until = start, 0, start
    for paid in payments:
        number = cycles_paid_by(terms, paid.money)
        if base is None or add_cycles(base, terms, count + number) <= paid.at + _early_window(paid.at, terms):
            base, count = paid.at, 0  # after a pause the period begins with the payment
        count += number
        if paid.refunded_at is None:
            until = add_cycles(base, terms, count)
    return until


def _shorten_by_refunds(vouched: ConfirmedUntil, terms: BillingCycle | None, covered: Sequence[PaidCharge]) -> datetime:
    """The last payments, if they were given back or refused, take their own periods with them, and no later ones."""
    last = list(takewhile(lambda paid: paid.refunded_at is not None, reversed(covered)))
    if terms is None:
        return _shorten_without_cycle(vouched, last)
    until, count = vouched.until, 0
    kept_at = max((paid.at for paid in covered if paid.refunded_at is None), default=EARLIEST)
    for paid in last:
        longer = count + cycles_paid_by(terms, paid.money)
        start = add_cycles(vouched.until, terms, -longer)
        if _bought(paid, start, until, kept_at, terms):
            until, count = min(until, start), longer
        elif not paid.refused:
            break
    return until


def _shorten_without_cycle(vouched: ConfirmedUntil, last: Sequence[PaidCharge]) -> datetime:
    """Without terms it is not known which period each paid for: PayPal's own later word counts."""
    until = vouched.until
    for paid in last:
        if (paid.refunded_at or LATEST) > vouched.at:
            until = min(until, paid.at)
        elif not paid.refused:
            break
    return until


def _bought(paid: PaidCharge, start: datetime, until: datetime, kept_at: datetime, terms: BillingCycle) -> bool:
    """Whether this payment is that of the period, and none that was kept."""
    early = _early_window(paid.at, terms)
    if paid.refused and paid.at < add_cycles(kept_at, terms, 1) - early:
        return False  # it was to settle what was outstanding
    return start - _early_window(start, terms) <= paid.at < until


def _early_window(until: datetime, terms: BillingCycle | None) -> timedelta:
    return EARLY_CHARGE_WINDOW if terms is None else min(EARLY_CHARGE_WINDOW, (add_cycles(until, terms, 1) - until) / 4)
