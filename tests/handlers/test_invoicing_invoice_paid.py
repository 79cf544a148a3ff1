"""INVOICING.INVOICE.PAID makes sure that the invoice's payments are stored, and keeps its amounts."""

from collections.abc import Callable
from datetime import timedelta

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT, PAYMENT = "INVOICING.INVOICE.PAID", "7IN51924877811803"


def test_payment_whose_event_is_lost_is_looked_up(feeders: Callable[..., EventFeeder]) -> None:
    """PayPal serves the payment as a capture. The payment in cash is not known to PayPal's API."""
    capture = sample("PAYMENT.CAPTURE.COMPLETED")["resource"] | {"id": PAYMENT}
    feeder = feeders({("capture", PAYMENT): capture})
    feeder.hear(sample(EVENT))
    assert feeder.payments() == {}
    feeder.ask(timedelta(hours=1))
    assert {id: row.status for id, row in feeder.payments().items()} == {PAYMENT: "completed"}
    assert feeder.questions() == []


def test_payment_with_its_own_event_is_stored_once(feeders: Callable[..., EventFeeder]) -> None:
    capture = sample("PAYMENT.CAPTURE.COMPLETED")["resource"] | {"id": PAYMENT}
    feeder = feeders({("capture", PAYMENT): capture})
    feeder.hear(sample(EVENT), sample("PAYMENT.CAPTURE.COMPLETED", {"id": PAYMENT}))
    feeder.ask(timedelta(hours=1))
    assert [(row.id, row.amount) for row in feeder.payments().values()] == [(PAYMENT, 10000)]


def test_amounts_stay_readable(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT))
    facts = feeder.facts()[0]
    assert (facts["invoice"], facts["status"]) == ("INV2-EXMP-0001-0002-0003", "PAID")
    assert (facts["amount"], facts["paid"]) == ([11900, "EUR"], [11900, "EUR"])
    assert facts["transactions"] == [PAYMENT]
