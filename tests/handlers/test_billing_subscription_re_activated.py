"""BILLING.SUBSCRIPTION.RE-ACTIVATED gives access until PayPal's next date and queues no second set-up mail."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

ACTIVATED, SUSPENDED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.SUSPENDED"
REACTIVATED = "BILLING.SUBSCRIPTION.RE-ACTIVATED"


def test_subscription_is_active_until_the_next_date(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED), sample(REACTIVATED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.paid_through) == ("ACTIVE", at("2026-04-24T10:00Z"))
    assert row.remind_at == at("2026-04-21T10:00Z")
    assert feeder.moves() == [(None, "ACTIVE"), ("ACTIVE", "SUSPENDED"), ("SUSPENDED", "ACTIVE")]
    assert feeder.owed() == ["account_setup", "subscription_suspended"]


def test_activated_event_reactivates_too(feeder: EventFeeder) -> None:
    resource = sample(REACTIVATED)["resource"]
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED), sample(ACTIVATED, resource, at="2026-04-05T08:30:19Z"))
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.owed() == ["account_setup", "subscription_suspended"]


def test_suspension_that_arrives_later_has_no_effect(feeder: EventFeeder) -> None:
    feeder.hear(sample(REACTIVATED), sample(SUSPENDED))
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")
    assert feeder.moves() == [(None, "ACTIVE")]


def test_cancelled_subscription_stays_cancelled(feeder: EventFeeder) -> None:
    feeder.hear(sample("BILLING.SUBSCRIPTION.CANCELLED"), sample(REACTIVATED))
    assert feeder.subscription(ALICE).status == "CANCELLED"


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(REACTIVATED), sample(REACTIVATED))
    assert feeder.states() == ["handled"]
    assert feeder.moves() == [(None, "ACTIVE")]
