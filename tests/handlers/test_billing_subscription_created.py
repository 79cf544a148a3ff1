"""A buyer was sent to PayPal: who is coming is noted, and nothing else."""

from tests.support.event_feeder import Teller
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

CREATED, ACTIVATED = "BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED"


def test_there_is_a_subscription_but_no_access_and_no_mail(teller: Teller) -> None:
    teller.hear(sample(CREATED))
    row = teller.subscription(ALICE)
    assert (row.status, row.plan_id, row.paid_through, row.next_billing_at) == (
        "APPROVAL_PENDING",
        ALICE.plan,
        None,
        None,
    )
    assert teller.known(ALICE) == {"custom": ALICE.custom_id}
    assert teller.mails() == {}


def test_its_plan_is_asked_for(teller: Teller) -> None:
    teller.hear(sample(CREATED))
    assert teller.questions() == [("plan", ALICE.plan)]


def test_after_activated_it_takes_nothing_back(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(CREATED))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert teller.moves() == [(None, "ACTIVE")]
    assert teller.owed() == ["account_setup"]


def test_a_resource_that_is_further_than_the_events_name_is_believed_and_told(teller: Teller) -> None:
    teller.hear(sample(CREATED, sample(ACTIVATED)["resource"]))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert teller.owed() == ["account_setup"]


def test_told_twice_it_is_once(teller: Teller) -> None:
    teller.hear(sample(CREATED), sample(CREATED))
    assert teller.states() == ["handled"]
    assert teller.moves() == [(None, "APPROVAL_PENDING")]
