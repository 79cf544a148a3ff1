"""BILLING.SUBSCRIPTION.CREATED stores the subscription; it gives no access and queues no mail."""

from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.sample_events import sample

CREATED, ACTIVATED = "BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED"


def test_subscription_is_stored_without_access_or_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(CREATED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.plan_id, row.paid_through, row.next_billing_at) == (
        "APPROVAL_PENDING",
        ALICE.plan,
        None,
        None,
    )
    assert (row.is_established, row.customer_id, feeder.known(ALICE)) == (False, None, {})
    assert feeder.mails() == {}


def test_look_up_of_its_plan_is_requested(feeder: EventFeeder) -> None:
    feeder.hear(sample(CREATED))
    assert feeder.questions() == [("plan", ALICE.plan)]


def test_late_event_does_not_revert_activation(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(CREATED))
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.moves() == [(None, "ACTIVE")]
    assert feeder.owed() == ["account_setup"]


def test_newer_status_in_the_resource_is_stored_and_mailed(feeder: EventFeeder) -> None:
    feeder.hear(sample(CREATED, sample(ACTIVATED)["resource"]))
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.owed() == ["account_setup"]


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(CREATED), sample(CREATED))
    assert feeder.states() == ["handled"]
    assert feeder.moves() == [(None, "APPROVAL_PENDING")]
