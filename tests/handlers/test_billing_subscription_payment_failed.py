"""A charge failed: the status stays, the date paid through stays, and the customer is told of each try once."""

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED, FAILED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.PAYMENT.FAILED"
LAST = "billing_info.last_failed_payment"


def test_status_and_access_stay_as_they_were(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(FAILED))
    row = teller.subscription(ALICE)
    assert (row.status, row.paid_through) == ("ACTIVE", at("2026-03-24T10:00Z"))
    assert row.next_billing_at == at("2026-04-24T10:00Z")


def test_a_first_try_that_paypal_does_not_count_yet_buys_no_time_either(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(FAILED, {"billing_info.failed_payments_count": 0}))
    assert teller.subscription(ALICE).paid_through == at("2026-03-24T10:00Z")


def test_the_customer_is_told_what_failed_and_when_it_is_tried_again(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(FAILED))
    mail = teller.mail("payment_failed")
    assert mail.state == "queued"
    assert mail.facts == {
        "subscription": ALICE.subscription,
        "plan": "",
        "amount": {"amount": 2900, "currency": "EUR"},
        "failed_at": "2026-03-24T11:13:07Z",
        "retry_at": "2026-03-29T10:00:00Z",
        "reason": "PAYMENT_DENIED",
    }


def test_paypals_other_spelling_of_the_retry_is_read(teller: Teller) -> None:
    other = {f"{LAST}.next_payment_retry_time": GONE, f"{LAST}.next_payment_retry_date": "2026-03-30T10:00:00Z"}
    teller.hear(sample(FAILED, other))
    assert teller.mail("payment_failed").facts["retry_at"] == "2026-03-30T10:00:00Z"


def test_after_the_last_try_there_is_no_retry_to_tell(teller: Teller) -> None:
    teller.hear(sample(FAILED, {f"{LAST}.next_payment_retry_time": None}))
    assert teller.mail("payment_failed").facts["retry_at"] is None


def test_each_try_is_told_once(teller: Teller) -> None:
    second = {f"{LAST}.time": "2026-03-29T10:20:00Z", "update_time": "2026-03-29T10:20:01Z"}
    teller.hear(sample(FAILED), sample(FAILED), renamed(sample(FAILED)))
    teller.hear(sample(FAILED, second, at="2026-03-29T10:20:09Z"))
    assert teller.owed() == ["payment_failed", "payment_failed"]


def test_nobody_is_told_of_a_failure_that_was_paid_since(teller: Teller) -> None:
    paid = {"create_time": "2026-03-24T12:00:00Z", "update_time": "2026-03-24T12:00:00Z"}
    teller.hear(sample(ACTIVATED), sample("PAYMENT.SALE.COMPLETED", paid), sample(FAILED))
    assert teller.mail("payment_failed").reason == "overtaken: a payment came on 2026-03-24"


def test_nobody_is_asked_to_pay_for_what_is_suspended_or_over_since(teller: Teller) -> None:
    teller.hear(sample("BILLING.SUBSCRIPTION.SUSPENDED"), sample(FAILED))
    assert teller.mail("payment_failed").state == "withheld"
