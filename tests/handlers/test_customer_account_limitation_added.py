"""CUSTOMER.ACCOUNT-LIMITATION.ADDED is mailed to the operator once."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import GONE, sample

EVENT = "CUSTOMER.ACCOUNT-LIMITATION.ADDED"


def test_operator_is_mailed_once(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample(EVENT))
    assert feeder.states() == ["handled"]
    facts = feeder.mail("account_notice").facts
    assert (facts["type"], facts["account"], facts["at"]) == (EVENT, "QNPPVENDOR001", "2026-03-02T10:00:05Z")


def test_type_and_reason_are_mailed(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT))
    facts = feeder.mail("account_notice").facts
    assert (facts["limitation"], facts["reason"], facts["status"]) == (
        "RECEIVING_LIMIT", "IDENTITY_NOT_CONFIRMED", "ACTIVE",
    )  # fmt: skip


def test_free_text_does_not_reach_the_facts(feeder: EventFeeder) -> None:
    """Facts are stored in plain text, and PayPal does not say what its texts contain."""
    feeder.hear(sample(EVENT, {"reason_code": GONE, "reason": "Ask Ada Byron about it"}))
    assert feeder.mail("account_notice").facts["reason"] is None
    assert "Ada" not in str(feeder.facts())


def test_event_without_any_field_is_mailed_too(feeder: EventFeeder) -> None:
    event = sample(EVENT) | {"resource": {}}
    feeder.hear(event)
    assert (feeder.states(), feeder.mail("account_notice").facts["account"]) == (["handled"], None)
