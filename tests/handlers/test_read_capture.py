"""READ.CAPTURE stores a payment without a subscription."""

import pytest

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

READ, CAPTURE = "READ.CAPTURE", "5CA31924877811803"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("COMPLETED", "completed"),
        ("PARTIALLY_REFUNDED", "completed"),
        ("REFUNDED", "completed"),
        ("PENDING", "pending"),
        ("DECLINED", "denied"),
        ("FAILED", "denied"),
    ],
)
def test_each_state_of_paypals_specification_has_a_status(feeder: EventFeeder, state: str, status: str) -> None:
    """Payments v2, `capture_status`. A refund has its own event, which reduces the payment."""
    feeder.hear(sample(READ, {"status": state}))
    row = feeder.payments()[CAPTURE]
    assert (row.status, row.amount, row.currency, row.fee) == (status, 10000, "USD", 398)
    assert feeder.mails() == {}


def test_unknown_state_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ, {"status": "EXPLODED"}))
    assert feeder.reasons() == ["unknown state of a capture: exploded"]
