"""INVOICING.INVOICE.CANCELLED changes no money, and keeps the invoice's amount."""

from collections.abc import Callable

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "INVOICING.INVOICE.CANCELLED"


def test_nothing_is_looked_up_and_nothing_is_stored_but_the_facts(feeders: Callable[..., EventFeeder]) -> None:
    feeder = feeders({})
    feeder.hear(sample(EVENT))
    assert (feeder.states(), feeder.payments(), feeder.mails(), feeder.questions()) == (["handled"], {}, {}, [])
    facts = feeder.facts()[0]
    assert (facts["status"], facts["amount"]) == ("CANCELLED", [11900, "EUR"])
