"""Money on its way: noted, and no receipt before it is there."""

from tests.support.event_feeder import Teller
from tests.support.example_people import CHARLIE
from tests.support.sample_events import sample

PENDING, COMPLETED = "PAYMENT.SALE.PENDING", "PAYMENT.SALE.COMPLETED"
SALE = "7CH20938465571146"


def test_the_events_name_counts_and_not_its_state(teller: Teller) -> None:
    assert sample(PENDING)["resource"]["state"] == "completed"
    teller.hear(sample(PENDING))
    row = teller.payments()[SALE]
    assert (row.status, row.amount, row.currency) == ("pending", 4800, "JPY")


def test_it_pays_for_nothing_yet_and_is_no_news(teller: Teller) -> None:
    teller.hear(sample(PENDING))
    assert teller.subscription(CHARLIE).paid_through is None
    assert teller.mails() == {}


def test_after_its_end_was_told_it_changes_nothing(teller: Teller) -> None:
    completed = sample(PENDING)["resource"]
    teller.hear(sample(COMPLETED, completed), sample(PENDING))
    assert teller.payments()[SALE].status == "completed"
    assert teller.owed() == ["receipt"]


def test_where_it_alone_says_whose_it_is_the_receipt_comes_with_it(teller: Teller) -> None:
    teller.hear(sample(COMPLETED, sample(PENDING)["resource"] | {"billing_agreement_id": None}))
    assert teller.mails() == {}
    teller.hear(sample(PENDING))
    assert teller.owed() == ["receipt"]


def test_the_reason_it_was_pending_is_not_why_it_was_refused(teller: Teller) -> None:
    denied = sample("PAYMENT.SALE.DENIED")["resource"]
    pending = denied | {"state": "pending", "reason_code": "ECHECK", "update_time": "2026-02-21T10:32:11Z"}
    teller.hear(sample("PAYMENT.SALE.DENIED", {"billing_agreement_id": None}), sample(PENDING, pending))
    mail = teller.mail("payment_failed")
    assert (mail.facts["reason"], mail.facts["failed_at"]) == (None, "2026-02-27T14:47:50Z")


def test_told_twice_it_is_once(teller: Teller) -> None:
    teller.hear(sample(PENDING), sample(PENDING))
    assert (teller.states(), list(teller.payments())) == (["handled"], [SALE])
