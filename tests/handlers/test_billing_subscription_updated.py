"""BILLING.SUBSCRIPTION.UPDATED stores the current state, including a status whose own event was missed."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import sample

ACTIVATED, UPDATED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED"
SUSPENDED = {"status": "SUSPENDED", "status_update_time": "2026-02-26T15:02:11Z"}


def test_new_quantity_changes_the_price_of_a_cycle(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(UPDATED))
    renewal = {"amount": {"total": "87.00", "currency": "EUR"}, "create_time": "2026-03-24T11:02:00Z"}
    feeder.hear(
        sample("PAYMENT.SALE.COMPLETED", {"id": "9AL00000000000001", **renewal, "update_time": "2026-03-24T11:02:00Z"})
    )
    assert feeder.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_new_plan_and_address_are_stored(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED))
    feeder.hear(sample(UPDATED, {"plan_id": BOB.plan, "subscriber.email_address": "alice.new@example.com"}))
    assert feeder.subscription(ALICE).plan_id == BOB.plan
    assert feeder.known(ALICE)["email"] == "alice.new@example.com"


def test_update_queues_no_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(UPDATED))
    assert feeder.owed() == ["account_setup"]


def test_missed_status_is_stored_and_mailed_once(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(UPDATED, SUSPENDED))
    assert feeder.subscription(ALICE).status == "SUSPENDED"
    assert feeder.owed() == ["account_setup", "subscription_suspended"]
    feeder.hear(sample("BILLING.SUBSCRIPTION.SUSPENDED", SUSPENDED))
    assert feeder.owed() == ["account_setup", "subscription_suspended"]


def test_older_event_does_not_revert_the_update(feeder: EventFeeder) -> None:
    feeder.hear(sample(UPDATED), sample(ACTIVATED))
    assert feeder.subscription(ALICE).known["quantity"][1] == 3


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(UPDATED), sample(UPDATED))
    assert feeder.states() == ["handled"]
    assert feeder.moves() == [(None, "ACTIVE")]
