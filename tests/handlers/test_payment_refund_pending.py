"""PAYMENT.REFUND.PENDING stores a pending refund."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.REFUND.PENDING"
CAPTURE = "5CA31924877811803"


def test_pending_refund_pays_nothing_back(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample("PAYMENT.CAPTURE.COMPLETED"))
    assert (feeder.payments()[CAPTURE].status, feeder.payments()[CAPTURE].refunded) == ("completed", 0)


def test_completed_refund_supersedes_it_in_any_order(feeder: EventFeeder) -> None:
    feeder.hear(sample("PAYMENT.CAPTURE.REFUNDED"), sample("PAYMENT.CAPTURE.COMPLETED"), sample(EVENT), sample(EVENT))
    assert feeder.payments()[CAPTURE].refunded == 4000
