"""Until when is paid: PayPal's own date, moved on by what was paid since, and back by what was given back."""

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
from tests.support.event_feeder import Teller, at
from tests.support.pipeline_under_test import River

PRICE = Money(2900, "EUR")
MONTHLY, YEARLY = BillingCycle("MONTH", 1, PRICE), BillingCycle("YEAR", 1, PRICE)
FEBRUARY = ConfirmedUntil(
    at("2026-03-01T10:00Z"), at("2026-02-01T09:00Z")
)  # paid on 1 February, PayPal says until 1 March
FIRST = PaidCharge(at("2026-02-01T08:59Z"), PRICE)


def paid(on: str, amount: int = 2900, back: str = "") -> PaidCharge:
    return PaidCharge(at(on), Money(amount, "EUR"), at(back) if back else None)


# -- adding


@pytest.mark.parametrize(("start", "terms", "number", "end"), [
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
def test_a_cycle_is_added_by_the_calendar(start: str, terms: BillingCycle, number: int, end: str) -> None:
    assert add_cycles(at(start), terms, number) == at(end)


def test_no_amount_leads_beyond_the_end_of_time() -> None:
    assert (
        add_cycles(at("2026-03-01T10:00Z"), YEARLY, 10**6)
        == add_cycles(at("2026-03-01T10:00Z"), BillingCycle("DAY", 366), 10**9)
        == LATEST
    )
    assert paid_through(FEBRUARY, YEARLY, [paid("2026-03-01T11:00Z", 10**15)]) == LATEST


@pytest.mark.parametrize(("amount", "number"), [(2900, 1), (5800, 2), (5799, 1), (100, 1), (0, 1), (8700, 3)])
def test_an_amount_pays_as_many_cycles_as_it_holds_and_at_least_one(amount: int, number: int) -> None:
    assert cycles_paid_by(MONTHLY, Money(amount, "EUR")) == number


@pytest.mark.parametrize("price", [None, Money(0, "EUR"), Money(1, "USD")])
def test_a_price_that_says_nothing_of_it_makes_one_cycle(price: Money | None) -> None:
    assert cycles_paid_by(BillingCycle("MONTH", 1, price), Money(5800, "EUR")) == 1


# -- paid through


def test_nothing_known_is_nothing_paid() -> None:
    assert paid_through(None, None, []) is None
    assert paid_through(None, MONTHLY, []) is None
    assert paid_through(None, None, [FIRST]) is None


def test_before_paypal_told_a_date_the_payment_begins_the_period() -> None:
    assert paid_through(None, MONTHLY, [FIRST]) == at("2026-03-01T08:59Z")


@pytest.mark.parametrize(("payments", "until"), [
    ([], "2026-03-01T10:00Z"),
    ([FIRST], "2026-03-01T10:00Z"),
    ([FIRST, paid("2026-03-01T11:13Z")], "2026-04-01T10:00Z"),
    ([FIRST, paid("2026-02-28T12:00Z")], "2026-04-01T10:00Z"),  # a little early is still the renewal
    ([FIRST, paid("2026-02-20T12:00Z")], "2026-03-01T10:00Z"),  # in the middle of a paid period it is none
    ([FIRST, paid("2026-03-06T11:13Z")], "2026-04-01T10:00Z"),  # collected at the second try
    ([FIRST, paid("2026-04-01T11:13Z", 5800)], "2026-05-01T10:00Z"),  # the failed month with the next
    ([FIRST, paid("2026-04-20T11:13Z")], "2026-05-20T11:13Z"),  # after a pause it begins anew
    ([FIRST, paid("2026-04-01T09:30Z")], "2026-05-01T09:30Z"),  # a little early after a pause, too
    ([FIRST, paid("2026-03-01T11:13Z"), paid("2026-04-01T11:13Z")], "2026-05-01T10:00Z"),
])  # fmt: skip
def test_what_is_paid_since_moves_it_on(payments: list[PaidCharge], until: str) -> None:
    assert paid_through(FEBRUARY, MONTHLY, payments) == at(until)


@pytest.mark.parametrize(("payments", "until"), [
    ([paid("2026-02-01T08:59Z", back="2026-02-10T10:00Z")], "2026-02-01T10:00Z"),
    ([paid("2026-02-01T08:59Z", back="2026-02-01T08:59:30Z")], "2026-02-01T10:00Z"),  # before PayPal's word, too
    ([FIRST, paid("2026-03-01T11:13Z", back="2026-03-10T10:00Z")], "2026-03-01T10:00Z"),
    ([FIRST, paid("2026-03-01T11:13Z"), paid("2026-04-01T11:13Z", back="2026-04-02T10:00Z")], "2026-04-01T10:00Z"),
    # A refund of an old period does not cut the present one.
    ([paid("2026-02-01T08:59Z", back="2026-03-05T10:00Z"), paid("2026-03-01T11:13Z")], "2026-04-01T10:00Z"),
    ([paid("2026-01-01T08:59Z", back="2026-02-05T10:00Z"), FIRST], "2026-03-01T10:00Z"),
    ([FIRST, paid("2026-03-01T11:13Z", back="2026-04-03T10:00Z"), paid("2026-04-01T11:13Z")], "2026-05-01T10:00Z"),
    # Two periods, both given back.
    ([paid("2026-01-01T09:00Z", back="2026-02-05T10:00Z"), paid("2026-02-01T08:59Z", back="2026-02-05T10:00Z")],
     "2026-01-01T10:00Z"),
    # One payment of long ago, given back: what PayPal lets run since is not its period.
    ([paid("2025-10-01T09:00Z", back="2025-10-05T10:00Z")], "2026-03-01T10:00Z"),
])  # fmt: skip
def test_what_is_given_back_takes_its_own_period_back(payments: list[PaidCharge], until: str) -> None:
    assert paid_through(FEBRUARY, MONTHLY, payments) == at(until)


@pytest.mark.parametrize("fee", [
    paid("2026-02-24T09:16Z"), paid("2026-02-24T10:30Z"), paid("2026-02-24T10:30Z", back="2026-02-25T10:00Z"),
])  # fmt: skip
def test_a_set_up_fee_paid_on_the_day_that_a_trial_is_said_to_end_buys_and_takes_nothing(fee: PaidCharge) -> None:
    lagging = ConfirmedUntil(at("2026-02-24T10:00Z"), at("2026-02-24T10:31Z"))
    assert paid_through(lagging, MONTHLY, [fee]) == lagging.until


def test_without_a_plan_paypals_date_stands_and_a_later_refund_ends_it() -> None:
    assert paid_through(FEBRUARY, None, [FIRST, paid("2026-03-01T11:13Z")]) == FEBRUARY.until
    refunded = paid("2026-02-01T08:59Z", back="2026-02-10T10:00Z")
    assert paid_through(FEBRUARY, None, [refunded]) == at("2026-02-01T08:59Z")
    vouched_since = ConfirmedUntil(FEBRUARY.until, at("2026-02-11T10:00Z"))
    assert paid_through(vouched_since, None, [refunded]) == FEBRUARY.until


def refused(on: str, known: str, amount: int = 2900) -> PaidCharge:
    return PaidCharge(at(on), Money(amount, "EUR"), at(known), refused=True)


@pytest.mark.parametrize(("payments", "until"), [
    # PayPal's date had counted on it.
    ([refused("2026-02-01T08:59Z", "2026-02-10T10:00Z")], "2026-02-01T10:00Z"),
    ([paid("2026-01-01T08:59Z"), refused("2026-02-01T08:59Z", "2026-02-10T10:00Z")], "2026-02-01T10:00Z"),
    ([refused("2026-01-01T08:59Z", "2026-01-07T10:00Z"), refused("2026-02-01T08:59Z", "2026-02-10T10:00Z")],
     "2026-01-01T10:00Z"),
    # It had not: a renewal that never came.
    ([FIRST, refused("2026-03-01T11:13Z", "2026-03-07T10:00Z")], "2026-03-01T10:00Z"),
    # Collected since, by itself or with the next cycle.
    ([refused("2026-02-01T08:59Z", "2026-02-10T10:00Z"), paid("2026-02-11T08:59Z")], "2026-03-01T10:00Z"),
    ([FIRST, refused("2026-03-01T11:13Z", "2026-03-07T10:00Z"), paid("2026-04-01T11:13Z", 5800)], "2026-05-01T10:00Z"),
    # An outstanding amount that was not collected takes nothing from the period that was paid.
    ([FIRST, refused("2026-02-03T11:13Z", "2026-02-09T10:00Z")], "2026-03-01T10:00Z"),
])  # fmt: skip
def test_what_was_refused_takes_back_the_period_that_paypal_had_counted_it_for(
    payments: list[PaidCharge], until: str
) -> None:
    assert paid_through(FEBRUARY, MONTHLY, payments) == at(until)


# -- what always holds

moments = st.datetimes(datetime(2025, 6, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
some_terms = st.builds(
    BillingCycle, st.sampled_from(["DAY", "WEEK", "MONTH", "YEAR"]), st.sampled_from([1, 2, 7]),
    st.sampled_from([PRICE, None]), st.sampled_from([0, 29, 31]),
)  # fmt: skip
payments = st.lists(
    st.builds(PaidCharge, moments, st.sampled_from([PRICE, Money(5800, "EUR")]), st.none() | moments)
    | st.builds(PaidCharge, moments, st.just(PRICE), moments, st.just(True)),
    max_size=5,
)
vouched = st.none() | st.builds(ConfirmedUntil, moments, moments)
thorough = settings(max_examples=300, deadline=None, derandomize=True)


@thorough
@given(vouched, some_terms | st.none(), payments, st.randoms(use_true_random=False))
def test_the_order_in_which_payments_became_known_does_not_matter(
    word: ConfirmedUntil | None, terms: BillingCycle | None, all_paid: list[PaidCharge], order: Random
) -> None:
    expected = paid_through(word, terms, all_paid)
    order.shuffle(all_paid)
    assert paid_through(word, terms, all_paid) == expected


@thorough
@given(vouched, some_terms | st.none(), payments, moments)
def test_a_renewal_never_takes_it_back(
    word: ConfirmedUntil | None, terms: BillingCycle | None, all_paid: list[PaidCharge], moment: datetime
) -> None:
    before = paid_through(word, terms, all_paid)
    renewal = PaidCharge(max([moment, *(item.at for item in all_paid)]) + timedelta(seconds=1), PRICE)
    after = paid_through(word, terms, [*all_paid, renewal])
    assert before is None or (after is not None and after >= before)


@thorough
@given(vouched, some_terms | st.none(), payments)
def test_giving_back_never_buys_time(
    word: ConfirmedUntil | None, terms: BillingCycle | None, all_paid: list[PaidCharge]
) -> None:
    kept = [item if item.refused else PaidCharge(item.at, item.money) for item in all_paid]
    whole, less = paid_through(word, terms, kept), paid_through(word, terms, all_paid)
    assert less is None or (whole is not None and less <= whole)


@thorough
@given(vouched, some_terms | st.none(), payments, moments, moments)
def test_a_payment_that_was_refused_never_buys_time(
    word: ConfirmedUntil | None,
    terms: BillingCycle | None,
    all_paid: list[PaidCharge],
    moment: datetime,
    known: datetime,
) -> None:
    refused = PaidCharge(moment, PRICE, known, refused=True)
    before, after = (paid_through(word, terms, paid) for paid in (all_paid, [*all_paid, refused]))
    assert after is None or (before is not None and after <= before)


@thorough
@given(moments, some_terms, st.integers(1, 12))
def test_later_is_later_and_back_again_is_near(moment: datetime, terms: BillingCycle, number: int) -> None:
    later = add_cycles(moment, terms, number)
    assert later > moment
    assert abs(add_cycles(later, terms, -number) - moment) <= timedelta(days=3)  # the days that a month lacks


# -- as PayPal would have it


@pytest.mark.parametrize(
    "plan", [CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, LICENCE], ids=lambda plan: str(plan.name)
)
@pytest.mark.parametrize("start", ["2026-01-31T08:00Z", "2026-02-24T23:30Z"])
def test_after_each_renewal_it_is_paypals_own_next_billing_time(brook: River, plan: Plan, start: str) -> None:
    teller, life = Teller(brook), SimulatedSubscription(PEOPLE[0], plan, at(start), Random(7))
    teller.hear(orjson.loads(event_from_lookup("plan", shapes.plan(plan), at(start))))
    life.start()
    for _ in range(5):
        teller.tell(*[delivery.event for delivery in life.deliveries])
        teller.work()
        life.deliveries.clear()
        assert [row.paid_through for row in brook.rows(Subscription)] == [life.next_billing]
        life.renew()


def test_a_charge_for_a_failed_month_and_the_next_ends_at_paypals_own_date_too(brook: River) -> None:
    teller, life = Teller(brook), SimulatedSubscription(PEOPLE[0], CLOUD, at("2026-01-15T08:00Z"), Random(7))
    teller.hear(orjson.loads(event_from_lookup("plan", shapes.plan(CLOUD), life.created)))
    life.start()
    life.fail_payment()
    life.renew()
    teller.tell(*[delivery.event for delivery in life.deliveries])
    teller.work()
    assert [row.paid_through for row in brook.rows(Subscription)] == [life.next_billing] == [at("2026-04-15T10:00Z")]
