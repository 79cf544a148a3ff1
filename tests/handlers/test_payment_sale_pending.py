"""PAYMENT.SALE.PENDING stores a pending payment; the receipt waits until it is completed."""

from tests.support.event_feeder import EventFeeder
from tests.support.example_people import CHARLIE
from tests.support.sample_events import sample

PENDING, COMPLETED = "PAYMENT.SALE.PENDING", "PAYMENT.SALE.COMPLETED"
SALE = "7CH20938465571146"


def test_event_name_decides_the_status(feeder: EventFeeder) -> None:
    assert sample(PENDING)["resource"]["state"] == "completed"
    feeder.hear(sample(PENDING))
    row = feeder.payments()[SALE]
    assert (row.status, row.amount, row.currency) == ("pending", 4800, "JPY")


def test_pending_payment_gives_no_access_and_no_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(PENDING))
    assert feeder.subscription(CHARLIE).paid_through is None
    assert feeder.mails() == {}


def test_late_event_does_not_revert_completion(feeder: EventFeeder) -> None:
    completed = sample(PENDING)["resource"]
    feeder.hear(sample(COMPLETED, completed), sample(PENDING))
    assert feeder.payments()[SALE].status == "completed"
    assert feeder.owed() == ["receipt"]


def test_receipt_is_queued_when_the_event_supplies_the_subscription(feeder: EventFeeder) -> None:
    feeder.hear(sample(COMPLETED, sample(PENDING)["resource"] | {"billing_agreement_id": None}))
    assert feeder.mails() == {}
    feeder.hear(sample(PENDING))
    assert feeder.owed() == ["receipt"]


def test_pending_reason_is_not_mailed_as_refusal_reason(feeder: EventFeeder) -> None:
    denied = sample("PAYMENT.SALE.DENIED")["resource"]
    pending = denied | {"state": "pending", "reason_code": "ECHECK", "update_time": "2026-02-21T10:32:11Z"}
    feeder.hear(sample("PAYMENT.SALE.DENIED", {"billing_agreement_id": None}), sample(PENDING, pending))
    mail = feeder.mail("payment_failed")
    assert (mail.facts["reason"], mail.facts["failed_at"]) == (None, "2026-02-27T14:47:50Z")


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(PENDING), sample(PENDING))
    assert (feeder.states(), list(feeder.payments())) == (["handled"], [SALE])
