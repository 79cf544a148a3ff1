"""INVOICING.INVOICE.REFUNDED makes sure that the invoice's payment is stored, and keeps its amounts."""

from collections.abc import Callable
from datetime import timedelta

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT, PAYMENT = "INVOICING.INVOICE.REFUNDED", "7IN51924877811803"


def test_payment_whose_events_are_lost_is_looked_up(feeders: Callable[..., EventFeeder]) -> None:
    capture = sample("PAYMENT.CAPTURE.COMPLETED")["resource"] | {"id": PAYMENT, "status": "PARTIALLY_REFUNDED"}
    feeder = feeders({("capture", PAYMENT): capture})
    feeder.hear(sample(EVENT))
    feeder.ask(timedelta(hours=1))
    assert PAYMENT in feeder.payments()


def test_amounts_stay_readable(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT))
    assert feeder.facts()[0]["refunded"] == [10000, "EUR"]
