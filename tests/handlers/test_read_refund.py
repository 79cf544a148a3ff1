"""READ.REFUND stores a refund with the sale that it belongs to."""

from tests.support.event_feeder import Teller
from tests.support.sample_events import GONE, sample

READ, SALE, REFUND = "READ.REFUND", "6BB30571942218835", "1BB69035148820067"


def test_refund_is_stored_with_its_sale(teller: Teller) -> None:
    teller.hear(sample("READ.SALE"), sample(READ))
    assert teller.refunds()[REFUND].payment_id == SALE
    assert (teller.payments()[SALE].status, teller.payments()[SALE].refunded) == ("refunded", 49900)


def test_receipt_is_queued_only_after_paypal_reports_the_refund(teller: Teller) -> None:
    teller.hear(sample("READ.SALE"), sample(READ))
    assert teller.owed() == ["receipt"]
    teller.hear(sample("PAYMENT.SALE.REFUNDED", sample(READ)["resource"] | {"sale_id": None, "links": None}))
    assert teller.owed() == ["receipt", "refund_receipt"]


def test_completion_of_a_pending_refund_is_mailed(teller: Teller) -> None:
    pending = {"state": "pending", "update_time": "2026-02-28T07:51:10Z", "links": None}
    teller.hear(sample("READ.SALE"), sample("PAYMENT.SALE.REFUNDED", sample(READ)["resource"] | pending))
    assert teller.owed() == ["receipt"]
    teller.hear(sample(READ))
    assert teller.owed() == ["receipt", "refund_receipt"]


def test_refund_of_unknown_sale_queues_no_mail(teller: Teller) -> None:
    teller.hear(sample(READ))
    assert teller.payments()[SALE].status is None
    assert teller.mails() == {}


def test_refund_without_sale_is_parked(teller: Teller) -> None:
    teller.hear(sample(READ, {"sale_id": GONE, "links": GONE}))
    assert teller.reasons() == ["PayPal's record of this refund names no sale"]
    assert teller.refunds() == {}


def test_repeated_event_changes_nothing(teller: Teller) -> None:
    teller.hear(sample(READ), sample(READ))
    assert (teller.states(), list(teller.refunds())) == (["handled"], [REFUND])
