"""READ.PLAN stores a plan's name, interval and price."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, sample


def test_plan_is_stored(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"))
    row = feeder.plans()[ALICE.plan]
    assert (row.name, row.interval_unit, row.interval_count) == ("SMT-CRM managed cloud, monthly", "MONTH", 1)
    assert (row.amount, row.currency) == (2900, "EUR")
    assert feeder.mails() == {}


def test_waiting_subscriptions_are_recomputed(feeder: EventFeeder) -> None:
    created, paid = sample("BILLING.SUBSCRIPTION.CREATED"), sample("PAYMENT.SALE.COMPLETED")
    feeder.hear(created, paid)
    assert feeder.subscription(ALICE).paid_through is None
    feeder.hear(sample("READ.PLAN"))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T09:16:38Z")


def test_new_interval_recomputes_every_subscription_on_the_plan(feeder: EventFeeder) -> None:
    feeder.hear(sample("BILLING.SUBSCRIPTION.CREATED"), sample("PAYMENT.SALE.COMPLETED"), sample("READ.PLAN"))
    cycle = sample("READ.PLAN")["resource"]["billing_cycles"][0] | {
        "frequency": {"interval_unit": "YEAR", "interval_count": 1}
    }
    feeder.hear(sample("READ.PLAN", {"billing_cycles": [cycle], "update_time": "2026-02-25T08:00:00Z"}))
    assert feeder.subscription(ALICE).paid_through == at("2027-02-24T09:16:38Z")


def test_tiered_plan_has_no_price(feeder: EventFeeder) -> None:
    cycle = sample("READ.PLAN")["resource"]["billing_cycles"][0] | {"pricing_scheme": {"pricing_model": "TIERED"}}
    feeder.hear(sample("READ.PLAN", {"billing_cycles": [cycle]}))
    row = feeder.plans()[ALICE.plan]
    assert (row.interval_unit, row.amount, row.currency) == ("MONTH", None, None)


def test_plan_without_id_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN", {"id": GONE}))
    assert feeder.reasons() == ["READ.PLAN has no plan"]


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample("READ.PLAN"))
    assert (feeder.states(), list(feeder.plans())) == (["handled"], [ALICE.plan])
