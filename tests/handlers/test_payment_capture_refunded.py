"""PAYMENT.CAPTURE.REFUNDED stores refunds of one-off payments."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.CAPTURE.REFUNDED"
CAPTURE = "5CA31924877811803"
REFUND = "1RF08902781691411"


def test_refund_has_its_returned_fee(feeder: EventFeeder) -> None:
    feeder.hear(sample("PAYMENT.CAPTURE.COMPLETED"), sample(EVENT), sample(EVENT))
    assert (feeder.payments()[CAPTURE].status, feeder.payments()[CAPTURE].refunded) == ("partially_refunded", 4000)
    refund = feeder.refunds()[REFUND]
    assert (refund.kind, refund.amount, refund.returned_fee, refund.returned_fee_currency) == (
        "refund",
        4000,
        159,
        "USD",
    )


def test_refund_may_come_before_its_capture(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample("PAYMENT.CAPTURE.COMPLETED"))
    assert (feeder.payments()[CAPTURE].status, feeder.payments()[CAPTURE].refunded) == ("partially_refunded", 4000)


def test_more_than_the_payment_cannot_be_returned(feeder: EventFeeder) -> None:
    second: dict[str, Any] = {"id": "1RF08902781691499", "amount.value": "70.00"}
    second |= {"seller_payable_breakdown.total_refunded_amount": {"currency_code": "USD", "value": "110.00"}}
    feeder.hear(sample(EVENT, second), sample("PAYMENT.CAPTURE.COMPLETED"), sample(EVENT))
    assert (feeder.payments()[CAPTURE].status, feeder.payments()[CAPTURE].refunded) == ("refunded", 10000)


def test_refund_without_a_capture_is_parked(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT, {"links": []}))
    [reason] = feeder.reasons()
    assert feeder.states() == ["parked"]
    assert reason.startswith("needs capture_refund 1RF08902781691411 from PayPal, and no API credentials are set")


def test_refund_of_an_unknown_capture_looks_the_capture_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({("capture", CAPTURE): sample("READ.CAPTURE")["resource"]})
    feeder.hear(sample(EVENT))
    assert feeder.questions() == [("capture", CAPTURE)]
    feeder.ask(timedelta(hours=1))
    row = feeder.payments()[CAPTURE]
    assert (row.status, row.amount, row.refunded, feeder.questions()) == ("partially_refunded", 10000, 4000, [])


def test_refund_of_a_known_capture_looks_nothing_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample("PAYMENT.CAPTURE.COMPLETED"), sample(EVENT))
    assert feeder.questions() == []
