"""The scenarios' events and their order, disorder, and the rules that every simulated subscription obeys."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import parse_time
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, CLOUD_SEATS, CLOUD_TRIAL, LICENCE, ONBOARDING, PLANS, Plan
from pipeline.simulator.random_subscription import random_subscription
from pipeline.simulator.sale import InvalidTransitionError
from pipeline.simulator.subscription import ReactivationType, SimulatedSubscription
from pipeline.simulator.timeline import ApiObject, Delivery, Kind, by_time, disorder
from pipeline.simulator.world import PaypalState

ADA = PEOPLE[0]
START = datetime(2025, 1, 14, 8, 30, tzinfo=UTC)
UNTIL = datetime(2025, 9, 30, 15, 45, tzinfo=UTC)

SEEDS = st.integers(min_value=0, max_value=2**32)


def types(deliveries: list[Delivery]) -> list[str]:
    return [each.type.replace("BILLING.SUBSCRIPTION.", "").replace("PAYMENT.SALE.", "SALE ") for each in deliveries]


def of_type(deliveries: list[Delivery], ending: str) -> list[dict[str, Any]]:
    return [each.event["resource"] for each in deliveries if each.type.endswith(ending)]


def test_first_year_has_twelve_renewals_of_monthly_plan() -> None:
    delivered = types(scenarios.first_year(ADA, CLOUD, START, Random(1)))
    assert delivered[0] == "CREATED"
    assert Counter(delivered) == {"CREATED": 1, "ACTIVATED": 1, "SALE COMPLETED": 13}


def test_first_year_has_one_renewal_of_yearly_plan() -> None:
    sales = of_type(scenarios.first_year(ADA, LICENCE, START, Random(1)), "COMPLETED")
    assert [sale["create_time"][:10] for sale in sales] == ["2025-01-14", "2026-01-14"]


def test_charge_follows_billing_time_by_minutes_to_hours() -> None:
    for sale in of_type(scenarios.first_year(ADA, CLOUD, START, Random(1)), "COMPLETED")[1:]:
        charged = parse_time(sale["create_time"])
        assert charged is not None
        assert timedelta(minutes=5) <= charged - charged.replace(hour=10, minute=0, second=0) <= timedelta(hours=3)


def test_one_sale_pays_two_cycles_after_failed_card() -> None:
    deliveries = scenarios.card_fails_then_recovers(ADA, CLOUD, START, Random(1))
    assert types(deliveries)[3:] == ["PAYMENT.FAILED"] * 3 + ["SALE COMPLETED"] * 2
    failures = [each["billing_info"]["last_failed_payment"] for each in of_type(deliveries, "FAILED")]
    assert [each.get("next_payment_retry_time") for each in failures] == [
        "2025-02-19T10:00:00Z",
        "2025-02-24T10:00:00Z",
        None,
    ]
    assert [sale["amount"]["total"] for sale in of_type(deliveries, "COMPLETED")] == ["29.00", "58.00", "29.00"]


def test_strict_plan_recovers_at_first_retry() -> None:
    deliveries = scenarios.card_fails_then_recovers(ADA, LICENCE, START, Random(1))
    assert types(deliveries)[3:] == ["PAYMENT.FAILED", *["SALE COMPLETED"] * 3]
    assert of_type(deliveries, "COMPLETED")[1]["amount"]["total"] == "499.00"


@pytest.mark.parametrize("kind", ["RE-ACTIVATED", "ACTIVATED"])
def test_unpaid_cycles_suspend_and_paid_balance_reactivates(kind: ReactivationType) -> None:
    deliveries = scenarios.suspended_for_non_payment(ADA, CLOUD, START, Random(1), kind=kind)
    assert types(deliveries)[9:] == ["SUSPENDED", "SALE COMPLETED", kind, "SALE COMPLETED", "SALE COMPLETED"]
    suspended = of_type(deliveries, ".SUSPENDED")[0]["billing_info"]
    assert suspended["outstanding_balance"]["value"] == "58.0"
    assert suspended["failed_payments_count"] == CLOUD.failure_threshold
    returned = of_type(deliveries, kind)[-1]["billing_info"]
    assert returned["outstanding_balance"]["value"] == "0.0"
    assert returned["failed_payments_count"] == 0
    assert returned["next_billing_time"] == "2025-04-14T10:00:00Z"


def test_cycles_due_during_suspension_are_not_charged() -> None:
    subscription = SimulatedSubscription(ADA, CLOUD, START, Random(1))
    subscription.start()
    subscription.suspend(subscription.moment_within(3))
    assert subscription.next_billing is None
    subscription.reactivate(START + timedelta(days=100))
    assert subscription.next_billing == datetime(2025, 5, 14, 10, tzinfo=UTC)
    assert subscription.renew().amount == CLOUD.price


def test_partial_refunds_have_running_total() -> None:
    refunds = of_type(scenarios.refund(ADA, LICENCE, START, Random(1)), "REFUNDED")
    assert [each["amount"]["total"] for each in refunds] == ["166.33", "332.67"]
    assert [each["total_refunded_amount"]["total"] for each in refunds] == ["166.33", "499.00"]
    assert len({each["sale_id"] for each in refunds}) == 1


def test_dashboard_refund_does_not_name_its_sale() -> None:
    deliveries = scenarios.refund(ADA, LICENCE, START, Random(1), name_sale=False, negative=True)
    sale = of_type(deliveries, "COMPLETED")[0]["id"]
    for each in of_type(deliveries, "REFUNDED"):
        assert sale not in str(each)
        assert each["amount"]["total"].startswith("-")


def test_cancelled_subscription_is_not_charged() -> None:
    delivered = types(scenarios.cancel(ADA, CLOUD, START, Random(1), until=UNTIL))
    assert delivered[-1] == "CANCELLED"


def test_held_payment_completes_twice_with_one_id() -> None:
    deliveries = scenarios.held_payment_released(ADA, LICENCE, START, Random(1))
    pending, held, released = [each for each in deliveries if each.type.startswith("PAYMENT")][:3]
    assert [pending.type, held.type, released.type] == ["PAYMENT.SALE.PENDING", *["PAYMENT.SALE.COMPLETED"] * 2]
    sales = [each.event["resource"] for each in (pending, held, released)]
    assert [sale["payment_hold_status"] for sale in sales] == ["HELD", "HELD", "RELEASED"]
    assert sales[0]["state"] == "completed"
    assert len({sale["id"] for sale in sales}) == 1
    assert len({pending.id, held.id, released.id}) == 3
    assert timedelta(days=20) < released.at - held.at < timedelta(days=22)


@pytest.mark.parametrize(("lagging", "following"), [(False, "2025-01-28T10:00:00Z"), (True, "2025-01-14T10:00:00Z")])
def test_trial_is_active_without_payment(lagging: bool, following: str) -> None:
    deliveries = scenarios.trial(ADA, CLOUD_TRIAL, START, Random(1), lagging=lagging)
    assert types(deliveries)[:3] == ["CREATED", "ACTIVATED", "SALE COMPLETED"]
    activated = of_type(deliveries, ".ACTIVATED")[0]["billing_info"]
    assert "last_payment" not in activated
    assert activated["next_billing_time"] == following
    assert of_type(deliveries, "COMPLETED")[0]["create_time"].startswith("2025-01-28T1")


def test_limited_plan_expires_after_last_charge() -> None:
    deliveries = scenarios.expires(ADA, ONBOARDING, START, Random(1))
    assert sorted(types(deliveries)[-2:]) == ["EXPIRED", "SALE COMPLETED"]
    last = of_type(deliveries, "EXPIRED")[0]["billing_info"]["cycle_executions"][-1]
    assert last == {
        "tenure_type": "REGULAR",
        "sequence": 1,
        "cycles_completed": 3,
        "cycles_remaining": 0,
        "total_cycles": 3,
    }


def test_added_seats_are_charged_from_next_cycle() -> None:
    deliveries = scenarios.seats_grow(ADA, CLOUD_SEATS, START, Random(1))
    seats = int(of_type(deliveries, "UPDATED")[0]["quantity"])
    totals = [sale["amount"]["total"] for sale in of_type(deliveries, "COMPLETED")]
    assert totals == ["45.00"] * 2 + [f"{seats * 9}.00"] * 3


def test_bounced_echeck_is_collected_with_next_cycle() -> None:
    deliveries = scenarios.echeck_bounces(ADA, CLOUD, START, Random(1))
    assert types(deliveries)[3:] == ["SALE PENDING", "SALE DENIED", "SALE COMPLETED", "SALE COMPLETED"]
    assert of_type(deliveries, "PENDING")[0]["state"] == "pending"
    assert of_type(deliveries, "DENIED")[0]["state"] == "denied"
    assert of_type(deliveries, "COMPLETED")[1]["amount"]["total"] == "58.00"


def test_chargeback_is_negative_and_does_not_name_its_sale() -> None:
    deliveries = scenarios.charged_back(ADA, CLOUD, START, Random(1))
    reversed_ = of_type(deliveries, "REVERSED")[0]
    assert reversed_["amount"]["total"] == "-29.00"
    assert of_type(deliveries, "COMPLETED")[0]["id"] not in str(reversed_)


def test_invalid_status_change_is_refused() -> None:
    subscription = SimulatedSubscription(ADA, CLOUD, START, Random(1))
    subscription.start()
    subscription.cancel(subscription.moment_within(3))
    for change in (
        subscription.renew,
        subscription.fail_payment,
        lambda: subscription.suspend(subscription.now),
        lambda: subscription.cancel(subscription.now),
    ):
        with pytest.raises(InvalidTransitionError):
            change()
    sale = next(iter(subscription.sales.values()))
    with pytest.raises(InvalidTransitionError):
        subscription.refund(sale, subscription.now, sale.rest + 1)


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS.values(), ids=scenarios.SCENARIOS)
@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda plan: plan.name)
def test_every_scenario_is_deterministic_for_every_plan(scenario: scenarios.Scenario, plan: Plan) -> None:
    deliveries = scenario(ADA, plan, START, Random(4), until=UNTIL)
    assert deliveries == by_time(deliveries)
    assert [each.body for each in deliveries] == [
        each.body for each in scenario(ADA, plan, START, Random(4), until=UNTIL)
    ]
    assert {each.id for each in deliveries}.isdisjoint(
        each.id for each in scenario(ADA, plan, START, Random(5), until=UNTIL)
    )


def test_customer_continues_to_pay_after_the_scenario() -> None:
    delivered = scenarios.refund(ADA, CLOUD, START, Random(1), until=UNTIL)
    assert len(of_type(delivered, "COMPLETED")) == 9
    assert delivered[-1].at > UNTIL - timedelta(days=31)


# vendor_months -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("months", "subscribers", "minimum"), [(6, 24, 150), (12, 40, 350), (1, 3, 6)])
def test_vendor_months_end_at_given_time(months: int, subscribers: int, minimum: int) -> None:
    deliveries = scenarios.vendor_months(7, months, UNTIL, subscribers)
    assert len(deliveries) >= minimum
    assert deliveries == by_time(deliveries)
    assert all(UNTIL - months * scenarios.MONTH <= each.at <= UNTIL for each in deliveries)
    assert all(moment <= UNTIL for each in deliveries if (moment := parse_time(each.event["create_time"])))
    assert (
        len({each.event["resource"]["id"] for each in deliveries if each.type.endswith("ION.CREATED")}) == subscribers
    )


def test_vendor_months_contain_every_event_type() -> None:
    delivered = set(types(scenarios.vendor_months(7, 6, UNTIL, 24)))
    assert delivered == {
        *("CREATED", "ACTIVATED", "UPDATED", "PAYMENT.FAILED", "SUSPENDED", "RE-ACTIVATED", "CANCELLED", "EXPIRED"),
        *("SALE COMPLETED", "SALE PENDING", "SALE DENIED", "SALE REFUNDED", "SALE REVERSED"),
        *("CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"),
        "BILLING.PLAN.PRICING-CHANGE.ACTIVATED",
    }


def test_vendor_months_depend_only_on_their_arguments() -> None:
    first = [(each.at, each.body, each.copy) for each in scenarios.vendor_months(7, 6, UNTIL, 12)]
    assert first == [(each.at, each.body, each.copy) for each in scenarios.vendor_months(7, 6, UNTIL, 12)]
    for other in (
        scenarios.vendor_months(8, 6, UNTIL, 12),
        scenarios.vendor_months(7, 6, UNTIL + timedelta(hours=1), 12),
    ):
        assert {each.id for each in other}.isdisjoint(
            each.event["id"] for each in scenarios.vendor_months(7, 6, UNTIL, 12)
        )
        assert [each.body for each in other] != [body for _, body, _ in first]


def test_some_deliveries_are_repeated_or_late() -> None:
    deliveries = scenarios.vendor_months(7, 12, UNTIL, 40)
    assert 0.02 < sum(each.copy > 0 for each in deliveries) / len(deliveries) < 0.09
    assert 0.05 < sum(each.delayed for each in deliveries) / len(deliveries) < 0.16


def test_every_active_subscription_is_charged_until_the_end() -> None:
    state = PaypalState()
    for delivery in scenarios.vendor_months(7, 6, UNTIL, 24):
        state.apply(delivery)
    for name in state.ids("subscription"):
        shown = state.show("subscription", name)
        assert shown is not None
        following = parse_time(shown.get("billing_info", {}).get("next_billing_time"))
        assert following is None or following > UNTIL - timedelta(hours=4)


# Disorder ------------------------------------------------------------------------------------------------------------


def test_disorder_loses_no_delivery() -> None:
    delivered = scenarios.first_year(ADA, CLOUD, START, Random(1), until=START + timedelta(days=900))
    window = timedelta(days=40)
    disordered = disorder(delivered, Random(2), duplicates=0.3, delayed=0.5, shuffle=window)
    assert {each.id for each in disordered if each.copy == 0} == {each.id for each in delivered}
    copies = [each.id for each in disordered if each.copy == 1]
    assert copies
    assert len(copies) + len(delivered) == len(disordered)
    original = {each.id: each for each in delivered}
    for each in disordered:
        assert each.body == original[each.id].body
        assert original[each.id].at <= each.at <= original[each.id].at + 2 * window
        assert each.delayed == (each.at > original[each.id].at) or each.copy
    firsts = [each for each in disordered if each.copy == 0]
    assert [each.id for each in firsts] != [each.id for each in delivered]


def test_disorder_delays_nothing_past_the_end() -> None:
    delivered = scenarios.first_year(ADA, CLOUD, START, Random(1))
    disordered = disorder(
        delivered, Random(2), duplicates=1.0, delayed=1.0, shuffle=timedelta(days=90), until=delivered[-1].at
    )
    assert len(disordered) == 2 * len(delivered)
    assert max(each.at for each in disordered) == delivered[-1].at


def test_zero_disorder_changes_nothing() -> None:
    delivered = scenarios.first_year(ADA, CLOUD, START, Random(1))
    assert disorder(delivered, Random(2), duplicates=0.0, delayed=0.0) == delivered


# Random subscriptions ------------------------------------------------------------------------------------------------

ALLOWED_CHANGES = {
    "APPROVAL_PENDING": {"ACTIVE"},
    "ACTIVE": {"ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"},
    "SUSPENDED": {"SUSPENDED", "ACTIVE", "CANCELLED"},
    "CANCELLED": {"CANCELLED"},
    "EXPIRED": {"EXPIRED"},
}


def minor(resource: dict[str, Any]) -> int:
    return abs(int(resource["amount"]["total"].replace(".", "")))


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS)
def test_random_subscription_has_only_valid_status_changes(seed: int) -> None:
    deliveries = random_subscription(Random(seed))
    assert deliveries == by_time(deliveries)
    assert len({each.id for each in deliveries}) == len(deliveries)
    assert types(deliveries)[0] == "CREATED"
    by_version = sorted(deliveries, key=lambda each: each.kept[0].version)
    statuses = [each.kept[0].resource["status"] for each in by_version]
    assert all(later in ALLOWED_CHANGES[earlier] for earlier, later in pairwise(statuses))
    completed = Counter(sale["id"] for sale in of_type(deliveries, "SALE.COMPLETED"))
    assert max(completed.values(), default=0) <= 2


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS)
def test_random_subscription_never_refunds_more_than_paid(seed: int) -> None:
    deliveries = random_subscription(Random(seed), steps=20)
    paid = {sale["id"]: minor(sale) for sale in of_type(deliveries, "SALE.COMPLETED")}
    state = PaypalState()
    for delivery in deliveries:
        state.apply(delivery)
    refunded: Counter[str] = Counter()
    for name in state.ids("refund"):
        refund = state.show("refund", name)
        assert refund is not None
        refunded[refund["sale_id"]] += minor(refund)
    assert all(amount <= paid[sale] for sale, amount in refunded.items())


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, order=st.randoms(use_true_random=False))
def test_paypal_state_does_not_depend_on_delivery_order(seed: int, order: Random) -> None:
    deliveries = random_subscription(Random(seed))
    disordered = deliveries * 2
    order.shuffle(disordered)
    expected, found = PaypalState(), PaypalState()
    for delivery in sorted(deliveries, key=lambda each: each.kept[0].version):
        expected.apply(delivery)
    for delivery in disordered:
        found.apply(delivery)
    kinds: tuple[Kind, ...] = ("subscription", "sale", "refund")
    for kind in kinds:
        assert {name: found.show(kind, name) for name in found.ids(kind)} == {
            name: expected.show(kind, name) for name in expected.ids(kind)
        }


def test_paypal_state_returns_copies() -> None:
    state = PaypalState()
    state.apply(Delivery(START, {"id": "WH-1"}, (ApiObject("sale", 1, {"id": "S1", "state": "completed"}),)))
    shown = state.show("sale", "S1")
    assert shown is not None
    shown["state"] = "denied"
    assert state.show("sale", "S1") == {"id": "S1", "state": "completed"}
    assert state.show("sale", "S2") is None


@pytest.mark.parametrize("name", scenarios.SCENARIOS)
def test_scenario_ending_now_is_complete_on_any_day(name: str) -> None:
    plan = scenarios.PLANS_BY_SCENARIO.get(name, scenarios.MONTHLY)[0]
    whole = types(scenarios.SCENARIOS[name](ADA, plan, START, Random(1)))
    for day in range(0, 365, 7):
        now = UNTIL + timedelta(days=day)
        delivered = scenarios.scenario_ending_at(now, scenarios.SCENARIOS[name], ADA, plan, Random(1))
        assert types(delivered) == whole
        assert timedelta(0) < now - delivered[-1].at < timedelta(days=7)


def test_price_change_spares_the_charge_five_days_later() -> None:
    deliveries = scenarios.price_change(ADA, CLOUD, START, Random(1))
    assert [sale["amount"]["total"] for sale in of_type(deliveries, "COMPLETED")] == [
        "29.00",
        "29.00",
        "36.25",
        "36.25",
    ]
    changed = of_type(deliveries, "PRICING-CHANGE.ACTIVATED")[0]["billing_cycles"][0]["pricing_scheme"]
    assert (changed["fixed_price"]["value"], changed["version"]) == ("36.25", 2)


def test_upgrade_is_charged_from_next_cycle_and_back() -> None:
    deliveries = scenarios.upgrade(ADA, CLOUD, START, Random(1))
    totals = [sale["amount"]["total"] for sale in of_type(deliveries, "COMPLETED")]
    assert totals == ["29.00", "29.00", "58.00", "58.00", "29.00", "29.00"]
    assert of_type(deliveries, ".UPDATED")[1]["plan_id"] == CLOUD.id


def test_first_dispute_is_won_and_the_second_is_lost_in_part() -> None:
    deliveries = scenarios.disputed(ADA, CLOUD, START, Random(1))
    outcomes = [each["dispute_outcome"]["outcome_code"] for each in of_type(deliveries, "RESOLVED")]
    assert outcomes == ["RESOLVED_SELLER_FAVOUR", "RESOLVED_BUYER_FAVOUR"]
    assert [each["amount"]["total"] for each in of_type(deliveries, "REVERSED")] == ["-14.50"]
    assert of_type(deliveries, "DISPUTE.CREATED")[0]["seller_response_due_date"]
