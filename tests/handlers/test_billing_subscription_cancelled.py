"""BILLING.SUBSCRIPTION.CANCELLED ends billing, keeps the paid-through date and mails it to the customer."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import renamed, sample

ACTIVATED, CANCELLED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.CANCELLED"


def test_stored_date_stays_without_next_billing_time(feeder: EventFeeder) -> None:
    assert "next_billing_time" not in sample(CANCELLED)["resource"]["billing_info"]
    feeder.hear(sample(ACTIVATED), sample(CANCELLED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.paid_through) == ("CANCELLED", at("2026-03-24T10:00Z"))
    assert (row.next_billing_at, row.remind_at) == (None, None)


def test_mail_contains_the_paid_through_date(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(CANCELLED))
    mail = feeder.mail("subscription_cancelled")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "",
        "cancelled_at": "2026-03-10T18:22:31Z",
        "paid_through": "2026-03-24T10:00:00Z",
        "balance": None,
    }


def test_end_of_unknown_subscription_is_stored(feeder: EventFeeder) -> None:
    feeder.hear(sample(CANCELLED))
    assert feeder.subscription(ALICE).status == "CANCELLED"
    assert feeder.mail("subscription_cancelled").facts["paid_through"] is None


def test_next_billing_time_of_the_simulator_is_ignored(feeder: EventFeeder) -> None:
    feeder.hear(sample(CANCELLED, {"billing_info.next_billing_time": "2026-03-24T10:00:00Z"}))
    row = feeder.subscription(ALICE)
    assert (row.paid_through, row.next_billing_at) == (at("2026-03-24T10:00Z"), None)


def test_payment_after_cancellation_is_stored(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(CANCELLED))
    feeder.hear(sample("PAYMENT.SALE.COMPLETED", {"payment_hold_status": "RELEASED"}, at="2026-03-17T09:00:00Z"))
    assert feeder.subscription(ALICE).status == "CANCELLED"
    assert feeder.payments()["3AL51924877811803"].status == "completed"


def test_repeated_event_changes_nothing_even_under_another_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(CANCELLED), sample(CANCELLED), renamed(sample(CANCELLED)))
    assert feeder.moves() == [(None, "CANCELLED")]
    assert feeder.owed() == ["subscription_cancelled"]
