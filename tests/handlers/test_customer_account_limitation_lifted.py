"""CUSTOMER.ACCOUNT-LIMITATION.LIFTED is mailed to the operator once."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "CUSTOMER.ACCOUNT-LIMITATION.LIFTED"


def test_operator_is_mailed_once(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample(EVENT))
    assert feeder.states() == ["handled"]
    facts = feeder.mail("account_notice").facts
    assert (facts["type"], facts["account"], facts["at"]) == (EVENT, "QNPPVENDOR001", "2026-03-02T10:00:05Z")
