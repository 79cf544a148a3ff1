"""PAYMENT.CAPTURE.DENIED stores a refused one-off payment."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.CAPTURE.DENIED"
CAPTURE = "5CA31924877811803"


def test_payment_is_denied_in_any_order(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample("PAYMENT.CAPTURE.PENDING"), sample(EVENT))
    assert feeder.payments()[CAPTURE].status == "denied"
    assert feeder.mails() == {}
