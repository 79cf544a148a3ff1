"""PAYMENT.CAPTURE.REVERSED stores the reversal of a one-off payment."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.CAPTURE.REVERSED"
CAPTURE = "5CA31924877811803"


def test_reversal_of_the_whole_amount(feeder: EventFeeder) -> None:
    whole = {"amount.value": "100.00", "seller_payable_breakdown.total_refunded_amount.value": "100.00"}
    feeder.hear(sample(EVENT, whole), sample("PAYMENT.CAPTURE.COMPLETED"), sample(EVENT, whole))
    assert feeder.payments()[CAPTURE].status == "reversed"
    assert [row.kind for row in feeder.refunds().values()] == ["reversal"]
