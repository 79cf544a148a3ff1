"""INVOICING.INVOICE.CANCELLED changes no money, and keeps the invoice's amount."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "INVOICING.INVOICE.CANCELLED"


def test_nothing_is_looked_up_and_nothing_is_stored_but_the_facts(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample(EVENT))
    assert (feeder.states(), feeder.payments(), feeder.mails(), feeder.questions()) == (["handled"], {}, {}, [])
    facts = feeder.facts()[0]
    assert (facts["status"], facts["amount"]) == ("CANCELLED", [11900, "EUR"])


def test_sample_of_paypal_keeps_its_money(feeder: EventFeeder, shared: Path) -> None:
    feeder.hear(json.loads((shared / "events" / f"{EVENT}.json").read_text("utf-8")))
    [facts] = feeder.facts()
    assert (facts["invoice"], facts["amount"]) == ("INV2-K2KX-JDZ8-TX96-6VRW", [100, "USD"])
