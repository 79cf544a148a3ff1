"""The arithmetic of charges: quantity, tiers, tax, set-up fee, shipping, trials, balances, price and plan changes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from pipeline.money import Money
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, Plan
from pipeline.simulator.pricing import charge, regular_price
from pipeline.simulator.sale import InvalidTransitionError, Settlement
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.truth import truth_of
from pipeline.simulator.varied_plans import (
    CLOUD_YEAR,
    FORINT,
    NO_AUTO_BILL,
    PAID_TRIALS,
    SHIPPED,
    TAX_INCLUDED,
    TAXED,
    TIERED,
    TRIAL_WITH_SETUP,
    VOLUME,
    WITH_SETUP,
)

START = datetime(2025, 1, 14, 8, 30, tzinfo=UTC)


def subscribed(plan: Plan, **options: bool) -> SimulatedSubscription:
    subscription = SimulatedSubscription(PEOPLE[0], plan, START, Random(1))
    subscription.start(setup_fee_fails=options.get("setup_fee_fails", False))
    return subscription


def amounts(subscription: SimulatedSubscription) -> list[str]:
    return [sale.resource["amount"]["total"] for sale in subscription.sales.values()]


@pytest.mark.parametrize(
    ("plan", "quantity", "price", "tax", "included", "total"),
    [
        (TAXED, 3, 2997, 569, 0, 3566),  # 569.43
        (TAXED, 50, 49950, 9491, 0, 59441),  # 9490.5 is rounded half up
        (TAX_INCLUDED, 1, 2900, 0, 463, 2900),  # 2900 / 1.19 = 2436.97
        (FORINT, 1, 9999, 2700, 0, 12699),  # 2699.73; the forint has no decimals
        (SHIPPED, 2, 9800, 686, 0, 11136),  # with 650 for shipping
        (CLOUD, 4, 11600, 0, 0, 11600),
    ],
)
def test_tax_is_rounded_half_up_per_charge(
    plan: Plan, quantity: int, price: int, tax: int, included: int, total: int
) -> None:
    found = charge(plan, quantity)
    assert (found.price, found.tax, found.included_tax, found.total) == (price, tax, included, total)


@pytest.mark.parametrize(
    ("plan", "quantity", "price"),
    [(VOLUME, 9, 9000), (VOLUME, 10, 8000), (VOLUME, 12, 9600), (TIERED, 9, 9000), (TIERED, 12, 11400)],
)
def test_tiers_price_all_seats_or_each_seat(plan: Plan, quantity: int, price: int) -> None:
    assert regular_price(plan, quantity) == price


def test_trials_are_free_then_cheaper_then_regular_and_end() -> None:
    subscription = subscribed(PAID_TRIALS)
    assert amounts(subscription) == []
    assert truth_of(subscription).paid_until == datetime(2025, 1, 28, 10, tzinfo=UTC)
    sales = [subscription.renew() for _ in range(15)]
    assert [sale.amount.amount for sale in sales] == [600] * 3 + [1200] * 12
    assert [f"{sale.at:%m-%d}" for sale in sales[:5]] == ["01-28", "02-28", "03-28", "04-28", "05-28"]
    assert subscription.status == "EXPIRED"
    cycles = truth_of(subscription).resource["billing_info"]["cycle_executions"]
    assert [(each["tenure_type"], each["cycles_completed"], each["cycles_remaining"]) for each in cycles] == [
        ("TRIAL", 1, 0),
        ("TRIAL", 3, 0),
        ("REGULAR", 12, 0),
    ]


def test_setup_fee_is_collected_with_first_charge_or_alone_before_a_trial() -> None:
    assert amounts(subscribed(WITH_SETUP)) == ["125.00"]
    alone = subscribed(TRIAL_WITH_SETUP)
    assert amounts(alone) == ["50.00"]
    assert truth_of(alone).paid_until == datetime(2025, 2, 13, 10, tzinfo=UTC)


def test_failed_setup_fee_cancels_or_is_added_to_the_next_charge() -> None:
    assert subscribed(WITH_SETUP, setup_fee_fails=True).status == "CANCELLED"
    owing = subscribed(TRIAL_WITH_SETUP, setup_fee_fails=True)
    assert truth_of(owing).outstanding == Money(5000, "EUR")
    assert owing.renew().amount == Money(7500, "EUR")


def test_next_billing_has_balance_and_tax_that_the_sale_then_has() -> None:
    subscription = subscribed(TAXED)
    subscription.fail_payment()
    expected = truth_of(subscription).next_billing
    assert expected is not None
    assert (expected.price, expected.tax, expected.balance, expected.total) == (2997, 569, 3566, 7132)
    sale = subscription.renew()
    assert sale.resource["amount"]["total"] == "71.32"
    assert sale.resource["amount"]["details"] == {"subtotal": "59.94", "tax": "11.38"}
    assert sale.cycles == 2


def test_balance_is_captured_only_by_the_vendor_without_auto_billing() -> None:
    subscription = subscribed(NO_AUTO_BILL)
    subscription.fail_payment()
    assert subscription.renew().amount.amount == 1900
    assert subscription.status == "ACTIVE"  # threshold 0: never suspended
    subscription.pay_balance(subscription.moment_within(3), 500)
    assert truth_of(subscription).outstanding.amount == 1400
    with pytest.raises(InvalidTransitionError, match="1400"):
        subscription.pay_balance(subscription.now, 1401)
    assert subscription.pay_balance(subscription.now).cycles == 1


@pytest.mark.parametrize(("days", "charged"), [(10, [2900, 4000]), (11, [4000, 4000])])
def test_new_price_reaches_charges_more_than_ten_days_away(days: int, charged: list[int]) -> None:
    subscription = subscribed(CLOUD)
    due = subscription.next_billing
    assert due is not None
    subscription.change_price(replace(CLOUD, price=Money(4000, "EUR"), version=2), due - timedelta(days=days))
    expected = truth_of(subscription).next_billing
    assert expected is not None
    assert expected.total == charged[0]
    assert [subscription.renew().amount.amount for _ in range(2)] == charged


def test_own_terms_do_not_follow_the_price_of_the_plan() -> None:
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, START, Random(1), overridden=True)
    subscription.start()
    subscription.change_price(replace(CLOUD, price=Money(4000, "EUR")), START)
    assert subscription.renew().amount == CLOUD.price
    assert subscription.snapshot()["plan_overridden"] is True


def test_new_plan_is_charged_at_next_cycle_or_at_once() -> None:
    later = subscribed(CLOUD)
    later.revise(later.moment_within(5), plan=CLOUD_YEAR)
    truth = truth_of(later)
    assert truth.plan_id == CLOUD_YEAR.id
    assert truth.next_billing is not None
    assert (truth.next_billing.at, truth.next_billing.total) == (datetime(2025, 2, 14, 10, tzinfo=UTC), 29000)
    later.renew()
    assert truth_of(later).paid_until == datetime(2026, 2, 14, 10, tzinfo=UTC)
    now = subscribed(CLOUD)
    sale = now.revise(START + timedelta(days=6), plan=CLOUD_YEAR, at_once=True)
    assert sale is not None
    assert sale.amount.amount == 29000
    assert now.next_billing == datetime(2026, 1, 20, 10, tzinfo=UTC)


def test_conversion_states_rate_receivable_amount_and_fee_currency() -> None:
    account = Settlement("EUR", "0.0061", fee_in_account_currency=True)
    plan = replace(CLOUD, price=Money(5000, "JPY"))
    subscription = SimulatedSubscription(PEOPLE[0], plan, START, Random(1), settlement=account)
    subscription.start()
    shown = next(iter(subscription.sales.values())).resource
    # Fee: 3.49 % of 5000 yen (174.5, half up 175) and 40 yen = 215 yen; at 0.0061 that is 1.31 EUR.
    assert shown["transaction_fee"] == {"value": "1.31", "currency": "EUR"}
    assert shown["receivable_amount"] == {"value": "29.19", "currency": "EUR"}  # 4785 yen
    assert shown["exchange_rate"] == "0.0061"


def test_charge_can_be_early_or_late() -> None:
    subscription = subscribed(CLOUD)
    assert subscription.renew(shift=timedelta(hours=-3)).at == datetime(2025, 2, 14, 7, tzinfo=UTC)
    assert subscription.renew(shift=timedelta(hours=30)).at == datetime(2025, 3, 15, 16, tzinfo=UTC)


def test_later_start_has_its_first_charge_at_the_start() -> None:
    subscription = SimulatedSubscription(PEOPLE[0], CLOUD, START, Random(1), begins=START + timedelta(days=9))
    subscription.start()
    assert amounts(subscription) == []
    assert subscription.next_billing == datetime(2025, 1, 23, 10, tzinfo=UTC)
