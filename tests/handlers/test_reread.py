"""After each event about money, plan, quantity or status the subscription is read from PayPal once."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from handlers import HANDLERS
from pipeline.billing.subscription import REREAD_DELAY
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

SNAPSHOT = {("subscription", ALICE.subscription): sample("READ.SUBSCRIPTION", {"id": ALICE.subscription})["resource"]}
SALE = "PAYMENT.SALE.COMPLETED"


@pytest.mark.parametrize(
    "event", sorted(each for each in HANDLERS if not each.startswith("READ.") and "PLAN" not in each)
)
def test_event_requests_to_read_its_subscription(feeders: Callable[..., EventFeeder], event: str) -> None:
    feeder = feeders({})
    feeder.hear(sample("READ.PLAN"), sample(SALE), sample(event))
    assert [id for kind, id in feeder.questions() if kind == "subscription"] == [
        sample(event)["resource"].get("id") if event.startswith("BILLING.SUBSCRIPTION") else ALICE.subscription
    ][:1] or ("subscription", ALICE.subscription) in feeder.questions()


@pytest.mark.parametrize("event", ["BILLING.SUBSCRIPTION.ACTIVATED", SALE])
def test_without_credentials_nothing_is_requested(feeder: EventFeeder, event: str) -> None:
    feeder.hear(sample("READ.PLAN"), sample(event))
    assert feeder.questions() == []


def test_events_within_seconds_share_one_read_and_its_answer_requests_none(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders(SNAPSHOT)
    feeder.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.ACTIVATED"), sample(SALE))
    assert feeder.questions() == [("subscription", ALICE.subscription)]
    feeder.ask(REREAD_DELAY)
    assert feeder.questions() == []
    assert len([state for state in feeder.states() if state == "handled"]) == 4
    feeder.ask(timedelta(days=1))
    assert len(feeder.states()) == 4


def test_payment_of_a_pending_subscription_finds_the_lost_activation(feeders: Callable[..., EventFeeder]) -> None:
    """The ACTIVATED event was lost. The customer pays, so PayPal is asked, and the account is set up."""
    active = sample("BILLING.SUBSCRIPTION.ACTIVATED")["resource"]
    feeder = feeders({("subscription", ALICE.subscription): active})
    feeder.hear(sample("READ.PLAN"), sample("BILLING.SUBSCRIPTION.CREATED"), sample(SALE))
    assert feeder.subscription(ALICE).status == "APPROVAL_PENDING"
    assert not feeder.mail("receipt").due
    feeder.ask(REREAD_DELAY)
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.mail("receipt").due
    assert feeder.mail("account_setup").due
