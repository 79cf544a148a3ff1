"""A pending payment was refused: it pays for nothing, and the customer is told."""

from tests.people import CHARLIE
from tests.samples import renamed, sample
from tests.teller import Teller

DENIED, PENDING, COMPLETED = "PAYMENT.SALE.DENIED", "PAYMENT.SALE.PENDING", "PAYMENT.SALE.COMPLETED"
SALE = "8CH77410296635520"


def test_it_is_denied_also_where_its_pending_comes_after(teller: Teller) -> None:
    pending = sample(DENIED)["resource"] | {"state": "pending", "update_time": "2026-02-21T10:32:11Z"}
    teller.hear(sample(DENIED), sample(PENDING, pending))
    assert teller.payments()[SALE].status == "denied"
    assert teller.subscription(CHARLIE).paid_through is None


def test_the_customer_is_told(teller: Teller) -> None:
    teller.hear(sample(DENIED))
    mail = teller.mail("payment_failed")
    assert mail.state == "owed"
    assert mail.facts == {
        "subscription": CHARLIE.subscription,
        "plan": "",
        "amount": {"amount": 4800, "currency": "JPY"},
        "failed_at": "2026-02-27T14:47:50Z",
        "retry_at": None,
        "reason": None,
    }


def test_paid_otherwise_since_it_is_no_news(teller: Teller) -> None:
    other = {"id": "9CH00000000000001", "create_time": "2026-02-27T15:00:00Z", "update_time": "2026-02-27T15:00:00Z"}
    teller.hear(sample(COMPLETED, sample(DENIED)["resource"] | other), sample(DENIED))
    assert teller.mail("payment_failed").state == "withheld"


def test_a_sale_that_is_no_subscriptions_tells_nobody(teller: Teller) -> None:
    teller.hear(sample(DENIED, {"billing_agreement_id": None}))
    assert teller.payments()[SALE].status == "denied"
    assert teller.mails() == {}


def test_told_twice_it_is_once_also_under_another_id(teller: Teller) -> None:
    teller.hear(sample(DENIED), sample(DENIED), renamed(sample(DENIED)))
    assert teller.owed() == ["payment_failed"]
