"""BILLING.PLAN.CREATED stores the plan's terms and asks PayPal for the plan."""

from collections.abc import Callable

from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.sample_events import sample


def test_plan_is_stored_and_read_again(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample("BILLING.PLAN.CREATED"))
    assert feeder.plans()[ALICE.plan].amount == 2900
    assert feeder.questions() == [("plan", ALICE.plan)]
    assert feeder.mails() == {}
