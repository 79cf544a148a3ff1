"""It goes on, paid through to PayPal's next date; whoever was welcomed before is not welcomed again."""

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

ACTIVATED, SUSPENDED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.SUSPENDED"
BACK = "BILLING.SUBSCRIPTION.RE-ACTIVATED"


def test_it_is_active_again_until_the_next_date(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(SUSPENDED), sample(BACK))
    row = teller.subscription(ALICE)
    assert (row.status, row.paid_through) == ("ACTIVE", at("2026-04-24T10:00Z"))
    assert row.remind_at == at("2026-04-21T10:00Z")
    assert teller.moves() == [(None, "ACTIVE"), ("ACTIVE", "SUSPENDED"), ("SUSPENDED", "ACTIVE")]
    assert teller.owed() == ["account_setup", "subscription_suspended"]


def test_paypal_may_call_it_activated(teller: Teller) -> None:
    resource = sample(BACK)["resource"]
    teller.hear(sample(ACTIVATED), sample(SUSPENDED), sample(ACTIVATED, resource, at="2026-04-05T08:30:19Z"))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert teller.owed() == ["account_setup", "subscription_suspended"]


def test_before_the_suspension_it_ends_the_same(teller: Teller) -> None:
    teller.hear(sample(BACK), sample(SUSPENDED))
    assert teller.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")
    assert teller.moves() == [(None, "ACTIVE")]


def test_cancelled_stays_cancelled(teller: Teller) -> None:
    teller.hear(sample("BILLING.SUBSCRIPTION.CANCELLED"), sample(BACK))
    assert teller.subscription(ALICE).status == "CANCELLED"


def test_told_twice_it_is_once(teller: Teller) -> None:
    teller.hear(sample(BACK), sample(BACK))
    assert teller.states() == ["handled"]
    assert teller.moves() == [(None, "ACTIVE")]
