"""PAYMENT.REFUND.FAILED takes a refund back."""

from itertools import permutations

import pytest

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.REFUND.FAILED"
CAPTURE = "5CA31924877811803"
ORDERS = list(permutations(["PAYMENT.CAPTURE.COMPLETED", "PAYMENT.CAPTURE.REFUNDED", EVENT]))


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order[0].rsplit(".", 1)[1] + order[1].rsplit(".", 1)[1])
def test_failed_refund_does_not_count_in_any_order(feeder: EventFeeder, order: tuple[str, ...]) -> None:
    """PayPal repeats the update time of the refund, so the event's time decides."""
    feeder.hear(*(sample(kind) for kind in order), sample(EVENT))
    assert (feeder.payments()[CAPTURE].status, feeder.payments()[CAPTURE].refunded) == ("completed", 0)
