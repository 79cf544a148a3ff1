"""The paid-through date: PayPal's date, extended by later payments and shortened by refunds and refusals."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.billing.entitlement import (
    LATEST,
    BillingCycle,
    ConfirmedUntil,
    PaidCharge,
    add_cycles,
    cycles_paid_by,
    paid_through,
)
from pipeline.db.models import Subscription
from pipeline.inbox.parsing import event_from_lookup
from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, LICENCE, Plan
from pipeline.simulator.subscription import SimulatedSubscription
from tests.support.event_feeder import EventFeeder, at
from tests.support.pipeline_under_test import PipelineUnderTest

PRICE = Money(2900, "EUR")
MONTHLY, YEARLY = BillingCycle("MONTH", 1, PRICE), BillingCycle("YEAR", 1, PRICE)
# Paid on 1 February; PayPal reports 1 March as the next billing date.
FEBRUARY = ConfirmedUntil(at("2026-03-01T10:00Z"), at("2026-02-01T09:00Z"))
FIRST = PaidCharge(at("2026-02-01T08:59Z"), PRICE)


def paid(on: str, amount: int = 2900, refunded: str = "") -> PaidCharge:
    return PaidCharge(at(on), Money(amount, "EUR"), at(refunded) if refunded else None)


# -- adding


@pytest.mark.parametrize(("start", "cycle", "number", "end"), [
    ("2026-01-31T10:00Z", MONTHLY, 1, "2026-02-28T10:00Z"),
    ("2026-01-31T10:00Z", MONTHLY, 2, "2026-03-31T10:00Z"),
    ("2028-01-31T10:00Z", MONTHLY, 1, "2028-02-29T10:00Z"),
    ("2026-02-28T10:00Z", MONTHLY, 1, "2026-03-28T10:00Z"),
    ("2026-02-28T10:00Z", BillingCycle("MONTH", 1, day=31), 1, "2026-03-31T10:00Z"),
    ("2026-02-28T10:00Z", BillingCycle("MONTH", 1, day=30), 2, "2026-04-30T10:00Z"),
    ("2026-02-28T10:00Z", BillingCycle("MONTH", 1, day=15), 1, "2026-03-28T10:00Z"),
    ("2026-03-15T10:00Z", BillingCycle("MONTH", 1, day=31), 1, "2026-04-15T10:00Z"),
    ("2028-02-29T10:00Z", YEARLY, 1, "2029-02-28T10:00Z"),
    ("2026-12-31T10:00Z", BillingCycle("MONTH", 6), 1, "2027-06-30T10:00Z"),
    ("2026-03-01T10:00Z", BillingCycle("WEEK", 2), 3, "2026-04-12T10:00Z"),
    ("2026-03-01T10:00Z", BillingCycle("DAY", 7), 1, "2026-03-08T10:00Z"),
    ("2026-03-31T10:00Z", MONTHLY, -1, "2026-02-28T10:00Z"),
    ("2026-03-01T10:00Z", MONTHLY, 0, "2026-03-01T10:00Z"),
])  # fmt: skip
def test_cycle_is_added_by_the_calendar(start: str, cycle: BillingCycle, number: int, end: str) -> None:
    assert add_cycles(at(start), cycle, number) == at(end)


def test_date_does_not_exceed_the_limit() -> None:
    assert (
        add_cycles(at("2026-03-01T10:00Z"), YEARLY, 10**6)
        == add_cycles(at("2026-03-01T10:00Z"), BillingCycle("DAY", 366), 10**9)
        == LATEST
    )
    assert paid_through(FEBRUARY, YEARLY, [paid("2026-03-01T11:00Z", 10**15)]) == LATEST


@pytest.mark.parametrize(("amount", "number"), [(2900, 1), (5800, 2), (5799, 1), (100, 1), (0, 1), (8700, 3)])
def test_amount_pays_whole_cycles_and_at_least_one(amount: int, number: int) -> None:
    assert cycles_paid_by(MONTHLY, Money(amount, "EUR")) == number


@pytest.mark.parametrize("price", [None, Money(0, "EUR"), Money(1, "USD")])
def test_unusable_price_gives_one_cycle(price: Money | None) -> None:
    assert cycles_paid_by(BillingCycle("MONTH", 1, price), Money(5800, "EUR")) == 1


# -- paid through


def test_date_is_none_without_facts() -> None:
    assert paid_through(None, None, []) is None
    assert paid_through(None, MONTHLY, []) is None
    assert paid_through(None, None, [FIRST]) is None


def test_payment_starts_the_period_before_paypal_reports_a_date() -> None:
    assert paid_through(None, MONTHLY, [FIRST]) == at("2026-03-01T08:59Z")


@pytest.mark.parametrize(("payments", "until"), [
    ([], "2026-03-01T10:00Z"),
    ([FIRST], "2026-03-01T10:00Z"),
    ([FIRST, paid("2026-03-01T11:13Z")], "2026-04-01T10:00Z"),
    ([FIRST, paid("2026-02-28T12:00Z")], "2026-04-01T10:00Z"),  # slightly early: the renewal
    ([FIRST, paid("2026-02-20T12:00Z")], "2026-03-01T10:00Z"),  # within a paid period: no renewal
    ([FIRST, paid("2026-03-06T11:13Z")], "2026-04-01T10:00Z"),  # collected at the second attempt
    ([FIRST, paid("2026-04-01T11:13Z", 5800)], "2026-05-01T10:00Z"),  # the failed month together with the next
    ([FIRST, paid("2026-04-20T11:13Z")], "2026-05-20T11:13Z"),  # after a pause the period starts with the payment
    ([FIRST, paid("2026-04-01T09:30Z")], "2026-05-01T09:30Z"),  # slightly early after a pause
    ([FIRST, paid("2026-03-01T11:13Z"), paid("2026-04-01T11:13Z")], "2026-05-01T10:00Z"),
])  # fmt: skip
def test_later_payments_extend_the_date(payments: list[PaidCharge], until: str) -> None:
    assert paid_through(FEBRUARY, MONTHLY, payments) == at(until)


@pytest.mark.parametrize(("payments", "until"), [
    ([paid("2026-02-01T08:59Z", refunded="2026-02-10T10:00Z")], "2026-02-01T10:00Z"),
    ([paid("2026-02-01T08:59Z", refunded="2026-02-01T08:59:30Z")], "2026-02-01T10:00Z"),  # refunded before PayPal's report
    ([FIRST, paid("2026-03-01T11:13Z", refunded="2026-03-10T10:00Z")], "2026-03-01T10:00Z"),
    ([FIRST, paid("2026-03-01T11:13Z"), paid("2026-04-01T11:13Z", refunded="2026-04-02T10:00Z")], "2026-04-01T10:00Z"),
    # A refund of an old period does not shorten the current one.
    ([paid("2026-02-01T08:59Z", refunded="2026-03-05T10:00Z"), paid("2026-03-01T11:13Z")], "2026-04-01T10:00Z"),
    ([paid("2026-01-01T08:59Z", refunded="2026-02-05T10:00Z"), FIRST], "2026-03-01T10:00Z"),
    ([FIRST, paid("2026-03-01T11:13Z", refunded="2026-04-03T10:00Z"), paid("2026-04-01T11:13Z")], "2026-05-01T10:00Z"),
    # Two periods, both refunded.
    ([paid("2026-01-01T09:00Z", refunded="2026-02-05T10:00Z"), paid("2026-02-01T08:59Z", refunded="2026-02-05T10:00Z")],
     "2026-01-01T10:00Z"),
    # An old payment is refunded: the period that PayPal reports now is not the one it paid for.
    ([paid("2025-10-01T09:00Z", refunded="2025-10-05T10:00Z")], "2026-03-01T10:00Z"),
])  # fmt: skip
def test_refund_takes_back_its_own_period(payments: list[PaidCharge], until: str) -> None:
    assert paid_through(FEBRUARY, MONTHLY, payments) == at(until)


@pytest.mark.parametrize("fee", [
    paid("2026-02-24T09:16Z"), paid("2026-02-24T10:30Z"), paid("2026-02-24T10:30Z", refunded="2026-02-25T10:00Z"),
])  # fmt: skip
def test_set_up_fee_at_the_end_of_a_trial_changes_nothing(fee: PaidCharge) -> None:
    trial_end = ConfirmedUntil(at("2026-02-24T10:00Z"), at("2026-02-24T10:31Z"))
    assert paid_through(trial_end, MONTHLY, [fee]) == trial_end.until


def test_paypals_date_stays_without_a_plan_until_a_refund() -> None:
    assert paid_through(FEBRUARY, None, [FIRST, paid("2026-03-01T11:13Z")]) == FEBRUARY.until
    refunded = paid("2026-02-01T08:59Z", refunded="2026-02-10T10:00Z")
    assert paid_through(FEBRUARY, None, [refunded]) == at("2026-02-01T08:59Z")
    confirmed_later = ConfirmedUntil(FEBRUARY.until, at("2026-02-11T10:00Z"))
    assert paid_through(confirmed_later, None, [refunded]) == FEBRUARY.until


def refused(on: str, known: str, amount: int = 2900) -> PaidCharge:
    return PaidCharge(at(on), Money(amount, "EUR"), at(known), refused=True)


@pytest.mark.parametrize(("payments", "until"), [
    # PayPal's date had counted the payment.
    ([refused("2026-02-01T08:59Z", "2026-02-10T10:00Z")], "2026-02-01T10:00Z"),
    ([paid("2026-01-01T08:59Z"), refused("2026-02-01T08:59Z", "2026-02-10T10:00Z")], "2026-02-01T10:00Z"),
    ([refused("2026-01-01T08:59Z", "2026-01-07T10:00Z"), refused("2026-02-01T08:59Z", "2026-02-10T10:00Z")],
     "2026-01-01T10:00Z"),
    # PayPal's date had not counted it: the renewal was never paid.
    ([FIRST, refused("2026-03-01T11:13Z", "2026-03-07T10:00Z")], "2026-03-01T10:00Z"),
    # Collected later, alone or with the next cycle.
    ([refused("2026-02-01T08:59Z", "2026-02-10T10:00Z"), paid("2026-02-11T08:59Z")], "2026-03-01T10:00Z"),
    ([FIRST, refused("2026-03-01T11:13Z", "2026-03-07T10:00Z"), paid("2026-04-01T11:13Z", 5800)], "2026-05-01T10:00Z"),
    # An outstanding amount that was not collected does not shorten the period that was paid.
    ([FIRST, refused("2026-02-03T11:13Z", "2026-02-09T10:00Z")], "2026-03-01T10:00Z"),
])  # fmt: skip
def test_refusal_takes_back_the_period_that_paypal_counted(payments: list[PaidCharge], until: str) -> None:
    assert paid_through(FEBRUARY, MONTHLY, payments) == at(until)


# -- properties

moments = st.datetimes(datetime(2025, 6, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
cycles = st.builds(
    BillingCycle, st.sampled_from(["DAY", "WEEK", "MONTH", "YEAR"]), st.sampled_from([1, 2, 7]),
    st.sampled_from([PRICE, None]), st.sampled_from([0, 29, 31]),
)  # fmt: skip
payments = st.lists(
    st.builds(PaidCharge, moments, st.sampled_from([PRICE, Money(5800, "EUR")]), st.none() | moments)
    | st.builds(PaidCharge, moments, st.just(PRICE), moments, st.just(True)),
    max_size=5,
)
confirmations = st.none() | st.builds(ConfirmedUntil, moments, moments)
thorough = settings(max_examples=300, deadline=None, derandomize=True)


@thorough
@given(confirmations, cycles | st.none(), payments, st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(
    confirmed: ConfirmedUntil | None, cycle: BillingCycle | None, charges: list[PaidCharge], order: Random
) -> None:
    expected = paid_through(confirmed, cycle, charges)
    order.shuffle(charges)
    assert paid_through(confirmed, cycle, charges) == expected


@thorough
@given(confirmations, cycles | st.none(), payments, moments)
def test_renewal_never_shortens_the_date(
    confirmed: ConfirmedUntil | None, cycle: BillingCycle | None, charges: list[PaidCharge], moment: datetime
) -> None:
    before = paid_through(confirmed, cycle, charges)
    renewal = PaidCharge(max([moment, *(item.at for item in charges)]) + timedelta(seconds=1), PRICE)
    after = paid_through(confirmed, cycle, [*charges, renewal])
    assert before is None or (after is not None and after >= before)


@thorough
@given(confirmations, cycles | st.none(), payments)
def test_refund_never_extends_the_date(
    confirmed: ConfirmedUntil | None, cycle: BillingCycle | None, charges: list[PaidCharge]
) -> None:
    kept = [item if item.refused else PaidCharge(item.at, item.money) for item in charges]
    all_kept, some_refunded = paid_through(confirmed, cycle, kept), paid_through(confirmed, cycle, charges)
    assert some_refunded is None or (all_kept is not None and some_refunded <= all_kept)


@thorough
@given(confirmations, cycles | st.none(), payments, moments, moments)
def test_refused_payment_never_extends_the_date(
    confirmed: ConfirmedUntil | None,
    cycle: BillingCycle | None,
    charges: list[PaidCharge],
    moment: datetime,
    known: datetime,
) -> None:
    refused = PaidCharge(moment, PRICE, known, refused=True)
    before, after = (paid_through(confirmed, cycle, paid) for paid in (charges, [*charges, refused]))
    assert after is None or (before is not None and after <= before)


def test_refused_payment_at_the_time_of_a_refunded_one_does_not_keep_the_date() -> None:
    """Both paid for one year. Whichever is looked at first, the year is taken off, and then the year before it."""
    until, paid_at = datetime(2026, 6, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2025, 6, 1, 0, 0, 0, 1, tzinfo=UTC)
    confirmed = ConfirmedUntil(until, datetime(2025, 6, 2, tzinfo=UTC))
    year, earlier = BillingCycle("YEAR", 1, PRICE), paid_at - timedelta(microseconds=1)
    charges = [PaidCharge(earlier, PRICE, earlier, refused=True), PaidCharge(paid_at, PRICE, earlier)]
    refused = PaidCharge(paid_at, PRICE, earlier + timedelta(microseconds=1), refused=True)
    assert paid_through(confirmed, year, [*charges, refused]) == paid_through(confirmed, year, charges)


@thorough
@given(moments, cycles, st.integers(1, 12))
def test_added_cycles_can_be_subtracted_to_within_three_days(
    moment: datetime, cycle: BillingCycle, number: int
) -> None:
    later = add_cycles(moment, cycle, number)
    assert later > moment
    assert abs(add_cycles(later, cycle, -number) - moment) <= timedelta(days=3)  # the days that a month lacks


# -- agreement with PayPal's dates


@pytest.mark.parametrize(
    "plan", [CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, LICENCE], ids=lambda plan: str(plan.name)
)
@pytest.mark.parametrize("start", ["2026-01-31T08:00Z", "2026-02-24T23:30Z"])
def test_date_equals_paypals_next_billing_time_after_each_renewal(
    sqlite_pipeline: PipelineUnderTest, plan: Plan, start: str
) -> None:
    feeder, subscription = EventFeeder(sqlite_pipeline), SimulatedSubscription(PEOPLE[0], plan, at(start), Random(7))
    feeder.hear(orjson.loads(event_from_lookup("plan", shapes.plan(plan), at(start))))
    subscription.start()
    for _ in range(5):
        feeder.tell(*[delivery.event for delivery in subscription.deliveries])
        feeder.work()
        subscription.deliveries.clear()
        assert [row.paid_through for row in sqlite_pipeline.rows(Subscription)] == [subscription.next_billing]
        subscription.renew()


def test_charge_for_two_months_ends_at_paypals_date(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder, subscription = (
        EventFeeder(sqlite_pipeline),
        SimulatedSubscription(PEOPLE[0], CLOUD, at("2026-01-15T08:00Z"), Random(7)),
    )
    feeder.hear(orjson.loads(event_from_lookup("plan", shapes.plan(CLOUD), subscription.created)))
    subscription.start()
    subscription.fail_payment()
    subscription.renew()
    feeder.tell(*[delivery.event for delivery in subscription.deliveries])
    feeder.work()
    assert (
        [row.paid_through for row in sqlite_pipeline.rows(Subscription)]
        == [subscription.next_billing]
        == [at("2026-04-15T10:00Z")]
    )


# -- PayPal's API is older than its webhooks


@pytest.mark.parametrize(
    ("last_payment", "until"),
    [
        ("2026-02-01T08:59Z", "2026-04-01T10:00Z"),
        ("2026-03-01T10:59Z", "2026-03-01T10:00Z"),
        (None, "2026-03-01T10:00Z"),
    ],
    ids=["without the payment", "with the payment", "not said"],
)
def test_report_that_lacks_a_payment_does_not_decide_what_it_paid(last_payment: str | None, until: str) -> None:
    """Read after the payment of 1 March, with the date of before."""
    report = ConfirmedUntil(FEBRUARY.until, at("2026-03-01T11:30Z"), at(last_payment) if last_payment else None)
    assert paid_through(report, MONTHLY, [FIRST, paid("2026-03-01T11:00Z")]) == at(until)


def test_payment_of_a_larger_plan_counts_while_paypal_still_shows_the_old_date(
    sqlite_pipeline: PipelineUnderTest,
) -> None:
    """The customer changes to a plan at twice the price; the answer after the next charge does not contain it yet."""
    sqlite_pipeline.clock.move_to(at("2026-02-01T09:00Z"))
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, sqlite_pipeline.now, Random(3))
    subscription.start()
    larger = replace(CLOUD, id="P-1LA29300AA1111111MZ7QT9Z", price=Money(5800, "EUR"))
    subscription.revise(subscription.now + timedelta(days=3), plan=larger)
    before = subscription.snapshot()
    subscription.renew()
    feeder = EventFeeder(sqlite_pipeline, {})
    bodies = [event_from_lookup("plan", shapes.plan(each), sqlite_pipeline.now) for each in (CLOUD, larger)]
    feeder.hear(*(orjson.loads(body) for body in bodies), *(each.event for each in subscription.deliveries))
    sqlite_pipeline.clock.move_to(subscription.now + timedelta(minutes=1))
    feeder.hear(orjson.loads(event_from_lookup("subscription", before, sqlite_pipeline.now)))
    [row] = sqlite_pipeline.rows(Subscription)
    assert row.paid_through == subscription.due
