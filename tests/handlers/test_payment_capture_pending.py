"""PAYMENT.CAPTURE.PENDING stores a pending one-off payment."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.CAPTURE.PENDING"
CAPTURE = "5CA31924877811803"


def test_completion_supersedes_it_in_any_order(feeder: EventFeeder) -> None:
    feeder.hear(sample("PAYMENT.CAPTURE.COMPLETED"), sample(EVENT), sample(EVENT))
    assert feeder.payments()[CAPTURE].status == "completed"


def test_payment_is_pending(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT))
    assert feeder.payments()[CAPTURE].status == "pending"
