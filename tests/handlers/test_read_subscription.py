"""READ.SUBSCRIPTION is processed like a webhook that reports the same state."""

from collections.abc import Callable
from datetime import timedelta

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, BOB
from tests.support.sample_events import sample

ACTIVATED, READ = "BILLING.SUBSCRIPTION.ACTIVATED", "READ.SUBSCRIPTION"


def test_answer_replaces_missed_events(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ))
    row = feeder.subscription(BOB)
    assert (row.status, row.paid_through) == ("ACTIVE", at("2027-02-20T10:00Z"))
    assert row.remind_at == at("2027-01-21T10:00Z")  # the plan in the resource is yearly
    assert feeder.owed() == ["account_setup"]


def test_placeholder_is_completed_by_a_look_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({("subscription", BOB.subscription): sample(READ)["resource"]})
    feeder.hear(sample("PAYMENT.SALE.COMPLETED", sample("READ.SALE")["resource"], at="2026-02-20T13:07:50Z"))
    assert not feeder.mail("receipt").due
    feeder.ask(after=timedelta(minutes=6))
    assert feeder.subscription(BOB).status == "ACTIVE"
    assert feeder.known(BOB)["email"] == BOB.email
    assert feeder.mail("receipt").due
    assert feeder.questions() == []


def test_free_trial_due_today_is_looked_up_again(feeders: Callable[..., EventFeeder]) -> None:
    due_today = sample(
        ACTIVATED, {"billing_info.next_billing_time": "2026-02-24T10:00:00Z", "billing_info.last_payment": None}
    )
    feeder = feeders({("subscription", ALICE.subscription): sample(ACTIVATED)["resource"]})
    feeder.hear(due_today)
    assert ("subscription", ALICE.subscription) in feeder.questions()
    feeder.ask(after=timedelta(minutes=11))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_failure_paid_later_keeps_the_next_date(feeder: EventFeeder) -> None:
    failed = {"time": "2026-02-20T13:06:00Z", "amount": {"currency_code": "USD", "value": "499.0"}}
    feeder.hear(sample(READ, {"billing_info.last_failed_payment": failed}))
    assert feeder.subscription(BOB).paid_through == at("2027-02-20T10:00Z")


def test_older_answer_changes_nothing(feeder: EventFeeder) -> None:
    old = sample(ACTIVATED)["resource"]
    feeder.hear(sample("BILLING.SUBSCRIPTION.CANCELLED"), sample(READ, old))
    assert feeder.subscription(ALICE).status == "CANCELLED"


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ), sample(READ))
    assert feeder.states() == ["handled"]
    assert feeder.moves() == [(None, "ACTIVE")]
