"""BILLING.SUBSCRIPTION.EXPIRED stores the final status and queues no mail."""

from tests.support.event_feeder import EventFeeder
from tests.support.example_people import CHARLIE
from tests.support.sample_events import renamed, sample

EXPIRED, CANCELLED = "BILLING.SUBSCRIPTION.EXPIRED", "BILLING.SUBSCRIPTION.CANCELLED"


def test_subscription_ends_without_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(EXPIRED))
    row = feeder.subscription(CHARLIE)
    assert (row.status, row.next_billing_at, row.remind_at) == ("EXPIRED", None, None)
    assert feeder.mails() == {}


def test_earlier_of_two_ends_wins_in_any_order(feeder: EventFeeder) -> None:
    later = sample(EXPIRED)["resource"] | {"status": "CANCELLED", "status_update_time": "2026-02-28T09:00:00Z"}
    feeder.hear(sample(CANCELLED, later), sample(EXPIRED))
    assert feeder.subscription(CHARLIE).status == "EXPIRED"


def test_cancelled_wins_over_expired_at_the_same_time(feeder: EventFeeder) -> None:
    feeder.hear(sample(EXPIRED), sample(CANCELLED, sample(EXPIRED)["resource"] | {"status": "CANCELLED"}))
    assert feeder.subscription(CHARLIE).status == "CANCELLED"


def test_cancellation_in_the_resource_is_mailed(feeder: EventFeeder) -> None:
    feeder.hear(sample(EXPIRED, {"status": "CANCELLED"}))
    assert feeder.subscription(CHARLIE).status == "CANCELLED"
    assert feeder.owed() == ["subscription_cancelled"]


def test_repeated_event_changes_nothing_even_under_another_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(EXPIRED), sample(EXPIRED), renamed(sample(EXPIRED)))
    assert feeder.moves() == [(None, "EXPIRED")]
