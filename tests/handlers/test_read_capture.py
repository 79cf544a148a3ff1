"""READ.CAPTURE stores a payment without a subscription."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from pipeline.inbox import lookups
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


def test_answer_outranks_that_paypal_did_not_know_the_payment(feeders: Callable[..., EventFeeder]) -> None:
    """The payment is looked up as a sale first, then as a capture. PayPal's API once knew neither for a day."""
    feeder = feeders({})
    feeder.hear(sample("PAYMENT.CAPTURE.COMPLETED"))
    with feeder.pipeline.database.transaction() as session:
        lookups.enqueue(session, [lookups.LookupRequest("sale", CAPTURE, feeder.pipeline.now)])
    for _ in range(2):
        feeder.ask(timedelta(days=1, hours=1))
    assert feeder.payments()[CAPTURE].status == "unconfirmed"
    feeder.hear(sample(READ))
    assert feeder.payments()[CAPTURE].status == "completed"
