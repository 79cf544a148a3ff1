"""INVOICING.INVOICE.PAID makes sure that the invoice's payments are stored, and keeps its amounts."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

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
    assert (facts["number"], facts["tax"], facts["due"]) == ("R-2026-0007", [1900, "EUR"], [0, "EUR"])
    assert facts["transactions"] == [PAYMENT]


def test_number_that_is_a_free_text_does_not_reach_the_facts(feeder: EventFeeder) -> None:
    """Facts are stored in plain text, and a vendor may put a customer's name into the number."""
    feeder.hear(sample(EVENT, {"invoice.detail.invoice_number": "Ada Byron, March"}))
    assert "number" not in feeder.facts()[0]


def test_sample_of_paypal_keeps_its_money_and_names_its_sale(feeders: Callable[..., EventFeeder], shared: Path) -> None:
    feeder = feeders({})
    feeder.hear(json.loads((shared / "events" / f"{EVENT}.json").read_text("utf-8")))
    [facts] = feeder.facts()
    assert (facts["invoice"], facts["status"]) == ("INV2-8FSD-3HT6-BRHR-UHYV", "PAID")
    assert (facts["amount"], facts["paid"]) == ([100, "USD"], [100, "USD"])
    assert feeder.questions() == [("sale", "22592127VV907111U")]
