"""READ.REFUND stores a refund with the sale that it belongs to."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import GONE, sample

READ, SALE, REFUND = "READ.REFUND", "6BB30571942218835", "1BB69035148820067"


def test_refund_is_stored_with_its_sale(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.SALE"), sample(READ))
    assert feeder.refunds()[REFUND].payment_id == SALE
    assert (feeder.payments()[SALE].status, feeder.payments()[SALE].refunded) == ("refunded", 49900)


def test_receipt_is_queued_only_after_paypal_reports_the_refund(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.SALE"), sample(READ))
    assert feeder.owed() == ["receipt"]
    feeder.hear(sample("PAYMENT.SALE.REFUNDED", sample(READ)["resource"] | {"sale_id": None, "links": None}))
    assert feeder.owed() == ["receipt", "refund_receipt"]


def test_completion_of_a_pending_refund_is_mailed(feeder: EventFeeder) -> None:
    pending = {"state": "pending", "update_time": "2026-02-28T07:51:10Z", "links": None}
    feeder.hear(sample("READ.SALE"), sample("PAYMENT.SALE.REFUNDED", sample(READ)["resource"] | pending))
    assert feeder.owed() == ["receipt"]
    feeder.hear(sample(READ))
    assert feeder.owed() == ["receipt", "refund_receipt"]


def test_refund_of_unknown_sale_queues_no_mail(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ))
    assert feeder.payments()[SALE].status is None
    assert feeder.mails() == {}


def test_refund_without_sale_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ, {"sale_id": GONE, "links": GONE}))
    assert feeder.reasons() == ["PayPal's record of this refund names no sale"]
    assert feeder.refunds() == {}


def test_repeated_event_changes_nothing(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ), sample(READ))
    assert (feeder.states(), list(feeder.refunds())) == (["handled"], [REFUND])
