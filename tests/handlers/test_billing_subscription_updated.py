"""Anything changed: what the resource tells now is taken in, a status we missed included."""

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import sample

ACTIVATED, UPDATED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.UPDATED"
SUSPENDED = {"status": "SUSPENDED", "status_update_time": "2026-02-26T15:02:11Z"}


def test_a_new_quantity_changes_what_one_cycle_costs(teller: Teller) -> None:
    teller.hear(sample("READ.PLAN"), sample(ACTIVATED), sample(UPDATED))
    renewal = {"amount": {"total": "87.00", "currency": "EUR"}, "create_time": "2026-03-24T11:02:00Z"}
    teller.hear(
        sample("PAYMENT.SALE.COMPLETED", {"id": "9AL00000000000001", **renewal, "update_time": "2026-03-24T11:02:00Z"})
    )
    assert teller.subscription(ALICE).paid_through == at("2026-04-24T10:00Z")


def test_a_new_plan_and_a_new_address_are_taken_over(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED))
    teller.hear(sample(UPDATED, {"plan_id": BOB.plan, "subscriber.email_address": "alice.new@example.com"}))
    assert teller.subscription(ALICE).plan_id == BOB.plan
    assert teller.known(ALICE)["email"] == "alice.new@example.com"


def test_no_mail_for_it(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(UPDATED))
    assert teller.owed() == ["account_setup"]


def test_a_status_we_missed_is_made_good_with_its_mail_once(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(UPDATED, SUSPENDED))
    assert teller.subscription(ALICE).status == "SUSPENDED"
    assert teller.owed() == ["account_setup", "subscription_suspended"]
    teller.hear(sample("BILLING.SUBSCRIPTION.SUSPENDED", SUSPENDED))
    assert teller.owed() == ["account_setup", "subscription_suspended"]


def test_what_is_older_changes_nothing_back(teller: Teller) -> None:
    teller.hear(sample(UPDATED), sample(ACTIVATED))
    assert teller.subscription(ALICE).known["quantity"][1] == 3


def test_told_twice_it_is_once(teller: Teller) -> None:
    teller.hear(sample(UPDATED), sample(UPDATED))
    assert teller.states() == ["handled"]
    assert teller.moves() == [(None, "ACTIVE")]
