"""BILLING.SUBSCRIPTION.CREATED stores the subscription; it gives no access and queues no mail."""

from tests.support.event_feeder import Teller
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

CREATED, ACTIVATED = "BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED"


def test_subscription_is_stored_without_access_or_mail(teller: Teller) -> None:
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


def test_look_up_of_its_plan_is_requested(teller: Teller) -> None:
    teller.hear(sample(CREATED))
    assert teller.questions() == [("plan", ALICE.plan)]


def test_late_event_does_not_revert_activation(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(CREATED))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert teller.moves() == [(None, "ACTIVE")]
    assert teller.owed() == ["account_setup"]


def test_newer_status_in_the_resource_is_stored_and_mailed(teller: Teller) -> None:
    teller.hear(sample(CREATED, sample(ACTIVATED)["resource"]))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert teller.owed() == ["account_setup"]


def test_repeated_event_changes_nothing(teller: Teller) -> None:
    teller.hear(sample(CREATED), sample(CREATED))
    assert teller.states() == ["handled"]
    assert teller.moves() == [(None, "APPROVAL_PENDING")]
