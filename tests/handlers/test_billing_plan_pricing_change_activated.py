"""BILLING.PLAN.PRICING-CHANGE.ACTIVATED stores the plan's terms and asks PayPal for the plan."""

from collections.abc import Callable

from pipeline.billing.terms import regular_charge
from pipeline.money import Money
from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import renamed, sample

EVENT = "BILLING.PLAN.PRICING-CHANGE.ACTIVATED"


def test_plan_is_stored_and_read_again(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample("BILLING.PLAN.PRICING-CHANGE.ACTIVATED"))
    assert feeder.plans()[ALICE.plan].amount == 3900
    assert feeder.questions() == [("plan", ALICE.plan)]
    assert feeder.mails() == {}


def test_new_price_is_not_announced_while_paypal_charges_the_old_one(feeder: EventFeeder) -> None:
    """PayPal reports that this subscriber still has version 1 of the price."""
    execution = {
        "tenure_type": "REGULAR", "sequence": 1, "cycles_completed": 1, "cycles_remaining": 0, "total_cycles": 0,
        "current_pricing_scheme_version": 1,
    }  # fmt: skip
    active = sample("BILLING.SUBSCRIPTION.ACTIVATED", {"billing_info.cycle_executions": [execution]})
    feeder.hear(sample("READ.PLAN"), active, sample(EVENT))
    row, plan = feeder.subscription(ALICE), feeder.plans()[ALICE.plan]
    assert regular_charge(row, plan) is None
    execution["current_pricing_scheme_version"] = 2
    changed = {"billing_info.cycle_executions": [execution], "update_time": "2026-02-26T10:00:00Z"}
    feeder.hear(sample("BILLING.SUBSCRIPTION.UPDATED", changed))
    charge = regular_charge(feeder.subscription(ALICE), plan)
    assert charge
    assert charge.total == Money(3 * 3900, "EUR")


def test_payment_of_the_new_price_pays_one_cycle(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample(EVENT))
    renewal = {
        "id": "5AB12345CD678901E",
        "amount.total": "39.00",
        "create_time": "2026-03-24T11:13:00Z",
        "update_time": "2026-03-24T11:13:00Z",
    }
    feeder.hear(sample("PAYMENT.SALE.COMPLETED"), renamed(sample("PAYMENT.SALE.COMPLETED", renewal)))
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")
