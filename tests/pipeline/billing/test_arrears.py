"""When a subscription is past due, since when, and what is open."""

from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from pipeline.billing.arrears import (
    CHARGE_DELAY,
    Price,
    Settlement,
    compute_arrears,
    open_balance,
    past_due_since,
    settlement,
)
from pipeline.db import lww_map
from pipeline.db.models import Subscription
from pipeline.db.rows import PaymentRow
from pipeline.inbox.parsing import event_from_lookup
from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_TRIAL, LICENCE, Plan
from pipeline.simulator.subscription import SimulatedSubscription
from tests.support.event_feeder import EventFeeder, at
from tests.support.pipeline_under_test import PipelineUnderTest, delivery

DAY = timedelta(days=1)
START = at("2026-03-02T09:00:00Z")
EUR_29, EUR_58 = Money(2900, "EUR"), Money(5800, "EUR")


class Followed:
    """A simulated subscription whose events are handled as they happen."""

    def __init__(self, pipeline: PipelineUnderTest, plan: Plan = CLOUD) -> None:
        self.pipeline, self.feeder = pipeline, EventFeeder(pipeline, {})
        self.paypal = SimulatedSubscription(PEOPLE[0], plan, START, Random(3))
        self._handled = 0
        pipeline.clock.move_to(START)
        answer = delivery(event_from_lookup("plan", shapes.plan(plan), START), source="read")
        pipeline.store(answer)
        self.feeder.work()
        self.paypal.start()

    def row(self, *, until: datetime | None = None) -> Subscription:
        """Handle the new deliveries, and return the row. The clock is then at `until`, or after the last delivery."""
        for each in self.paypal.deliveries[self._handled :]:
            self.feeder.hear(each.event)
        self._handled = len(self.paypal.deliveries)
        self.pipeline.clock.move_to(until or max(self.paypal.now, self.pipeline.now))
        [row] = self.pipeline.rows(Subscription)
        return row

    def since(self, *, until: datetime | None = None) -> datetime | None:
        return past_due_since(self.row(until=until), self.pipeline.now)


@pytest.fixture
def followed(sqlite_pipeline: PipelineUnderTest) -> Followed:
    return Followed(sqlite_pipeline)


def due(followed: Followed) -> datetime:
    assert followed.paypal.next_billing
    return followed.paypal.next_billing


def test_paying_customer_is_not_past_due(followed: Followed) -> None:
    for _ in range(3):
        row = followed.row()
        assert past_due_since(row, followed.pipeline.now) is None
        assert (row.outstanding, row.failed_count, open_balance(row)) == (0, 0, None)
        followed.paypal.renew()


def test_failed_charge_makes_past_due_since_the_end_of_the_paid_period(followed: Followed) -> None:
    period_end = due(followed)
    followed.paypal.fail_payment(attempts=1)
    row = followed.row()
    assert past_due_since(row, followed.pipeline.now) == period_end == row.paid_through
    assert (open_balance(row), row.failed_count) == (EUR_29, 1)


def test_payment_of_the_balance_ends_past_due(followed: Followed) -> None:
    followed.paypal.fail_payment(attempts=1)
    assert followed.since()
    followed.paypal.pay_balance(followed.paypal.now + DAY)
    row = followed.row()
    assert past_due_since(row, followed.pipeline.now) is None
    assert (row.outstanding, row.failed_count) == (0, 0)


def test_sale_that_collects_two_periods_ends_past_due(followed: Followed) -> None:
    followed.paypal.fail_payment()
    assert followed.since()
    assert followed.paypal.renew().amount == EUR_58
    row = followed.row()
    assert (past_due_since(row, followed.pipeline.now), row.outstanding) == (None, 0)


def test_suspended_customer_is_past_due_until_the_balance_is_paid(followed: Followed) -> None:
    while followed.paypal.next_billing:
        followed.paypal.fail_payment()
    row = followed.row()
    assert (row.status, open_balance(row)) == ("SUSPENDED", EUR_58)
    assert past_due_since(row, followed.pipeline.now) == row.paid_through
    followed.paypal.pay_balance(followed.paypal.now + DAY)
    assert followed.since() is None


def test_missing_charge_makes_past_due_after_a_day(followed: Followed) -> None:
    period_end = due(followed)
    assert followed.since(until=period_end + CHARGE_DELAY - timedelta(seconds=1)) is None
    assert followed.since(until=period_end + CHARGE_DELAY) == period_end


def test_pending_payment_is_not_past_due_until_it_is_refused(followed: Followed) -> None:
    period_end = due(followed)
    sale = followed.paypal.renew("echeck")
    assert followed.since(until=period_end + 5 * DAY) is None
    followed.paypal.bounce(sale, period_end + 6 * DAY)
    row = followed.row()
    assert past_due_since(row, followed.pipeline.now) == period_end
    assert row.outstanding is None, "PayPal has not reported the balance since the refusal"


def test_cancelled_subscription_is_past_due_only_with_a_balance(sqlite_pipeline: PipelineUnderTest) -> None:
    paid = Followed(sqlite_pipeline)
    paid.paypal.cancel(paid.paypal.now + DAY)
    assert paid.since(until=START + 90 * DAY) is None
    sqlite_pipeline.empty()
    indebted = Followed(sqlite_pipeline)
    indebted.paypal.fail_payment()
    indebted.paypal.cancel(indebted.paypal.now + DAY)
    assert indebted.since()
    assert open_balance(indebted.row()) == EUR_29


def test_free_trial_is_not_past_due(sqlite_pipeline: PipelineUnderTest) -> None:
    trial = Followed(sqlite_pipeline, CLOUD_TRIAL)
    assert trial.since(until=due(trial)) is None
    trial.paypal.renew()
    assert trial.since() is None


def test_balance_is_unknown_after_a_payment_of_a_part_of_it(followed: Followed) -> None:
    followed.paypal.fail_payment(attempts=1)
    followed.row()
    capture = followed.paypal.pay_balance(followed.paypal.now + DAY)
    capture.resource["amount"] = shapes.v1(Money(1000, "EUR"))  # the vendor captured a part
    row = followed.row()
    assert row.outstanding is None


# -- without a database

REPORTED = START + 30 * DAY
PAID = REPORTED + DAY


def payment(amount: int = 5800, moment: datetime = PAID, status: str = "completed", id: str = "P1") -> PaymentRow:
    known = lww_map.merge({}, moment, {"status": status})
    return PaymentRow(id, known, "I-1", status, amount, "EUR", occurred_at=moment)


def reported(balance: int | None = 2900, **more: Any) -> dict[str, Any]:
    values = {"outstanding": None if balance is None else [balance, "EUR"], **more}
    return lww_map.merge({}, REPORTED, values)


@pytest.mark.parametrize(("amount", "price", "expected"), [
    (5800, Price(EUR_29), Settlement(EUR_29, EUR_29)),
    (2900, Price(EUR_29, collects_balance=True), Settlement(None, EUR_29)),
    (2900, Price(Money(1900, "EUR")), Settlement(None, EUR_29)),
    (2900, Price(EUR_29), None),  # could be the next charge instead
    (5800, Price(None, collects_balance=True), None),
    (5000, Price(EUR_29, collects_balance=True), None),
    (5800, Price(Money(2900, "USD")), None),
])  # fmt: skip
def test_only_exact_sums_are_divided(amount: int, price: Price, expected: Settlement | None) -> None:
    paid = payment(amount)
    assert settlement(reported(), paid, [paid], price) == expected
    left = compute_arrears(reported(), "ACTIVE", None, [paid], price).outstanding
    assert left == (Money(0, "EUR") if expected else None)


@pytest.mark.parametrize(("known", "others"), [
    (reported(None), []), (reported(0), []),
    (lww_map.merge({}, PAID + DAY, {"outstanding": [2900, "EUR"]}), []),  # reported after the payment
    (reported(), [payment(2900, REPORTED + DAY / 2, id="P0")]),
    (reported(), [payment(2900, REPORTED + DAY / 2, "denied", id="P0")]),
])  # fmt: skip
def test_payment_is_not_divided_without_a_certain_balance(known: dict[str, Any], others: list[PaymentRow]) -> None:
    assert settlement(known, payment(), [payment(), *others], Price(EUR_29)) is None


def test_unreported_balance_is_unknown_and_zero_stays_zero() -> None:
    assert compute_arrears({}, "ACTIVE", None, [], Price()).outstanding is None
    assert compute_arrears(reported(0), "ACTIVE", None, [payment(2900)], Price()).outstanding == Money(0, "EUR")


@pytest.mark.parametrize("failure", [
    {"failed_at": "2026-04-01T09:00:00Z"}, {"failed_count": 1},
])  # fmt: skip
def test_each_report_of_a_failure_counts_until_a_payment(failure: dict[str, Any]) -> None:
    known = reported(None, **failure)
    assert compute_arrears(known, "ACTIVE", None, [], Price()).past_due_at == REPORTED
    assert compute_arrears(known, "CANCELLED", None, [], Price()).past_due_at is None
    assert compute_arrears(known, "ACTIVE", None, [payment()], Price()).past_due_at is None
    paid = lww_map.merge(known, PAID, {"last_payment_at": "2026-04-02T09:00:00Z"})
    assert compute_arrears(paid, "ACTIVE", None, [], Price()).past_due_at is None, "the sale's webhook was lost"


def test_yearly_licence_uses_the_same_rules(sqlite_pipeline: PipelineUnderTest) -> None:
    yearly = Followed(sqlite_pipeline, LICENCE)
    period_end = due(yearly)
    yearly.paypal.fail_payment(attempts=1)
    assert yearly.since() == period_end
