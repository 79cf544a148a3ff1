"""BILLING.SUBSCRIPTION.EXPIRED stores the final status and queues no mail."""

from tests.support.event_feeder import Teller
from tests.support.example_people import CHARLIE
from tests.support.sample_events import renamed, sample

EXPIRED, CANCELLED = "BILLING.SUBSCRIPTION.EXPIRED", "BILLING.SUBSCRIPTION.CANCELLED"


def test_subscription_ends_without_mail(teller: Teller) -> None:
    teller.hear(sample(EXPIRED))
    row = teller.subscription(CHARLIE)
    assert (row.status, row.next_billing_at, row.remind_at) == ("EXPIRED", None, None)
    assert teller.mails() == {}


def test_earlier_of_two_ends_wins_in_any_order(teller: Teller) -> None:
    later = sample(EXPIRED)["resource"] | {"status": "CANCELLED", "status_update_time": "2026-02-28T09:00:00Z"}
    teller.hear(sample(CANCELLED, later), sample(EXPIRED))
    assert teller.subscription(CHARLIE).status == "EXPIRED"


def test_cancelled_wins_over_expired_at_the_same_time(teller: Teller) -> None:
    teller.hear(sample(EXPIRED), sample(CANCELLED, sample(EXPIRED)["resource"] | {"status": "CANCELLED"}))
    assert teller.subscription(CHARLIE).status == "CANCELLED"


def test_cancellation_in_the_resource_is_mailed(teller: Teller) -> None:
    teller.hear(sample(EXPIRED, {"status": "CANCELLED"}))
    assert teller.subscription(CHARLIE).status == "CANCELLED"
    assert teller.owed() == ["subscription_cancelled"]


def test_repeated_event_changes_nothing_even_under_another_id(teller: Teller) -> None:
    teller.hear(sample(EXPIRED), sample(EXPIRED), renamed(sample(EXPIRED)))
    assert teller.moves() == [(None, "EXPIRED")]
