"""All cycles are done: final, and nobody is written to."""

from tests.support.event_feeder import Teller
from tests.support.example_people import CHARLIE
from tests.support.sample_events import renamed, sample

EXPIRED, CANCELLED = "BILLING.SUBSCRIPTION.EXPIRED", "BILLING.SUBSCRIPTION.CANCELLED"


def test_it_is_over_and_nobody_is_written_to(teller: Teller) -> None:
    teller.hear(sample(EXPIRED))
    row = teller.subscription(CHARLIE)
    assert (row.status, row.next_billing_at, row.remind_at) == ("EXPIRED", None, None)
    assert teller.mails() == {}


def test_of_two_ends_the_earlier_counts_whichever_came_first(teller: Teller) -> None:
    later = sample(EXPIRED)["resource"] | {"status": "CANCELLED", "status_update_time": "2026-02-28T09:00:00Z"}
    teller.hear(sample(CANCELLED, later), sample(EXPIRED))
    assert teller.subscription(CHARLIE).status == "EXPIRED"


def test_of_two_ends_at_one_time_cancelled_counts(teller: Teller) -> None:
    teller.hear(sample(EXPIRED), sample(CANCELLED, sample(EXPIRED)["resource"] | {"status": "CANCELLED"}))
    assert teller.subscription(CHARLIE).status == "CANCELLED"


def test_where_the_resource_tells_of_another_end_the_customer_is_told_that(teller: Teller) -> None:
    teller.hear(sample(EXPIRED, {"status": "CANCELLED"}))
    assert teller.subscription(CHARLIE).status == "CANCELLED"
    assert teller.owed() == ["subscription_cancelled"]


def test_told_twice_it_is_once_also_under_another_id(teller: Teller) -> None:
    teller.hear(sample(EXPIRED), sample(EXPIRED), renamed(sample(EXPIRED)))
    assert teller.moves() == [(None, "EXPIRED")]
