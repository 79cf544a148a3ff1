"""BILLING.SUBSCRIPTION.PAYMENT.FAILED changes neither status nor paid-through date; each attempt is mailed once."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED, FAILED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.PAYMENT.FAILED"
LAST_FAILURE = "billing_info.last_failed_payment"


def test_status_and_access_do_not_change(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(FAILED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.paid_through) == ("ACTIVE", at("2026-03-24T10:00Z"))
    assert row.next_billing_at == at("2026-04-24T10:00Z")


def test_uncounted_first_failure_does_not_extend_access(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(FAILED, {"billing_info.failed_payments_count": 0}))
    assert feeder.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_mail_contains_the_failure_and_the_retry_time(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(FAILED))
    mail = feeder.mail("payment_failed")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "",
        "amount": {"amount": 2900, "currency": "EUR"},
        "balance": {"amount": 2900, "currency": "EUR"},
        "failed_at": "2026-03-24T11:13:07Z",
        "retry_at": "2026-03-29T10:00:00Z",
        "reason": "PAYMENT_DENIED",
    }


def test_other_field_name_of_the_retry_time_is_read(feeder: EventFeeder) -> None:
    other = {
        f"{LAST_FAILURE}.next_payment_retry_time": GONE,
        f"{LAST_FAILURE}.next_payment_retry_date": "2026-03-30T10:00:00Z",
    }
    feeder.hear(sample(FAILED, other))
    assert feeder.mail("payment_failed").facts["retry_at"] == "2026-03-30T10:00:00Z"


def test_mail_has_no_retry_time_after_the_last_attempt(feeder: EventFeeder) -> None:
    feeder.hear(sample(FAILED, {f"{LAST_FAILURE}.next_payment_retry_time": None}))
    assert feeder.mail("payment_failed").facts["retry_at"] is None


def test_each_attempt_is_mailed_once(feeder: EventFeeder) -> None:
    second = {f"{LAST_FAILURE}.time": "2026-03-29T10:20:00Z", "update_time": "2026-03-29T10:20:01Z"}
    feeder.hear(sample(FAILED), sample(FAILED), renamed(sample(FAILED)))
    feeder.hear(sample(FAILED, second, at="2026-03-29T10:20:09Z"))
    assert feeder.owed() == ["payment_failed", "payment_failed"]


def test_mail_is_withheld_after_a_later_payment(feeder: EventFeeder) -> None:
    paid = {"create_time": "2026-03-24T12:00:00Z", "update_time": "2026-03-24T12:00:00Z"}
    feeder.hear(sample(ACTIVATED), sample("PAYMENT.SALE.COMPLETED", paid), sample(FAILED))
    assert feeder.mail("payment_failed").reason == "superseded: a payment arrived on 2026-03-24"


def test_mail_is_withheld_after_a_later_suspension(feeder: EventFeeder) -> None:
    feeder.hear(sample("BILLING.SUBSCRIPTION.SUSPENDED"), sample(FAILED))
    assert feeder.mail("payment_failed").state == "withheld"
