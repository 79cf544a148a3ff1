"""INVOICING.INVOICE.REFUNDED makes sure that the invoice's payment and refund are stored, and keeps its amounts."""

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

PAID, EVENT = "INVOICING.INVOICE.PAID", "INVOICING.INVOICE.REFUNDED"
PAYMENT, REFUND = "7IN51924877811803", "8RF51924877811803"


def captured(event: str = "PAYMENT.CAPTURE.COMPLETED") -> dict[str, Any]:
    return sample(event, {"id": PAYMENT})


def returned() -> dict[str, Any]:
    up = {"rel": "up", "href": f"https://api.paypal.com/v2/payments/captures/{PAYMENT}", "method": "GET"}
    return sample("PAYMENT.CAPTURE.REFUNDED", {"id": REFUND, "links": [up]})


def knowing() -> dict[tuple[str, str], dict[str, Any]]:
    """Return PayPal's captures and refunds. The parts in cash are not known to its API."""
    return {
        ("capture", PAYMENT): captured()["resource"] | {"status": "PARTIALLY_REFUNDED"},
        ("capture_refund", REFUND): returned()["resource"],
    }


def test_payment_and_refund_whose_events_are_lost_are_looked_up(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders(knowing())
    feeder.hear(sample(EVENT))
    assert sorted(feeder.questions()) == [("refund", REFUND), ("sale", PAYMENT)]
    feeder.ask(timedelta(hours=1))
    row = feeder.payments()[PAYMENT]
    assert (row.status, row.amount, row.refunded) == ("partially_refunded", 10000, 4000)
    assert feeder.questions() == []


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_money_counts_once_in_every_order(feeders: Callable[..., EventFeeder], order: tuple[int, ...]) -> None:
    """PayPal reports the same money by the invoice and by its capture and refund."""
    feeder = feeders(knowing())
    events = [sample(PAID), captured(), sample(EVENT), returned()]
    feeder.hear(*[events[number] for number in order])
    feeder.ask(timedelta(hours=1))
    feeder.ask(timedelta(hours=1))
    assert {row.id: (row.status, row.amount, row.refunded) for row in feeder.payments().values()} == {
        PAYMENT: ("partially_refunded", 10000, 4000)
    }
    assert {row.id: row.amount for row in feeder.refunds().values()} == {REFUND: 4000}


def test_amounts_stay_readable(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT))
    facts = feeder.facts()[0]
    assert (facts["refunded"], facts["refunds"]) == ([10000, "EUR"], [REFUND])


def test_sample_of_paypal_keeps_its_money(feeder: EventFeeder, shared: Path) -> None:
    feeder.hear(json.loads((shared / "events" / f"{EVENT}.json").read_text("utf-8")))
    [facts] = feeder.facts()
    assert {name: facts.get(name) for name in ("invoice", "status", "amount", "paid", "refunded")} == {
        "invoice": "INV2-5U8W-GKP5-C8M5-M58R",
        "status": "REFUNDED",
        "amount": [500, "USD"],
        "paid": [500, "USD"],
        "refunded": [500, "USD"],
    }
    assert facts["transactions"] == ["6JE198993G620420M"]
