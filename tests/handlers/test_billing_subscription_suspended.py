"""BILLING.SUBSCRIPTION.SUSPENDED keeps the paid-through date and queues a mail for each suspension."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import renamed, sample

ACTIVATED, SUSPENDED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.SUSPENDED"
REACTIVATED = "BILLING.SUBSCRIPTION.RE-ACTIVATED"


def test_status_changes_and_paid_through_date_stays(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.paid_through, row.remind_at) == ("SUSPENDED", at("2026-03-24T10:00Z"), None)
    assert feeder.moves() == [(None, "ACTIVE"), ("ACTIVE", "SUSPENDED")]


def test_mail_contains_the_balance(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED))
    mail = feeder.mail("subscription_suspended")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "",
        "suspended_at": "2026-04-03T10:41:50Z",
        "paid_through": "2026-03-24T10:00:00Z",
        "balance": {"amount": 2900, "currency": "EUR"},
    }


def test_next_date_does_not_extend_access_while_a_charge_is_unpaid(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED, {"billing_info.next_billing_time": "2026-05-24T10:00:00Z"}))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_mail_has_no_balance_if_the_buyer_suspends(feeder: EventFeeder) -> None:
    without_balance = {"billing_info.failed_payments_count": 0, "billing_info.outstanding_balance.value": "0.0"}
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED, without_balance))
    assert feeder.mail("subscription_suspended").facts["balance"] is None


def test_second_suspension_is_mailed_again(feeder: EventFeeder) -> None:
    later = {"status_update_time": "2026-05-03T10:41:50Z", "update_time": "2026-05-03T10:41:50Z"}
    feeder.hear(sample(SUSPENDED), sample(REACTIVATED), sample(SUSPENDED, later, at="2026-05-03T10:41:55Z"))
    assert feeder.owed().count("subscription_suspended") == 2


def test_mail_is_withheld_after_reactivation(feeder: EventFeeder) -> None:
    feeder.hear(sample(REACTIVATED), sample(SUSPENDED))
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert feeder.mail("subscription_suspended").state == "withheld"


def test_repeated_event_changes_nothing_even_under_another_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(SUSPENDED), sample(SUSPENDED), renamed(sample(SUSPENDED)))
    assert feeder.moves() == [(None, "SUSPENDED")]
    assert feeder.owed() == ["subscription_suspended"]
