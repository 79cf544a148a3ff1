"""Compute the paid-through date: the time until which a customer has paid. It decides access; the status does not.

The result is a pure function of the stored facts, so their order of arrival does not matter:
- It starts at the newest date that PayPal confirmed.
- Each renewal paid since then extends it.
- The last payments shorten it if they were refunded in full, or refused after PayPal had counted them.
- A pending payment changes nothing: PayPal's date stays.
"""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from pipeline.money import Money

# PayPal sets the billing time to 10:00Z and charges minutes to hours later. A charge up to this much before the billing
# date still pays for the period that begins on that date.
EARLY_CHARGE_WINDOW = timedelta(days=1)
SAME_PAYMENT = timedelta(hours=1)  # a subscription's last_payment and the sale itself may differ in time by seconds
SHORTEST_MONTH_DAYS = 28
# Limits of the computed date. Only unrealistic amounts or cycles reach them.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BillingCycle:
    """A plan's regular billing cycle: `count` times `unit` for `price` (None if unknown).

    `day` is the day of the month on which the subscription started. A subscription started on the 31st renews on
    28 February and again on 31 March.
    """

    unit: str
    count: int
    price: Money | None = None
    day: int = 0


@dataclass(frozen=True, slots=True)
class PaidCharge:
    """A completed or refused payment. `refunded_at` is set if all of it was refunded or reversed.

    `refused`: the payment failed after it was pending, for example an eCheck. `refunded_at` is then the time of the
    refusal.
    """

    at: datetime
    money: Money
    refunded_at: datetime | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmedUntil:
    """PayPal reported at time `at` that the next charge is due at `until` and that nothing is unpaid.

    `last_payment_at` is the newest payment that PayPal's reports contain, None if they name none.
    """

    until: datetime
    at: datetime
    last_payment_at: datetime | None = None

    def contains(self, paid: PaidCharge) -> bool:
        """Return whether the report knows this payment. PayPal's API may be older than the webhooks that it sent."""
        is_newer = self.last_payment_at is not None and paid.at > self.last_payment_at + SAME_PAYMENT
        return paid.at <= self.at and not is_newer


def paid_through(
    confirmed: ConfirmedUntil | None, cycle: BillingCycle | None, payments: Sequence[PaidCharge]
) -> datetime | None:
    """Return the paid-through date in UTC.

    Returns None if no payment is known, or if neither PayPal's date nor the billing cycle is known yet.
    """
    payments = sorted(payments, key=_order)
    if confirmed is None:
        return (
            None if cycle is None else _extend_by_payments(None, cycle, [paid for paid in payments if not paid.refused])
        )
    renewals_from = confirmed.until - _early_window(confirmed.until, cycle)
    later = [paid for paid in payments if paid.at >= renewals_from and not confirmed.contains(paid)]
    renewals = [paid for paid in later if not paid.refused]
    covered = [paid for paid in payments if paid not in later]
    if all(paid.refunded_at for paid in renewals):
        return _shorten_by_refunds(confirmed, cycle, covered)
    extended = _extend_by_payments(confirmed.until, cycle, renewals) if cycle else confirmed.until
    # A cycle that was refused after PayPal had counted it is paid by a later charge, together with its own.
    refused = [paid for paid in covered if not paid.refunded_at or paid.refused]
    start = _shorten_by_refunds(confirmed, cycle, refused)
    if extended is None or cycle is None or start == confirmed.until:
        return extended
    return min(extended, _extend_by_payments(start, cycle, renewals) or extended)


def add_cycles(moment: datetime, cycle: BillingCycle, cycles: int) -> datetime:
    """Return the moment `cycles` cycles later, earlier if negative. A day that the month lacks becomes its last day."""
    number = cycle.count * cycles
    try:
        if cycle.unit in ("DAY", "WEEK"):
            return moment + timedelta(days=number * (7 if cycle.unit == "WEEK" else 1))
        return _add_months(moment, number * (12 if cycle.unit == "YEAR" else 1), cycle.day)
    except (OverflowError, ValueError):
        return LATEST if number > 0 else EARLIEST


def cycles_paid_by(cycle: BillingCycle, money: Money) -> int:
    """Return how many cycles an amount pays, at least 1. PayPal adds a failed charge to the next one."""
    if cycle.price is None or cycle.price.amount <= 0 or cycle.price.currency != money.currency:
        return 1
    return max(1, money.amount // cycle.price.amount)


def _order(paid: PaidCharge) -> tuple[datetime, int, datetime, bool]:
    return paid.at, paid.money.amount, paid.refunded_at or LATEST, paid.refused


def _add_months(moment: datetime, number: int, day: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + number, 12)
    if moment.day < SHORTEST_MONTH_DAYS:
        return moment.replace(year=year, month=month + 1)
    is_month_end = moment.day == calendar.monthrange(moment.year, moment.month)[1]
    wanted_day = max(moment.day, day) if is_month_end else moment.day
    return moment.replace(year=year, month=month + 1, day=min(wanted_day, calendar.monthrange(year, month + 1)[1]))


def _extend_by_payments(start: datetime | None, cycle: BillingCycle, payments: Sequence[PaidCharge]) -> datetime | None:
    """Return the date after the cycles that these payments pay for.

    Cycles are counted from the start and added at once; adding them one by one would keep the shorter day of a short
    month. A refunded payment adds nothing itself, but later periods still begin where they did.
    """
    base, count, until = start, 0, start
    for paid in payments:
        number = cycles_paid_by(cycle, paid.money)
        if base is None or add_cycles(base, cycle, count + number) <= paid.at + _early_window(paid.at, cycle):
            base, count = paid.at, 0  # after a pause the period starts with the payment
        count += number
        if paid.refunded_at is None:
            until = add_cycles(base, cycle, count)
    return until


def _shorten_by_refunds(
    confirmed: ConfirmedUntil, cycle: BillingCycle | None, covered: Sequence[PaidCharge]
) -> datetime:
    """Return PayPal's date less the periods of the last payments, if those were refunded or refused."""
    last = list(takewhile(lambda paid: paid.refunded_at is not None, reversed(covered)))
    if cycle is None:
        return _shorten_without_cycle(confirmed, last)
    until, count = confirmed.until, 0
    kept_at = max((paid.at for paid in covered if paid.refunded_at is None), default=EARLIEST)
    for paid in last:
        # One cycle, if the price has fallen since: then the amount seems to pay more.
        for longer in dict.fromkeys((count + cycles_paid_by(cycle, paid.money), count + 1)):
            start = add_cycles(confirmed.until, cycle, -longer)
            if _pays_for_period(paid, start, until, kept_at, cycle):
                until, count = min(until, start), longer
                break
        else:
            if not paid.refused and paid.at < until:  # a later one paid for a period that is already taken off
                break
    return _keep_overlapped(until, confirmed, cycle, kept_at, last)


def _keep_overlapped(
    until: datetime, confirmed: ConfirmedUntil, cycle: BillingCycle, kept_at: datetime, last: Sequence[PaidCharge]
) -> datetime:
    """Return the later of `until` and the end of the kept payment's period, if a refunded charge came in its first half.

    So it is after a change of plan at once: its refund leaves what was paid before.
    """
    kept_until = add_cycles(kept_at, cycle, 1)
    half = (kept_until - kept_at) / 2
    overlaps = any(kept_at < paid.at < kept_at + half and not paid.refused for paid in last)
    return min(confirmed.until, max(until, kept_until)) if overlaps else until


def _shorten_without_cycle(confirmed: ConfirmedUntil, last: Sequence[PaidCharge]) -> datetime:
    """Return PayPal's date, or the earliest of the last payments that were refunded or refused after PayPal's report.

    Without a billing cycle, the period that a payment paid for is unknown.
    """
    until = confirmed.until
    for paid in last:
        if (paid.refunded_at or LATEST) > confirmed.at:
            until = min(until, paid.at)
        elif not paid.refused:
            break
    return until


def _pays_for_period(
    paid: PaidCharge, start: datetime, until: datetime, kept_at: datetime, cycle: BillingCycle
) -> bool:
    """Return whether this payment paid for the period from `start` to `until`, and no kept payment did."""
    if paid.refused and kept_at >= start - _early_window(start, cycle):
        return False  # a kept payment paid for the period; this one was for an outstanding amount
    return start - _early_window(start, cycle) <= paid.at < until


def _early_window(until: datetime, cycle: BillingCycle | None) -> timedelta:
    """Return how early the charge due at `until` may come: a day, but at most a quarter of a cycle."""
    return EARLY_CHARGE_WINDOW if cycle is None else min(EARLY_CHARGE_WINDOW, (add_cycles(until, cycle, 1) - until) / 4)
