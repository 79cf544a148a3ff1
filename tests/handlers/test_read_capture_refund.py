"""READ.CAPTURE_REFUND stores a refund with the capture that it belongs to."""

from collections.abc import Callable

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import GONE, sample

READ, CAPTURE, REFUND = "READ.CAPTURE_REFUND", "5CA31924877811803", "1RF08902781691411"


def test_refund_is_stored_with_its_capture(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.CAPTURE"), sample(READ))
    assert feeder.refunds()[REFUND].payment_id == CAPTURE
    assert (feeder.payments()[CAPTURE].status, feeder.payments()[CAPTURE].refunded) == ("partially_refunded", 4000)


def test_event_without_its_capture_is_handled_after_a_look_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({("capture_refund", REFUND): sample(READ)["resource"]})
    feeder.hear(sample("PAYMENT.CAPTURE.REFUNDED", {"links": GONE}))
    assert feeder.states() == ["received"]
    feeder.ask()
    assert set(feeder.states()) == {"handled"}
    assert feeder.refunds()[REFUND].payment_id == CAPTURE


def test_refund_without_capture_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample(READ, {"links": GONE}))
    assert feeder.reasons() == ["PayPal's record of this refund names no capture"]
